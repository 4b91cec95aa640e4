"""The tape: flags to conditions, first prices, and replay by the wall clock."""

import zipfile
from datetime import date, time
from decimal import Decimal
from pathlib import Path

import pytest

from alpaca_sim.core.clock import Clock
from alpaca_sim.core.market import Market, Trade
from alpaca_sim.core.tape import Tape, TapeError, TapeReplay, conditions_of
from tests.alpaca_sim.conftest import Start

REAL = Path(__file__).resolve().parents[3] / "shared" / "tape"
DAY = date(2013, 10, 8)
OPEN = time(9, 30)
OPEN_MS = (9 * 60 + 30) * 60_000

# milliseconds, price × 10,000, size, exchange, flags, suspicious
BEFORE = ["30000000,1000000,100,P,1,0", "57600000,1010000,100,P,1,0", "57600001,5000000,7,D,80000001,0"]
SPY = [
    "30000000,1020000,100,P,2000,0",
    "34199000,1030000,100,P,1,0",
    "34199500,9990000,5,D,80000001,0",
    f"{OPEN_MS},1040000,100,P,20000060,0",
    f"{OPEN_MS + 400},1050000,200,Q,20000020,0",
    f"{OPEN_MS + 500},7770000,100,D,20100000,0",
]
BAC = [f"{OPEN_MS + 100},139500,300,N,1,0", f"{OPEN_MS + 200},140000,300,N,1,0"]


def write(folder: Path, symbol: str, day: str, rows: list[str]) -> None:
    """One zip as LEAN has it."""
    with zipfile.ZipFile(folder / f"{symbol}-{day}.zip", "w") as archive:
        archive.writestr(f"{day}_{symbol}_trade_tick.csv", "\n".join(rows) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two symbols on the day, one of them on the day before."""
    write(tmp_path, "spy", "20131007", BEFORE)
    write(tmp_path, "spy", "20131008", SPY)
    write(tmp_path, "bac", "20131008", BAC)
    return tmp_path


@pytest.mark.parametrize(
    ("flags", "tape", "conditions"),
    [
        ("1", "B", (" ",)),
        ("0", "A", (" ",)),
        ("1", "C", ("@",)),
        ("2000", "A", ("T",)),
        ("20", "A", ("F",)),
        ("20002020", "B", ("F", "T")),
        ("20000000", "A", (" ",)),
        ("80000001", "A", (" ", "I")),
        ("20100200", "B", ("4", "W")),
        ("4000", "A", ("Z",)),
        ("6000", "A", ("T", "U")),
        ("20000040", "B", ("O",)),
        ("80", "B", ("6",)),
        ("a0000020", "B", ("F", "I")),  # no number in decimal: some readers guess a column's type from above
    ],
)
def test_flags_become_sip_letters(flags: str, tape: str, conditions: tuple[str, ...]) -> None:
    """Bits without a letter add none; no letter is an ordinary trade in its tape's own spelling."""
    assert conditions_of(int(flags, 16), tape) == conditions


def test_first_price_and_previous_close_are_the_last_eligible_trades(folder: Path) -> None:
    """Before the start and of the day before; without either, the first eligible trade."""
    listings = {listing.symbol: listing for listing in Tape(folder, DAY, OPEN, 10).listings}
    assert (listings["SPY"].first_price, listings["SPY"].previous_close) == (103, 101)
    assert (listings["BAC"].first_price, listings["BAC"].previous_close) == (
        Decimal("13.95"),
        Decimal("13.95"),
    )


def test_the_replay_prints_what_is_due_in_order_of_time(folder: Path) -> None:
    """At double speed 200 ms of tape fall into 100 ms; afterwards the market is quiet."""
    market = Market(Clock())
    replay = TapeReplay(market, Tape(folder, DAY, OPEN, 10), speed=2)
    seen: list[Trade] = []
    market.on_trade = seen.append
    replay.step(0)
    assert [trade.price for trade in seen] == [104]
    replay.step(0.1)
    assert [(trade.symbol, trade.price) for trade in seen[1:]] == [("BAC", Decimal("13.95")), ("BAC", 14)]
    assert not replay.is_done
    replay.step(0.2)
    assert seen[-1].conditions == ("W",) and market.mark("SPY") == 105
    assert replay.is_done
    replay.step(60)
    assert len(seen) == 5
    assert [trade.at_ns for trade in seen] == sorted({trade.at_ns for trade in seen})


def test_a_missing_day_is_refused_with_the_days_there_are(folder: Path, tmp_path: Path) -> None:
    """The message holds the remedy."""
    with pytest.raises(TapeError, match="choose --tape-day from 2013-10-07, 2013-10-08"):
        Tape(folder, date(2014, 1, 1), OPEN, 10)
    (tmp_path / "ibm-20131009.zip").write_bytes(b"not a zip")
    with pytest.raises(TapeError, match="fetch it again"):
        Tape(tmp_path, date(2013, 10, 9), OPEN, 10)


async def test_accounts_hold_the_tapes_symbols_and_are_priced_by_it(start: Start, folder: Path) -> None:
    """The market has no other symbol; truth follows the tape."""
    tape = Tape(folder, DAY, OPEN, 10)

    def replay(market: Market) -> TapeReplay:
        return TapeReplay(market, tape, speed=1_000)

    running = await start(source=replay)
    assert set(running.sim.market.symbols) == {"SPY", "BAC"}
    made = await running.post("/_sim/accounts", cash="0", positions={"SPY": "2"})
    await running.post("/_sim/pause")
    running.sim.source.step(1)
    assert (await running.get("/_sim/state"))["tape_done"] is True
    truth = await running.get(f"/_sim/accounts/{made['account_id']}")
    assert (truth["equity"], truth["last_equity"], truth["day_pnl"]) == ("210", "202", "8")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real tape is not beside this repository")
def test_the_real_tape_opens_and_most_of_its_trades_move_the_price() -> None:
    """Four symbols, first prices of 2013, and the opening minutes in order."""
    tape = Tape(REAL, DAY, OPEN, 10)
    assert {listing.symbol: round(listing.first_price) for listing in tape.listings} == {
        "AIG": 49,
        "BAC": 14,
        "IBM": 182,
        "SPY": 167,
    }
    market = Market(Clock())
    replay = TapeReplay(market, tape, speed=60)
    count, moved = 0, 0
    marks: set[Decimal] = set()

    def see(trade: Trade) -> None:
        nonlocal count, moved
        count += 1
        moved += market.symbols[trade.symbol].mark_trade is trade
        marks.add(trade.price)

    market.on_trade = see
    for _ in range(20):
        replay.step(0.05)
    assert count > 1_000 and 0.95 < moved / count < 1
    assert len(marks) > 20
