"""The client library's clients as we use them: what is tried once more, and what a lost connection means."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from redis import exceptions
from redis.asyncio import ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from portfolio_realtime.config import valkey_url
from portfolio_realtime.state.error_answers import ROLE_CHANGED, Parser, is_lost, word_of
from portfolio_realtime.state.sentinels import PrimaryConnection, SecurePrimaryConnection, Sentinels

SOCKET_TIMEOUT_S: Final = 5.0
HEALTH_CHECK_S: Final = 10
CONNECTIONS_MAX: Final = 64  # to one server
CLOSED_ALREADY: Final = "the handler is closed"  # in what uvloop says of a transport that is gone
SUBSCRIPTION_READ_BYTES: Final = 256 * 1024  # a batch of publications in one read, not in several

R = TypeVar("R")


class _Telling(Retry):
    """Tells of a connection that was closed as it was opened: uvloop has an error of its own for that.

    A proxy that accepts us, finds nobody behind it and hangs up does this.
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
        """What `do` returns; see the library's `Retry`."""

        async def told() -> R:
            try:
                return await do()
            except RuntimeError as error:
                if CLOSED_ALREADY not in str(error):
                    raise
                raise exceptions.ConnectionError(f"closed as it was opened: {error}") from error

        return await super().call_with_retry(told, fail, is_retryable, with_failure_count)


class _OnceMore(_Telling):
    """One more try, on a new connection, where a connection was lost: every command here can be repeated.

    After a change of roles no connection is believed any more: the server's name may lead elsewhere now.
    """

    def __init__(self) -> None:
        super().__init__(retries=1)
        self.pool: ConnectionPool | None = None

    def __deepcopy__(self, _: dict[int, Any]) -> "_OnceMore":
        return self  # each connection would have one of its own

    async def call_with_retry(
        self,
        do: Callable[[], Awaitable[R]],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> R:
        """What `do` returns, at the second try at the latest; see the library's `Retry`."""

        async def failed(error: Exception, *count: int) -> None:
            await fail(error, *count)
            if self.pool is not None and word_of(error) in ROLE_CHANGED:
                await self.pool.update_active_connections_for_reconnect()
                await self.pool.disconnect(inuse_connections=False)

        return await super().call_with_retry(do, failed, is_lost, with_failure_count)


def _client(url: str, **options: Any) -> Redis:
    """The library's client of the server at a URL, or of the primary that Sentinels name."""
    if not (name := valkey_url.sentinel_master_of(url)):
        return Redis.from_url(url, **options)
    plain, places = valkey_url.without_sentinels(url)
    client: Redis = Redis.from_url(plain, **options)
    pool = client.connection_pool
    is_secure = issubclass(pool.connection_class, SSLConnection)
    pool.connection_class = SecurePrimaryConnection if is_secure else PrimaryConnection
    login_less = valkey_url.without_login(plain)
    pool.connection_kwargs["sentinels"] = Sentinels(login_less, name, places)
    return client


def command_client(url: str) -> Redis:
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
    once_more.pool = client.connection_pool
    return client


def subscription_client(url: str) -> Redis:
    """A client of one server for subscriptions."""
    return _client(
        url,
        protocol=2,  # with RESP3 the client formats every message for a log that nobody asked for
        socket_connect_timeout=SOCKET_TIMEOUT_S,
        max_connections=CONNECTIONS_MAX,
        retry=_Telling(retries=0),  # a reader must be told that it has missed something
        socket_read_size=SUBSCRIPTION_READ_BYTES,
        parser_class=Parser,
    )
