"""The symbols of a random market: well-known stocks, invented stocks, crypto pairs and option contracts."""

import random
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

from alpaca_sim.core.market import TEST_SYMBOL, Listing

MIXED_SYMBOLS_MIN = 20  # a smaller market lists equities only
LETTERS = "ABCDEFGHIJKLMNOPRSTUVWXYZ"
FRIDAY = 4

# symbol, name, exchange, price in dollars
WELL_KNOWN = [
    ("AAPL", "Apple Inc. Common Stock", "NASDAQ", 226),
    ("MSFT", "Microsoft Corporation Common Stock", "NASDAQ", 428),
    ("SPY", "SPDR S&P 500 ETF Trust", "ARCA", 572),
    ("NVDA", "NVIDIA Corporation Common Stock", "NASDAQ", 121),
    ("AMZN", "Amazon.com, Inc. Common Stock", "NASDAQ", 187),
    ("GOOGL", "Alphabet Inc. Class A Common Stock", "NASDAQ", 163),
    ("META", "Meta Platforms, Inc. Class A Common Stock", "NASDAQ", 567),
    ("TSLA", "Tesla, Inc. Common Stock", "NASDAQ", 254),
    ("QQQ", "Invesco QQQ Trust, Series 1", "NASDAQ", 486),
    ("JPM", "JPMorgan Chase & Co.", "NYSE", 211),
    ("V", "Visa Inc.", "NYSE", 275),
    ("JNJ", "Johnson & Johnson", "NYSE", 162),
    ("WMT", "Walmart Inc.", "NYSE", 80),
    ("XOM", "Exxon Mobil Corporation", "NYSE", 117),
    ("KO", "Coca-Cola Company", "NYSE", 71),
    ("PG", "Procter & Gamble Company", "NYSE", 173),
    ("HD", "Home Depot, Inc.", "NYSE", 405),
    ("BAC", "Bank of America Corporation", "NYSE", 39),
    ("IBM", "International Business Machines Corporation", "NYSE", 221),
    ("AIG", "American International Group, Inc.", "NYSE", 73),
    ("F", "Ford Motor Company", "NYSE", 10),
    ("GE", "GE Aerospace", "NYSE", 188),
    ("DIS", "Walt Disney Company", "NYSE", 96),
    ("IWM", "iShares Russell 2000 ETF", "ARCA", 220),
    ("VOO", "Vanguard S&P 500 ETF", "ARCA", 527),
    ("GLD", "SPDR Gold Shares", "ARCA", 245),
    ("TLT", "iShares 20+ Year Treasury Bond ETF", "NASDAQ", 98),
    ("INTC", "Intel Corporation Common Stock", "NASDAQ", 23),
    ("AMD", "Advanced Micro Devices, Inc. Common Stock", "NASDAQ", 164),
    ("NFLX", "Netflix, Inc. Common Stock", "NASDAQ", 709),
    ("PLTR", "Palantir Technologies Inc. Class A Common Stock", "NASDAQ", 37),
    ("SOFI", "SoFi Technologies, Inc. Common Stock", "NASDAQ", 8),
]
# symbol, name, price, decimals of a price
CRYPTO = [
    ("BTC/USD", "Bitcoin / US Dollar", "96112.5", 4),
    ("ETH/USD", "Ethereum / US Dollar", "3318.42", 4),
    ("SOL/USD", "Solana / US Dollar", "238.117", 4),
    ("DOGE/USD", "Dogecoin / US Dollar", "0.401235", 6),
    ("AVAX/USD", "Avalanche / US Dollar", "41.0371", 4),
    ("LINK/USD", "Chainlink / US Dollar", "17.4502", 4),
    ("LTC/USD", "Litecoin / US Dollar", "92.3418", 4),
    ("SHIB/USD", "Shiba Inu / US Dollar", "0.00002511", 8),
]
TAPES = {"NYSE": "A", "ARCA": "B", "NASDAQ": "C"}


# Listed only with the switch `coin_pairs=yes`. Its price is in bitcoin.
COIN_PAIR = Listing(
    *("ETH/BTC", "Ethereum / Bitcoin", "crypto", "CRYPTO", ""), Decimal("0.03453"), Decimal("0.0345"), 6
)


def make_listings(count: int, rng: random.Random, from_day: date, has_digits: bool = False) -> list[Listing]:
    """Make `count` listings. The same generator state and year give the same listings.

    With `has_digits`, the options are contracts after a corporate action: the root has a digit (AAPL1 for
    AAPL) and the exchange is OPCA.
    """
    mixed = count >= MIXED_SYMBOLS_MIN
    crypto_count = min(len(CRYPTO), max(2, count // 25)) if mixed else 0
    option_count = min(40, max(2, count // 16)) if mixed else 0
    equities = _equities(count - crypto_count - option_count, rng)
    crypto = [_crypto(row, rng) for row in CRYPTO[:crypto_count]]
    options = _options(option_count, equities, rng, from_day)
    if has_digits:
        options = [
            replace(one, symbol=f"{one.symbol[:-15]}1{one.symbol[-15:]}", exchange="OPCA") for one in options
        ]
    return equities + crypto + options


def fakepaca() -> Listing:
    """The listing of the test feed's symbol, FAKEPACA. No account holds it."""
    price = Decimal("133.85")
    return Listing(TEST_SYMBOL, "Test feed", "test", "NASDAQ", "C", price, price, 2)


def occ_symbol(underlying: str, expiry: date, kind: str, strike: Decimal) -> str:
    """An option contract's OCC symbol. `kind` is C or P; `strike` is in dollars."""
    return f"{underlying}{expiry:%y%m%d}{kind}{int(strike * 1000):08d}"


def _equities(count: int, rng: random.Random) -> list[Listing]:
    listings = [
        _equity(symbol, name, exchange, dollars * 100, rng)
        for symbol, name, exchange, dollars in WELL_KNOWN[:count]
    ]
    symbols = {listing.symbol for listing in listings}
    while len(listings) < count:
        symbol = "".join(rng.choices(LETTERS, k=rng.choice((3, 4, 4))))
        if symbol in symbols:
            continue
        symbols.add(symbol)
        exchange = rng.choice(("NYSE", "NASDAQ", "NASDAQ", "ARCA"))
        name = f"{symbol.title()} Holdings, Inc. Common Stock"
        listings.append(_equity(symbol, name, exchange, int(rng.lognormvariate(8.3, 1.1)) + 55, rng))
    return listings


def _equity(symbol: str, name: str, exchange: str, price_cents: int, rng: random.Random) -> Listing:
    previous_close = Decimal(max(50, round(price_cents * rng.uniform(0.9, 1.1)))).scaleb(-2)
    first_price = _near(previous_close, 2, rng)
    return Listing(symbol, name, "us_equity", exchange, TAPES[exchange], first_price, previous_close, 2)


def _crypto(row: tuple[str, str, str, int], rng: random.Random) -> Listing:
    symbol, name, price, decimals = row
    previous_close = _near(Decimal(price), decimals, rng)
    first_price = _near(previous_close, decimals, rng)
    return Listing(symbol, name, "crypto", "CRYPTO", "", first_price, previous_close, decimals)


def _options(count: int, equities: list[Listing], rng: random.Random, from_day: date) -> list[Listing]:
    listings: dict[str, Listing] = {}
    while len(listings) < count:
        index = len(listings)
        underlying = equities[index // 2 % len(equities)]
        expiry = _third_friday(from_day.year + 1, rng.choice((1, 3, 6, 12)))
        kind = "CP"[index % 2]
        strike = Decimal(max(1, round(underlying.previous_close * Decimal(rng.uniform(0.85, 1.15)))))
        symbol = occ_symbol(underlying.symbol, expiry, kind, strike)
        previous_close = Decimal(rng.randint(80, 2_500)).scaleb(-2)
        name = f"{underlying.symbol} {expiry:%b %d %Y} {strike} {'Call' if kind == 'C' else 'Put'}"
        first_price = _near(previous_close, 2, rng)
        listings[symbol] = Listing(symbol, name, "us_option", "", "", first_price, previous_close, 2)
    return list(listings.values())


def _third_friday(year: int, month: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(FRIDAY - first.weekday()) % 7 + 14)


def _near(price: Decimal, decimals: int, rng: random.Random) -> Decimal:
    units = int(price.scaleb(decimals))
    return Decimal(max(1, round(units * rng.uniform(0.985, 1.015)))).scaleb(-decimals)
