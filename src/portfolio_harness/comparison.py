"""Compares what a client shows of an account with the ledger: every figure of the portfolio message.

The market must stand still. Left out is what the ledger does not know (`mark_source`, `mark_quality`), and
what depends on the moment of publication (`timestamp`, and which marks are old enough to be `stale`).
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from portfolio_harness.oracle import Truth

ACCOUNT_RECORD: Final = "account_record"  # in `stale`: docs/api.md
EXACT: Final = ("quantity", "mark", "previous_close")  # decimals whose text may differ
ALWAYS: Final = (
    *("day_pnl_ratio", "total_value", "today_return"),
    *("as_of", "record_as_of", "stale", "unpriced"),
)
RATIO_TOLERANCE: Final = Decimal("0.0000002")  # of a number with seven decimals
PERCENT_TOLERANCE: Final = Decimal("0.01")
FLOAT_TOLERANCE: Final = Decimal("1e-12")
UNKNOWN: Final = "—"  # in text for people
RETURN: Final = re.compile(r"(?P<dollars>[+-]\$[0-9,]+\.[0-9]{2})( \((?P<percent>[+-][0-9]+\.[0-9]{2})%\))?")

Rows = Mapping[str, Mapping[str, Any]]  # symbol -> its newest row


def differences(newest: Mapping[str, Any], rows: Rows | None, truth: Truth) -> list[str]:
    """Names of the fields that differ from the truth. `rows` is None for a client without positions."""
    if missing := [name for name in ALWAYS if name not in newest]:
        return missing
    expected: dict[str, str | None] = dict(truth.figures)
    if truth.unpriced:
        expected |= {"equity": None, "day_pnl": None, "known_equity": truth.figures["equity"]}
    wrong = [name for name, figure in expected.items() if newest.get(name) != figure]
    if "day_pnl" in expected:
        wrong += _derived(newest, expected, truth.day_base)
    wrong += ["unpriced"] if {*newest["unpriced"]} != {*truth.unpriced} else []
    wrong += [name for name in ("awaited", "without_feed") if newest.get(name)]
    wrong += ["record_as_of"] if truth.booked_at and newest["record_as_of"] < truth.booked_at else []
    marks = {*newest["stale"]} - {ACCOUNT_RECORD}
    wrong += ["stale_ages_s"] if {*newest.get("stale_ages_s", ())} - {ACCOUNT_RECORD} != marks else []
    if rows is not None:
        wrong += _of_positions(newest, rows, truth)
    return wrong


def _derived(newest: Mapping[str, Any], expected: Mapping[str, str | None], day_base: Decimal) -> list[str]:
    """Names of the fields that differ from what equity, day P&L and its base say."""
    day_pnl, shown, told = expected["day_pnl"], newest["day_pnl_ratio"], newest["today_return"]
    wrong = ["total_value"] if newest["total_value"] != _dollars(expected["equity"], "") else []
    ratio = Decimal(day_pnl) / day_base if day_pnl is not None and day_base > 0 else None
    ratio_shown = None if shown is None else Decimal(str(shown))
    wrong += [] if _is_near(ratio_shown, ratio, RATIO_TOLERANCE) else ["day_pnl_ratio"]
    if day_pnl is None:
        return wrong + ([] if told == UNKNOWN else ["today_return"])
    parts = RETURN.fullmatch(told)
    if parts is None or parts["dollars"] != _dollars(day_pnl, "+"):
        return [*wrong, "today_return"]
    percent = None if parts["percent"] is None else Decimal(parts["percent"])
    is_right = _is_near(percent, None if ratio is None else ratio * 100, PERCENT_TOLERANCE)
    return wrong + ([] if is_right else ["today_return"])


def _dollars(amount: str | None, plus: str) -> str:
    """Dollars for people; unknown: a dash."""
    if amount is None:
        return UNKNOWN
    return f"{'-' if amount.startswith('-') else plus}${Decimal(amount.lstrip('-')):,.2f}"


def _is_near(shown: Decimal | None, expected: Decimal | None, tolerance: Decimal) -> bool:
    if shown is None or expected is None:
        return shown is expected
    return abs(shown - expected) <= tolerance + abs(expected) * FLOAT_TOLERANCE


def _of_positions(newest: Mapping[str, Any], rows: Rows, truth: Truth) -> list[str]:
    """Names of the fields of positions that differ, and `as_of` if it is not the newest of its inputs."""
    held = {symbol: row for symbol, row in rows.items() if row["quantity"] != "0"}
    wrong = ["positions"] if held.keys() != {*truth.rows, *truth.unpriced} else []
    wrong += sorted(
        {
            f"positions.{name}"
            for symbol, expected in truth.rows.items()
            for name, figure in expected.items()
            if symbol in held and not _is_same(name, held[symbol].get(name), figure)
        }
    )
    wrong += ["stale"] if not {*newest["stale"]} <= {*held, ACCOUNT_RECORD} else []
    times = [newest["record_as_of"], *(str(row["mark_as_of"]) for row in truth.rows.values())]
    return wrong + (["as_of"] if newest["as_of"] != max(times) else [])


def _is_same(name: str, shown: str | None, expected: str | None) -> bool:
    if expected is None:
        return True
    if name in EXACT and shown is not None:
        return Decimal(shown) == Decimal(expected)
    return shown == expected
