"""One situation: Alpaca's own messages in, in the order of time, the published figures out.

A file is a list of steps. Each has a time `at` and one of: `account` with `positions` (REST), `event` (an
activity), `snapshots` or `stream` (market data, by feed), `expect` (figures and rows, and `why`).
"""

from pathlib import Path
from typing import Any, Final

import msgspec

from portfolio_realtime.clock import NS_PER_S, new_york_date_of, parse_rfc3339
from portfolio_realtime.market_data_consumer.conditions import crypto_effect, option_effect, stock_effect
from portfolio_realtime.market_data_consumer.mark_book import MarkBook
from portfolio_realtime.market_data_consumer.messages import (
    Cancel,
    Correction,
    Snapshot,
    StreamTrade,
    decode_frame,
)
from portfolio_realtime.model import CRYPTO, US_EQUITY, US_OPTION
from portfolio_realtime.symbol_collector.model import Activity
from portfolio_realtime.symbol_collector.records.account_record import AccountRecord
from portfolio_realtime.symbol_collector.sources import parse
from portfolio_realtime.valuation.valuer import Valuer

ACCOUNT_ID: Final = "0d18ae51"
PRICE_TTL_S: Final = 3600
FEED_OF: Final = {US_EQUITY: "stocks", US_OPTION: "options", CRYPTO: "crypto"}
OF_THE_MESSAGE: Final = ("type", "account_id", "epoch", "sequence", "as_of", "record_as_of", "timestamp")
OF_THE_ROW: Final = ("symbol", "mark_source", "mark_as_of", "mark_quality")
WORDS: Final = ("total_value", "today_return")  # compared where a file says them


class ToldRecord(AccountRecord):
    """A record as stories outside this repository move it."""

    def apply(self, activity: Activity, now_ns: int) -> bool:
        """Take in an event."""
        return self.apply_activity(activity, now_ns)


class Situation:
    """The real code between Alpaca's JSON and a publication, without services and without a clock."""

    def __init__(self) -> None:
        self._record = ToldRecord(ACCOUNT_ID)
        self._books = {
            "stocks": MarkBook("iex", stock_effect),
            "options": MarkBook("indicative", option_effect, is_sane=False, is_quoted=True),
            "crypto": MarkBook("crypto", crypto_effect),
        }
        self._valuer = Valuer(price_ttl_s=PRICE_TTL_S, min_update_interval_s=0)
        self._version = 0

    def take(self, step: dict[str, Any]) -> None:
        """Let one step that is no expectation happen."""
        now_ns = parse_rfc3339(step["at"])
        if "account" in step:
            statement = parse.statement(ACCOUNT_ID, step["account"], step["positions"])
            self._record.observe(statement, now_ns, now_ns)
        elif "event" in step:
            event = {"account_id": ACCOUNT_ID, "at": step["at"], **step["event"]}
            self._record.apply_activity(parse.activity(event), now_ns)
        for feed, snapshots in step.get("snapshots", {}).items():
            for symbol, snapshot in snapshots.items():
                read = msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot)
                self._books[feed].add_snapshot(symbol, read, new_york_date_of(now_ns), now_ns)
        for feed, frame in step.get("stream", {}).items():
            self._hear(self._books[feed], frame, now_ns)
        self._follow(now_ns)

    def published(self, at: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The figures and the rows by symbol that a client has at this time."""
        now_ns = parse_rfc3339(at)
        self._follow(now_ns)
        for book in self._books.values():
            self._valuer.apply_marks([mark for mark, _ in book.take_changed()])
        (publication,) = self._valuer.flush(now_ns, now_ns / NS_PER_S).publications
        message = msgspec.json.decode(publication.value)
        rows = {symbol: msgspec.json.decode(row) for symbol, row in publication.rows or ()}
        figures = {name: figure for name, figure in message.items() if name not in OF_THE_MESSAGE}
        return figures, {symbol: _without(row, OF_THE_ROW) for symbol, row in rows.items()}

    def _follow(self, now_ns: int) -> None:
        """What the record holds is followed and valued."""
        if self._record.is_known:
            self._version += 1
            account = self._record.account(self._version, now_ns)
            for position in account.positions:
                if feed := FEED_OF.get(position.asset_class):
                    self._books[feed].follow([position.symbol])
            if self._version == 1:
                self._valuer.watch(account, 1, with_positions=True)
            else:
                self._valuer.put_account(account)

    def _hear(self, book: MarkBook, frame: list[Any], now_ns: int) -> None:
        messages, _ = decode_frame(msgspec.json.encode(frame).decode())
        for message in messages:
            if isinstance(message, StreamTrade):
                book.add_trade(message, now_ns)
            elif isinstance(message, Cancel):
                book.cancel(message, now_ns)
            elif isinstance(message, Correction):
                book.correct(message, now_ns)


def check(path: Path) -> int:
    """Let a file happen; every expectation must be met. How many figures were compared."""
    situation, compared = Situation(), 0
    for step in msgspec.json.decode(path.read_bytes()):
        if "expect" not in step:
            situation.take(step)
            continue
        expected = step["expect"]
        figures, rows = situation.published(step["at"])
        wanted = {"stale": [], "unpriced": [], **expected["figures"]}
        shown = _without(figures, [name for name in WORDS if name not in wanted])
        assert shown == wanted, expected["why"]
        assert rows == expected["rows"], expected["why"]
        compared += len(wanted) + sum(len(row) for row in rows.values())
    return compared


def _without(fields: dict[str, Any], names: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}
