"""The proof sees the product's rounding wrong: a fault is planted in it, and the proof must not hold."""

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
