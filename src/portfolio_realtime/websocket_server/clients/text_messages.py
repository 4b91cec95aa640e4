"""Text messages assembled from the frames of one client (RFC 6455 §5.4)."""

from websockets.frames import Frame


class TextMessages:
    """The fragments of an incomplete message. The protocol limits the length of a message."""

    __slots__ = ("_fragments",)

    def __init__(self) -> None:
        self._fragments: list[bytes] = []

    def add(self, frame: Frame) -> bytes | None:
        """Add a text or continuation frame; return the message if it is complete, otherwise None.

        Raises ValueError for text that is not UTF-8: an error of the WebSocket protocol itself (§8.1).
        """
        if frame.data:  # any number of empty fragments may arrive, so they are not kept
            self._fragments.append(bytes(frame.data))
        if not frame.fin:
            return None
        text = b"".join(self._fragments)
        self._fragments.clear()
        text.decode()
        return text
