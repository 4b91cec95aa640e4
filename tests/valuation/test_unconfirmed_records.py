"""What is not sure of an account's record reaches clients: how old it is, what the broker contradicts."""

from decimal import Decimal
from typing import Any

import msgspec

from portfolio_realtime.model import Account, Confirmation, Unconfirmed
from portfolio_realtime.valuation.explain import explain
from portfolio_realtime.valuation.valuer import Valuer

from .records import NOW_NS, NS_PER_S, account, mark, message_of, position

RECORD_TTL_S = 900.0
SINCE_NS = NOW_NS - 30 * NS_PER_S
UNCONFIRMED = Unconfirmed(SINCE_NS, "statement differs", {"cash": Decimal(-600), "A": Decimal(2)})


def valuer(one: Account) -> Valuer:
    """A valuer that watches one account with 10 A at 100."""
    made = Valuer(price_ttl_s=10**6, min_update_interval_s=0, record_ttl_s=RECORD_TTL_S)
    made.apply_marks([mark("A", 100.0)])
    made.watch(one, 1, with_positions=False)
    return made


def message(made: Valuer, after_s: float = 0) -> dict[str, Any] | None:
    """The newest message, or None when nothing is due."""
    publications = [*made.flush(NOW_NS + int(after_s * NS_PER_S), after_s).publications]
    return message_of(publications[0]) if publications else None


def held(**changes: Any) -> Account:
    """The account."""
    return account("alice", [position("A", 10)], last_equity=2000, **changes)


def test_a_record_of_which_nothing_was_heard_for_too_long_is_stale_by_name() -> None:
    """It is published by itself when the time comes, with its age, and fresh again after the next word."""
    made = valuer(held())
    first = message(made)
    assert first is not None
    assert (first["stale"], first["record_as_of"]) == ([], "2025-11-20T15:00:00.000000Z")
    assert message(made, RECORD_TTL_S) is None

    old = message(made, RECORD_TTL_S + 1)
    assert old is not None
    assert (old["stale"], old["stale_ages_s"]) == (["account_record"], {"account_record": 901})
    assert old["equity"] == first["equity"], "it is the newest there is"

    made.put_account(held(version=2, as_of_ns=NOW_NS + 901 * NS_PER_S))
    fresh = message(made, 902)
    assert fresh is not None
    assert fresh["stale"] == []
    assert "stale_ages_s" not in fresh


def test_all_records_are_stale_while_the_broker_is_not_heard() -> None:
    """However young they are."""
    made = valuer(held())
    assert message(made) is not None
    assert made.set_records_away(True)
    assert not made.set_records_away(True), "no change"
    away = message(made, 1)
    assert away is not None
    assert away["stale_ages_s"] == {"account_record": 1}
    assert made.set_records_away(False)
    back = message(made, 2)
    assert back is not None
    assert back["stale"] == []


def test_a_record_whose_statement_cannot_be_read_is_stale_at_once() -> None:
    """Beside a stale mark both are named."""
    made = Valuer(price_ttl_s=10, min_update_interval_s=0, record_ttl_s=RECORD_TTL_S)
    made.apply_marks([mark("A", 100.0)])
    made.watch(held(is_unreadable=True), 1, with_positions=False)
    both = message(made, 20)
    assert both is not None
    assert both["stale"] == ["A", "account_record"]


def test_what_the_broker_contradicts_is_told_since_when_and_by_how_much() -> None:
    """The figures are ours all the same."""
    told = message(valuer(held(unconfirmed=UNCONFIRMED)))
    assert told is not None
    assert told["unconfirmed"] == {
        "since": "2025-11-20T14:59:30.000000Z",
        "reason": "statement differs",
        "by": {"cash": "-600", "A": "2"},
    }
    assert told["day_pnl"] == "0.00"


CONFIRMED = Confirmation(SINCE_NS, Decimal(1000), None, "2025-11-19", 1)


def test_what_nobody_has_explained_is_no_gain() -> None:
    """Equity is known, the day P&L is not, and the reason is named with its amount; so in the explanation."""
    one = held(cash=400, unexplained={"cash": Decimal(-600)}, confirmed=CONFIRMED, held_back=Decimal(5))
    told = message(valuer(one))
    assert told is not None
    assert (told["equity"], told["day_pnl"], told["day_pnl_ratio"]) == ("1400.00", None, None)
    assert told["unexplained"] == {"cash": "-600"}

    explained = msgspec.json.decode(explain(one, {"A": mark("A", 100.0)}, NOW_NS))
    assert explained["unexplained"] == {"cash": "-600"}
    assert (explained["confirmed_at"], explained["held_back"]) == ("2025-11-20T14:59:30.000000Z", "5.00")
    assert explained["confirmed_by"] == {
        "cash": "1000.00",
        "equity": None,
        "balance_asof": "2025-11-19",
        "positions": 1,
    }
    assert explained["steps"][-1] == "day P&L: unknown, because no booking explains these changes: cash -600"


def test_a_class_that_nobody_prices_is_named() -> None:
    """And only while it is held."""
    bond = position("912828YK0", 100, asset_class="us_treasury", multiplier="0.01")
    told = message(valuer(account("alice", [position("A", 10), bond])))
    assert told is not None
    assert (told["equity"], told["unpriced"]) == (None, ["912828YK0"])
    assert told["without_feed"] == {"912828YK0": "us_treasury"}
