"""Positions of a class that no feed prices."""

from typing import Any

import msgspec

from portfolio_realtime.model import US_EQUITY
from portfolio_realtime.valuation.explain import explain
from portfolio_realtime.valuation.valuer import Valuer

from .records import NOW_NS, account, mark, message_of, position


def test_a_class_without_a_feed_has_no_price_whatever_the_symbol_had() -> None:
    """Alone, in the sum of all, and in the explanation. The class may return, and the price with it."""
    valuer = Valuer(price_ttl_s=60.0, min_update_interval_s=1.0)
    held = {name: account(positions=[position("OLD", 10, asset_class=name)]) for name in (US_EQUITY, "ipo")}
    valuer.watch(held[US_EQUITY], 1, with_positions=False)
    newest = mark("OLD", 50)
    valuer.apply_marks([newest])
    assert _told(valuer, 0.0)["equity"] == "1500.00"
    for version, (name, equity, unpriced) in enumerate(
        (("ipo", None, ["OLD"]), (US_EQUITY, "1510.00", []), ("ipo", None, ["OLD"])), 2
    ):
        seen = msgspec.structs.replace(held[name], version=version)
        valuer.put_account(seen)
        if version == 2:
            valuer.apply_marks([newest := mark("OLD", 51)])
        told = _told(valuer, 10.0 * version)
        assert (told["equity"], told["unpriced"]) == (equity, unpriced)
        explained = msgspec.json.decode(explain(seen, {"OLD": newest}, NOW_NS))
        assert (explained["equity"], explained["unpriced"]) == (equity, unpriced)
        (stretch,) = valuer.whole.stretches()
        stretch.refresh()
        assert stretch.totals().unpriced == len(unpriced)


def _told(valuer: Valuer, now_s: float) -> dict[str, Any]:
    """The only message of a flush."""
    (publication,) = valuer.flush(NOW_NS + int(now_s * 1e9), now_s).publications
    return message_of(publication)
