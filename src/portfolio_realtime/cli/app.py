"""The product's own commands. `portfolio_harness.commands` has those that drive and check a whole system.

Each command imports its module only when it runs, so that `--help` is fast.
"""

import os
import sys
from typing import Annotated

import typer

from portfolio_realtime import __version__, run_services
from portfolio_realtime.cli import operations
from portfolio_realtime.cli.common import finished, settings, tell, until_ctrl_c
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.exit_codes import OK, SETTINGS, UNPROVEN

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The live value of every brokerage account, right to the cent, in every browser.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong setting or option, 3 a check failed, 130 interrupted.",
)
operations.add_to(app)


def _version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    services: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SERVICE]...", help=f"All, or some of: {', '.join(run_services.SERVICES)}"),
    ] = None,
) -> None:
    """Run the services in this terminal, and restart a service that ends.

    Settings come from the environment and from .env.
    """
    chosen = services or list(run_services.SERVICES)
    for name in chosen:
        if name not in run_services.SERVICES:
            known = ", ".join(run_services.SERVICES)
            raise typer.BadParameter(f"{name!r} is not a service: choose from {known}")
    run_services.main(chosen)


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False
)
def simulate(context: typer.Context) -> None:
    """Run a simulated Alpaca on this machine. It accepts the options of `python -m alpaca_sim`."""
    os.execv(sys.executable, [sys.executable, "-m", "alpaca_sim", *context.args])  # noqa: S606  # our own module


@app.command()
def token(
    accounts: Annotated[list[str], typer.Argument(metavar="ACCOUNT...", help="Account ids, or * for all")],
    subject: Annotated[str, typer.Option(help="User for whom the token is issued")] = "developer",
    seconds: Annotated[int, typer.Option(min=1, help="Lifetime of the token in seconds")] = 3600,
) -> None:
    """Print a token for these accounts, signed with JWT_SECRET."""
    loaded = settings()
    if not loaded.jwt_secret.get_secret_value():
        typer.echo("JWT_SECRET is not set: set at least 32 random bytes in the environment or .env", err=True)
        raise typer.Exit(SETTINGS)
    if seconds > loaded.jwt_lifetime_max:
        raise typer.BadParameter(f"--seconds must be at most JWT_LIFETIME_MAX, {loaded.jwt_lifetime_max}")
    from portfolio_realtime.websocket_server.access.tokens import Tokens

    typer.echo(Tokens(loaded).issue(subject, accounts, seconds))


@app.command()
def revoke(
    subject: Annotated[str, typer.Option(help="Revoke all tokens issued to this user until now")] = "",
    token_id: Annotated[str, typer.Option(help="Revoke one token, by its `jti`")] = "",
    issuer: Annotated[str, typer.Option(help="`iss` of that token; default: JWT_ISSUER")] = "",
) -> None:
    """Revoke tokens and close their connections, for example after a logout or a theft."""
    import msgspec

    from portfolio_realtime.cli import users

    work = users.revoke(settings(), subject=subject, token_id=token_id, issuer=issuer)
    typer.echo(msgspec.json.encode(finished(until_ctrl_c(work))).decode())


@app.command()
def entitle(
    subject: Annotated[str, typer.Argument(help="The user: the `sub` of its tokens")],
    accounts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ACCOUNT]...", help="All accounts that the user may see; without any, access is removed"
        ),
    ] = None,
) -> None:
    """Set which accounts a user may see, with ACCOUNT_ACCESS=entitlements. Takes effect within seconds."""
    from portfolio_realtime.cli import users

    until_ctrl_c(users.entitle(settings(), subject, accounts or []))


@app.command("check-config")
def check_config() -> None:
    """Show all settings, or what is wrong with them. Secrets are hidden.

    A whole system needs a key from Alpaca. With REDIS_HOST or REDIS_URL, a missing key is not an error: this
    may be the configuration of a service that needs none.
    """
    from portfolio_realtime import config, outbound

    loaded = settings()
    for name, value in config.described(loaded):
        typer.echo(f"{name:28} {value}")
    source = config.described_source(loaded)
    typer.echo(f"{'follows':28} {source}")
    try:
        for host in ("broker", "auth", "trading", "data", "stream"):
            outbound.proxy_of(loaded.host(host))
    except SettingsError as error:
        tell(error)
        raise typer.Exit(SETTINGS) from None
    if loaded.account_source == "none" and loaded.is_embedded:
        typer.echo(source, err=True)
        raise typer.Exit(SETTINGS)


@app.command()
def doctor(
    account: Annotated[
        str, typer.Option(help="Compare this account's equity with the broker's; default: the first account")
    ] = "",
    production: Annotated[
        bool, typer.Option("--production", help="Check the production list of the guide instead")
    ] = False,
    url: Annotated[
        str, typer.Option(help="With --production: the public address that clients use, https://HOST")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Check keys, hosts, clock, feeds, rate limit, Valkey, ports and one account's equity.

    Each problem is shown with its remedy. No secret is shown. Exit code 3: a check failed.
    """
    import msgspec
    import uvloop
    from rich.console import Console

    from portfolio_realtime import logs
    from portfolio_realtime.cli.doctor import findings
    from portfolio_realtime.cli.doctor.examine import examine, examine_production

    if url and not production:
        raise typer.BadParameter("--url needs --production")
    logs.configure("doctor", "error", "console")
    report = uvloop.run(examine_production(url) if production else examine(account))
    if json:
        typer.echo(msgspec.json.encode(findings.as_json(report)).decode())
    else:
        findings.show(report, Console())
    raise typer.Exit(OK if findings.is_healthy(report) else UNPROVEN)
