"""The configured clients of the redis library: what they retry, and how they treat a lost connection."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast

from redis import exceptions
from redis.asyncio import SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from portfolio_realtime.config import valkey_url
from portfolio_realtime.state.client.lean_client import ANSWER_S_MAX, FRESH_S, LeanClient
from portfolio_realtime.state.error_answers import ROLE_CHANGED, Parser, is_lost, word_of
from portfolio_realtime.state.password_file import PasswordFile
from portfolio_realtime.state.sentinels import PrimaryConnection, SecurePrimaryConnection, Sentinels

SOCKET_TIMEOUT_S: Final = ANSWER_S_MAX
HEALTH_CHECK_S: Final = FRESH_S
CONNECTIONS_MAX: Final = 64  # per server
CLOSED_ALREADY: Final = "the handler is closed"  # part of uvloop's error for a closed transport
SUBSCRIPTION_READ_BYTES: Final = 256 * 1024  # enough for a batch of publications in one read

R = TypeVar("R")


class _Telling(Retry):
    """Reports a connection that was closed while it was opened as a lost connection.

    uvloop raises an error of its own for it. A proxy causes it when it accepts us, finds no server behind it
    and closes the connection.
    """

    def __init__(self, retries: int) -> None:
        super().__init__(NoBackoff(), retries)

    async def call_with_retry(
        self,
        do: Callable[[], Awaitable[R]],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> R:
        """The result of `do`; see the library's `Retry`."""

        async def told() -> R:
            try:
                return await do()
            except RuntimeError as error:
                if CLOSED_ALREADY not in str(error):
                    raise
                raise exceptions.ConnectionError(
                    f"the connection was closed while it was opened: {error}"
                ) from error

        return await super().call_with_retry(told, fail, is_retryable, with_failure_count)


class _OnceMore(_Telling):
    """Repeats a command once, on a new connection, after a lost connection. All our commands can be repeated.

    After a change of roles all connections of the client are replaced, because the server's name may now lead
    to another server.
    """

    def __init__(self) -> None:
        super().__init__(retries=1)
        self.client: LeanClient | None = None

    def __deepcopy__(self, _: dict[int, Any]) -> "_OnceMore":
        return self  # one object for all connections, which the library would copy for each

    async def call_with_retry(
        self,
        do: Callable[[], Awaitable[R]],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> R:
        """The result of `do`, from the second try at the latest; see the library's `Retry`."""

        async def failed(error: Exception, *count: int) -> None:
            await fail(error, *count)
            if self.client is not None and word_of(error) in ROLE_CHANGED:
                await self.client.leave_server()

        return await super().call_with_retry(do, failed, is_lost, with_failure_count)


def _client(url: str, **options: Any) -> LeanClient:
    """A client of the server at a URL, or of the primary that Sentinels name."""
    url, user, path = valkey_url.without_password_file(url)
    if path:
        options["credential_provider"] = PasswordFile(user, path)
    if not (name := valkey_url.sentinel_master_of(url)):
        return cast("LeanClient", LeanClient.from_url(url, **options))
    plain, places = valkey_url.without_sentinels(url)
    client = cast("LeanClient", LeanClient.from_url(plain, **options))
    pool = client.connection_pool
    is_secure = issubclass(pool.connection_class, SSLConnection)
    pool.connection_class = SecurePrimaryConnection if is_secure else PrimaryConnection
    login_less = valkey_url.without_login(plain)
    pool.connection_kwargs["sentinels"] = Sentinels(login_less, name, places)
    return client


def command_client(url: str) -> LeanClient:
    """A client of one server for commands."""
    once_more = _OnceMore()
    client = _client(
        url,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=SOCKET_TIMEOUT_S,
        health_check_interval=HEALTH_CHECK_S,
        max_connections=CONNECTIONS_MAX,
        retry=once_more,
        parser_class=Parser,
    )
    once_more.client = client
    return client


def subscription_client(url: str) -> LeanClient:
    """A client of one server for subscriptions."""
    return _client(
        url,
        protocol=2,  # messages come as plain lists
        socket_connect_timeout=SOCKET_TIMEOUT_S,
        max_connections=CONNECTIONS_MAX,
        retry=_Telling(retries=0),  # the reader has to know that it may have missed messages
        socket_read_size=SUBSCRIPTION_READ_BYTES,
        parser_class=Parser,
    )
