"""Changes between two publications of an account, for clients that request deltas."""

from typing import Any, Final, NamedTuple

import msgspec

from portfolio_realtime.websocket_server.fanout.newest_columns import StreamPosition

TOLD_BY_POSITION: Final = frozenset(("epoch", "sequence"))  # fields that `at` contains

Change = int | str | float | list[Any] | dict[str, Any] | None

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


class Whole(NamedTuple):
    """The complete state of an account for a client, at one stream position."""

    at: StreamPosition
    value: bytes
    rows: dict[str, bytes] | None  # symbol -> JSON object of its position; None: not wanted
    bodies: dict[StreamPosition, bytes]  # bodies of deltas to this state, by the position of their base


def gone_row(symbol: str) -> bytes:
    """The last row of a removed position, with quantity 0."""
    return _encode({"symbol": symbol, "quantity": "0"})


def delta_head(number: int) -> bytes:
    """The start of a delta message, for a client that has given the account this number."""
    return b'{"type":"delta","delta":%d,' % number


def delta_body(base: Whole, newest: Whole) -> bytes:
    """The rest of a delta message. After a change of epoch it contains the whole value."""
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
    """The changed fields in groups of three: place of the field, number of characters that stay, new text.

    For a value that is not text, the second is 0 and the third is the new value. None if the fields differ.
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
    """The length of the common beginning, only in ASCII: languages count other characters differently."""
    for place, (before, after) in enumerate(zip(old, new, strict=False)):
        if before != after or before > "\x7f":
            return place
    return min(len(old), len(new))
