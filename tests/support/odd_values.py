"""Values that no field expects, and elements that are none, for the sweeps of lists that others write."""

from typing import Any

SPOILT: list[Any] = [
    None,
    "",
    7,
    -1,
    True,
    "text",
    "NaN",
    "-Infinity",
    "1e400",
    "9" * 40,
    "0." + "0" * 40 + "1",
    "0E-99999",
    1e308,
    [],
    {},
    [None],
    {"id": None},
    "EUR",
    "a_kind_to_come",
    "0000-00-00",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00+14:00",
    "\ud83d\ude00",
]
NO_ELEMENT: list[Any] = [None, 7, "text", [], {}, True, [[[]]]]
