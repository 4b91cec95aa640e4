"""E07 to E10 and E21: what is taken away ends within seconds, and without an answer nobody gets in."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Sequence

import jwt
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from portfolio_harness.valkey_kinds import Valkeys
from portfolio_realtime import config
from portfolio_realtime.cli import users
from portfolio_realtime.config import Settings
from portfolio_realtime.state import State
from portfolio_realtime.state.entitlements import Entitlements
from portfolio_realtime.state.keys import TICKET_TTL_S
from portfolio_realtime.websocket_server.access import authorization as access_limits
from portfolio_realtime.websocket_server.access import jwks, revocations, webhook
from tests.conftest import SHARDS, Until, own_valkey
from tests.security.conftest import WEBHOOK_SECRET, opened
from tests.security.provider import Key, Provider
from tests.support.websocket_servers import (
    SECRET,
    Calculator,
    Served,
    bearer,
    closed,
    receive,
    refused_handshake,
    serving,
    token,
    write_accounts,
)

pytestmark = pytest.mark.asyncio(loop_scope="package")

TAKEN_AWAY_S_MAX = 5.0
AHEAD_S = 2  # tokens of the tests are issued before a revocation, in whole seconds


def issued(subject: str, accounts: list[str] | None = None, **claims: object) -> dict[str, str]:
    """A good token that was issued a moment ago."""
    now_s = int(time.time())
    whole = {
        "sub": subject,
        "accounts": accounts or ["a", "ab"],
        "iat": now_s - AHEAD_S,
        "exp": now_s + 600,
        **claims,
    }
    return {"Authorization": f"Bearer {jwt.encode(whole, SECRET, 'HS256')}"}


@pytest.fixture
def operator(shared: State) -> Settings:
    """The settings with which an operator types commands."""
    return config.load(
        _env_file=None,
        redis_url=shared.connection.url,
        shards=SHARDS,
        jwt_secret=SECRET,
        account_access="entitlements",
    )


async def ended(client: ClientConnection) -> int | None:
    """The code with which the server closes, within the time that is promised."""
    async with asyncio.timeout(TAKEN_AWAY_S_MAX):
        return await closed(client)


async def test_e07_a_revoked_user_is_out_within_five_seconds(
    own: Served, shared: State, operator: Settings
) -> None:
    """All its sockets, on every server, and again after a restart; a token issued later is good."""
    old = issued("leaver")
    async with (
        serving(shared.connection.url) as other_server,
        own.open("/ws/portfolio/a", old) as first,
        other_server.open("/ws/portfolio/ab", old) as second,
        own.open("/ws/portfolio/a", issued("stayer")) as bystander,
        own.http.stream("GET", "/v1/portfolio/a/stream", headers=old) as events,
    ):
        for client in (first, second, bystander):
            await receive(client)
        await users.revoke(operator, subject="leaver")
        assert [await ended(first), await ended(second)] == [4500, 4500]
        async with asyncio.timeout(TAKEN_AWAY_S_MAX):
            assert '"code":4500' in (await events.aread()).decode()
        await bystander.send('{"type":"heartbeat"}')
        assert (await receive(bystander))["type"] == "heartbeat_ack"
    async with serving(shared.connection.url) as restarted:
        for server in (own, restarted):
            assert (await server.http.get("/v1/portfolio/a", headers=old)).status_code == 401
            async with server.open("/ws/portfolio/a", old) as client:
                assert await closed(client) == 4500
            async with server.open("/ws/portfolio/a", issued("leaver", iat=int(time.time()) + 1)) as client:
                assert (await receive(client))["type"] == "portfolio"


async def test_e07_one_revoked_token_is_out_however_it_is_written(
    own: Served, shared: State, operator: Settings
) -> None:
    """It is known by issuer and id: another text of the same token is no other token."""
    stolen, kept = issued("owner", iss="bank", jti="t-1"), issued("owner", iss="bank", jti="t-2")
    respelled = jwt.decode(stolen["Authorization"][7:], options={"verify_signature": False})
    respelled = dict(reversed(respelled.items()))
    async with own.open("/ws/portfolio/a", stolen) as out, own.open("/ws/portfolio/a", kept) as stays:
        await receive(out)
        await receive(stays)
        await users.revoke(operator, token_id="t-1", issuer="bank")
        assert await ended(out) == 4500
        await stays.send('{"type":"heartbeat"}')
        assert (await receive(stays))["type"] == "heartbeat_ack"
    for text in (stolen["Authorization"][7:], jwt.encode(respelled, SECRET, "HS256")):
        answer = await own.http.get("/v1/portfolio/a", headers={"Authorization": f"Bearer {text}"})
        assert answer.status_code == 401
    same_id_of_another = issued("owner", iss="other bank", jti="t-1")
    async with own.open("/ws/portfolio/a", same_id_of_another) as client:
        assert (await receive(client))["type"] == "portfolio"


async def test_e07_a_ticket_of_a_revoked_user_is_worth_nothing(own: Served, operator: Settings) -> None:
    """Also one that was issued before."""
    headers = issued("ticketed")
    ticket = (await own.http.post("/v1/tickets", headers=headers)).json()["ticket"]
    async with own.open("/ws/portfolio/a", headers) as client:
        await receive(client)
        await users.revoke(operator, subject="ticketed")
        assert await ended(client) == 4500
    assert await refused_handshake(own.open(f"/ws/portfolio/a?ticket={ticket}", {})) == 401


@contextlib.asynccontextmanager
async def revoked_meanwhile(
    server: Served, operator: Settings, subject: str, headers: dict[str, str], shown: str
) -> AsyncGenerator[None]:
    """On leaving the server has heard that all tokens of this subject are revoked."""
    async with server.open(f"/ws/portfolio/{shown}", headers) as told:
        await receive(told)
        yield
        await users.revoke(operator, subject=subject)
        assert await ended(told) == 4500


async def test_e07_events_that_wait_for_a_slow_webhook_are_revoked_too(
    federated: Served,
    provider: Provider,
    keys: list[Key],
    operator: Settings,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The token was good when it was looked at, and is no more when the webhook says yes."""
    monkeypatch.setattr(webhook, "ANSWER_S_MAX", 60.0)
    subject = "slow-events"
    provider.allowed = {(subject, "a"), (subject, "b")}
    good = keys[0].sign(sub=subject, iat=int(time.time()) - AHEAD_S)
    headers = {"Authorization": f"Bearer {good}"}
    path = "/v1/portfolio/b/stream"
    try:
        async with revoked_meanwhile(federated, operator, subject, headers, "a"):
            provider.is_hanging = True
            asked = {"subject": subject, "account_id": "b"}
            waiting = asyncio.create_task(federated.http.get(path, headers=headers, timeout=60))
            await until(lambda: asked in provider.questions, "the webhook is asked")
    finally:
        provider.is_hanging = False
    answer = await waiting
    assert answer.status_code == 401 or '"code":4500' in answer.text
    assert "event: portfolio" not in answer.text


@pytest.mark.parametrize("looks_before", range(3))
async def test_e07_events_are_refused_whenever_their_token_is_revoked(
    own: Served, monkeypatch: pytest.MonkeyPatch, looks_before: int
) -> None:
    """Before it is looked at, before it is let in, and in the moment when it enters."""
    good = iter([False] * looks_before)

    def is_revoked(_self: revocations.KnownRevocations, _identity: object) -> bool:
        return next(good, True)

    monkeypatch.setattr(revocations.KnownRevocations, "__contains__", is_revoked)
    answer = await own.http.get("/v1/portfolio/a/stream", headers=issued("unlucky"))
    if looks_before < 2:
        assert answer.status_code == 401
    else:
        assert answer.text == 'event: close\ndata: {"code":4500,"reason":"unauthorized"}\n\n'


async def test_e07_a_websocket_that_waits_for_slow_entitlements_is_revoked_too(
    entitled: Served, operator: Settings, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its token and by its ticket."""
    await users.entitle(operator, "slow-socket", ["a"])
    headers = issued("slow-socket")
    ticket = (await entitled.http.post("/v1/tickets", headers=headers)).json()["ticket"]
    may_go_on, waiting = asyncio.Event(), 0
    read = Entitlements.read

    async def read_slowly(self: Entitlements, subjects: Sequence[str]) -> dict[str, frozenset[str]]:
        nonlocal waiting
        waiting += 1
        await may_go_on.wait()
        return await read(self, subjects)

    async with contextlib.AsyncExitStack() as stack:
        async with revoked_meanwhile(entitled, operator, "slow-socket", headers, "a"):
            monkeypatch.setattr(Entitlements, "read", read_slowly)
            by_token = await stack.enter_async_context(entitled.open("/ws/portfolio/a", headers))
            opening = entitled.open(f"/ws/portfolio/a?ticket={ticket}", {})
            by_ticket = asyncio.create_task(refused_handshake(opening))
            await until(lambda: waiting >= 2, "both wait")
        may_go_on.set()
        assert [await ended(by_token), await by_ticket] == [4500, 401]


@pytest.mark.parametrize("account_id", ["b", "nobody", "A", "a%00", "a%2e", "*", "a:b", "{s01}:accounts"])
async def test_e08_another_account_looks_like_none(own: Served, account_id: str) -> None:
    """In the path, in a message, and over HTTP: the same bytes for another's account and for no account."""
    async with own.open(f"/ws/portfolio/{account_id}") as client:
        assert await closed(client) == 4503
    async with own.open("/ws/portfolio/a") as client:
        await receive(client)
        for asked in ("b", account_id):
            await client.send(json.dumps({"type": "subscribe", "account_id": asked}))
            answer = await receive(client)
            answer.pop("account_id", None)
            assert answer == {
                "type": "error",
                "code": "forbidden",
                "message": "the account does not exist, or it is not yours",
            }
    answers = [await own.http.get(f"/v1/portfolio/{asked}", headers=bearer()) for asked in ("b", account_id)]
    assert {(answer.status_code, answer.text) for answer in answers} == {
        (404, '{"detail":"the account does not exist, or it is not yours","code":"account_not_found"}')
    }


async def test_e09_a_removed_entitlement_ends_within_five_seconds(
    entitled: Served, operator: Settings
) -> None:
    """By the hash in Valkey; what is added can be subscribed without a new connection."""
    await users.entitle(operator, "trader", ["a"])
    headers = issued("trader", ["b"])
    async with entitled.open("/ws/portfolio/a", headers) as client:
        await receive(client)
        assert (await entitled.http.get("/v1/portfolio/b", headers=headers)).status_code == 404
        await users.entitle(operator, "trader", ["a", "ab"])
        async with asyncio.timeout(TAKEN_AWAY_S_MAX):
            await subscribed(client, "ab")
        async with entitled.http.stream("GET", "/v1/portfolio/ab/stream", headers=headers) as events:
            await users.entitle(operator, "trader", ["a"])
            assert await ended(client) == 4503
            async with asyncio.timeout(TAKEN_AWAY_S_MAX):
                assert '"code":4503' in (await events.aread()).decode()
    await users.entitle(operator, "trader", [])
    async with entitled.open("/ws/portfolio/a", headers) as client:
        assert await closed(client) == 4503


async def subscribed(client: ClientConnection, account_id: str) -> None:
    """Ask until the account is sent."""
    while True:
        await client.send(json.dumps({"type": "subscribe", "account_id": account_id}))
        if (answer := await receive(client))["type"] == "portfolio" and answer["account_id"] == account_id:
            return
        await asyncio.sleep(0.2)


async def test_e09_what_the_webhook_takes_back_ends_within_five_seconds(
    federated: Served, provider: Provider, keys: list[Key]
) -> None:
    """Asked for each account by path, message and HTTP, with our secret; messages keep their order."""
    provider.allowed = {("asked", "a"), ("asked", "b")}
    headers = {"Authorization": f"Bearer {keys[0].sign(sub='asked')}"}
    async with federated.open("/ws/portfolio/a", headers) as client:
        for message in (
            {"type": "subscribe", "account_id": "b"},
            {"type": "subscribe", "account_id": "ab"},
            {"type": "heartbeat", "timestamp": 1},
        ):
            await client.send(json.dumps(message))
        answers = [await receive(client) for _ in range(4)]
        assert sorted(answer.get("account_id", answer["type"]) for answer in answers) == [
            "a",
            "ab",
            "b",
            "heartbeat_ack",
        ]
        assert [answer["code"] for answer in answers if answer["type"] == "error"] == ["forbidden"]
        assert {"subject": "asked", "account_id": "ab"} in provider.questions
        assert provider.secrets_shown == {f"Bearer {WEBHOOK_SECRET}"}
        await client.send(json.dumps({"type": "auth", "token": keys[1].sign(sub="asked")}))
        assert (await federated.http.get("/v1/portfolio/ab", headers=headers)).status_code == 404
        provider.allowed = {("asked", "a")}
        assert await ended(client) == 4503


async def test_e10_a_ticket_is_for_one_user_once_and_for_half_a_minute(own: Served, shared: State) -> None:
    """Of two that use it at once, one wins; Valkey keeps only its digest."""
    answer = await own.http.post("/v1/tickets", headers=bearer(subject="holder", accounts=["a"]))
    ticket, lifetime_s = answer.json()["ticket"], answer.json()["expires_in_s"]
    assert lifetime_s == TICKET_TTL_S <= 30
    names = [key async for key in shared.connection.commands.scan_iter(match="ticket:*")]
    assert len(names) == 1
    assert ticket.encode() not in names[0]
    assert 0 < await shared.connection.commands.ttl(names[0]) <= 30
    outcomes = await asyncio.gather(*(outcome(own.open(f"/ws?ticket={ticket}", {})) for _ in range(2)))
    assert sorted(outcomes) == ["forbidden, a", "refused 401"]
    assert await refused_handshake(own.open(f"/ws?ticket={ticket}", {})) == 401


async def outcome(opening: connect) -> str:
    """What became of one of two."""
    try:
        async with opening as client:
            for account_id in ("b", "a"):
                await client.send(json.dumps({"type": "subscribe", "account_id": account_id}))
            answers = [await receive(client), await receive(client)]
    except InvalidStatus as refused:
        return f"refused {refused.response.status_code}"
    return f"{answers[0]['code']}, {answers[1]['account_id']}"


async def test_e21_without_the_keys_of_the_issuer_nobody_gets_in(
    shared: State, provider: Provider, keys: list[Key]
) -> None:
    """But may come back; and comes in as soon as the keys can be had."""
    provider.is_away, provider.allowed = True, {("alice", "a")}
    headers = {"Authorization": f"Bearer {keys[0].sign()}"}
    try:
        async with serving(
            shared.connection.url,
            jwt_secret="",
            jwks_url=provider.jwks_url,
            jwt_issuer="https://login.example.com/",
            jwt_audience="https://api.example.com",
        ) as server:
            async with server.open("/ws/portfolio/a", headers) as client:
                assert await closed(client) == 4007
            answer = await server.http.get("/v1/portfolio/a", headers=headers)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            provider.is_away = False
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(jwks, "FETCH_S_MIN", 0.0)
                async with server.open("/ws/portfolio/a", headers) as client:
                    assert (await receive(client))["type"] == "portfolio"
    finally:
        provider.is_away = False


@pytest.mark.parametrize("failure", ["is_away", "is_hanging"])
async def test_e21_without_the_webhook_nobody_gets_in_and_nobody_stays_for_long(
    federated: Served, provider: Provider, keys: list[Key], failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was allowed a moment ago stays for UNCONFIRMED_S_MAX; who is new is asked to come back."""
    patient, late_user = f"patient of {failure}", f"late for {failure}"
    provider.allowed = {(patient, "a"), (late_user, "a")}
    monkeypatch.setattr(webhook, "ANSWER_S_MAX", 0.5)
    async with federated.open(
        "/ws/portfolio/a", {"Authorization": f"Bearer {keys[0].sign(sub=patient)}"}
    ) as client:
        await receive(client)
        setattr(provider, failure, True)
        try:
            late = {"Authorization": f"Bearer {keys[0].sign(sub=late_user)}"}
            async with federated.open("/ws/portfolio/a", late) as newcomer:
                assert await closed(newcomer) == 4007
            assert (await federated.http.get("/v1/portfolio/a", headers=late)).status_code == 503
            await client.send('{"type":"heartbeat"}')
            assert (await receive(client))["type"] == "heartbeat_ack"
            monkeypatch.setattr("portfolio_realtime.websocket_server.clients.gateway.UNCONFIRMED_S_MAX", 0.5)
            assert access_limits.UNCONFIRMED_S_MAX <= 30
            assert await ended(client) == 4007
        finally:
            setattr(provider, failure, False)


@pytest_asyncio.fixture(loop_scope="package")
async def mortal() -> AsyncGenerator[Valkeys]:
    """A Valkey to kill."""
    async with own_valkey() as own:
        yield own


async def test_e21_without_valkey_nobody_gets_in(
    mortal: Valkeys, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither revocations nor entitlements nor tickets can be known; who is in stays, hearing nothing new."""
    monkeypatch.setattr(revocations, "STALE_S_MAX", 1.5)
    async with opened(mortal.url) as state:
        await write_accounts(state, "a")
        await Calculator(state).publish("a", 1)
        await state.entitlements.write("alice", ["a"])
        async with (
            serving(mortal.url) as by_claim,
            serving(mortal.url, account_access="entitlements") as by_hash,
        ):
            ticket = (await by_claim.http.post("/v1/tickets", headers=bearer())).json()["ticket"]
            async with by_claim.open("/ws/portfolio/a") as client:
                await receive(client)
                await mortal.kill()
                for server in (by_claim, by_hash):
                    await until(lambda server=server: refused(server), "new tokens are refused", 15)
                    async with server.open("/ws/portfolio/a", bearer(subject="alice")) as newcomer:
                        assert await closed(newcomer) == 4007
                assert await refused_handshake(by_claim.open(f"/ws?ticket={ticket}", {})) == 503
                answer = await by_claim.http.get("/v1/portfolio/a", headers={"X-API-Key": "guess"})
                assert answer.status_code == 401
                await client.send('{"type":"heartbeat"}')
                assert (await receive(client))["type"] == "heartbeat_ack"


async def refused(server: Served) -> bool:
    """Does it say that it cannot check credentials?"""
    headers = {"Authorization": f"Bearer {token()}"}
    answer = await server.http.get("/v1/portfolio/a", headers=headers)
    return answer.status_code == 503 and "credentials" in answer.text
