"""Reads a long MessagePack frame of trades in columns, without an object for each trade.

Alpaca encodes all stock trades alike: the fields T S i x p s c z t, in this order. Each field is therefore
read for all trades of a frame at once. Every byte is checked: each trade ends where the next one begins, and
the last one ends with the frame. A frame with anything else in it (another message, another field, a long
symbol, text as an id) is read by `messages` instead.

Fields are compared in words of eight bytes. An unexpected byte moves the cursor far beyond the end of the
frame, where reading fails.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from portfolio_realtime.clock import NS_PER_S

PACKED_MIN: Final = 96  # trades; fewer are faster one by one
SYMBOL_BYTES_MAX: Final = 8
CONDITIONS_MAX: Final = 4
SECONDS_BITS: Final = 34  # the low bits of a 64-bit timestamp; the others are nanoseconds
SECONDS_MASK: Final = (1 << SECONDS_BITS) - 1

Numbers = NDArray[np.uint64]
Places = NDArray[np.intp]

_FIX_ARRAY: Final = range(0x90, 0xA0)  # the head of a short array: its length is in the low four bits
_ARRAY_16: Final = 0xDC
_ARRAY_HEAD_BYTES: Final = 3
_COUNT_MAX: Final = 0xFFFF
_PADDING: Final = bytes(64)  # a word may begin at most this far behind the end
_FAR: Final = 1 << 40


class _Pattern(NamedTuple):
    """A word with some known bytes: it matches if `word & mask == known`. `length` is in bytes."""

    mask: int
    known: int
    length: int


def _pattern(text: bytes) -> _Pattern:
    """The pattern of a text. A byte of 0 matches any byte."""
    mask = _word(bytes(0xFF if byte else 0 for byte in text))
    return _Pattern(mask, _word(text), len(text))


def _word(text: bytes) -> int:
    return int.from_bytes(text, "little")


TRADE_HEAD: Final = b"\x89\xa1T\xa1t\xa1S"  # the first bytes of a trade, before its symbol
_HEAD: Final = _pattern(TRADE_HEAD + b"\0")
_ID: Final = _pattern(b"\xa1i")
_EXCHANGE: Final = _pattern(b"\xa1x\xa1\0\xa1p\xcb")
_SIZE: Final = _pattern(b"\xa1s")
_CONDITIONS: Final = _pattern(b"\xa1c")
_TAPE: Final = _pattern(b"\xa1z\xa1\0\xa1t\xd7\xff")
_T, _T_AT = ord("T"), 2  # the letter, and its offset in the head
_TIME_BYTES: Final = 8
_LETTER_HEADS: Final = _word(b"\xa1\0\xa1\0\xa1\0\xa1\0")
_LETTERS: Final = _word(b"\0\xff\0\xff\0\xff\0\xff")
_NOT_ASCII: Final = _word(b"\x80" * 8)


def _low_bytes(count: int) -> int:
    return (1 << 8 * count) - 1


def _steps(known: dict[int, int]) -> Places:
    """Bytes to the next field, by the first byte of a value."""
    return np.array([known.get(byte, _FAR) for byte in range(256)], np.intp)


def _words(known: dict[int, int]) -> Numbers:
    return np.array([known.get(byte, 0) for byte in range(256)], np.uint64)


_WIDE: Final = 0x80  # a number below this is its own first byte
_FLOAT: Final = 0xCB
# Bytes that follow the first byte of a number.
_WIDTHS: Final = {**dict.fromkeys(range(_WIDE), 0), 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
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
    """The trades of a frame as columns, with one item per trade except in `bounds`."""

    bounds: Places  # trade i is frame[bounds[i] : bounds[i + 1]]
    symbol: Numbers  # see `symbol_number`
    conditions: Numbers  # with the tape: see `conditions_number`
    exchange: Places  # the code of its letter
    trade_id: Numbers
    price: NDArray[np.float64]
    as_of_ns: NDArray[np.int64]  # negative for a time after 2262


def symbol_number(symbol: str) -> int | None:
    """The number of a symbol in a column, or None if it cannot be in one."""
    is_short = 0 < len(symbol) <= SYMBOL_BYTES_MAX and symbol.isascii() and symbol[-1] != "\0"
    return _word(symbol.encode()) if is_short else None


def conditions_number(conditions: tuple[str, ...] | str | None, tape: str | None) -> int | None:
    """The number of conditions and tape in a column, or None if they cannot be in one."""
    if not isinstance(conditions, tuple) or len(conditions) > CONDITIONS_MAX:
        return None
    if not is_letter(tape) or not all(map(is_letter, conditions)):
        return None
    return _word(b"".join(b"\xa1" + letter.encode() for letter in conditions)) ^ ord(tape)


def is_letter(text: str | None) -> TypeGuard[str]:
    """Whether a column can hold the text: one ASCII character."""
    return text is not None and len(text) == 1 and text.isascii()


def timestamps_ns(packed: Numbers) -> Numbers:
    """Nanoseconds since 1970 of 64-bit MessagePack timestamps."""
    return (packed & np.uint64(SECONDS_MASK)) * np.uint64(NS_PER_S) + (packed >> np.uint64(SECONDS_BITS))


def begins_with_trade(frame: bytes) -> bool:
    """Whether the first message of a frame is a trade."""
    return frame.startswith(TRADE_HEAD, _array_head(frame)[1])


def joined(frames: Sequence[bytes]) -> bytes | None:
    """One long frame with the messages of all frames in their order, or None if they are too many."""
    heads = [_array_head(frame) for frame in frames]
    count = sum(count for count, _ in heads)
    if count > _COUNT_MAX:
        return None
    bodies = [frame[length:] for frame, (_, length) in zip(frames, heads, strict=True)]
    return b"".join([bytes([_ARRAY_16]), count.to_bytes(2), *bodies])


def _array_head(frame: bytes) -> tuple[int, int]:
    """How many items the array of a frame has, and how many bytes say so; 0, 0 for another frame."""
    first = frame[0] if frame else 0
    if first in _FIX_ARRAY:
        return first - _FIX_ARRAY.start, 1
    if first == _ARRAY_16:
        return int.from_bytes(frame[1:_ARRAY_HEAD_BYTES]), _ARRAY_HEAD_BYTES
    return 0, 0


def read_packed(frame: bytes) -> Packed | None:
    """The trades of a long frame in columns, or None if the frame cannot be read so."""
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
    """Where each trade is read, and whether all that was read is as expected."""

    def __init__(self, words: Numbers, at: Places) -> None:
        self.words = words
        self.at = at
        self.is_right = np.True_

    def expect(self, pattern: _Pattern) -> Numbers:
        """The next word of each trade. A word that does not match is noted in `is_right`."""
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
