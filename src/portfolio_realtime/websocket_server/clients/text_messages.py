"""Text messages put together from the frames of one client (RFC 6455 §5.4)."""

from websockets.frames import Frame


class TextMessages:
    """What has come of a message that is not whole yet. The protocol bounds how long a message may be."""

    __slots__ = ("_fragments",)

    def __init__(self) -> None:
        self._fragments: list[bytes] = []

    def add(self, frame: Frame) -> bytes | None:
        """The whole message when this text frame, or continuation of one, is its last. Raises ValueError.

        A text that is not UTF-8 is an error of the WebSocket protocol itself (§8.1).
        """
        if frame.data:  # empty fragments may come without end, and must not be kept
            self._fragments.append(bytes(frame.data))
        if not frame.fin:
            return None
        text = b"".join(self._fragments)
        self._fragments.clear()
        text.decode()
        return text
