"""Frames of trades that nobody needs yet: kept as they came, and decoded together when they are due.

Decoding has a fixed price for each frame, and a small one for each trade. Many frames are therefore decoded
as one long frame. If that cannot be read, because it has something else than ordinary trades in it, each is
decoded by itself, in the order of arrival.
"""

from typing import Final

from portfolio_realtime.market_data_consumer.messages import PackedTrades
from portfolio_realtime.market_data_consumer.msgpack_columns import joined, read_packed
from portfolio_realtime.market_data_consumer.stream import Arrived, decoded

KEPT_BYTES_MAX: Final = 512 * 1024  # about 7,000 trades: a few milliseconds of decoding


class KeptFrames:
    """Frames that begin with a trade, in the order of their arrival."""

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether they are to be taken before more are added."""
        return self._bytes >= KEPT_BYTES_MAX

    def add(self, frame: bytes) -> None:
        """Keep one more frame."""
        self._frames.append(frame)
        self._bytes += len(frame)

    def take(self) -> list[Arrived]:
        """What has arrived in these frames, which are not kept any more."""
        frames, self._frames, self._bytes = self._frames, [], 0
        if len(frames) > 1 and (long := joined(frames)) is not None:
            packed = read_packed(long)
            if packed is not None:
                return [Arrived(PackedTrades(long, packed), [], [])]
        return [decoded(frame) for frame in frames]
