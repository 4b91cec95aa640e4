"""Which marks a message names as stale, and how old they are."""

from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_realtime.valuation.valuer import Valuer

from .records import NOW_NS, NS_PER_S, account, mark, message_of, position

INTERVAL_S = 1.0
TTL_S = 60.0


@given(
    st.lists(st.lists(st.sampled_from("ABCDE"), unique=True), min_size=1, max_size=6),
    st.dictionaries(st.sampled_from("ABCDE"), st.integers(0, 2 * int(TTL_S)), min_size=1),
    st.sampled_from("ABCDE"),
    st.booleans(),
)
@settings(deadline=None)
def test_each_message_names_what_its_own_account_holds_of_stale_marks(
    held: list[list[str]], ages_s: dict[str, int], moved: str, are_records_away: bool
) -> None:
    """In any book, also when only some of the accounts that are looked at are published."""
    valuer = Valuer(price_ttl_s=TTL_S, min_update_interval_s=INTERVAL_S)
    valuer.set_records_away(are_records_away)
    ages_s |= {moved: 0}
    for number, symbols in enumerate(held):
        positions = [position(symbol, 0 if symbol == "E" else 10) for symbol in symbols]
        valuer.watch(account(f"account-{number}", positions), 1, with_positions=False)
    valuer.apply_marks(
        mark(symbol, 100.0, as_of_ns=NOW_NS - age_s * NS_PER_S) for symbol, age_s in ages_s.items()
    )
    publications = [*valuer.flush(NOW_NS, 0.0).publications]
    assert len(publications) == len(held)
    valuer.apply_marks([mark(moved, 101.0, as_of_ns=NOW_NS)])
    publications += valuer.flush(NOW_NS + int(INTERVAL_S) * NS_PER_S, INTERVAL_S).publications
    for message in map(message_of, publications):
        at_s = 0 if message["sequence"] == 1 else int(INTERVAL_S)
        symbols = held[int(message["account_id"].removeprefix("account-"))]
        expected = {
            symbol: ages_s[symbol] + at_s
            for symbol in symbols
            if symbol in ages_s and symbol != "E" and ages_s[symbol] + at_s > TTL_S
        }
        if are_records_away:
            expected["account_record"] = at_s
        assert message.get("stale_ages_s", {}) == expected
        assert message["stale"] == list(expected)
