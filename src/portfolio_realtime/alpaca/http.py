"""HTTP requests to one host of Alpaca, through the proxy that the environment names.

aiohttp, because a request costs a thirteenth of httpx's processor time, and the symbol collector makes two
for each account (docs/decisions/0032).
"""

import asyncio
import base64
import functools
import os
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self
from urllib.parse import urlencode

import aiohttp
import certifi
from yarl import URL

from portfolio_realtime.errors import RequestFailed
from portfolio_realtime.outbound import proxy_of

CONNECT_S_MAX: Final = 10.0
READ_S_MAX: Final = 10.0  # between two parts of an answer
POOL_S_MAX: Final = 30.0  # until one of the connections is free
HEAD_S_MAX: Final = 60.0  # from the request to the end of the answer's head, with the wait for a connection
ANSWER_S_MAX: Final = 120.0  # from the request to the end of the body, however steadily its parts come
BODY_BYTES_MAX: Final = 64 * 1024 * 1024  # some ten times the largest answer
UNAUTHORIZED: Final = 401
REASON_SHOWN_MAX: Final = 200  # aiohttp quotes what is no HTTP


class Answer(NamedTuple):
    """A whole HTTP answer."""

    status: int
    headers: Mapping[str, str]  # names in any case
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return is_success(self.status)


class Authentication(Protocol):
    """How requests prove who we are."""

    async def headers(self) -> Mapping[str, str]:
        """The headers of the next request. Raises TokenRefused, RequestFailed."""
        ...

    def refused(self, headers: Mapping[str, str]) -> bool:
        """A request with these headers was answered with 401: whether new ones may help."""
        ...


class FixedAuthentication:
    """The same headers with every request."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = dict(headers)

    async def headers(self) -> Mapping[str, str]:
        """These headers."""
        return self._headers

    def refused(self, headers: Mapping[str, str]) -> bool:
        """No others are known."""
        return False


def basic(user: str, password: str) -> FixedAuthentication:
    """HTTP Basic authentication (RFC 7617)."""
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    return FixedAuthentication({"Authorization": f"Basic {pair}"})


class HttpClient:
    """Connections to one host; an async context manager. It follows no redirect and keeps no cookie."""

    def __init__(
        self, base_url: str, authentication: Authentication | None = None, *, connections_max: int = 16
    ) -> None:
        """Needs a running event loop. Raises SettingsError if the proxy cannot be used."""
        proxy = proxy_of(base_url)
        if proxy is not None and proxy.startswith("socks"):
            connector, proxy = _socks_connector(proxy, connections_max), None
        else:
            connector = aiohttp.TCPConnector(limit=connections_max, ssl=_context())
        self._base_url = base_url.rstrip("/")
        self._limits = _limits(READ_S_MAX, ANSWER_S_MAX)
        self._authentication = authentication
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), proxy=proxy
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Answer:
        """The whole answer. Raises RequestFailed, TokenRefused."""
        return await _whole(await self._send("GET", _target(path, params), self._limits))

    async def post(self, path: str, form: Mapping[str, str]) -> Answer:
        """The whole answer to a form. Raises RequestFailed, TokenRefused."""
        return await _whole(await self._send("POST", path, self._limits, form=form))

    async def begin(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        read_s_max: float = READ_S_MAX,
    ) -> aiohttp.ClientResponse:
        """GET; the body is not read yet, and the caller closes the response.

        Raises RequestFailed, TokenRefused.
        """
        try:
            async with asyncio.timeout(HEAD_S_MAX):
                return await self._send("GET", _target(path, params), _limits(read_s_max), headers=headers)
        except TimeoutError as error:
            raise failed(error) from error

    async def _send(
        self,
        method: str,
        target: str,
        limits: aiohttp.ClientTimeout,
        *,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        url = URL(self._base_url + target, encoded=True)
        is_again = False
        authentication = self._authentication
        while True:
            proof = {} if authentication is None else await authentication.headers()
            try:
                response = await self._session.request(
                    method,
                    url,
                    headers={**headers, **proof} if headers else proof,
                    data=form,
                    timeout=limits,
                    allow_redirects=False,
                )
            except FAILURES as error:
                raise failed(error) from error
            if is_again or authentication is None or response.status != UNAUTHORIZED:
                return response
            if not authentication.refused(proof):
                return response
            response.close()
            is_again = True


FAILURES: Final = (aiohttp.ClientError, TimeoutError, OSError, ValueError)
"""What aiohttp and its connectors raise for a request that got no answer."""


def failed(error: Exception) -> RequestFailed:
    """One of FAILURES as ours."""
    return RequestFailed(f"{type(error).__name__}: {str(error)[:REASON_SHOWN_MAX]}".rstrip(": "))


def is_success(status: int) -> bool:
    """Whether the status is 2xx."""
    return 200 <= status < 300  # RFC 9110, 15.3


def _limits(read_s_max: float, total_s_max: float | None = None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(
        total=total_s_max, connect=POOL_S_MAX, sock_connect=CONNECT_S_MAX, sock_read=read_s_max
    )


def _target(path: str, params: Mapping[str, str] | None) -> str:
    return f"{path}?{urlencode(params)}" if params else path


async def _whole(response: aiohttp.ClientResponse) -> Answer:
    try:
        async with response:
            return Answer(response.status, response.headers, await _body(response))
    except FAILURES as error:
        raise failed(error) from error


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """All of it, with what is compressed as it is read. Raises ValueError if it is too large."""
    parts, size = list[bytes](), 0
    while part := await response.content.readany():
        parts.append(part)
        if (size := size + len(part)) > BODY_BYTES_MAX:
            raise ValueError(f"the answer has more than {BODY_BYTES_MAX} bytes")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _socks_connector(proxy: str, connections_max: int) -> aiohttp.BaseConnector:
    from aiohttp_socks import ProxyConnectionError, ProxyConnector, ProxyError, ProxyTimeoutError

    class Connector(ProxyConnector):
        """The library's errors are none of aiohttp's."""

        async def connect(self, *args: Any, **kwargs: Any) -> Any:
            """Raises aiohttp.ClientError."""
            try:
                return await super().connect(*args, **kwargs)
            except (ProxyError, ProxyConnectionError, ProxyTimeoutError) as error:
                raise aiohttp.ClientConnectionError(f"{type(error).__name__}: {error}") from error

    # The proxy resolves names: the library's own word for socks5h is socks5 with rdns.
    url = proxy.replace("socks5h://", "socks5://", 1)
    return Connector.from_url(url, rdns=True, limit=connections_max, ssl=_context())


def _context() -> ssl.SSLContext:
    """The operating system's own settings where they are stated, else the certificates of certifi."""
    return _context_of(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.cache
def _context_of(file: str | None, folder: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=None if file or folder else certifi.where())
