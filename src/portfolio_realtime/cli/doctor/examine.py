"""Runs all checks side by side, each within its limit. A check that depends on a failed one is skipped."""

import asyncio

from portfolio_realtime import config
from portfolio_realtime.cli.doctor import alpaca, equity, feeds, machine, records
from portfolio_realtime.cli.doctor.findings import Finding, Status, redacted
from portfolio_realtime.cli.doctor.limits import START_S_MAX, Asked, in_time
from portfolio_realtime.cli.doctor.production import check_production
from portfolio_realtime.config import Settings, valkey_url
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.state import keys


async def examine(account_id: str = "") -> list[Finding]:
    """Run all checks. Findings contain no secret.

    `account_id` is the account whose equity is compared; "": the first open one.
    """
    settings = _loaded()
    if isinstance(settings, Finding):
        return [settings]
    here, there = await asyncio.gather(_machine(settings), _alpaca(settings, account_id))
    return redacted([Finding("settings", Status.OK, "all are valid"), *there, *here])


async def examine_production(url: str = "") -> list[Finding]:
    """Check the guide's production list. Findings contain no secret. `url` is the clients' address."""
    settings = _loaded()
    if isinstance(settings, Finding):
        return [settings]
    return redacted([Finding("settings", Status.OK, "all are valid"), *await check_production(settings, url)])


def _loaded() -> Settings | Finding:
    try:
        return config.load()
    except SettingsError as error:
        _, _, wrong = str(error).partition("\n")
        remedy = "correct them in the environment or in .env; docs/configuration.md describes each setting"
        return Finding("settings", Status.FAIL, " ".join(wrong.split()), remedy)


async def _machine(settings: Settings) -> list[Finding]:
    keys.use_prefix(settings.key_prefix)
    if settings.is_embedded:
        own = Asked("the embedded Valkey", "this machine is very busy: try again later")
        valkey = in_time("Valkey", own, machine.state(settings), START_S_MAX)
        found, ports = await asyncio.gather(valkey, machine.ports(settings))
        return [found, *ports]
    shared = Asked(f"Valkey at {valkey_url.place_of(settings.state_url)}", machine.SHARED_REMEDY)
    # Not side by side: decoding records would be measured as a part of the round trip.
    found = await in_time("Valkey", shared, machine.state(settings))
    stored = await in_time(records.CHECK, shared, records.examine(settings))
    return [found, stored, *await machine.ports(settings)]


async def _alpaca(settings: Settings, account_id: str) -> list[Finding]:
    source = alpaca.source(settings)
    if source.status is Status.FAIL:
        return [source, *_skipped("Alpaca keys", "clock", "rate limit", "market data", "equity")]
    account, market = await asyncio.gather(_account(settings, account_id), feeds.examine(settings))
    *told, compared = account
    return [source, *told, *market, compared]


async def _account(settings: Settings, account_id: str) -> list[Finding]:
    """What the account source says: access, clock, rate limit, and one account's equity as the last."""
    answer = await in_time("Alpaca host", alpaca.asked(settings), alpaca.ask(settings))
    if isinstance(answer, Finding):
        return [answer, *_skipped("clock", "rate limit", "equity")]
    access = alpaca.access(settings, answer)
    if access.status is not Status.OK:
        return [access, *_skipped("clock", "rate limit", "equity")]
    asked = alpaca.asked(settings)
    compared = await in_time("equity", asked, equity.examine(settings, account_id, asked))
    return [access, alpaca.clock(answer), alpaca.rate_limit(answer), compared]


def _skipped(*checks: str) -> list[Finding]:
    return [Finding(check, Status.SKIP, "not checked: see above") for check in checks]
