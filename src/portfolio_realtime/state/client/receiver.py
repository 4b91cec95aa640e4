"""One connection that receives the messages of channels."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from redis import exceptions
from redis.asyncio import ConnectionPool
from redis.crc import key_slot

from portfolio_realtime.state.client.raw_connection import RawConnection, pack

MESSAGES: Final = frozenset({b"message", b"smessage"})
CONFIRMATIONS: Final = frozenset({b"subscribe", b"ssubscribe"})
SUBSCRIBE: Final = "SUBSCRIBE"
SSUBSCRIBE: Final = "SSUBSCRIBE"


class Receiver:
    """Calls `heard` with the channel and the payload of each message, as soon as it is read.

    `lost` gets the error when the connection is over: a lost connection, an error of the server, or a
    subscription that the server has ended because the slot has moved.
    """

    def __init__(self, pool: ConnectionPool, heard: Callable[[str, bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[NoReturn] = loop.create_future()
        self.is_paused = False
        self._pool = pool
        self._heard = heard
        self._raw = RawConnection(self._take, self._lose)
        self._names: dict[bytes, str] = {}
        self._left = 0  # confirmations to come
        self._confirmed: asyncio.Future[None] = loop.create_future()

    @property
    def heard_s(self) -> float:
        """When something was last received, by the loop's clock."""
        return self._raw.heard_s

    async def subscribe(self, channels: Sequence[str], *, is_sharded: bool, wait_s: float) -> None:
        """Connect, and return when all channels are subscribed. Raises RedisError, OSError."""
        await self._raw.open(self._pool)
        self._names = {channel.encode(): channel for channel in channels}
        self._left = len(channels)
        self._raw.write(b"".join(map(pack, _commands(channels, is_sharded=is_sharded))))
        done, _ = await asyncio.wait(
            [self._confirmed, self.lost], timeout=wait_s, return_when=asyncio.FIRST_COMPLETED
        )
        if self.lost in done:
            self.lost.result()
        if not done:
            raise exceptions.TimeoutError("the server does not confirm subscriptions")

    def _take(self, told: Any) -> None:
        if isinstance(told, Exception):
            self._raw.break_off(told)
        elif told[0] in MESSAGES:
            self._heard(self._names[told[1]], told[2])
        elif told[0] in CONFIRMATIONS:
            self._left -= 1
            if not self._left and not self._confirmed.done():
                self._confirmed.set_result(None)
        else:
            moved = f"{told[0].decode()}: a channel has moved to another node"
            self._raw.break_off(exceptions.ConnectionError(moved))

    def _lose(self, error: Exception) -> None:
        if not self.lost.done():
            self.lost.set_exception(error)
            self.lost.exception()  # it is no fault if nobody asks

    def pause(self) -> None:
        """Leave further messages at the server."""
        if not self.is_paused:
            self.is_paused = True
            self._raw.pause_reading()

    def resume(self) -> None:
        """Receive again."""
        if self.is_paused:
            self.is_paused = False
            self._raw.resume_reading()

    def close(self) -> None:
        """Close the connection."""
        self._raw.break_off(exceptions.ConnectionError("closed by us"))


def _commands(channels: Sequence[str], *, is_sharded: bool) -> list[tuple[str, ...]]:
    """On a cluster, one command for the channels of each slot."""
    if not is_sharded:
        return [(SUBSCRIBE, *channels)]
    by_slot: dict[int, list[str]] = {}
    for channel in channels:
        by_slot.setdefault(key_slot(channel.encode()), []).append(channel)
    return [(SSUBSCRIBE, *names) for names in by_slot.values()]
