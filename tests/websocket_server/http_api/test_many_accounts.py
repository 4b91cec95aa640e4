"""Several accounts in one request: each with its own status, a total only when every part is known."""

import json
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from portfolio_realtime.model import Pending
from portfolio_realtime.state import State
from portfolio_realtime.websocket_server.http_api.many_accounts import IDS_MAX, total
from tests.conftest import SHARDS
from tests.support.publications import value
from tests.support.websocket_servers import API_KEY, Calculator, Served, bearer, serving, write_accounts

PATH = "/v1/portfolios"


async def test_each_account_has_its_own_status_and_what_is_missing_is_named(
    server: Served, calculator: Calculator
) -> None:
    """Nothing of another's account, and nothing that tells it from none; each once, in the order asked."""
    await calculator.publish("a", 1, equity="100.10", day_pnl="1.05")
    await calculator.publish("ab", 1, equity="200.20", day_pnl="-3.00")
    for asked in (
        await server.http.get(PATH, params={"ids": "ab,b,a,ab,nothing"}, headers=bearer()),
        await server.http.post(PATH, json={"ids": ["ab", "b", "a", "nothing"]}, headers=bearer()),
    ):
        assert asked.status_code == 200
        told = asked.json()
        assert [(item["account_id"], item["status"]) for item in told["portfolios"]] == [
            ("ab", "ok"),
            ("b", "account_not_found"),
            ("a", "ok"),
            ("nothing", "account_not_found"),
        ]
        assert told["portfolios"][0]["portfolio"]["equity"] == "200.20"
        assert "portfolio" not in told["portfolios"][1]
        assert told["total"] == {
            "equity": None,
            "day_pnl": None,
            "known_equity": "300.30",
            "missing": ["b", "nothing"],
        }
    whole = (await server.http.get(PATH, params={"ids": "a,ab"}, headers=bearer())).json()
    assert whole["total"] == {"equity": "300.30", "day_pnl": "-1.95", "known_equity": "300.30", "missing": []}
    single = (await server.http.get("/v1/portfolio/a", headers=bearer())).json()
    assert whole["portfolios"][0]["portfolio"] == single


async def test_an_account_without_a_value_yet_keeps_nobody_else_waiting_for_ever(
    server: Served, state: State, calculator: Calculator
) -> None:
    """It has a record and no calculator: `value_unavailable` for it, the value for the other."""
    await write_accounts(state, "a", "ab")
    await calculator.publish("a", 1)
    told = (await server.http.get(PATH, params={"ids": "a,ab"}, headers=bearer())).json()
    assert [item["status"] for item in told["portfolios"]] == ["ok", "value_unavailable"]
    assert told["total"]["missing"] == ["ab"]


async def test_who_asks_badly_is_told_so(server: Served) -> None:
    """Credentials, too many ids, none, and what is no id."""
    assert (await server.http.get(PATH, params={"ids": "a"})).status_code == 401
    many = ",".join(f"x{number}" for number in range(IDS_MAX + 1))
    for query in ({"ids": many}, {"ids": ",,"}, {}, {"ids": "a", "detail": "all"}):
        answer = await server.http.get(PATH, params=query, headers=bearer())
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    odd = (
        await server.http.post(PATH, json={"ids": ["a/b", "*", "{s01}:accounts"]}, headers=bearer())
    ).json()
    assert {item["status"] for item in odd["portfolios"]} == {"account_not_found"}


async def test_accounts_are_listed_page_by_page(server: Served, state: State) -> None:
    """A user's own, a back end's all; the pages have each account once."""
    await write_accounts(state, *(f"account-{number}" for number in range(25)))
    own = (await server.http.get("/v1/accounts", headers=bearer())).json()
    assert own == {"accounts": [{"account_id": "a"}, {"account_id": "ab"}], "next": None, "is_complete": True}
    found, back_end = list[str](), {"X-API-Key": API_KEY}
    query: dict[str, Any] = {"limit": 10}
    while True:
        page = (await server.http.get("/v1/accounts", params=query, headers=back_end)).json()
        found += [entry["account_id"] for entry in page["accounts"]]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert found == sorted(["a", "ab", "b", *(f"account-{number}" for number in range(25))])
    assert not page["is_complete"]  # the collector has not said that it has read all
    lease = await state.leases.acquire("symbol_collector")
    assert lease is not None
    await state.accounts.write_pending(lease, [Pending("z", "it is being opened", is_final=False)], [])
    await state.accounts.write_listed(lease, range(SHARDS))
    page = (await server.http.get("/v1/accounts", params={"after": "b"}, headers=back_end)).json()
    assert page == {"accounts": [{"account_id": "z"}], "next": None, "is_complete": True}
    assert (await server.http.get("/v1/accounts")).status_code == 401


async def test_an_account_has_the_broker_s_number_for_who_may_see_it(
    server: Served, state: State, calculator: Calculator
) -> None:
    """In the list and beside a value; absent where it is not known, and never of another's account."""
    await calculator.publish("a", 1)
    await state.account_numbers.write({"a": "900000012", "b": "900000013"})
    listed = (await server.http.get("/v1/accounts", headers=bearer())).json()["accounts"]
    assert listed == [{"account_id": "a", "account_number": "900000012"}, {"account_id": "ab"}]
    told = (await server.http.get(PATH, params={"ids": "a,b"}, headers=bearer())).json()["portfolios"]
    assert [item.get("account_number") for item in told] == ["900000012", None]


async def test_trying_accounts_out_in_bulk_is_counted_like_one_by_one(
    valkey_url: str, calculator: Calculator
) -> None:
    """429 once the address was refused too often; a loopback client has no limits, so it comes by a proxy."""
    async with serving(valkey_url, trusted_proxies="127.0.0.1", connects_per_minute=12) as server:
        headers = {**bearer(), "X-Forwarded-For": "203.0.113.5"}
        ids = [f"guess-{number}" for number in range(40)]
        answer = await server.http.post(PATH, json={"ids": ids}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")


AMOUNTS = st.decimals(-10_000, 10_000, places=2).map(lambda amount: format(amount, ".2f"))
ACCOUNTS = st.lists(st.tuples(st.none() | AMOUNTS, st.none() | AMOUNTS, AMOUNTS), max_size=6)


@given(ACCOUNTS, st.integers(0, 2))
def test_the_total_is_the_sum_of_its_parts_or_unknown(
    accounts: list[tuple[str | None, str | None, str]], absent: int
) -> None:
    """To the cent; an unknown part makes the whole unknown, and its account is named."""
    messages: dict[str, bytes] = {}
    for index, (equity, day_pnl, known) in enumerate(accounts):
        message = value(f"a{index}", 1, 1, equity) | {"day_pnl": day_pnl}
        message |= {"known_equity": known} if equity is None else {}
        messages[f"a{index}"] = encode(message)
    told = total([*messages, *(f"absent-{index}" for index in range(absent))], messages)
    equities = [equity for equity, _, _ in accounts]
    assert told["missing"] == [
        *(f"a{index}" for index, equity in enumerate(equities) if equity is None),
        *(f"absent-{index}" for index in range(absent)),
    ]
    known = sum((Decimal(equity or known) for equity, _, known in accounts), Decimal(0))
    assert Decimal(told["known_equity"]) == known
    assert told["equity"] == (None if told["missing"] else told["known_equity"])
    gains = [day_pnl for _, day_pnl, _ in accounts]
    if told["missing"] or None in gains:
        assert told["day_pnl"] is None
    else:
        assert Decimal(told["day_pnl"]) == sum((Decimal(gain or 0) for gain in gains), Decimal(0))


def encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()
