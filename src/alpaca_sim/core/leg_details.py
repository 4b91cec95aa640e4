"""What the legs of a corporate action state about themselves, in each form that Alpaca sends.

Sources: the schemas `Common…ActivityV2` of broker.yaml 1.1.1, which demand a `group_id` of options only; the
samples of the guide to the activity stream (2026-09-16).
"""

from typing import NamedTuple

CUSIP = "000000000"
OCC_TAIL = len("261120P00060000")
# symbol: each leg names what it moves, and all have one `group_id`. parties: each names what leaves and what
# comes, and all have one `ca_id`. loose: each names what it moves, and no id tells that they belong together.
FORMS = ("symbol", "parties", "loose")
_OPTION_TYPES = ("OPASN", "OPEXC")


class LegDetails(NamedTuple):
    """The details of the leg that leaves, of the one that comes, and of cash beside them."""

    leaves: dict[str, str]
    comes: dict[str, str]
    cash: dict[str, str]


def leg_details(form: str, code: str, symbols: tuple[str, str], group_id: str, today: str) -> LegDetails:
    """The details of a group of this type, in one of FORMS. `symbols` are what leaves and what comes."""
    left, came = symbols
    if form == "parties":
        shared = {"group_id" if code in _OPTION_TYPES else "ca_id": group_id, "system_date": today}
        both = shared | _parties(code, left, came, today)
        return LegDetails(both, both, both)
    shared = {"system_date": today}
    if form == "symbol" or code in _OPTION_TYPES:
        shared["group_id"] = group_id
    return LegDetails({**shared, "symbol": left}, {**shared, "symbol": came}, {**shared, "symbol": left})


def underlying_of(contract: str) -> str:
    """The stock of an option: its root without the digit of an adjustment."""
    return contract[:-OCC_TAIL].rstrip("0123456789")


def _parties(code: str, left: str, came: str, today: str) -> dict[str, str]:
    if code in _OPTION_TYPES:
        return {"symbol": underlying_of(left), "contract_symbol": left}
    if code == "OPCA":
        return {"symbol": underlying_of(left), "old_contract_symbol": left, "new_contract_symbol": came}
    old, new = ("acquiree", "acquirer") if code == "MA" else ("old", "new")
    named = {f"{old}_symbol": left, f"{new}_symbol": came, f"{old}_cusip": CUSIP, f"{new}_cusip": CUSIP}
    return named | ({"effective_date": today, "payable_date": today} if code == "MA" else {})
