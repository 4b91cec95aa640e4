"""Seeded accounts: their owners, their holdings at the last close, and their activities since then."""

import random
import uuid
from datetime import date
from decimal import Decimal

from alpaca_sim.core.clock import SECOND_NS, new_york_ns
from alpaca_sim.core.decimals import exact
from alpaca_sim.core.ledger import Account, Holdings, Ledger, Position, pair_of
from alpaca_sim.core.market import Listing, Market
from alpaca_sim.core.trader import Trader

POSITIONS_MAX = 15
SHORT_POSITION_SHARE = 0.016  # an account holds about six equities, so one account in ten has a short
EMPTY_SHARE = 0.05
OPTION_SHARE = 0.15
CRYPTO_SHARE = 0.2
MARGIN_SHARE = 0.1
LONG_CASH_SHARE = 0.15
ACTIVE_SHARE = 0.3  # of the accounts have activities since the last close
FIRST_CREATED_NS = 1_735_740_000 * SECOND_NS  # 2025-01-01T14:00:00Z
CREATION_SPACING_NS = 97_000_001_000
SESSION_CLOSE_HOUR = 16
GIVEN_NAMES = [
    "Ada",
    "Alan",
    "Barbara",
    "Claude",
    "Donald",
    "Edsger",
    "Frances",
    "Grace",
    "John",
    "Katherine",
    "Leslie",
]
FAMILY_NAMES = [
    "Allen",
    "Dijkstra",
    "Hamilton",
    "Hopper",
    "Johnson",
    "Knuth",
    "Lamport",
    "Liskov",
    "Lovelace",
    "Shannon",
]


def make_account(
    ledger: Ledger, index: int, rng: random.Random, opening: Holdings, last_equity: Decimal, created_ns: int
) -> Account:
    """Open an account whose holdings at the last close are `opening`, and return it.

    `index` gives the account number and the name, `rng` the id. `last_equity` is in dollars.
    """
    account = Account(
        account_id=str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        account_number=str(900_000_000 + index),
        given_name=GIVEN_NAMES[index % len(GIVEN_NAMES)],
        family_name=FAMILY_NAMES[index // len(GIVEN_NAMES) % len(FAMILY_NAMES)],
        created_ns=created_ns,
        last_equity=last_equity,
        opening=opening,
        current=opening.copy(),
    )
    ledger.open(account)
    return account


def generate(ledger: Ledger, market: Market, count: int, rng: random.Random) -> None:
    """Open `count` random accounts. The same generator state gives the same accounts."""
    # A pair of coins is traded, not held: an account holds its two coins.
    held = [symbol for symbol in market.symbols if pair_of(symbol) is None]
    listings = [market.listing(symbol) for symbol in held if market.listing(symbol).asset_class != "test"]
    by_class = {
        asset_class: [listing for listing in listings if listing.asset_class == asset_class]
        for asset_class in ("us_equity", "crypto", "us_option")
    }
    for index in range(count):
        opening = Holdings(_cash(rng))
        for listing in _choose(by_class, rng):
            opening.positions[listing.symbol] = _position(listing, rng)
        last_equity = ledger.equity_at_closes(opening)
        make_account(ledger, index, rng, opening, last_equity, FIRST_CREATED_NS + index * CREATION_SPACING_NS)


def replay_since_close(
    ledger: Ledger, trader: Trader, rng: random.Random, balance_date: date, now_ns: int
) -> None:
    """Book random activities for some accounts between 16:00 of `balance_date` and `now_ns`, oldest first."""
    start_ns = new_york_ns(balance_date, SESSION_CLOSE_HOUR)
    active = [account_id for account_id in ledger.accounts if rng.random() < ACTIVE_SHARE]
    bookings = sorted(
        (rng.uniform(0.01, 0.99), account_id) for account_id in active for _ in range(rng.randint(1, 5))
    )
    for share, account_id in bookings:
        trader.act(account_id, start_ns + int((now_ns - start_ns) * share))


def _cash(rng: random.Random) -> Decimal:
    cents = rng.randint(1_00, 250_000_00)
    if rng.random() < MARGIN_SHARE:
        cents = -cents // 4
    cash = Decimal(cents).scaleb(-2)
    if rng.random() < LONG_CASH_SHARE:
        cash += Decimal(rng.randrange(10**12)).scaleb(-14)
    return cash


def _choose(by_class: dict[str, list[Listing]], rng: random.Random) -> list[Listing]:
    if rng.random() < EMPTY_SHARE:
        return []
    equities = by_class["us_equity"]
    chosen = rng.sample(equities, min(len(equities), rng.randint(1, POSITIONS_MAX - 2)))
    for asset_class, share in (("crypto", CRYPTO_SHARE), ("us_option", OPTION_SHARE)):
        if by_class[asset_class] and rng.random() < share:
            chosen.append(rng.choice(by_class[asset_class]))
    return chosen


def _position(listing: Listing, rng: random.Random) -> Position:
    quantity = _quantity(listing, rng)
    paid = listing.previous_close * (1 + Decimal(rng.randint(-2_500, 2_500)).scaleb(-4))
    price = round(paid, listing.price_decimals) or listing.previous_close
    with exact():
        return Position(quantity, quantity * listing.multiplier * price)


def _quantity(listing: Listing, rng: random.Random) -> Decimal:
    if listing.asset_class == "crypto":
        dollars = rng.randint(50, 20_000)
        return max(Decimal("0.000000001"), round(dollars / listing.previous_close, 9))
    if listing.asset_class == "us_option":
        return Decimal(rng.choice((-3, -1, 1, 2, 5, 10)))
    if rng.random() < SHORT_POSITION_SHARE:
        return Decimal(-rng.randint(1, 200))
    if rng.random() < 0.4:
        return Decimal(rng.randint(1, 60 * 10**9)).scaleb(-9)
    return Decimal(rng.randint(1, 500))
