"""A long MessagePack frame of trades, read in columns: no object is made for a trade, unless it is asked for.

Alpaca lays out all trades of stocks alike: the fields T S i x p s c z t in this order. So each field is read
for all trades of a frame at once. Every byte is accounted for: a trade ends where the next one begins, and
the last with the frame. A frame with anything else in it (another message, another field, a long symbol, a
text as id) is not read here but in `messages`.

A word of eight bytes is looked at as a whole. A byte that may not be where it is leads far beyond the end,
where there is nothing to read.
"""

from typing import Final, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from portfolio_realtime.clock import NS_PER_S

PACKED_MIN: Final = 96  # trades; fewer are faster one by one
SYMBOL_BYTES_MAX: Final = 8
CONDITIONS_MAX: Final = 4
SECONDS_BITS: Final = 34  # of a timestamp of 64 bits; above them the nanoseconds
SECONDS_MASK: Final = (1 << SECONDS_BITS) - 1

Numbers = NDArray[np.uint64]
Places = NDArray[np.intp]

_ARRAY_16: Final = 0xDC
_ARRAY_HEAD_BYTES: Final = 3
_PADDING: Final = bytes(64)  # a word begins at most so far behind the end
_FAR: Final = 1 << 40


class _Pattern(NamedTuple):
    """A word in which some bytes are known."""

    mask: int
    known: int
    length: int


def _pattern(text: bytes) -> _Pattern:
    """A byte that is 0 may be any."""
    mask = _word(bytes(0xFF if byte else 0 for byte in text))
    return _Pattern(mask, _word(text), len(text))


def _word(text: bytes) -> int:
    return int.from_bytes(text, "little")


_HEAD: Final = _pattern(b"\x89\xa1T\xa1t\xa1S\0")
_ID: Final = _pattern(b"\xa1i")
_EXCHANGE: Final = _pattern(b"\xa1x\xa1\0\xa1p\xcb")
_SIZE: Final = _pattern(b"\xa1s")
_CONDITIONS: Final = _pattern(b"\xa1c")
_TAPE: Final = _pattern(b"\xa1z\xa1\0\xa1t\xd7\xff")
_T, _T_AT = ord("T"), 2  # in the head
_TIME_BYTES: Final = 8
_LETTER_HEADS: Final = _word(b"\xa1\0\xa1\0\xa1\0\xa1\0")
_LETTERS: Final = _word(b"\0\xff\0\xff\0\xff\0\xff")
_NOT_ASCII: Final = _word(b"\x80" * 8)


def _low_bytes(count: int) -> int:
    return (1 << 8 * count) - 1


def _steps(known: dict[int, int]) -> Places:
    """How far it is to the next field, by the first byte of a value."""
    return np.array([known.get(byte, _FAR) for byte in range(256)], np.intp)


def _words(known: dict[int, int]) -> Numbers:
    return np.array([known.get(byte, 0) for byte in range(256)], np.uint64)


_WIDE: Final = 0x80  # below it a number is its first byte
_FLOAT: Final = 0xCB
_WIDTHS: Final = {**dict.fromkeys(range(_WIDE), 0), 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}  # of numbers
_LENGTHS: Final = {0xA0 + length: length for length in range(1, SYMBOL_BYTES_MAX + 1)}
_COUNTS: Final = {0x90 + count: count for count in range(CONDITIONS_MAX + 1)}
_SYMBOL_STEP: Final = _steps({head: _HEAD.length + length for head, length in _LENGTHS.items()})
_SYMBOL_MASK: Final = _words({head: _low_bytes(length) for head, length in _LENGTHS.items()})
_SYMBOL_MIN: Final = _words({head: 1 + _low_bytes(length - 1) for head, length in _LENGTHS.items()})
_ID_STEP: Final = _steps({head: 3 + width for head, width in _WIDTHS.items()})
_ID_AT: Final = np.array([2 if head < _WIDE else 3 for head in range(256)], np.intp)
_ID_SHIFT: Final = _words({head: 64 - 8 * max(width, 1) for head, width in _WIDTHS.items()})
_SIZE_STEP: Final = _steps({head: 3 + width for head, width in [*_WIDTHS.items(), (_FLOAT, 8)]})
_LIST_STEP: Final = _steps({head: 3 + 2 * count for head, count in _COUNTS.items()})
_LIST_MASK: Final = _words({head: _low_bytes(2 * count) for head, count in _COUNTS.items()})


class Packed(NamedTuple):
    """The trades of a frame as columns."""

    bounds: Places  # a trade lies between each two of them in the frame
    symbol: Numbers  # see `symbol_number`
    conditions: Numbers  # with the tape: see `conditions_number`
    exchange: Places  # its letter
    trade_id: Numbers
    price: NDArray[np.float64]
    as_of_ns: NDArray[np.int64]  # negative where it is beyond 2262


def symbol_number(symbol: str) -> int | None:
    """A symbol as the number that it is in a column, or None where it is never in one."""
    is_short = 0 < len(symbol) <= SYMBOL_BYTES_MAX and symbol.isascii() and symbol[-1] != "\0"
    return _word(symbol.encode()) if is_short else None


def conditions_number(conditions: tuple[str, ...] | str | None, tape: str | None) -> int | None:
    """Conditions and tape as the number that they are in a column, or None where they are never in one."""
    if not isinstance(conditions, tuple) or len(conditions) > CONDITIONS_MAX:
        return None
    if not is_letter(tape) or not all(map(is_letter, conditions)):
        return None
    return _word(b"".join(b"\xa1" + letter.encode() for letter in conditions)) ^ ord(tape)


def is_letter(text: str | None) -> TypeGuard[str]:
    """Is it a letter that a column can hold?"""
    return text is not None and len(text) == 1 and text.isascii()


def timestamps_ns(packed: Numbers) -> Numbers:
    """Nanoseconds since 1970 of MessagePack's timestamps of 64 bits."""
    return (packed & np.uint64(SECONDS_MASK)) * np.uint64(NS_PER_S) + (packed >> np.uint64(SECONDS_BITS))


def read_packed(frame: bytes) -> Packed | None:
    """The trades of a long frame that holds nothing else, or None where it cannot be read in columns."""
    count = int.from_bytes(frame[1:_ARRAY_HEAD_BYTES])
    if frame[:1] != bytes([_ARRAY_16]) or count < PACKED_MIN:
        return None
    octets = np.frombuffer(frame + _PADDING, np.uint8)
    words = np.ndarray(len(octets) - 7, np.uint64, octets.data, strides=(1,))
    at = np.flatnonzero(octets == _T) - _T_AT
    heads = words[at]
    is_head = heads & _HEAD.mask == _HEAD.known
    begins = at[is_head]
    if len(begins) != count or begins[0] != _ARRAY_HEAD_BYTES:
        return None
    try:
        return _read_fields(_Cursor(words, begins), _byte(heads[is_head], 7), np.append(begins, len(frame)))
    except IndexError:
        return None


class _Cursor:
    """Where each trade is read, and whether it is as it should be."""

    def __init__(self, words: Numbers, at: Places) -> None:
        self.words = words
        self.at = at
        self.is_right = np.True_

    def expect(self, pattern: _Pattern) -> Numbers:
        """The next word of each."""
        word = self.words[self.at]
        self.is_right = self.is_right & (word & pattern.mask == pattern.known)
        return word


def _read_fields(cursor: _Cursor, symbol_head: Places, bounds: Places) -> Packed | None:
    words = cursor.words
    symbol = words[cursor.at + _HEAD.length] & _SYMBOL_MASK[symbol_head]
    cursor.at = cursor.at + _SYMBOL_STEP[symbol_head]

    head = _byte(cursor.expect(_ID), 2)
    trade_id = words[cursor.at + _ID_AT[head]].byteswap() >> _ID_SHIFT[head]
    cursor.at += _ID_STEP[head]

    exchange = _byte(cursor.expect(_EXCHANGE), 3)
    price = words[cursor.at + _EXCHANGE.length].byteswap().view(np.float64)
    cursor.at += _EXCHANGE.length + 8

    cursor.at += _SIZE_STEP[_byte(cursor.expect(_SIZE), 2)]

    head = _byte(cursor.expect(_CONDITIONS), 2)
    mask = _LIST_MASK[head]
    conditions = words[cursor.at + 3] & mask
    cursor.at += _LIST_STEP[head]

    tape = _byte(cursor.expect(_TAPE), 3)
    as_of_ns = timestamps_ns(words[cursor.at + _TAPE.length].byteswap()).view(np.int64)
    cursor.at += _TAPE.length + _TIME_BYTES

    is_right = cursor.is_right & (cursor.at == bounds[1:]) & (symbol >= _SYMBOL_MIN[symbol_head])
    is_right &= conditions & (_LETTERS >> 8) == mask & _LETTER_HEADS
    is_right &= (symbol | conditions & _LETTERS | (exchange | tape).view(np.uint64)) & _NOT_ASCII == 0
    if not is_right.all():
        return None
    return Packed(bounds, symbol, conditions ^ tape.view(np.uint64), exchange, trade_id, price, as_of_ns)


def _byte(word: Numbers, index: int) -> Places:
    """One byte of each word."""
    return (word >> 8 * index & 0xFF).view(np.intp)
