"""The valuation of a whole broker, beside SciPy's bare product, Polars, DuckDB and plain Python.

`python -m benchmarks.valuation --accounts 1000000 --positions 10 --symbols 11000 --json`

All servers of the same work in one run, in one process, medians of at least five: what counts are the ratios.
Polars and DuckDB do it their best plain way: a join of positions with prices, a sum per account, a join with
the accounts; all on one thread, as our kernel is.
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

from portfolio_realtime.model import US_EQUITY, Account, Mark, Position, Publication
from portfolio_realtime.valuation.book import Book
from portfolio_realtime.valuation.valuer import Valuer

NOW_NS = 1_795_000_000_000_000_000
ONE = Decimal(1)
REPEATS = 7
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


def marks(held: Holdings, columns: Sequence[int], received_ns: int) -> list[Mark]:
    """A mark of each of these symbols."""
    return [
        Mark(f"S{column:05d}", price, NOW_NS, received_ns, "sip", price)
        for column, price in zip(columns, held.prices[list(columns)].tolist(), strict=True)
    ]


def median_ms(work: Callable[[], object]) -> float:
    """Median wall-clock time of REPEATS runs, after one to warm up."""
    work()
    times: list[float] = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fill(valuer: Valuer, held: Holdings) -> float:
    """Put every account into the book, and every mark; bytes of memory per position."""
    gc.collect()
    before = resident_bytes()
    for index in range(held.accounts):
        valuer.put(held.account(index))
        if index % 100_000 == 99_999:
            print(f"{index + 1} accounts in the book", file=sys.stderr)
    valuer.apply(marks(held, range(held.symbols), 1))
    gc.collect()
    return (resident_bytes() - before) / held.columns.size


def bare_scipy_ms(held: Holdings) -> float:
    """The floor: the product of the same matrix and prices, and nothing else."""
    pointers = np.arange(0, held.columns.size + 1, held.columns.shape[1], dtype=np.int32)
    matrix = csr_array(
        (held.quantities.ravel(), held.columns.ravel(), pointers), shape=(held.accounts, held.symbols)
    )
    return median_ms(partial(operator.matmul, matrix, held.prices))


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


def watched_ms(valuer: Valuer, held: Holdings) -> tuple[float, float, float]:
    """Value, compare, round and encode WATCHED accounts after a change of all marks.

    In ms; then as a ratio to encoding the same messages alone; then the share of figures that needed Decimal.
    """
    count = min(WATCHED, held.accounts)
    for index in range(count):
        valuer.watch(held.account(index), 1, with_positions=False)
    turn = 0
    exact = 0

    def work() -> None:
        nonlocal turn, exact, publications
        turn += 1
        held.prices[:] += 0.01
        valuer.apply(marks(held, range(held.symbols), turn + 1))
        started = time.perf_counter()
        flush = valuer.flush(NOW_NS, float(turn))
        times.append((time.perf_counter() - started) * 1000)
        assert len(flush.publications) == count
        exact += flush.exact_count
        publications = flush.publications

    publications: list[Publication] = []
    times: list[float] = []
    for _ in range(REPEATS + 1):
        work()
    total_ms = statistics.median(times[1:])
    messages = [msgspec.json.decode(publication.value) for publication in publications]
    encode = msgspec.json.Encoder().encode
    encoding_ms = median_ms(lambda: [encode(message) for message in messages])
    return total_ms, total_ms / encoding_ms, exact / (count * 2 * (REPEATS + 1))


def changes_per_s(book: Book, held: Holdings) -> float:
    """Accounts whose positions change, applied one at a time; every eighth gets one position more."""
    random = np.random.default_rng(1)
    changed: list[Account] = []
    for index in random.integers(0, held.accounts, CHANGES).tolist():
        account = held.account(index)
        extra = Position("S00001", US_EQUITY, ONE, ONE, ONE)
        positions = (*account.positions, extra) if index % 8 == 0 else account.positions[::-1]
        changed.append(msgspec.structs.replace(account, positions=positions))
    started = time.perf_counter()
    for account in changed:
        book.put(account)
    return len(changed) / (time.perf_counter() - started)


def main(
    accounts: Annotated[int, typer.Option()] = 1_000_000,
    positions: Annotated[int, typer.Option(help="Per account")] = 10,
    symbols: Annotated[int, typer.Option()] = 11_000,
    seed: Annotated[int, typer.Option()] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line")] = False,
) -> None:
    """Value a whole broker, beside SciPy's bare product, Polars, DuckDB and plain Python."""
    held = holdings(accounts, positions, symbols, seed)
    valuer = Valuer(price_ttl_s=3600, min_update_interval_s=0.001)
    bytes_per_position = fill(valuer, held)
    full_ms = median_ms(valuer.recalculate)
    scipy_ms = bare_scipy_ms(held)
    watched, watched_ratio, exact_ratio = watched_ms(valuer, held)
    result = {
        "positions": held.columns.size,
        "accounts": accounts,
        "symbols": symbols,
        "full_ms": round(full_ms, 2),
        "full_vs_scipy": round(full_ms / scipy_ms, 3),
        "vs_polars": round(polars_ms(held) / full_ms, 1),
        "vs_duckdb": round(duckdb_ms(held) / full_ms, 1),
        "vs_python": round(python_ms(held) / full_ms, 1),
        "watched_ms": round(watched, 2),
        "watched_vs_encoding": round(watched_ratio, 2),
        "changes_per_s": round(changes_per_s(valuer.book, held)),
        "bytes_per_position": round(bytes_per_position, 1),
        "exact_fallback_ratio": exact_ratio,
    }
    if as_json:
        print(msgspec.json.encode(result).decode())
    else:
        for name, figure in result.items():
            print(f"{name:24} {figure}")


if __name__ == "__main__":
    typer.run(main)
