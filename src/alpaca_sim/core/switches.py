"""One switch for each point that Alpaca's documents leave open, so that a client can be tested with each."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

from alpaca_sim.core.leg_details import FORMS

# Faulty answers about one account. Each is also a fault, `odd.…`.
ODDITIES = ("no_cash", "euro", "error", "null_field", "twice", "hold", "contradiction", "ipo")
CHOICES: dict[str, tuple[str, ...]] = {
    "unknown_account": ("404", "401"),
    "since_id": ("exclusive", "inclusive"),
    "sell_qty": ("positive", "negative"),
    "sse_lines": ("data", "event", "id", "all"),
    "sse_welcome": ("yes", "no"),
    "header_auth": ("connected_first", "authenticated_only"),
    "token_expiry": ("survives", "closes"),
    "retry_after": ("no", "yes"),
    "unpriced": ("null", "zero"),
    "position_crypto": ("BTCUSD", "BTC/USD"),
    "crypto_fee": ("none", "asset", "at_fill"),
    "odd_account": ("none", *ODDITIES),
    "deposits": ("told", "rows_only"),
    "coin_pairs": ("no", "yes"),
    "option_roots": ("plain", "adjusted"),
    "bond": ("no", "held"),
    "legs": FORMS,
    "refused_session": ("stays", "closes"),
}


class SwitchError(ValueError):
    """An unknown switch or value. The message lists the known ones."""


@dataclass(frozen=True, slots=True)
class Switches:
    """One value per open point. The first choice is the default; docs/simulator.md explains all of them."""

    unknown_account: str = "404"  # status for an account that does not exist
    since_id: str = "exclusive"  # whether the event with the cursor's own id is sent again
    sell_qty: str = "positive"  # sign of a sale's `qty` in activity events
    sse_lines: str = "data"  # lines of an event beside `data:`
    sse_welcome: str = "yes"  # a comment at the beginning of an event stream
    header_auth: str = "connected_first"  # what a market stream sends after a handshake with credentials
    token_expiry: str = "survives"  # noqa: S105 - a market stream whose token expires
    retry_after: str = "no"  # a Retry-After header on 429
    unpriced: str = "null"  # the price of a position that has none
    position_crypto: str = "BTCUSD"  # how positions spell a pair
    crypto_fee: str = "none"  # `asset`: booked at 16:00; `at_fill`: taken at the fill, published later
    odd_account: str = "none"  # the permanent fault of the account whose id sorts first
    deposits: str = "told"  # `rows_only`: no event reports a deposit, only the rows of REST
    coin_pairs: str = "no"  # ETH/BTC is listed; its trades move two coins and no dollars
    option_roots: str = "plain"  # `adjusted`: after a corporate action, a digit in the root, exchange OPCA
    refused_session: str = "stays"  # whether a market stream ends with its first refused auth message
    legs: str = FORMS[0]  # in which form the legs of a corporate action name what they move
    bond: str = "no"  # the account whose id sorts first holds a treasury bond, priced per 100 of par


def read_switches(pairs: Iterable[str]) -> Switches:
    """Read `name=value` pairs; switches that are not named keep their default. Raises SwitchError."""
    values: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in CHOICES:
            raise SwitchError(f"unknown switch {name!r}: choose from {', '.join(CHOICES)}")
        if value not in CHOICES[name]:
            raise SwitchError(f"{name} cannot be {value!r}: write {name}={'|'.join(CHOICES[name])}")
        values[name] = value
    return Switches(**values)


def as_pairs(switches: Switches) -> dict[str, str]:
    """All switches and their values by name."""
    return {field.name: getattr(switches, field.name) for field in fields(switches)}
