"""All activities in the order of their REST ids, as pages list them."""

from collections.abc import Iterable

from alpaca_sim.core.ledger import Activity, Ledger
from alpaca_sim.streams.activities_json import row_id

Row = tuple[str, Activity]  # REST id and activity


class ActivityIndex:
    """All activities sorted by their REST id, updated when `rows` is called."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._rows: list[Row] = []

    def rows(self) -> list[Row]:
        """All rows, ascending by id. The caller must not change them."""
        new = self._ledger.activities[len(self._rows) :]
        if new:
            self._rows += rows_of(new)
            self._rows.sort(key=id_of)  # nearly sorted already, so this is fast
        return self._rows


def rows_of(activities: Iterable[Activity]) -> list[Row]:
    """Activities with their REST ids, in the order given."""
    return [(row_id(activity), activity) for activity in activities]


def id_of(row: Row) -> str:
    """The key that rows are sorted by."""
    return row[0]
