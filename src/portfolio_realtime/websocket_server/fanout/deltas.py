"""What changed between two publications of an account, for clients that ask for no more than that."""

from typing import Any, Final, NamedTuple

import msgspec

from portfolio_realtime.websocket_server.fanout.newest_columns import StreamPosition

TOLD_BY_POSITION: Final = frozenset(("epoch", "sequence"))  # fields that `at` tells

Change = int | str | float | list[Any] | dict[str, Any] | None

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


class Whole(NamedTuple):
    """All that a client shows of an account at one stream position."""

    at: StreamPosition
    value: bytes
    rows: dict[str, bytes] | None  # symbol -> JSON object of its position; None: not wanted
    bodies: dict[StreamPosition, bytes]  # what was made for clients that had something earlier


def gone_row(symbol: str) -> bytes:
    """The last row of a position that is gone."""
    return _encode({"symbol": symbol, "quantity": "0"})


def delta_head(number: int) -> bytes:
    """How a delta begins for a client that has given the account this number."""
    return b'{"type":"delta","delta":%d,' % number


def delta_body(base: Whole, newest: Whole) -> bytes:
    """The rest of a delta."""
    is_same_epoch = base.at.epoch == newest.at.epoch
    changes = _changes(_decode(base.value), _decode(newest.value)) if is_same_epoch else None
    value = newest.value if changes is None else _encode(changes)
    since = _encode(base.at.sequence if is_same_epoch else base.at)
    body = b'"at":%s,"base":%s,"value":%s' % (_encode(newest.at), since, value)
    if newest.rows is None:
        return body + b"}"
    rows = _changed_rows(base.rows or {}, newest.rows)
    return b'%s,"positions":[%s]}' % (body, b",".join(rows))


def _changed_rows(base: dict[str, bytes], newest: dict[str, bytes]) -> list[bytes]:
    rows = [gone_row(symbol) for symbol in base.keys() - newest.keys()]
    for symbol, row in newest.items():
        before = base.get(symbol)
        if before == row:
            continue
        changes = None if before is None else _changes(_decode(before), _decode(row))
        rows.append(row if changes is None else _encode([symbol, *changes]))
    return rows


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change] | None:
    """By threes: which field, how many characters of its text stay, and what follows them.

    A field is told by its place. None where the fields are others.
    """
    if list(before) != list(after):
        return None
    changes: list[Change] = []
    for place, (name, new) in enumerate(after.items()):
        old = before[name]
        if new == old or name in TOLD_BY_POSITION:
            continue
        if isinstance(new, str):
            kept = _kept(old, new) if isinstance(old, str) else 0
            changes += (place, kept, new[kept:])
        else:
            changes += (place, 0, new)
    return changes


def _kept(old: str, new: str) -> int:
    """How many characters at the beginning stay; ASCII alone, which every language counts alike."""
    for place, (before, after) in enumerate(zip(old, new, strict=False)):
        if before != after or before > "\x7f":
            return place
    return min(len(old), len(new))
