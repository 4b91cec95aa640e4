"""The valuation of a whole broker, beside SciPy's bare product, Polars, DuckDB and plain Python.

`python -m benchmarks.valuation --accounts 1000000 --positions 10 --symbols 11000 --json`

All do the same work in one run, in one process: medians of at least five, of processor time. What counts are
the ratios. Ours and SciPy's product take turns, so that whatever else the machine does meets both. Polars and
DuckDB do it their best plain way: a join of positions with prices, a sum per account, a join with the
accounts; all on one thread, as our kernel is.

`incremental` brings equity and day P&L of every account to new prices of 2 % of the symbols. `watched` is one
flush of 10,000 accounts of which each is due: valued, compared, rounded, written. It is given as a ratio to
writing the same messages alone, from figures that are ready: by our own writer, and by msgspec from dicts
that already hold each number as text, which is the least that any encoder can do.
"""

import gc
import operator
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import duckdb
import pandas
import polars as pl
from scipy.sparse import csr_array

from benchmarks.provenance import record
from portfolio_realtime.clock import parse_rfc3339
from portfolio_realtime.model import US_EQUITY, Account, Mark, Position
from portfolio_realtime.valuation.book import Book
from portfolio_realtime.valuation.portfolio_message import Figures, constant, encode_values
from portfolio_realtime.valuation.valuer import NOTHING, Valuer

NOW_NS = 1_795_000_000_000_000_000
ONE = Decimal(1)
REPEATS = 7
TURNS = 11
MOVED_SHARE = 0.02
WATCHED = 10_000
CHANGES = 20_000
PYTHON_ACCOUNTS_MAX = 100_000


@dataclass(frozen=True)
class Holdings:
    """Random holdings as plain arrays: what every competitor is given."""

    accounts: int
    symbols: int
    columns: np.ndarray[Any, np.dtype[np.int32]]  # accounts x positions
    quantities: np.ndarray[Any, np.dtype[np.float64]]  # accounts x positions, exact decimals
    cash: np.ndarray[Any, np.dtype[np.float64]]
    last_equity: np.ndarray[Any, np.dtype[np.float64]]
    prices: np.ndarray[Any, np.dtype[np.float64]]

    def account(self, index: int) -> Account:
        """One account's record, as the book takes it in."""
        positions = tuple(
            Position(f"S{column:05d}", US_EQUITY, Decimal(f"{quantity:.9f}").normalize(), ONE, Decimal(100))
            for column, quantity in zip(
                self.columns[index].tolist(), self.quantities[index].tolist(), strict=True
            )
        )
        cash, last_equity = (
            Decimal(int(vector[index] * 100)) / 100 for vector in (self.cash, self.last_equity)
        )
        return Account(
            f"{index:08x}-0000-4000-8000-{index:012x}",
            *(1, "ACTIVE", "USD", cash, last_equity, "2026-11-20", Decimal(0), positions, NOW_NS),
        )


def holdings(accounts: int, positions: int, symbols: int, seed: int) -> Holdings:
    """Random holdings, each symbol equally likely: no symbol's price stays in a cache by being popular."""
    random = np.random.default_rng(seed)
    return Holdings(
        accounts,
        symbols,
        np.sort(random.integers(0, symbols, (accounts, positions)), axis=1).astype(np.int32),
        _quantities(random, (accounts, positions)),
        random.integers(0, 10_000_000, accounts) / 100,
        random.integers(1, 50_000_000, accounts) / 100,
        random.integers(100, 100_000, symbols) / 100,
    )


def _quantities(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Three of ten are fractional with nine decimals, the others whole shares."""
    whole = random.integers(1, 1000, shape).astype(np.float64)
    fraction = random.integers(0, 10**9, shape) * (random.random(shape) < 0.3) / 10**9
    return np.round(whole + fraction, 9)


def marks(held: Holdings, columns: Sequence[int], version: int) -> list[Mark]:
    """A mark of each of these symbols, each traded at a time of its own."""
    return [
        Mark(f"S{column:05d}", price, NOW_NS - 1000 * column, version, "sip", price)
        for column, price in zip(columns, held.prices[list(columns)].tolist(), strict=True)
    ]


def median_ms(work: Callable[[], object]) -> float:
    """Median processor time of REPEATS runs, after one to warm up."""
    work()
    times: list[float] = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        times.append((time.process_time() - started) * 1000)
    return statistics.median(times)


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def medians_ms(*works: Callable[[], object]) -> list[float]:
    """The same for several that take turns."""
    times: list[list[float]] = [[] for _ in works]
    for turn in range(TURNS + 1):
        for work, spent in zip(works, times, strict=True):
            started = time.process_time()
            work()
            if turn:  # the first is to warm up
                spent.append((time.process_time() - started) * 1000)
    return [statistics.median(spent) for spent in times]


def fill(valuer: Valuer, held: Holdings) -> float:
    """Put every account into the book, and every mark; bytes of memory per position, columns included."""
    gc.collect()
    before = resident_bytes()
    for index in range(held.accounts):
        valuer.put_account(held.account(index))
        if index % 100_000 == 99_999:
            print(f"{index + 1} accounts in the book", file=sys.stderr)
    valuer.apply_marks(marks(held, range(held.symbols), 1))
    for stretch in valuer.whole.stretches():
        stretch.refresh()
    gc.collect()
    return (resident_bytes() - before) / held.columns.size


def recalculate(valuer: Valuer) -> None:
    """Equity and day P&L of every account from scratch."""
    for stretch in valuer.whole.stretches():
        stretch.recalculate()


def incremental_ms(valuer: Valuer, held: Holdings) -> tuple[float, float]:
    """Equity and day P&L of every account after a batch that moves MOVED_SHARE of the symbols.

    In ms; then how far an equity is off after all batches, at most, in dollars.
    """
    random = np.random.default_rng(2)
    times: list[float] = []
    for turn in range(TURNS + 1):
        moved = random.choice(held.symbols, int(held.symbols * MOVED_SHARE), replace=False)
        held.prices[moved] += 0.01
        valuer.apply_marks(marks(held, moved.tolist(), 2 + turn))
        started = time.process_time()
        for stretch in valuer.whole.stretches():
            stretch.refresh()
        times.append((time.process_time() - started) * 1000)
    return statistics.median(times[1:]), max(stretch.measure_drift() for stretch in valuer.whole.stretches())


def bare_scipy(held: Holdings) -> Callable[[], object]:
    """The floor: the product of the same matrix and prices, and nothing else."""
    pointers = np.arange(0, held.columns.size + 1, held.columns.shape[1], dtype=np.int32)
    matrix = csr_array(
        (held.quantities.ravel(), held.columns.ravel(), pointers), shape=(held.accounts, held.symbols)
    )
    return partial(operator.matmul, matrix, held.prices)


def polars_ms(held: Holdings) -> float:
    """Join positions with prices, sum per account, join with accounts."""
    positions, prices, accounts = (pl.DataFrame(columns) for columns in _columns(held))

    def work() -> pl.DataFrame:
        return (
            positions.lazy()
            .join(prices.lazy(), on="symbol")
            .group_by("account")
            .agg((pl.col("quantity") * pl.col("price")).sum().alias("value"))
            .join(accounts.lazy(), on="account")
            .select(
                "account",
                equity=pl.col("value") + pl.col("cash"),
                day_pnl=pl.col("value") + pl.col("cash") - pl.col("last_equity"),
            )
            .collect()
        )

    return median_ms(work)


def duckdb_ms(held: Holdings) -> float:
    """The same in SQL, on DuckDB's own tables."""
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    for name, frame in zip(("positions", "prices", "accounts"), _columns(held), strict=True):
        connection.register("frame", pandas.DataFrame(frame))
        connection.execute(f"CREATE TABLE {name} AS SELECT * FROM frame")  # noqa: S608  # our three names
        connection.unregister("frame")
    query = """
        SELECT account, value + cash AS equity, value + cash - last_equity AS day_pnl
        FROM (
            SELECT account, sum(quantity * price) AS value
            FROM positions JOIN prices USING (symbol) GROUP BY account
        ) JOIN accounts USING (account)
    """
    return median_ms(lambda: connection.execute(query).fetchnumpy())


def _columns(held: Holdings) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Columns of the tables positions, prices and accounts."""
    numbers = np.arange(held.accounts, dtype=np.int32)
    positions = {
        "account": np.repeat(numbers, held.columns.shape[1]),
        "symbol": held.columns.ravel(),
        "quantity": held.quantities.ravel(),
    }
    prices = {"symbol": np.arange(held.symbols, dtype=np.int32), "price": held.prices}
    return positions, prices, {"account": numbers, "cash": held.cash, "last_equity": held.last_equity}


def python_ms(held: Holdings) -> float:
    """A dict of prices and a loop over the accounts; measured on PYTHON_ACCOUNTS_MAX of them and scaled."""
    count = min(held.accounts, PYTHON_ACCOUNTS_MAX)
    prices = dict(enumerate(held.prices.tolist()))
    book = [
        (cash, last_equity, list(zip(columns, quantities, strict=True)))
        for cash, last_equity, columns, quantities in zip(
            held.cash[:count].tolist(),
            held.last_equity[:count].tolist(),
            held.columns[:count].tolist(),
            held.quantities[:count].tolist(),
            strict=True,
        )
    ]

    def work() -> list[tuple[float, float]]:
        result: list[tuple[float, float]] = []
        for cash, last_equity, positions in book:
            equity = cash + sum(quantity * prices[column] for column, quantity in positions)
            result.append((equity, equity - last_equity))
        return result

    return median_ms(work) * held.accounts / count


@dataclass(frozen=True)
class Watched:
    """How long a flush of watched accounts takes, all of them due."""

    ms: float
    encoding_ms: float  # the same messages, written from figures that are ready
    msgspec_ms: float  # the same messages, by msgspec from dicts of texts
    exact_ratio: float  # share of the figures that needed Decimal


def watched(valuer: Valuer, held: Holdings, count: int, first_turn: int = 100) -> Watched:
    """Value, compare, round and encode `count` accounts after a change of all marks, TURNS times."""
    accounts = [held.account(index) for index in range(count)]
    for account in accounts:
        valuer.watch(account, 1, with_positions=False)
    times: list[float] = []
    exact = 0
    publications = NOTHING
    for turn in range(first_turn, first_turn + TURNS + 1):
        held.prices[:] += 0.01
        valuer.apply_marks(marks(held, range(held.symbols), turn))
        started = time.process_time()
        flush = valuer.flush(NOW_NS, float(turn))
        times.append((time.process_time() - started) * 1000)
        publications = flush.publications
        assert len(publications) == count
        exact += flush.exact_count
    messages = [msgspec.json.decode(publication.value) for publication in publications]
    encode = msgspec.json.Encoder().encode
    encoding_ms, msgspec_ms = medians_ms(
        _our_writer(accounts, messages), lambda: [encode(message) for message in messages]
    )
    exact_ratio = exact / max(1, count * 2 * len(times))
    return Watched(statistics.median(times[1:]), encoding_ms, msgspec_ms, exact_ratio)


def _our_writer(accounts: Sequence[Account], messages: Sequence[dict[str, Any]]) -> Callable[[], object]:
    """Writes these messages again, from their figures."""
    always = [constant(account, 1) for account in accounts]
    sequences = [message["sequence"] for message in messages]
    equity, day_pnl = (
        np.array([int(message[name].replace(".", "")) for message in messages], np.int64)
        for name in ("equity", "day_pnl")
    )
    as_of_ns = np.array([parse_rfc3339(message["as_of"]) for message in messages], np.int64)
    figures = Figures(equity, day_pnl, as_of_ns, unpriced={}, stale_ages_s={})
    return partial(encode_values, always, sequences, figures, NOW_NS)


def changes_per_s(book: Book, held: Holdings) -> float:
    """Accounts whose positions change, applied one at a time; every eighth gets one position more."""
    random = np.random.default_rng(1)
    changed: list[Account] = []
    for index in random.integers(0, held.accounts, CHANGES).tolist():
        account = held.account(index)
        extra = Position("S00001", US_EQUITY, ONE, ONE, ONE)
        positions = (*account.positions, extra) if index % 8 == 0 else account.positions[::-1]
        changed.append(msgspec.structs.replace(account, positions=positions))
    started = time.process_time()
    for account in changed:
        book.put_account(account)
    return len(changed) / (time.process_time() - started)


def main(
    accounts: Annotated[int, typer.Option()] = 1_000_000,
    positions: Annotated[int, typer.Option(help="Per account")] = 10,
    symbols: Annotated[int, typer.Option()] = 11_000,
    seed: Annotated[int, typer.Option()] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line")] = False,
    table: Annotated[Path | None, typer.Option("--record", help="Append the figures to this CSV")] = None,
) -> None:
    """Value a whole broker, beside SciPy's bare product, Polars, DuckDB and plain Python."""
    held = holdings(accounts, positions, symbols, seed)
    valuer = Valuer(price_ttl_s=3600, min_update_interval_s=0.001)
    bytes_per_position = fill(valuer, held)
    full_ms, scipy_ms = medians_ms(partial(recalculate, valuer), bare_scipy(held))
    moved_ms, drift = incremental_ms(valuer, held)
    flush = watched(valuer, held, min(WATCHED, accounts))
    result = {
        "positions": held.columns.size,
        "accounts": accounts,
        "symbols": symbols,
        "full_ms": round(full_ms, 2),
        "full_vs_scipy": round(full_ms / scipy_ms, 3),
        "vs_polars": round(polars_ms(held) / full_ms, 1),
        "vs_duckdb": round(duckdb_ms(held) / full_ms, 1),
        "vs_python": round(python_ms(held) / full_ms, 1),
        "incremental_ms": round(moved_ms, 2),
        "incremental_vs_full": round(moved_ms / full_ms, 3),
        "incremental_drift_dollars": drift,
        "watched": min(WATCHED, accounts),
        "watched_ms": round(flush.ms, 2),
        "watched_vs_encoding": round(flush.ms / flush.encoding_ms, 2),
        "watched_vs_msgspec_of_dicts": round(flush.ms / flush.msgspec_ms, 2),
        "changes_per_s": round(changes_per_s(valuer.book, held)),
        "bytes_per_position": round(bytes_per_position, 1),
        "exact_fallback_ratio": flush.exact_ratio,
    }
    if table:
        record(result, table)
    if as_json:
        print(msgspec.json.encode(result).decode())
    else:
        for name, figure in result.items():
            print(f"{name:24} {figure}")


if __name__ == "__main__":
    typer.run(main)
