"""Compares one account's equity, by our own record, marks and arithmetic, with the broker's figure."""

from decimal import Decimal
from typing import Final

from portfolio_realtime.alpaca.credentials import MarketLogin
from portfolio_realtime.alpaca.http import HttpClient
from portfolio_realtime.cli.doctor.alpaca import authentication
from portfolio_realtime.cli.doctor.alpaca import remedy as remedy_of
from portfolio_realtime.cli.doctor.findings import Finding, Status
from portfolio_realtime.cli.doctor.limits import Asked
from portfolio_realtime.clock import SystemClock, new_york_date_of
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import BrokerError, FeedRefused, FeedUnavailable, RequestFailed
from portfolio_realtime.market_data_consumer.feeds import Feed, Schedule, schedules
from portfolio_realtime.market_data_consumer.mark_book import MarkBook
from portfolio_realtime.market_data_consumer.snapshots import SYMBOLS_MAX, Snapshots
from portfolio_realtime.model import Account, plain
from portfolio_realtime.symbol_collector.model import CLOSED, Statement
from portfolio_realtime.symbol_collector.records.account_record import AccountRecord
from portfolio_realtime.symbol_collector.sources.account_source import AccountSource
from portfolio_realtime.symbol_collector.sources.opening import open_client
from portfolio_realtime.symbol_collector.sources.parse import PayloadRefused, decode, listed_accounts
from portfolio_realtime.valuation.rounding import cents, exact_equity, exposure, money

CHECK: Final = "equity"
# Ratios of equity or positions. Small ones are normal: the broker's prices have another time and venue.
DRIFT_WARN: Final = Decimal("0.005")
DRIFT_FAIL: Final = Decimal("0.05")
SYMBOLS_LISTED_MAX: Final = 5


async def examine(settings: Settings, account_id: str, asked: Asked) -> Finding:
    """Value an account ("": the first open one) and compare its equity with the broker's.

    `asked` is told when the prices are asked for.
    """
    try:
        async with open_client(settings, lambda status: None) as client:
            account_id = account_id or await _first(settings, client)
            if not account_id:
                return Finding(CHECK, Status.SKIP, "the broker has no open account yet")
            statement = await client.statement(account_id, is_urgent=True)
    except (BrokerError, RequestFailed) as error:
        return Finding(CHECK, Status.FAIL, str(error), "check the keys above, or try again later")
    if statement is None:
        remedy = "choose an account that the keys may see: --account ID"
        return Finding(CHECK, Status.FAIL, f"the account {account_id} does not exist", remedy)
    asked.peer, asked.remedy = settings.host("data"), remedy_of("data")
    try:
        prices = await _prices(settings, statement)
    except (FeedRefused, FeedUnavailable) as error:
        return Finding(CHECK, Status.SKIP, f"prices are not available: {error}")
    return _compared(_account(statement), statement, prices)


async def _first(settings: Settings, client: AccountSource) -> str:
    """The id of the first open account; "" when there is none. Raises BrokerError, httpx.HTTPError."""
    if settings.account_source == "trading":
        return (await client.accounts())[0].account_id
    params = {"sort": "asc", "entities": "contact", "status": "ACTIVE"}
    async with HttpClient(settings.host("broker"), authentication(settings)) as http:
        answer = await http.get("/v1/accounts", params)
    if not answer.is_success:
        raise RequestFailed(f"/v1/accounts: HTTP {answer.status}")
    try:
        page, _ = listed_accounts(decode(answer.body))
    except ValueError as error:
        raise PayloadRefused(f"accounts: {error}") from None
    return next((one.account_id for one in page if one.status != CLOSED), "")


def _account(statement: Statement) -> Account:
    now_ns = SystemClock().now_ns()
    record = AccountRecord(statement.state.account_id)
    record.observe(statement, now_ns, now_ns)
    return record.account(0, now_ns)


async def _prices(settings: Settings, statement: Statement) -> dict[str, float]:
    """Symbol -> our own mark of each held symbol, from snapshots. Raises FeedRefused, FeedUnavailable."""
    now_ns = SystemClock().now_ns()
    prices: dict[str, float] = {}
    for schedule in schedules(settings):
        symbols = sorted(
            holding.symbol
            for holding in statement.holdings.values()
            if holding.asset_class == schedule.day.asset_class
        )
        if symbols:
            prices.update(await _marks(settings, schedule, symbols, now_ns))
    return prices


async def _marks(settings: Settings, schedule: Schedule, symbols: list[str], now_ns: int) -> dict[str, float]:
    book = schedule.new_book()
    book.follow(symbols)
    for feed in schedule.at(now_ns):
        await _read(settings, feed, symbols, book, now_ns)
    return {mark.symbol: mark.price for mark, _ in book.take_changed()}


async def _read(settings: Settings, feed: Feed, symbols: list[str], book: MarkBook, now_ns: int) -> None:
    if feed.snapshots_feed is None and feed.source == "test":
        return
    snapshots = Snapshots(settings, feed, MarketLogin(settings))
    try:
        for start in range(0, len(symbols), SYMBOLS_MAX):
            found = await snapshots.read(symbols[start : start + SYMBOLS_MAX])
            for symbol, snapshot in found.items():
                date = new_york_date_of(now_ns)
                book.add_snapshot(symbol, snapshot, date, now_ns, feed.source, has_close=feed.has_closes)
    finally:
        await snapshots.close()


def _compared(account: Account, statement: Statement, prices: dict[str, float]) -> Finding:
    missing = [one.symbol for one in account.positions if one.quantity and one.symbol not in prices]
    if missing:
        listed = ", ".join(missing[:SYMBOLS_LISTED_MAX]) + (" …" if len(missing) > SYMBOLS_LISTED_MAX else "")
        found = f"{account.account_id}: no price of {listed}, so there is no total"
        remedy = "check whether the feed has these symbols: see ALPACA_DATA_FEED"
        return Finding(CHECK, Status.WARN, found, remedy)
    ours, brokers = exact_equity(account, prices), statement.state.equity
    found = f"{account.account_id}: {money(cents(ours))}"
    if brokers is None:
        remedy = "nothing: there is no figure to compare with"
        return Finding(CHECK, Status.WARN, f"{found}; the broker states no equity", remedy)
    at_stake = max(abs(brokers), exposure(account, prices))
    drift = abs(ours - brokers) / at_stake if at_stake else abs(ours)
    found += f", the broker states {money(cents(brokers))} ({plain(round(100 * drift, 3))} % apart)"
    if drift <= DRIFT_WARN:
        return Finding(CHECK, Status.OK, found)
    status = Status.FAIL if drift > DRIFT_FAIL else Status.WARN
    remedy = (
        "prices may be old: outside the session and on iex, prices of rarely traded symbols may be far apart"
    )
    return Finding(CHECK, status, found, remedy)
