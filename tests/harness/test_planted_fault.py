"""Faults are planted in the product, and the proof must not hold: wrong rounding, lost rows, wrong fields."""

from decimal import Decimal
from pathlib import Path

import pytest

from portfolio_harness import convergence, demo, oracle
from portfolio_harness.convergence import Compared
from portfolio_harness.oracle import Oracle, to_the_cent
from portfolio_harness.system import simulator_options
from portfolio_realtime.valuation.rounding import cents, money

ACCOUNTS = 8
CONVERGE_S_MAX = 90.0
PLANT = '''
"""Python runs this at the start of every process: the product's rounding is one cent too high."""
from portfolio_realtime.valuation import float_rounding, rounding

round_to_cents, cents = float_rounding.round_to_cents, rounding.cents

def one_more(dollars, error_bound):
    rounded, is_open = round_to_cents(dollars, error_bound)
    return rounded + 1, is_open

float_rounding.round_to_cents, rounding.cents = one_more, lambda dollars: cents(dollars) + 1
'''


def share_the_fault(number: str) -> str:
    """What an oracle would say that rounds by the product's functions."""
    return money(cents(Decimal(number)) + 1)


WITHOUT_ROWS = '''
"""The server sends no positions to clients that have asked for them."""
from portfolio_realtime.websocket_server.fanout.watched_account import WatchedAccount

message = WatchedAccount.message

def without_rows(self, since, *, with_positions):
    text = message(self, since, with_positions=with_positions)
    return text.partition(b',"positions":')[0] + b"}" if with_positions else text

WatchedAccount.message = without_rows
'''
ROW_FIELDS = ("quantity", "mark", "mark_as_of", "previous_close", "market_value", "day_pnl", "unrealized_pnl")
FIGURES = ("equity", "cash", "last_equity", "external_cash_flow", "day_pnl")
TEXTS = ("total_value", "today_return", "day_pnl_ratio", "as_of", "record_as_of")
LISTS = ("stale", "unpriced", "awaited", "without_feed", "stale_ages_s")
WRONG_FIELDS = f'''
"""Each field of a message and of a row is wrong."""
import msgspec
from portfolio_realtime.valuation import valuer

encode_row, encode_values = valuer.encode_row, valuer.encode_values
wrong = dict.fromkeys({ROW_FIELDS!r}, "0.07") | {{"mark_as_of": "2026-01-01T00:00:00.000000Z"}}
message = dict.fromkeys({FIGURES!r}, "0.07") | dict.fromkeys({TEXTS!r}, "2026-01-01T00:00:00.000000Z")
message |= dict.fromkeys({LISTS!r}, {{"NONE": "bond"}}) | {{"day_pnl_ratio": 0.5, "stale": ["NOT HELD"]}}

def row(position, mark):
    return msgspec.json.encode(msgspec.json.decode(encode_row(position, mark)) | wrong)

def values(*figures):
    return [msgspec.json.encode(msgspec.json.decode(one) | message) for one in encode_values(*figures)]

valuer.encode_row, valuer.encode_values = row, values
'''


@pytest.mark.parametrize(
    ("exact", "rounded"),
    [
        ("0.005", "0.00"),
        ("0.015", "0.02"),
        ("0.0150000000000000000000000000000001", "0.02"),
        ("0.0049999999999999999999999999999999", "0.00"),
        ("-0.005", "0.00"),
        ("-2.675", "-2.68"),
        ("-2.665", "-2.66"),
        ("104211.37", "104211.37"),
        ("7", "7.00"),
        ("12345678901234567890123456789.125", "12345678901234567890123456789.12"),
    ],
)
def test_the_oracle_rounds_half_even_by_itself(exact: str, rounded: str) -> None:
    """To the cent, however long the number; no zero has a sign."""
    assert to_the_cent(exact) == rounded


async def test_a_fault_in_the_products_rounding_turns_the_proof_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the oracle says is none of the product's arithmetic.

    First the clients are compared with an oracle that shares the fault: there they converge, so that it is
    the fault alone which the oracle then sees.
    """
    (tmp_path / "sitecustomize.py").write_text(PLANT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def compare(asked: Oracle, clients: Compared) -> tuple[dict[str, list[str]], float | None]:
        with monkeypatch.context() as patch:
            patch.setattr(oracle, "to_the_cent", share_the_fault)
            unseen, _ = await convergence.converge(asked, clients, deadline_s=CONVERGE_S_MAX)
        assert not unseen, "an oracle that shares the fault sees something else"
        return await convergence.converge(asked, clients, deadline_s=0)

    monkeypatch.setattr(demo, "converge", compare)
    proof = await demo.prove(simulator_options(ACCOUNTS, 50, 200, 7), port=0, duration_s=1.0, seed=7)

    assert proof.compared == ACCOUNTS
    assert proof.mismatches, "values that are a cent too high passed for right"
    assert not proof.is_clean
    assert {"equity", "day_pnl"} & {name for wrong in proof.differing.values() for name in wrong}


async def proof_with(plant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> demo.Proof:
    """The proof of a system with this fault in each of its processes."""
    (tmp_path / "sitecustomize.py").write_text(plant)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options = [*simulator_options(ACCOUNTS, 50, 200, 7), "--activities-per-second", "30"]
    return await demo.prove(options, port=0, duration_s=2.0, seed=7)


async def test_a_product_that_loses_all_positions_turns_the_proof_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the figures of every account become right."""
    proof = await proof_with(WITHOUT_ROWS, tmp_path, monkeypatch)

    assert proof.mismatches == ACCOUNTS
    assert not proof.is_clean
    assert all("positions" in wrong for wrong in proof.differing.values())


async def test_every_field_that_is_wrong_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the message, and of its positions."""
    proof = await proof_with(WRONG_FIELDS, tmp_path, monkeypatch)

    seen = {name for wrong in proof.differing.values() for name in wrong}
    rows = {f"positions.{name}" for name in ROW_FIELDS}
    assert seen - {"positions"} == {*FIGURES, *TEXTS, *LISTS, *rows}
