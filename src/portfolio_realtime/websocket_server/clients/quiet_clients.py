"""What most clients need of the WebSocket protocol: nothing but an empty ping and its answer (RFC 6455 §5.5).

A browser that only watches sends no other frame. The protocol object of the package `websockets` is therefore
made at a client's first other frame. That saves its memory, and its part of the cost of a connection and of a
ping.
"""

import logging
from typing import Final

from websockets.protocol import Protocol, Side

from portfolio_realtime.wire.messages import MESSAGE_BYTES_MAX

EMPTY_PING: Final = b"\x89\x00"
EMPTY_PONG: Final = b"\x8a\x80"  # its mask follows
MASK_BYTES: Final = 4

_QUIET: Final = logging.getLogger("portfolio_realtime.wire.messages")
_QUIET.disabled = True  # it would log messages of clients


def is_empty_pong(data: bytes) -> bool:
    """Whether these bytes are one answer to an empty ping and nothing else."""
    return len(data) == len(EMPTY_PONG) + MASK_BYTES and data.startswith(EMPTY_PONG)


def new_protocol(bytes_max: int = MESSAGE_BYTES_MAX) -> Protocol:
    """The package's protocol for a connection that is open and at the beginning of a frame.

    It refuses longer messages than `bytes_max`.
    """
    return Protocol(Side.SERVER, max_size=bytes_max, logger=_QUIET)
