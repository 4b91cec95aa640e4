"""What a browser gets: a JSON text as one WebSocket frame (RFC 6455 §5.2). Made once, sent to many.

The calculator makes the frames of its publications: with several servers each would else make them again.
"""

import struct


def text_frame(payload: bytes) -> bytes:
    """A whole text frame as a server sends it, unmasked."""
    length = len(payload)
    if length < 126:
        return bytes((0x81, length)) + payload
    if length < 1 << 16:
        return struct.pack("!BBH", 0x81, 126, length) + payload
    return struct.pack("!BBQ", 0x81, 127, length) + payload


def text_of(frame: bytes) -> bytes:
    """The payload of a `text_frame`."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]
