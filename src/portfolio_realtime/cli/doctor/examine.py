"""Runs all checks, concurrently where possible. A check that depends on a failed one is skipped."""

import asyncio
from collections.abc import Awaitable
from typing import Final

from portfolio_realtime import config
from portfolio_realtime.cli.doctor import alpaca, equity, feeds, machine, records
from portfolio_realtime.cli.doctor.findings import Finding, Status, redacted
from portfolio_realtime.cli.doctor.production import check_production
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.state import keys

CHECK_S_MAX: Final = 60.0


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
    shared = [] if settings.is_embedded else [await _in_time(records.CHECK, records.examine(settings))]
    return [
        await _in_time("Valkey", machine.state(settings)),
        *shared,
        *await machine.ports(settings),
    ]


async def _alpaca(settings: Settings, account_id: str) -> list[Finding]:
    source = alpaca.source(settings)
    if source.status is Status.FAIL:
        return [source, *_skipped("Alpaca keys", "clock", "rate limit", "market data", "equity")]
    answer = await alpaca.ask(settings)
    if isinstance(answer, Finding):
        return [source, answer, *_skipped("clock", "rate limit", "equity"), *await feeds.examine(settings)]
    access = alpaca.access(settings, answer)
    market = await feeds.examine(settings)
    if access.status is not Status.OK:
        return [source, access, *_skipped("clock", "rate limit"), *market, *_skipped("equity")]
    compared = await _in_time("equity", equity.examine(settings, account_id))
    return [source, access, alpaca.clock(answer), alpaca.rate_limit(answer), *market, compared]


async def _in_time(check: str, work: Awaitable[Finding]) -> Finding:
    try:
        return await asyncio.wait_for(work, CHECK_S_MAX)
    except TimeoutError:
        return Finding(check, Status.FAIL, f"no answer within {CHECK_S_MAX:.0f} s", "try again later")


def _skipped(*checks: str) -> list[Finding]:
    return [Finding(check, Status.SKIP, "not checked: see above") for check in checks]
