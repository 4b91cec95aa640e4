"""The message on the wire, byte for byte, and its words for people."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from portfolio_realtime.clock import parse_rfc3339
from portfolio_realtime.model import Account, Publication
from portfolio_realtime.valuation.portfolio_message import Figures, constant, encode_row, encode_values

from .records import NOW_NS, account, figures, mark, message_of, oracle_cents, position

AS_OF_NS = parse_rfc3339("2026-11-20T15:04:05.123456Z")

# The protocol's example; its ratio is 1209.27 / 103002.10 = 0.011740246…
EXAMPLE = (
    b'{"type":"portfolio","account_id":"0d18ae51","epoch":1763822405123,"sequence":17,'
    b'"equity":"104211.37","cash":"10211.37","last_equity":"103002.10","external_cash_flow":"0.00",'
    b'"day_pnl":"1209.27","day_pnl_ratio":0.0117402,'
    b'"as_of":"2026-11-20T15:04:05.123456Z","stale":[],"unpriced":[],'
    b'"total_value":"$104,211.37","today_return":"+$1,209.27 (+1.17%)",'
    b'"timestamp":"2026-11-20T15:04:05.123456Z","record_as_of":"2025-11-20T15:00:00.000000Z"}'
)


SHOWN = figures(10421137, 120927, AS_OF_NS)


def encoded(held: Account, shown: Figures) -> dict[str, Any]:
    """The message as an object."""
    (value,) = encode_values([constant(held, 5)], [1], shown, AS_OF_NS)
    return message_of(Publication("", 1, value))


def message_row(raw: bytes) -> dict[str, Any]:
    """A row as an object."""
    return msgspec.json.decode(raw)


EXAMPLE_ACCOUNT = account("0d18ae51", cash="10211.37", last_equity="103002.10")


def test_the_protocols_example_is_reproduced_byte_for_byte() -> None:
    """Field order, text of money, number of the ratio, microseconds, words: nothing differs."""
    always = constant(EXAMPLE_ACCOUNT, 1763822405123)
    assert encode_values([always], [17], SHOWN, AS_OF_NS) == [EXAMPLE]


def test_an_unknown_total_is_null_and_the_known_part_is_said() -> None:
    """Three fields are null, texts for people are a dash, `known_equity` appears, the symbols are named."""
    shown = figures(-5, 0, unpriced=("X", "Y"), stale_ages_s={"A": 3700})
    message = encoded(EXAMPLE_ACCOUNT, shown)
    nulls = {name for name, field in message.items() if field is None}
    assert nulls == {"equity", "day_pnl", "day_pnl_ratio"}
    assert message["total_value"] == message["today_return"] == "—"
    assert message["known_equity"] == "-0.05"
    assert (message["unpriced"], message["stale"]) == (["X", "Y"], ["A"])
    assert message["stale_ages_s"] == {"A": 3700}


def test_ages_are_only_said_of_stale_marks() -> None:
    """An account with fresh marks has a message without ages."""
    assert "stale_ages_s" not in encoded(EXAMPLE_ACCOUNT, SHOWN)


@pytest.mark.parametrize(
    ("equity", "text"),
    [
        (0, "$0.00"),
        (5, "$0.05"),
        (100000000, "$1,000,000.00"),
        (-5, "-$0.05"),
        (-123456789, "-$1,234,567.89"),
    ],
)
def test_total_value_is_dollars_for_people(equity: int, text: str) -> None:
    """Thousands are separated, the sign stands before the dollar."""
    assert encoded(EXAMPLE_ACCOUNT, figures(equity, 0))["total_value"] == text


@pytest.mark.parametrize(
    ("last_equity", "day_pnl", "text", "ratio"),
    [
        ("1000", 0, "+$0.00 (+0.00%)", 0.0),
        ("1000", 1234, "+$12.34 (+1.23%)", 0.01234),
        ("1000", -1234, "-$12.34 (-1.23%)", -0.01234),
        ("1000", -5, "-$0.05 (-0.00%)", -0.00005),
        ("1000", 15, "+$0.15 (+0.02%)", 0.00015),
        ("0.01", 10**13, "+$100,000,000,000.00", 1e13),
        ("1000", 123456700, "+$1,234,567.00 (+123456.70%)", 1234.567),
        ("0", 1234, "+$12.34", None),
        ("-50", -1234, "-$12.34", None),
    ],
)
def test_today_return_says_gain_and_percent(
    last_equity: str, day_pnl: int, text: str, ratio: float | None
) -> None:
    """Always signed; without a positive base there is no percentage."""
    message = encoded(account(last_equity=last_equity), figures(0, day_pnl))
    assert message["today_return"] == text
    assert message["day_pnl_ratio"] == ratio


def test_the_ratio_is_of_last_equity_and_what_came_in_since() -> None:
    """A first deposit today makes a base though there is no last equity."""
    assert encoded(account(last_equity=0, external_cash_flow=500), figures(0, 1000))["day_pnl_ratio"] == 0.02
    assert encoded(account(last_equity=1000, external_cash_flow=-1000), SHOWN)["day_pnl_ratio"] is None


def test_money_of_the_record_is_rounded_half_even() -> None:
    """Long decimals of the broker are shown in cents."""
    held = account(cash="-0.005", last_equity="10.015", external_cash_flow="1234567890123.125")
    message = encoded(held, SHOWN)
    assert message["cash"] == "0.00"
    assert message["last_equity"] == "10.02"
    assert message["external_cash_flow"] == "1234567890123.12"


cent_amounts = st.one_of(
    st.integers(-(10**4), 10**4), st.integers(-(10**10), 10**10), st.integers(-(10**17), 10**17)
)
bases = st.one_of(
    st.decimals(-5, 5, places=2),
    st.decimals(-(10**9), 10**9, places=2),
    # An odd number of cents divided by these ends in half of the last digit of a ratio, or beside it.
    st.sampled_from([200_000, 600_000, 1_000_000, 25_000_000]).map(Decimal),
)


@dataclass(frozen=True)
class Case:
    """One account of a batch."""

    equity: int
    day_pnl: int
    base: Decimal
    as_of_ns: int
    unpriced: list[str]
    stale_ages_s: dict[str, int]
    unvalued: list[str]


names = st.lists(st.text(max_size=5).filter(bool), max_size=2, unique=True)
cases = st.builds(
    Case,
    equity=cent_amounts,
    day_pnl=cent_amounts,
    base=bases,
    as_of_ns=st.sampled_from([-1, 0, NOW_NS, NOW_NS + 999, NOW_NS + 123_456_789]),
    unpriced=names,
    stale_ages_s=st.dictionaries(st.text(max_size=5), st.integers(0, 10**6), max_size=2),
    unvalued=names,
)


def plain_message(case: Case, sequence: int, published: str) -> str:
    """The message written down with what Python brings along, one field after the other."""
    fields: dict[str, object] = {"type": "portfolio", "account_id": 'a"b', "epoch": 9, "sequence": sequence}
    equity = None if case.unpriced else case.equity
    day_pnl = None if case.unpriced or case.unvalued else case.day_pnl
    ratio = day_pnl / 100 / float(case.base) if day_pnl is not None and case.base > 0 else None
    fields["equity"] = plain_money(equity)
    fields |= {"cash": "0.00", "last_equity": format(case.base, ".2f"), "external_cash_flow": "0.00"}
    fields["day_pnl"] = plain_money(day_pnl)
    fields["day_pnl_ratio"] = None if ratio is None else plain_ratio(ratio)
    fields["as_of"] = plain_time(max(case.as_of_ns, 0))
    fields |= {"stale": list(case.stale_ages_s), "unpriced": case.unpriced}
    fields["total_value"] = "—" if equity is None else plain_dollars(equity, "")
    fields["today_return"] = "—" if day_pnl is None else plain_dollars(day_pnl, "+")
    hundredths = 0 if ratio is None else abs(round(ratio * 100 * 100))
    if ratio is not None and hundredths < 10**12:
        assert day_pnl is not None
        sign = "-" if day_pnl < 0 else "+"
        fields["today_return"] = (
            f"{fields['today_return']} ({sign}{hundredths // 100}.{hundredths % 100:02d}%)"
        )
    fields |= {"timestamp": published, "record_as_of": plain_time(NOW_NS)}
    if case.unpriced:
        fields["known_equity"] = plain_money(case.equity)
    if case.stale_ages_s:
        fields["stale_ages_s"] = case.stale_ages_s
    if case.unvalued:
        fields["unvalued"] = case.unvalued
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def plain_ratio(ratio: float) -> float:
    """A ratio with seven decimals, rounded half-even by its exact value; never a negative zero."""
    with localcontext() as context:
        context.prec = 400
        return float(Decimal(ratio).quantize(Decimal("1e-7"), rounding=ROUND_HALF_EVEN)) + 0.0


def plain_money(amount: int | None) -> str | None:
    """Cents as dollars, by Decimal."""
    return None if amount is None else format(Decimal(amount) / 100, ".2f")


def plain_dollars(amount: int, plus: str) -> str:
    """Cents as dollars for people, by Decimal."""
    return f"{'-' if amount < 0 else plus}${abs(Decimal(amount)) / 100:,.2f}"


def plain_time(ns: int) -> str:
    """RFC 3339, by the standard library."""
    moment = datetime.fromtimestamp(ns // 10**9, UTC).replace(microsecond=ns % 10**9 // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@example([Case(0, -1, Decimal(10**6), NOW_NS, [], {}, [])])  # a cent of a million: 0.0, never -0.0
@example([Case(0, 30, Decimal(600_000), NOW_NS, [], {}, [])])  # a ratio with an exponent: 5e-07
@example(
    [
        Case(10**8 - 1, 99_999, Decimal(1), NOW_NS, [], {}, []),
        Case(10**8, -(10**5), Decimal(1), 0, [], {}, []),
    ]
)
@example(
    [Case(cents, cents, Decimal(200_000), 0, [], {}, []) for cents in range(1, 20_000, 2)]
)  # ratios that end in half
@given(st.lists(cases, max_size=6))
def test_a_batch_is_what_a_plain_writer_writes_one_by_one(batch: list[Case]) -> None:
    """Negative, zero, huge and sub-dollar amounts, unknown and stale ones, in any order: the same text."""
    always = [
        constant(account('a"b', last_equity=case.base, cash=0, unvalued=tuple(case.unvalued)), 9)
        for case in batch
    ]
    columns = (
        np.array([getattr(case, name) for case in batch], np.int64)
        for name in ("equity", "day_pnl", "as_of_ns")
    )
    shown = Figures(
        *columns,
        unpriced={i: case.unpriced for i, case in enumerate(batch) if case.unpriced},
        stale_ages_s={i: case.stale_ages_s for i, case in enumerate(batch) if case.stale_ages_s},
    )
    values = encode_values(always, range(7, 7 + len(batch)), shown, AS_OF_NS)
    written = [plain_message(case, 7 + i, plain_time(AS_OF_NS)) for i, case in enumerate(batch)]
    assert [value.decode() for value in values] == written


def test_a_row_says_every_field_of_the_protocol() -> None:
    """Option: 2 contracts of 100 at 1.25, bought for 200, previous close 1.10."""
    held = position("AAPL261218C00200000", 2, multiplier=100, cost_basis=200)
    shown = mark(
        "AAPL261218C00200000",
        1.25,
        source="opra",
        quality="real_time_opra",
        as_of_ns=AS_OF_NS,
        previous_close=1.1,
        previous_close_date="2026-11-19",
    )
    assert encode_row(held, shown) == (
        b'{"symbol":"AAPL261218C00200000","quantity":"2","mark":"1.25","mark_source":"opra",'
        b'"mark_as_of":"2026-11-20T15:04:05.123456Z","mark_quality":"real_time_opra","previous_close":"1.1",'
        b'"market_value":"250.00","day_pnl":"30.00","unrealized_pnl":"50.00"}'
    )


def test_numbers_of_a_row_have_no_exponent() -> None:
    """Small crypto quantities and prices are written out."""
    row = message_row(encode_row(position("PEPE/USD", "1E-8"), mark("PEPE/USD", 1.234e-7)))
    assert row["quantity"] == "0.00000001"
    assert row["mark"] == "0.0000001234"


@given(
    st.decimals(min_value=-(10**6), max_value=10**6, places=9),
    st.integers(1, 10**9).map(lambda tenths: tenths / 10_000),
    st.sampled_from([1, 100]),
    st.decimals(min_value=-(10**9), max_value=10**9, places=4),
)
def test_a_row_is_exact(quantity: Decimal, price: float, multiplier: int, cost_basis: Decimal) -> None:
    """Market value and unrealized P&L of any row equal Decimal arithmetic, rounded once."""
    held = position("A", quantity, multiplier=multiplier, cost_basis=cost_basis)
    row = message_row(encode_row(held, mark("A", price)))
    worth = quantity * multiplier * Decimal(str(price))
    assert row["market_value"] == oracle_cents(worth)
    assert row["unrealized_pnl"] == oracle_cents(worth - cost_basis)
