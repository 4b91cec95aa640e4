"""Parses server-sent events as they arrive: data, and the comments that other parsers drop.

Alpaca sends important information in comments: `:heartbeat`, and that it has dropped messages for a slow
reader. Pure: pieces of text of any size in, events and comments out.
"""

from typing import Final, NamedTuple

LINE_CHARACTERS_MAX: Final = 4_000_000  # also of an event


class Event(NamedTuple):
    """The data of one event. `event:`, `id:` and `retry:` lines are accepted and ignored."""

    data: str


class Comment(NamedTuple):
    """A comment line without its colon and surrounding blanks."""

    text: str


class SseParser:
    """The parser of one stream. Raises ValueError for a line or an event without end."""

    def __init__(self) -> None:
        self._rest = ""
        self._data: list[str] = []
        self._characters = 0  # in `_data`

    def feed(self, text: str) -> list[Event | Comment]:
        """The events and comments completed by this piece. Lines end with LF, CRLF or CR."""
        text = self._rest + text
        held = "\r" if text.endswith("\r") else ""  # its LF may be in the next piece
        *lines, rest = text.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._rest = rest + held
        if len(self._rest) > LINE_CHARACTERS_MAX:
            raise ValueError(f"a line is longer than {LINE_CHARACTERS_MAX} characters")
        return [item for line in lines if (item := self._line(line)) is not None]

    def _line(self, line: str) -> Event | Comment | None:
        if line.startswith(":"):
            return Comment(line[1:].strip())
        if not line:
            return self._end()
        name, _, value = line.partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))
            self._characters += len(line)
            if self._characters > LINE_CHARACTERS_MAX:
                raise ValueError(f"an event is longer than {LINE_CHARACTERS_MAX} characters")
        return None

    def _end(self) -> Event | None:
        if not self._data:
            return None
        data = "\n".join(self._data)
        self._data, self._characters = [], 0
        return Event(data)
