"""The doctor: what works is ok, and each thing that does not is found, with the right remedy."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime import redaction
from portfolio_realtime.cli.doctor import alpaca, machine, records
from portfolio_realtime.cli.doctor.alpaca import TimedAnswer
from portfolio_realtime.cli.doctor.findings import Finding, Status, redacted
from portfolio_realtime.model import Account, Unconfirmed
from portfolio_realtime.state import rights
from portfolio_realtime.state.embedded import free_port
from portfolio_realtime.state.server import Server
from tests.alpaca_sim.conftest import Start
from tests.cli.conftest import KEYS, Examine, hosts
from tests.support.access import words_of
from tests.support.stream_clients import open_client
from tests.support.websocket_servers import serving

OK, WARN, FAIL, SKIP = Status.OK, Status.WARN, Status.FAIL, Status.SKIP
NOW_NS = 1_763_823_600_000_000_000  # 2025-11-22T15:00:00Z


def trading_keys(index: int) -> dict[str, str]:
    """The key pair of one of the simulator's accounts."""
    number = 900_000_000 + index
    return {"APCA_API_KEY_ID": f"PK{number}", "APCA_API_SECRET_KEY": f"sim-secret-{number}"}


@pytest.fixture
def busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """That this machine is slow just now is true, and not what is tested."""
    monkeypatch.setattr(machine, "ROUND_TRIP_MS_WARN", 1000.0)


@pytest.mark.usefixtures("busy_machine")
async def test_a_healthy_broker_is_ok(start: Start, doctor: Examine) -> None:
    """Every check; the equity is the broker's to the cent, for the market stands still."""
    running = await start()
    found = await doctor(**KEYS, **hosts(running))
    assert [finding for finding in found.values() if finding.status != OK] == []
    assert {"settings", "keys", "Alpaca keys", "clock", "rate limit", "equity", "Valkey"} < found.keys()
    assert {"feed stocks", "feed crypto", "feed options", "snapshots"} < found.keys()
    assert "all accounts of a broker, sandbox" in found["keys"].found
    assert "(0.000 % apart)" in found["equity"].found
    assert running.account_ids[0] in found["equity"].found
    other = await doctor(running.account_ids[2], **KEYS, **hosts(running))
    assert running.account_ids[2] in other["equity"].found


@pytest.mark.usefixtures("busy_machine")
async def test_a_healthy_single_account_is_ok(start: Start, doctor: Examine) -> None:
    """By its own keys alone."""
    running = await start()
    found = await doctor(**trading_keys(1), **hosts(running))
    assert [finding for finding in found.values() if finding.status != OK] == []
    assert found["keys"].found == "one paper account (by APCA_API_KEY_ID)"
    assert running.account_ids[1] in found["equity"].found


@pytest.mark.usefixtures("busy_machine")
async def test_without_keys_it_says_which_to_set(doctor: Examine) -> None:
    """And looks at what can be looked at without them."""
    found = await doctor()
    assert (found["keys"].status, found["equity"].status, found["Valkey"].status) == (FAIL, SKIP, OK)
    assert "APCA_API_KEY_ID and APCA_API_SECRET_KEY for one account" in found["keys"].remedy


async def test_a_wrong_setting_is_told_as_it_is_at_start(doctor: Examine) -> None:
    """Name, value and remedy."""
    found = await doctor(PRICE_TTL="soon", REDIS_PORT="0")
    assert list(found) == ["settings"]
    assert found["settings"].status is FAIL
    assert "PRICE_TTL='soon'" in found["settings"].found
    assert "REDIS_PORT" in found["settings"].found


@pytest.mark.parametrize(
    ("keys", "remedy"),
    [
        ({**KEYS, "BROKER_SECRET_KEY": "wrong"}, "BROKER_API_KEY and BROKER_SECRET_KEY"),
        ({**trading_keys(0), "APCA_API_SECRET_KEY": "wrong"}, "APCA_API_KEY_ID and APCA_API_SECRET_KEY"),
        ({"BROKER_CLIENT_ID": "sim-key", "BROKER_CLIENT_SECRET": "wrong"}, "BROKER_CLIENT_SECRET"),
    ],
)
async def test_wrong_keys_are_found_in_both_places(
    start: Start, doctor: Examine, keys: dict[str, str], remedy: str
) -> None:
    """At the accounts' host and in the market data."""
    running = await start()
    found = await doctor(**keys, **hosts(running))
    refused = found.get("Alpaca keys") or found["Alpaca host"]
    assert refused.status is FAIL
    assert remedy in refused.remedy
    assert "ALPACA_SANDBOX" in refused.remedy
    assert found["equity"].status is SKIP
    assert (found["feed stocks"].status, found["feed crypto"].status) == (FAIL, WARN)


async def test_dead_hosts_are_found_each_with_its_setting(doctor: Examine) -> None:
    """Nobody listens there."""
    dead = f"127.0.0.1:{free_port()}"
    http = dict.fromkeys(("ALPACA_BROKER_URL", "ALPACA_TRADING_URL", "ALPACA_DATA_URL"), f"http://{dead}")
    found = await doctor(**trading_keys(0), **http, ALPACA_STREAM_URL=f"ws://{dead}")
    settings = {"Alpaca host": "TRADING", "feed stocks": "STREAM", "snapshots": "DATA"}
    for check, name in settings.items():
        assert found[check].status is FAIL
        assert f"ALPACA_{name}_URL" in found[check].remedy
    assert found["equity"].status is SKIP


async def test_a_host_that_fails_is_found(start: Start, doctor: Examine) -> None:
    """It answers, but not with what is asked for."""
    running = await start()
    await running.fault("rest.5xx", level=1.0, for_s=300)
    found = await doctor(**KEYS, **hosts(running))
    assert (found["Alpaca keys"].status, found["snapshots"].status) == (FAIL, FAIL)
    assert "try again later" in found["Alpaca keys"].remedy
    assert (found["feed stocks"].status, found["equity"].status) == (OK, SKIP)


@pytest.mark.parametrize(("skew_s", "status"), [(30.0, FAIL), (-2.0, WARN)])
async def test_a_wrong_clock_is_found(start: Start, doctor: Examine, skew_s: float, status: Status) -> None:
    """Against the clock that Alpaca states; the remedy is NTP."""
    running = await start()
    await running.fault("clock.skew", level=skew_s, for_s=300)
    found = (await doctor(**KEYS, **hosts(running)))["clock"]
    assert found.status is status
    assert ("behind" if skew_s > 0 else "ahead") in found.found
    assert "NTP" in found.remedy


async def test_a_feed_that_the_plan_lacks_is_found(start: Start, doctor: Examine) -> None:
    """The setting and the free feed are named; what only some accounts need is a warning."""
    running = await start(denied_feeds=frozenset({"sip", "indicative"}))
    found = await doctor(**trading_keys(0), **hosts(running), ALPACA_DATA_FEED="sip")
    assert "409" in found["feed stocks"].found
    assert "ALPACA_DATA_FEED=iex" in found["feed stocks"].remedy
    assert (found["feed stocks"].status, found["feed options"].status) == (FAIL, WARN)


async def test_a_feed_that_is_in_use_is_no_failure(start: Start, doctor: Examine) -> None:
    """It is, while our own services run."""
    running = await start(market_connection_limit=1)
    async with open_client(running) as client:
        await client.log_in()
        found = await doctor(**KEYS, **hosts(running), ALPACA_DATA_FEED="sip")
    assert found["feed stocks"].status is WARN
    assert "our own services" in found["feed stocks"].remedy
    assert found["feed crypto"].status is OK


async def test_a_used_up_rate_limit_is_found(start: Start, doctor: Examine) -> None:
    """Almost used up, and used up: somebody else has the key as well."""
    running = await start(rate_limit=1)
    found = await doctor(**KEYS, **hosts(running))
    assert (found["rate limit"].status, found["rate limit"].found[:6]) == (WARN, "0 of 1")
    assert "a key of its own" in found["rate limit"].remedy
    await running.fault("rest.429", for_s=300)
    found = await doctor(**KEYS, **hosts(running))
    assert (found["Alpaca keys"].status, found["equity"].status) == (WARN, SKIP)
    assert "wait a minute" in found["Alpaca keys"].remedy


async def test_an_equity_that_is_far_from_the_brokers_is_found(start: Start, doctor: Examine) -> None:
    """Prices of another market; no price at all; no such account."""
    running, other = await start(), await start(seed=8, symbol_count=24)
    positions = {"AAPL": "100", "MSFT": "50", "SPY": "10"}
    account = (await running.post("/_sim/accounts", cash="1", positions=positions))["account_id"]
    await other.post("/_sim/print", symbol="AAPL", price="1.00")
    found = await doctor(account, **KEYS, **{**hosts(running), "ALPACA_DATA_URL": other.url})
    assert found["equity"].status is FAIL
    await running.post("/_sim/symbols", symbol="ONLYHERE", price="10")
    await running.post("/_sim/trade", account_id=account, symbol="ONLYHERE", quantity="1")
    found = await doctor(account, **KEYS, **{**hosts(running), "ALPACA_DATA_URL": other.url})
    assert found["equity"].status is WARN
    assert "no price of ONLYHERE" in found["equity"].found
    found = await doctor("no-such-account", **KEYS, **hosts(running))
    assert found["equity"].status is FAIL
    assert "--account" in found["equity"].remedy


@pytest.mark.usefixtures("busy_machine")
async def test_a_valkey_that_will_not_do_is_found(doctor: Examine, mortal_server: ValkeyNode) -> None:
    """One that forgets, one that takes no writes, and none."""
    from portfolio_realtime.state.connection import Connection

    connection = Connection(mortal_server.url)
    assert (await doctor(REDIS_URL=mortal_server.url))["Valkey"].status is OK
    await connection.commands.config_set("maxmemory-policy", "allkeys-lru")
    found = (await doctor(REDIS_URL=mortal_server.url))["Valkey"]
    assert (found.status, "noeviction" in found.remedy) == (WARN, True)
    await connection.commands.replicaof("127.0.0.1", free_port())
    found = (await doctor(REDIS_URL=mortal_server.url))["Valkey"]
    assert (found.status, "primary" in found.remedy) == (FAIL, True)
    await connection.close()
    await mortal_server.kill()
    found = (await doctor(REDIS_URL=mortal_server.url))["Valkey"]
    assert (found.status, "REDIS_HOST" in found.remedy) == (FAIL, True)


@pytest.mark.parametrize(
    ("server", "status"),
    [
        (Server("Redis", "6.2.14", 0.1, "noeviction", False), FAIL),
        (Server("Redis", "7.0.0", 0.1, "", False), OK),
        (Server("Valkey", "8.1.0", 12.0, "noeviction", False), WARN),
        (Server("Redis", "unknown", 0.1, "noeviction", False), FAIL),
    ],
)
def test_a_server_is_judged_by_version_and_distance(server: Server, status: Status) -> None:
    """What cannot be had here: old versions and far networks."""
    assert machine.judged(server, "it")[0] is status


def test_whose_rights_a_user_has_is_told() -> None:
    """Its services; where it has enough for none, what is missing for the nearest one."""
    none = Server("Valkey", "9.1.2", 0.1, "", False)
    one = replace(none, lacking={"symbol_collector": ("+hscan",), "websocket_server": ()})
    status, found, _ = machine.judged(one, "it")
    assert (status, found) == (OK, "it; the rights of this user are enough for websocket_server")
    every = replace(none, lacking={"symbol_collector": (), "websocket_server": ()})
    assert machine.judged(every, "it") == machine.judged(none, "it") == (OK, "it", "")
    words = tuple(f"+{number}" for number in range(7))
    near = replace(none, lacking={"symbol_collector": (*words, "+8"), "websocket_server": words})
    status, found, remedy = machine.judged(near, "it")
    assert (status, found) == (FAIL, "it; the rights of this user are enough for no service")
    assert remedy.endswith("websocket_server lacks +0 +1 +2 +3 +4 and 2 more")


@pytest.mark.usefixtures("busy_machine")
async def test_a_service_may_ask_with_its_own_user(doctor: Examine, mortal_server: ValkeyNode) -> None:
    """Nothing about Valkey fails, with a prefix as well."""
    users: tuple[rights.User, ...] = ("collector", "consumer", "calculator", "server")
    for user in users:
        access = words_of(rights.access_string(user, "bank-a:"))
        await mortal_server.do("ACL", "SETUSER", user, "reset", ">secret", *access)
        url = mortal_server.url.replace("redis://", f"redis://{user}:secret@")
        found = await doctor(REDIS_URL=url, KEY_PREFIX="bank-a:")
        assert found["Valkey"].status is OK
        (service,) = (name for name, its in rights.USER_OF.items() if its == user)
        assert found["Valkey"].found.endswith(f"; the rights of this user are enough for {service}")
        assert found["account records"].status is (OK if user == "calculator" else SKIP)


async def test_ports_are_told_apart(doctor: Examine, valkey_url: str) -> None:
    """Free, taken by our own server, taken by a stranger."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        taken = stranger.getsockname()[1]
        async with serving(valkey_url) as served:
            found = await doctor(RUN_SERVICES_PORT=str(taken), WEBSOCKET_PORT=str(served.port))
    assert found[f"port {taken}"].status is FAIL
    assert "RUN_SERVICES_PORT" in found[f"port {taken}"].remedy
    assert found[f"port {served.port}"].status is OK
    assert "our own server" in found[f"port {served.port}"].found


def answer(body: str = "", status: int = 200, **headers: str) -> TimedAnswer:
    """An answer that took a tenth of a second."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return TimedAnswer(status, named, body.encode(), NOW_NS, NOW_NS + 100_000_000)


@pytest.mark.parametrize(
    ("given", "status", "found"),
    [
        (answer('{"timestamp":"2025-11-22T10:00:00.05-05:00","is_open":true}'), OK, "the same"),
        (answer('{"timestamp":"2025-11-22T10:00:00.05-05:00","is_open":false}'), OK, "market is closed"),
        (answer('{"timestamp":"2025-11-22T10:00:01.10-05:00"}'), WARN, "1.0 s behind"),
        (answer('{"timestamp":"2025-11-22T09:59:50.00-05:00"}'), FAIL, "10.0 s ahead"),
        (
            answer('{"timestamp":"2025-11-22T10:00:00-05:00"}', date="Sat, 22 Nov 2025 15:00:00 GMT"),
            OK,
            "the same",
        ),
        (answer("", date="Sat, 22 Nov 2025 14:59:58 GMT"), WARN, "1.0 s ahead"),
        (answer("<html>", date="yesterday"), SKIP, "has no time"),
        (answer("[]"), SKIP, "has no time"),
    ],
)
def test_the_clock_is_compared_within_what_the_answer_can_tell(
    given: TimedAnswer, status: Status, found: str
) -> None:
    """A stated fraction of a second, else the whole second of the Date header."""
    finding = alpaca.clock(given)
    assert finding.status is status
    assert found in finding.found


def test_no_rate_limit_headers_are_a_warning() -> None:
    """Alpaca sends them with every answer."""
    assert alpaca.rate_limit(answer()).status is WARN
    assert alpaca.rate_limit(answer(x_ratelimit_limit="200", x_ratelimit_remaining="many")).status is WARN
    assert alpaca.rate_limit(answer(x_ratelimit_limit="200", x_ratelimit_remaining="150")).status is OK


def test_secrets_are_taken_out_of_whatever_repeats_them() -> None:
    """Long ones first, so that no rest of one remains."""
    finding = Finding("a check", FAIL, "tried s3cr3t-long", "not s3cr3t")
    redaction.know(["s3cr3t", "s3cr3t-long"])
    (clean,) = redacted([finding])
    redaction.know([])
    assert (clean.found, clean.remedy) == ("tried (hidden)", "not (hidden)")


async def run_doctor(folder: Path, environment: dict[str, str], *words: str) -> tuple[int | None, str, str]:
    """The command in a process of its own: exit code, output, errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "portfolio_realtime", "doctor", *words),
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = (text.decode() for text in await process.communicate())
    return process.returncode, output, errors


async def test_the_command_fails_with_its_exit_code_and_shows_no_secret(start: Start, tmp_path: Path) -> None:
    """Every secret setting has a value, and most of them are refused; as a table and as JSON."""
    running = await start()
    secrets = {
        "BROKER_API_KEY": "CKs3cr3tkey",
        "BROKER_SECRET_KEY": "s3cr3t-broker",
        "MARKET_API_KEY": "PKs3cr3tkey",
        "MARKET_SECRET_KEY": "s3cr3t-market",
        "REDIS_URL": f"redis://user:s3cr3t-redis@127.0.0.1:{free_port()}/0",
        "JWT_SECRET": "s3cr3t-jwt-8Qw2Er4Ty6Ui8Op0As2Df4Gh6Jk8Lz",
        "API_KEY_SECRET": "s3cr3t-api-8Qw2Er4Ty6Ui8Op0As2Df4Gh6Jk8Lz",
    }
    environment = {**os.environ, **hosts(running), **secrets, "RUN_SERVICES_PORT": "0", "WEBSOCKET_PORT": "1"}
    table, report = await asyncio.gather(
        run_doctor(tmp_path, environment), run_doctor(tmp_path, environment, "--json")
    )
    assert table[0] == report[0] == 3
    assert "s3cr3t" not in "".join([*table[1:], *report[1:]])
    assert "Alpaca keys" in table[1]
    assert "checks failed" in table[1]
    told = msgspec.json.decode(report[1])
    assert told["healthy"] is False
    failed = {check["check"] for check in told["checks"] if check["status"] == "fail"}
    assert {"Alpaca keys", "feed stocks", "snapshots", "Valkey"} <= failed


def test_account_records_are_judged() -> None:
    """By whether the broker is heard, by their age, and by what the broker contradicts."""
    now_ns = time.time_ns()
    zero = Decimal(0)
    fresh = Account("a", 1, "ACTIVE", "USD", zero, zero, "2026-11-20", zero, (), now_ns)
    old = msgspec.structs.replace(fresh, account_id="b", as_of_ns=now_ns - 2 * 10**12)
    reason = Unconfirmed(now_ns, "statement differs", {"cash": Decimal(1)})
    unconfirmed = msgspec.structs.replace(fresh, account_id="c", unconfirmed=reason)

    assert records.judged([], 900, is_heard=True).status is OK
    assert records.judged([fresh], 900, is_heard=True).status is OK
    assert records.judged([fresh], 900, is_heard=False).status is FAIL
    warned = records.judged([fresh, old, unconfirmed], 900, is_heard=True)
    assert (warned.status, "1 old, 1 not confirmed: b, c" in warned.found) == (WARN, True)
    assert records.judged([old], 9000, is_heard=True).status is OK
