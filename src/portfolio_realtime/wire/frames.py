"""WebSocket frames of a server (RFC 6455 §5.2), made once and sent to many clients.

The calculator makes the frames of its publications, so that several servers do not each make them again.
"""

import struct


def text_frame(payload: bytes) -> bytes:
    """An unfragmented, unmasked text frame with this payload."""
    length = len(payload)
    if length < 126:
        return bytes((0x81, length)) + payload
    if length < 1 << 16:
        return struct.pack("!BBH", 0x81, 126, length) + payload
    return struct.pack("!BBQ", 0x81, 127, length) + payload


def text_of(frame: bytes) -> bytes:
    """The payload of a `text_frame`."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]
