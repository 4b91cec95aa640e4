"""Publications as a calculator would make them, and what a client makes of frames."""

import json
from collections.abc import Iterable
from typing import Any

from portfolio_realtime.model import Publication, PublicationBatch, Publications
from portfolio_realtime.state import valuations
from portfolio_realtime.websocket_server.fanout.hub import Gathered


def value(account_id: str, epoch: int, sequence: int, equity: str | None = "100.00") -> dict[str, Any]:
    """The portfolio message without positions."""
    return {
        "type": "portfolio",
        "account_id": account_id,
        "epoch": epoch,
        "sequence": sequence,
        "equity": equity,
        "cash": "10.00",
        "last_equity": "90.00",
        "external_cash_flow": "0.00",
        "day_pnl": "10.00",
        "day_pnl_ratio": 0.1111111,
        "as_of": "2026-11-20T15:04:05.123456Z",
        "stale": [],
        "unpriced": [],
        "total_value": f"${equity}",
        "today_return": "+$10.00 (+11.11%)",
        "timestamp": "2026-11-20T15:04:05.123456Z",
        "record_as_of": "2026-11-20T15:01:12.500000Z",
    }


def row(symbol: str, quantity: str) -> dict[str, Any]:
    """One position."""
    return {
        "symbol": symbol,
        "quantity": quantity,
        "mark": "10",
        "mark_source": "iex",
        "mark_as_of": "2026-11-20T15:04:05.123456Z",
        "mark_quality": "iex",
        "previous_close": "9",
        "market_value": "100.00",
        "day_pnl": "10.00",
        "unrealized_pnl": "5.00",
    }


def publication(
    account_id: str,
    epoch: int,
    sequence: int,
    quantities: dict[str, str] | None = None,
    equity: str | None = "100.00",
    **fields: Any,
) -> Publication:
    """A publication; `quantities` maps symbol -> quantity, None: nobody watches the positions.

    `fields` replace or add fields of the message.
    """
    rows = None
    if quantities is not None:
        rows = [
            (symbol, json.dumps(row(symbol, quantity)).encode()) for symbol, quantity in quantities.items()
        ]
    message = {**value(account_id, epoch, sequence, equity), **fields}
    encoded = json.dumps(message, separators=(",", ":")).encode()
    return Publication(account_id, sequence, encoded, rows)


def batch_of(epoch: int, publications: Iterable[Publication], *more: Any) -> PublicationBatch:
    """These publications as a calculator announces them."""
    return valuations.batch_of(epoch, Publications.of(publications), *more)


def stored(publication: Publication) -> bytes:
    """A publication as it is stored."""
    if publication.rows is None:
        return publication.value
    return valuations.with_rows(publication.value, publication.rows)


def gathered(*batches: PublicationBatch) -> Gathered:
    """All publications of these."""
    together = Gathered()
    for batch in batches:
        together.add(batch)
    return together


def payload(frame: bytes) -> Any:
    """The JSON message inside an unmasked text frame."""
    assert frame[0] == 0x81
    header = {126: 4, 127: 10}.get(frame[1], 2)
    return json.loads(frame[header:])


def payloads(frames: bytes) -> list[Any]:
    """The messages in unmasked text frames, one after the other."""
    messages: list[Any] = []
    while frames:
        header = {126: 4, 127: 10}.get(frames[1], 2)
        end = header + (int.from_bytes(frames[2:header], "big") if header > 2 else frames[1])
        messages.append(payload(frames[:end]))
        frames = frames[end:]
    return messages


class Picture:
    """What one client shows: the newest message, positions merged by symbol; as seldom as it has asked."""

    def __init__(self, max_frequency_hz: float | None = None) -> None:
        self.message: dict[str, Any] | None = None
        self.quantities: dict[str, str] = {}
        self.positions_seen: list[tuple[int, int]] = []
        self._interval_s = 1 / max_frequency_hz if max_frequency_hz else 0.0
        self._shown_s = float("-inf")

    def show(self, message: dict[str, Any], now_s: float) -> None:
        """Take a portfolio message in, at this time."""
        assert now_s - self._shown_s >= self._interval_s, "sooner after the last one than was asked"
        self._shown_s = now_s
        self.message = message
        self.positions_seen.append((message["epoch"], message["sequence"]))
        for position in message.get("positions", []):
            if position["quantity"] == "0":
                self.quantities.pop(position["symbol"], None)
            else:
                self.quantities[position["symbol"]] = position["quantity"]
