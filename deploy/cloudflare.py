#!/usr/bin/env python3
"""The domain at Cloudflare: a name for the load balancer, the zone's settings, the networks to trust.

`make cloudflare ARGS="record --name realtime.example.com --target LB --dry-run"`; docs/deploy/cloudflare.md.
Everything is read first and compared, then both rights of the token are tried on what is there already, and
only then is something changed. Run again, it changes nothing.
"""

import argparse
import ipaddress
import json
import os
import re
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final, cast

# Python puts this file's folder first, where `import cloudflare` would find this very file.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]
import cloudflare  # noqa: E402  # see above

NETWORKS: Final = Path(__file__).parent / "cloudflare-networks.json"
TIMEOUT_S: Final = 20.0
RETRIES_MAX: Final = 2
PREFIX_MIN: Final = {4: 8, 6: 16}  # a wider network in the list is a mistake, and would be trusted
EXIT_REFUSED: Final = 1
EXIT_DIFFERS: Final = 3  # Cloudflare's list of networks is another one than ours
DNS: Final = "Zone > DNS > Edit"
ZONE_SETTINGS: Final = "Zone > Zone Settings > Edit"

# Setting -> what is good enough; the first is what is set where the present one is none of them.
SETTINGS: Final = {
    "websockets": ("on",),
    "ssl": ("strict", "origin_pull"),
    "min_tls_version": ("1.2", "1.3"),
    "always_use_https": ("on",),
}
TIMEOUT_NOTE: Final = """\
Cloudflare has no setting for the timeout of WebSockets ("Rules > Settings" in many guides): `websockets` is
on or off. It ends a connection that is silent for 100 s or longer; our server pings each connection every 20
to 25 s, so none is silent. (`proxy_read_timeout` is for Enterprise plans, and not needed.)"""
ORANGE_NOTE: Final = """\
Through Cloudflare (orange) TRUSTED_PROXIES must hold the VPC and Cloudflare's networks, or all viewers behind
one edge share the limits of its address; the balancer should let in those networks alone: see `networks`."""
HOST: Final = re.compile(
    r"(?=.{4,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]"
)


class RefusedError(Exception):
    """Why it cannot be done, and the remedy."""


@dataclass(frozen=True)
class Step:
    """One thing that is wanted, beside what is there; `change` makes it so."""

    what: str
    found: str
    wanted: str
    change: Callable[[], object] | None = None

    @property
    def is_due(self) -> bool:
        """Is something to change?"""
        return self.change is not None


@dataclass(frozen=True)
class Alias:
    """A CNAME; `is_proxied` None: as it is, and DNS only when it is new."""

    name: str
    target: str
    is_proxied: bool | None


def main(arguments: Sequence[str] | None = None, client: cloudflare.Cloudflare | None = None) -> int:
    """Do what the command line says; the exit code. Errors go to stderr with their remedy."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "networks":
            return _networks(client or _client(token=""), options.vpc, writes=options.write)
        return _record(client or _client(_token()), options)
    except RefusedError as error:
        print(f"cloudflare: {error}", file=sys.stderr)
        return EXIT_REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="deploy/cloudflare.py", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    record = commands.add_parser("record", help="the name, and the zone's settings", epilog=TIMEOUT_NOTE)
    record.add_argument("--name", required=True, help="realtime.example.com")
    record.add_argument("--target", required=True, help="DNS name of the load balancer")
    record.add_argument("--zone", default="", help="example.com; else it is found from the name")
    colour = record.add_mutually_exclusive_group()
    colour.add_argument("--orange", dest="is_proxied", action="store_true", help="through Cloudflare")
    colour.add_argument(
        "--grey", dest="is_proxied", action="store_false", help="DNS only; so a new name begins"
    )
    record.set_defaults(is_proxied=None)
    record.add_argument(
        "--validation",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "TARGET"),
        help="the CNAME by which AWS validates the certificate: grey for ever; may be repeated",
    )
    record.add_argument(
        "--deep-certificate", action="store_true", help="there is one for names two levels deep"
    )
    record.add_argument("--dry-run", action="store_true", help="show what would change; change nothing")
    networks = commands.add_parser(
        "networks", help="compare Cloudflare's networks with ours; 3 when they differ"
    )
    networks.add_argument("--vpc", default="10.0.0.0/16", help="the VPC's network, for TRUSTED_PROXIES")
    networks.add_argument("--write", action="store_true", help=f"take Cloudflare's list into {NETWORKS.name}")
    return parser


def _token() -> str:
    path = os.environ.get("CLOUDFLARE_API_TOKEN_FILE", "")
    try:
        token = Path(path).read_text().strip() if path else os.environ.get("CLOUDFLARE_API_TOKEN", "").strip()
    except OSError as error:
        raise RefusedError(f"CLOUDFLARE_API_TOKEN_FILE cannot be read: {error}") from None
    if not token:
        raise RefusedError(
            "no token: set CLOUDFLARE_API_TOKEN or CLOUDFLARE_API_TOKEN_FILE; make one at My Profile > API "
            f"Tokens with {DNS} and {ZONE_SETTINGS}, for this zone alone"
        )
    if not re.fullmatch(r"[A-Za-z0-9_-]{20,200}", token):
        raise RefusedError(
            "CLOUDFLARE_API_TOKEN is no API token: letters, digits, _ and - only, without quotes"
        )
    return token


def _client(token: str) -> cloudflare.Cloudflare:
    return cloudflare.Cloudflare(api_token=token, timeout=TIMEOUT_S, max_retries=RETRIES_MAX)


def _record(client: cloudflare.Cloudflare, options: argparse.Namespace) -> int:
    wanted = Alias(_host(options.name), _host(options.target), options.is_proxied)
    grey = [Alias(_host(name), _host(target), is_proxied=False) for name, target in options.validation]
    zone = _zone(client, wanted.name, options.zone.lower().rstrip("."), wants_proxy=bool(options.is_proxied))
    settings = [_setting_step(client, zone.id, name, good) for name, good in SETTINGS.items()]
    records = [_record_step(client, zone.id, alias) for alias in (*grey, wanted)]
    _check_depth(wanted, zone.name, records[-1].wanted, has_certificate=options.deep_certificate)
    # What goes through Cloudflare is set up first; a name that is DNS only needs nothing of the settings.
    steps = [*settings, *records]
    due = sum(step.is_due for step in steps)
    print(f"zone {zone.name} ({due} to change; the settings hold for all names of the zone)")
    if options.dry_run:
        for step in steps:
            _show(step, "would change")
    else:
        _try_rights(client, zone.id, settings, wanted.name)
        _apply(steps)
    print(TIMEOUT_NOTE)
    if "orange" in records[-1].wanted or options.dry_run:
        print(ORANGE_NOTE)
    return 0


def _apply(steps: Sequence[Step]) -> None:
    done: list[str] = []
    for step in steps:
        if step.change is not None:
            try:
                step.change()
            except RefusedError as error:
                raise RefusedError(f"{error}; changed before that: {', '.join(done) or 'nothing'}") from None
            done.append(step.what)
        _show(step, "changed")


def _show(step: Step, said: str) -> None:
    print(
        f"{said:13} {step.what}: {step.found} -> {step.wanted}"
        if step.is_due
        else f"{'as it is':13} {step.what}: {step.found}"
    )


def _host(text: str) -> str:
    name = text.lower().rstrip(".")
    if not HOST.fullmatch(name):
        raise RefusedError(
            f"{text!r} is no host name: write it as realtime.example.com, without scheme and port"
        )
    return name


def _zone(client: cloudflare.Cloudflare, name: str, zone: str, *, wants_proxy: bool) -> Any:
    labels = name.split(".")
    candidates = [zone] if zone else [".".join(labels[at:]) for at in range(len(labels) - 1)]
    if zone and name != zone and not name.endswith(f".{zone}"):
        raise RefusedError(f"{name} is not in the zone {zone}")
    for candidate in candidates:
        with _explained(f"looking for the zone {candidate}", "Zone > Zone > Read"):
            found = [one for one in client.zones.list(name=candidate) if one.name == candidate]
        if found:
            return _usable(found[0], wants_proxy=wants_proxy)
    raise RefusedError(
        f"the token sees no zone for {name} (asked for {', '.join(candidates)}): add the domain to "
        "Cloudflare, or give the token this zone under Zone Resources"
    )


def _usable(zone: Any, *, wants_proxy: bool) -> Any:
    if zone.status != "active":
        raise RefusedError(
            f"zone {zone.name} is {zone.status}: set its name servers at the registrar to "
            f"{', '.join(zone.name_servers)}, and wait until Cloudflare calls it active"
        )
    if zone.paused and wants_proxy:
        raise RefusedError(
            f"zone {zone.name} is paused, so nothing goes through Cloudflare: Overview > Enable Cloudflare"
        )
    return zone


def _setting_step(client: cloudflare.Cloudflare, zone_id: str, name: str, good: Sequence[str]) -> Step:
    with _explained(f"reading the setting {name}", ZONE_SETTINGS):
        setting = cast("Any", client.zones.settings.get(name, zone_id=zone_id))
    value = str(setting.value)
    if value in good:
        return Step(f"setting {name}", value, value)
    if setting.editable is False:
        raise RefusedError(
            f"setting {name} is {value!r} and this zone's plan does not let it be changed; {good[0]!r} is "
            "needed: change the plan"
        )

    def change() -> None:
        with _explained(f"setting {name}", ZONE_SETTINGS):
            client.zones.settings.edit(name, zone_id=zone_id, value=cast("Any", good[0]))

    return Step(f"setting {name}", value, good[0], change)


def _record_step(client: cloudflare.Cloudflare, zone_id: str, alias: Alias) -> Step:
    present = _present(client, zone_id, alias.name)
    if present is None:
        is_proxied = bool(alias.is_proxied)

        def create() -> None:
            with _explained(f"making the record {alias.name}", DNS):
                client.dns.records.create(
                    zone_id=zone_id,
                    type="CNAME",
                    name=alias.name,
                    content=alias.target,
                    ttl=1,
                    proxied=is_proxied,
                )

        return Step(f"record {alias.name}", "none", _described(alias.target, is_proxied=is_proxied), create)
    is_proxied = bool(present.proxied) if alias.is_proxied is None else alias.is_proxied
    found = _described(str(present.content), is_proxied=bool(present.proxied))
    wanted = _described(alias.target, is_proxied=is_proxied)

    def change() -> None:
        with _explained(f"changing the record {alias.name}", DNS):
            client.dns.records.edit(
                present.id,
                zone_id=zone_id,
                type="CNAME",
                name=alias.name,
                ttl=1,
                content=alias.target,
                proxied=is_proxied,
            )

    return Step(f"record {alias.name}", found, wanted, change if found != wanted else None)


def _present(client: cloudflare.Cloudflare, zone_id: str, name: str) -> Any:
    """The name's CNAME, or None. Raises RefusedError where another record is in its way."""
    with _explained(f"reading the records of {name}", DNS):
        records: list[Any] = list(client.dns.records.list(zone_id=zone_id, name={"exact": name}))
    others = [record for record in records if record.type in ("A", "AAAA", "NS")]
    if others:
        shown = ", ".join(f"{record.type} {record.content}" for record in others)
        raise RefusedError(f"{name} has other records already ({shown}): delete them, or choose another name")
    return next((record for record in records if record.type == "CNAME"), None)


def _described(target: str, *, is_proxied: bool) -> str:
    return f"{target.lower().rstrip('.')} ({'orange' if is_proxied else 'grey'})"


def _check_depth(alias: Alias, zone: str, wanted: str, *, has_certificate: bool) -> None:
    depth = len(alias.name.split(".")) - len(zone.split("."))
    if depth > 1 and "orange" in wanted and not has_certificate:
        raise RefusedError(
            f"Cloudflare's universal certificate covers *.{zone}, not {alias.name}: choose a name one level "
            "deep, or order an advanced certificate and say --deep-certificate"
        )


def _try_rights(client: cloudflare.Cloudflare, zone_id: str, settings: Sequence[Step], name: str) -> None:
    """Write what is there already: refused here, nothing has been changed yet."""
    kept = next((step for step in settings if not step.is_due), None)
    if kept is not None:
        setting = kept.what.removeprefix("setting ")
        with _explained(f"trying the right to change settings on {setting}", ZONE_SETTINGS):
            client.zones.settings.edit(setting, zone_id=zone_id, value=cast("Any", kept.found))
    present = _present(client, zone_id, name)
    if present is not None:
        with _explained(f"trying the right to change records on {name}", DNS):
            client.dns.records.edit(
                present.id,
                zone_id=zone_id,
                type="CNAME",
                name=name,
                ttl=present.ttl,
                content=present.content,
                proxied=present.proxied,
            )


@contextmanager
def _explained(doing: str, right: str) -> Generator[None]:
    """Turn what the SDK raises into RefusedError, with what was being done and the remedy."""
    try:
        yield
    except cloudflare.APIConnectionError as error:
        raise RefusedError(
            f"{doing}: Cloudflare cannot be reached ({error.__cause__ or error}); try again"
        ) from None
    except cloudflare.APIResponseValidationError as error:
        raise RefusedError(
            f"{doing}: an answer that the SDK does not know: {error}; is there a newer SDK?"
        ) from None
    except cloudflare.APIStatusError as error:
        said = (
            "; ".join(f"{one.message} ({one.code})" for one in error.errors or [])
            or f"HTTP {error.status_code}"
        )
        raise RefusedError(f"{doing}: {said}. {_remedy(error, right)}") from None


def _remedy(error: cloudflare.APIStatusError, right: str) -> str:
    codes = {one.code for one in error.errors or []}
    if error.status_code == 401 or codes & {1000, 6003, 6111, 9109}:
        return "The token is not accepted: is it whole, not expired, and allowed from this address?"
    if error.status_code == 403:
        return f"The token lacks a right: give it {right} for this zone (My Profile > API Tokens > Edit)"
    if error.status_code == 429:
        return "Too many requests (1,200 in 5 minutes for each user): try again in 5 minutes"
    if error.status_code >= 500:
        return "Cloudflare has a fault: see its status page, then try again"
    return "Nothing was changed by this request"


def _networks(client: cloudflare.Cloudflare, vpc: str, *, writes: bool) -> int:
    try:
        own = ipaddress.ip_network(vpc)
    except ValueError as error:
        raise RefusedError(f"--vpc: {error}; write it as 10.0.0.0/16") from None
    with _explained("reading Cloudflare's networks", "none"):
        answer = client.ips.list()
    theirs = {
        "ipv4": _checked(answer.ipv4_cidrs if answer else None, version=4),
        "ipv6": _checked(answer.ipv6_cidrs if answer else None, version=6),
    }
    ours = cast("dict[str, Any]", json.loads(NETWORKS.read_text()))
    differences = [
        f"{sign} {network}"
        for family, networks in theirs.items()
        for sign, some in (("+", set(networks) - set(ours[family])), ("-", set(ours[family]) - set(networks)))
        for network in sorted(some)
    ]
    print("\n".join(differences) or f"{NETWORKS.name} (as of {ours['as_of']}) is what Cloudflare says")
    print("TRUSTED_PROXIES=" + ",".join([str(own), *theirs["ipv4"], *theirs["ipv6"]]))
    if differences and writes:
        text = {**ours, "as_of": date.today().isoformat(), **theirs}  # noqa: DTZ011  # a note for people
        NETWORKS.write_text(json.dumps(text, indent=2) + "\n")
        print(f"{NETWORKS.name} is written: deploy again; the balancer's group and TRUSTED_PROXIES follow it")
        return 0
    return EXIT_DIFFERS if differences else 0


def _checked(networks: Sequence[str] | None, *, version: int) -> list[str]:
    """The networks, sorted; refused as a whole when one is none, or so wide that it must be a mistake."""
    if not networks:
        raise RefusedError(
            f"Cloudflare names no IPv{version} networks: nothing is changed; look at its page of addresses"
        )
    for text in networks:
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise RefusedError(f"{text!r} in Cloudflare's list is no network: {error}") from None
        if network.version != version or network.prefixlen < PREFIX_MIN[version] or network.is_private:
            raise RefusedError(
                f"{text} in Cloudflare's list is too wide or not public to be trusted: nothing is changed"
            )
    return sorted(networks)


if __name__ == "__main__":
    sys.exit(main())
