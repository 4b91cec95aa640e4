"""A recorded day as the market: its trades are replayed with the present time.

Reads LEAN's tick files, `{symbol}-{yyyymmdd}.zip`: one CSV of milliseconds since New York midnight, price ×
10,000, size, exchange, condition flags in hexadecimal, suspicious. A row is decoded only when it is due, so
that a large day opens quickly.
"""

import zipfile
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from alpaca_sim.core.conditions import moves_price, regular_condition
from alpaca_sim.core.market import Listing, Market

TAPE_OF_SYMBOL = {"SPY": "B"}  # the files do not name the tape; all other symbols count as NYSE-listed
NYSE_TAPE = "A"
TRADES_PER_STEP_MAX = 50_000
EXTENDED_BIT, LATE_BIT = 13, 14
# Condition flag (bit) → SIP condition code. Bit 0 means the tape's regular code; other bits have no code.
LETTERS = {
    1: "C", 2: "N", 3: "R", 4: "Y", 5: "F", 6: "O", 7: "6", 8: "5", 9: "4",
    11: "L", 13: "T", 14: "Z", 15: "S", 16: "A", 17: "B", 18: "V", 19: "D", 20: "W",
    21: "X", 22: "H", 23: "K", 24: "M", 25: "P", 26: "Q", 27: "I", 28: "E", 31: "I",
}  # fmt: skip


class TapeError(Exception):
    """The tape cannot be opened. The message names the remedy."""


class TapeRow(NamedTuple):
    """One trade of the tape. Milliseconds since New York midnight; price in dollars; size in shares."""

    at_ms: int
    symbol: str
    price: Decimal
    size: int
    exchange: str
    conditions: tuple[str, ...]


def conditions_of(flags: int, tape: str) -> tuple[str, ...]:
    """The SIP condition codes of a row's flags; a row without flags is an ordinary trade."""
    letters = [regular_condition(tape)] if flags & 1 else []
    for bit, letter in LETTERS.items():
        if flags >> bit & 1:
            is_late_extended = bit == LATE_BIT and flags >> EXTENDED_BIT & 1
            letters.append("U" if is_late_extended else letter)
    return tuple(letters) or (regular_condition(tape),)


@dataclass(frozen=True, slots=True)
class TapeFile:
    """One symbol's day: its undecoded lines in order of time."""

    symbol: str
    tape: str
    lines: list[bytes]

    def row(self, line: bytes) -> TapeRow:
        """Decode one line. Raises ValueError when it is not a row."""
        at_ms, price, size, exchange, flags, _suspicious = line.split(b",")
        conditions = conditions_of(int(flags, 16), self.tape)
        return TapeRow(
            int(at_ms), self.symbol, Decimal(int(price)).scaleb(-4), int(size), exchange.decode(), conditions
        )

    def index_at(self, at_ms: int) -> int:
        """The index of the first line at or after a time, in milliseconds since New York midnight."""
        return bisect_left(self.lines, at_ms, key=lambda line: int(line.partition(b",")[0]))

    def rows(self, start: int) -> Iterator[TapeRow]:
        """The decoded rows from an index on."""
        return (self.row(line) for line in islice(self.lines, start, None))

    def last_eligible(self, end: int) -> Decimal | None:
        """The price of the last eligible trade before index `end`; None without one."""
        return next(self._eligible(self.row(line) for line in reversed(self.lines[:end])), None)

    def first_eligible(self, start: int) -> Decimal | None:
        """The price of the first eligible trade from index `start` on; None without one."""
        return next(self._eligible(self.rows(start)), None)

    def _eligible(self, rows: Iterator[TapeRow]) -> Iterator[Decimal]:
        return (
            row.price for row in rows if moves_price("us_equity", self.tape, row.conditions, has_price=True)
        )


def read_file(path: Path) -> TapeFile:
    """Read one zip. Raises TapeError when it cannot be read."""
    symbol = path.stem.partition("-")[0].upper()
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(archive.namelist()[0])
    except (OSError, zipfile.BadZipFile, IndexError) as error:
        raise TapeError(f"{path} is not a readable zip ({error}): fetch it again") from error
    return TapeFile(symbol, TAPE_OF_SYMBOL.get(symbol, NYSE_TAPE), content.splitlines())


class Tape:
    """One recorded day: listings with their first prices, and the rows from the start time on."""

    def __init__(self, folder: Path, day: date, start: time, symbol_count_max: int) -> None:
        """Open the first `symbol_count_max` files of `day`; `start` is New York time.

        Raises TapeError when the folder has no file for the day, or when a file has no eligible trade.
        """
        paths = sorted(folder.glob(f"*-{day:%Y%m%d}.zip"))[:symbol_count_max]
        if not paths:
            days = sorted({path.stem.rpartition("-")[2] for path in folder.glob("*-*.zip")})
            held = ", ".join(f"{text[:4]}-{text[4:6]}-{text[6:]}" for text in days)
            remedy = (
                f"choose --tape-day from {held}" if held else "it holds no tape, choose another --tape folder"
            )
            raise TapeError(f"no tape of {day} in {folder}: {remedy}")
        self.start_ms = (start.hour * 60 + start.minute) * 60_000
        self._files = [read_file(path) for path in paths]
        self._starts = [file.index_at(self.start_ms) for file in self._files]
        self.listings = [
            self._listing(file, start, folder, day)
            for file, start in zip(self._files, self._starts, strict=True)
        ]

    def rows(self) -> Iterator[TapeRow]:
        """The rows of all symbols from the start time on, in order of time."""
        each = [file.rows(start) for file, start in zip(self._files, self._starts, strict=True)]
        return merge(*each, key=lambda row: row.at_ms)

    @staticmethod
    def _listing(file: TapeFile, start: int, folder: Path, day: date) -> Listing:
        first_price = file.last_eligible(start) or file.first_eligible(start)
        if first_price is None:
            raise TapeError(
                f"the tape of {file.symbol} on {day} has no ordinary trade: choose another --tape-day"
            )
        pattern = f"{file.symbol.lower()}-*.zip"
        earlier = [path for path in sorted(folder.glob(pattern)) if path.stem[-8:] < f"{day:%Y%m%d}"]
        previous = read_file(earlier[-1]) if earlier else None
        previous_close = previous.last_eligible(len(previous.lines)) if previous else file.first_eligible(0)
        exchange = "ARCA" if file.tape == "B" else "NYSE"
        close = previous_close or first_price
        return Listing(file.symbol, file.symbol, "us_equity", exchange, file.tape, first_price, close, 2)


class TapeReplay:
    """Prints the tape's trades when they are due, at `speed` tape seconds per second."""

    def __init__(self, market: Market, tape: Tape, speed: float) -> None:
        """List the tape's symbols. The replay begins with the first `step`."""
        for listing in tape.listings:
            market.list_symbol(listing)
        self.is_done = False
        self._market = market
        self._speed = speed
        self._rows = tape.rows()
        self._next = next(self._rows, None)
        self._now_ms = float(tape.start_ms)

    def step(self, elapsed_s: float) -> None:
        """Print the trades of the next `elapsed_s` seconds. After the end of the tape, prices stay."""
        self._now_ms += elapsed_s * 1000 * self._speed
        printed = 0
        while self._next is not None and self._next.at_ms <= self._now_ms:
            row = self._next
            self._market.print_trade(row.symbol, row.price, Decimal(row.size), row.conditions, row.exchange)
            self._next = next(self._rows, None)
            printed += 1
            if printed == TRADES_PER_STEP_MAX:
                # Too much for one step: the rest is printed by the next ones.
                self._now_ms = min(self._now_ms, float(row.at_ms))
                break
        self.is_done = self._next is None
