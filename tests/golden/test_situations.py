"""The number is right in every situation that a brokerage account meets; each file says why."""

from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from .situation import Situation, check

FOLDER: Final = Path(__file__).parent
FILES: Final = sorted((FOLDER / "situations").glob("*.json"))
CONDITIONS: Final[list[dict[str, Any]]] = msgspec.json.decode((FOLDER / "conditions.json").read_bytes())
DAY: Final = "2026-11-20"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_figure_is_the_one_worked_out_by_hand(path: Path) -> None:
    """Alpaca's messages go in, the published figures and rows come out, equal to the file's."""
    assert check(path) > 0


def _trade(second: int, price: float, conditions: list[str], tape: str) -> dict[str, Any]:
    at = f"{DAY}T15:00:{second:02d}Z"
    trade = {"T": "t", "S": "AAPL", "i": second, "x": "D", "p": price, "c": conditions, "z": tape, "t": at}
    return {"at": at, "stream": {"stocks": [trade]}}


@pytest.mark.parametrize("case", CONDITIONS, ids=lambda case: f"{case['code']}-{case['tape']}")
def test_a_condition_does_to_the_value_what_alpacas_table_says(case: dict[str, Any]) -> None:
    """Ten shares: a trade at 101 with this condition, alone and after a regular one at 100, counts or not."""
    account = {"status": "ACTIVE", "currency": "USD", "cash": "0", "last_equity": "0"}
    positions = [{"symbol": "AAPL", "asset_class": "us_equity", "qty": "10", "side": "long"}]
    stated = {"at": f"{DAY}T14:00:00Z", "account": {**account, "balance_asof": "2026-11-19"}}
    regular = _trade(1, 100.0, [], case["tape"])
    special = _trade(2, 101.0, [case["code"]], case["tape"])
    for steps, expected in (([special], case["alone"]), ([regular, special], case["after_100"])):
        situation = Situation()
        for step in ({**stated, "positions": positions}, *steps):
            situation.take(step)
        figures, _ = situation.published(f"{DAY}T15:00:03Z")
        assert figures["equity"] == expected, case
