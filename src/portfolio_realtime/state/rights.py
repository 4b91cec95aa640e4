"""The least rights in Valkey of each service, as the access string of its ACL user.

`python -m portfolio_realtime.state.rights [KEY_PREFIX]` prints an `ACL SETUSER` line for each user. With
`--json` it prints deploy/valkey-users.json, from which the AWS templates are made. The keys are those of
`keys.py`. A script needs read and write rights for every key that it declares. A server therefore has both
for valuations and leases, which it only reads.
"""

import json
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

User = Literal["collector", "consumer", "calculator", "server", "operator"]
Access = Literal["R", "W", "RW"]

USER_OF: Final[Mapping[str, User]] = MappingProxyType(
    {
        "symbol_collector": "collector",
        "market_data_consumer": "consumer",
        "portfolio_calculator": "calculator",
        "websocket_server": "server",
        "operator": "operator",  # people, with the commands revoke, entitle, revocations and status
    }
)

_CONNECTION: Final = "hello ping client|setinfo cluster|slots asking"
_SCRIPTS: Final = "eval evalsha"
_CHANNELS: Final = "publish subscribe spublish ssubscribe"  # the latter two on a cluster
_LEASES: Final = "get set del pexpire time"
_INTEREST: Final = "zrange zrangebyscore zremrangebyscore zscore xadd xrange xrevrange"

WITHOUT_KEYS: Final = f"{_CONNECTION} time info multi exec scan"

COMMANDS: Final[Mapping[User, str]] = MappingProxyType(
    {
        "collector": f"{_CONNECTION} {_SCRIPTS} {_LEASES} hgetall hkeys hlen hmget hscan hset hdel spop "
        f"{_CHANNELS} {_INTEREST}",
        "consumer": f"{_CONNECTION} {_SCRIPTS} {_LEASES} mget expire hgetall hvals hset hdel zcard "
        f"{_CHANNELS} watch multi exec",
        "calculator": f"{_CONNECTION} {_SCRIPTS} {_LEASES} mget pexpiretime hgetall hvals hkeys hlen hmget "
        f"hscan hset hdel {_CHANNELS} {_INTEREST} zadd zcard zrem watch multi exec",
        "server": f"{_CONNECTION} {_SCRIPTS} exists set get getdel mget sadd scan hget hgetall hkeys hmget "
        f"hexists hlen multi exec time zadd zrange zremrangebyscore zscore {_CHANNELS} xread xadd xrevrange "
        "expire pexpire hset hsetnx hdel info",
        "operator": f"{_CONNECTION} time info multi exec xadd xread xrevrange expire get hset hsetnx hdel "
        "hmget hgetall mget pexpiretime scan",
    }
)

KEYS: Final[Mapping[str, Mapping[User, Access]]] = MappingProxyType(
    {
        "{universe}": {"collector": "RW", "consumer": "R"},
        "{universe}:fence": {"collector": "RW"},
        "{s????}:accounts": {"collector": "RW", "calculator": "R", "server": "R"},
        "{s????}:accounts:fence": {"collector": "RW"},
        "{s????}:bookings": {"collector": "RW", "server": "R"},
        "{s????}:bookings:fence": {"collector": "RW"},
        "{s????}:pending": {"collector": "RW", "server": "R"},
        "{s????}:pending:fence": {"collector": "RW"},
        "{s????}:interest": {"collector": "RW", "consumer": "R", "calculator": "RW", "server": "RW"},
        "{s????}:interest:positions": {"collector": "RW", "calculator": "RW", "server": "RW"},
        "{s????}:interest:changes": {"collector": "RW", "calculator": "RW", "server": "RW"},
        "{s????}:valuations": {"calculator": "RW", "server": "RW"},
        "{s????}:valuations:fence": {"calculator": "RW", "server": "RW"},
        "{marks}": {"collector": "R", "consumer": "RW", "calculator": "R", "server": "R"},
        "{marks}:market_data:*:fence": {"consumer": "RW"},
        "{minutes:*}": {"consumer": "RW", "server": "R"},
        "{minutes:*}:market_data:*:fence": {"consumer": "RW"},
        "lease:{symbol_collector}": {"collector": "RW", "operator": "R"},
        "lease:{symbol_collector}:granted": {"collector": "RW"},
        "lease:{market_data:*}": {"consumer": "RW", "operator": "R"},
        "lease:{market_data:*}:granted": {"consumer": "RW"},
        "lease:{s????}": {"calculator": "RW", "server": "RW", "operator": "R"},
        "lease:{s????}:granted": {"calculator": "RW"},
        "members:portfolio_calculators": {"calculator": "RW"},
        "history:*": {"collector": "W", "server": "R"},
        "account-numbers": {"collector": "RW", "server": "R"},
        "asset-names": {"collector": "RW", "server": "R"},
        "history-wanted": {"collector": "RW", "server": "RW"},
        "cursor:activities": {"collector": "RW"},
        "{feed}:*": {"consumer": "W", "calculator": "R", "operator": "R"},
        "{feed}:accounts": {"collector": "W"},
        "{metrics}:*": {"server": "R", "operator": "R"},
        "{metrics}:symbol_collector:*": {"collector": "W"},
        "{metrics}:market_data_consumer:*": {"consumer": "W"},
        "{metrics}:portfolio_calculator:*": {"calculator": "W"},
        "{metrics}:websocket_server:*": {"server": "W"},
        "ticket:*": {"server": "RW"},
        "{connections}:servers": {"server": "RW"},
        "{connections}:*:*": {"server": "RW"},
        "life": {"server": "RW"},
        "settings": {
            "collector": "RW",
            "consumer": "RW",
            "calculator": "RW",
            "server": "RW",
            "operator": "R",
        },
        "wire": {"collector": "RW", "consumer": "RW", "calculator": "RW", "server": "RW", "operator": "RW"},
        "shards": {"collector": "RW", "consumer": "RW", "calculator": "RW", "server": "RW"},
        "{revocations}": {"server": "RW", "operator": "RW"},  # a server writes lost entries again
        "{revocations}:known": {"server": "RW", "operator": "RW"},
        "entitlements": {"server": "R", "operator": "RW"},
    }
)

CHANNELS: Final[Mapping[str, frozenset[User]]] = MappingProxyType(
    {
        "{universe}": frozenset({"collector", "consumer"}),
        "{marks}": frozenset({"consumer", "calculator"}),
        "{s????}:accounts": frozenset({"collector", "calculator", "server"}),
        "{s????}:interest": frozenset({"collector", "consumer", "calculator", "server"}),
        "{s????}:valuations": frozenset({"calculator", "server"}),
        "{s????}:valuations:*": frozenset({"calculator", "server"}),
        "{*}:probe:*": frozenset({"collector", "consumer", "calculator", "server"}),
    }
)


def access_string(user: User, key_prefix: str = "") -> str:
    """The rights of a user in the syntax of Valkey's ACL, without a password."""
    commands = [f"+{command}" for command in COMMANDS[user].split()]
    patterns = [
        f"~{key_prefix}{key}" if access[user] == "RW" else f"%{access[user]}~{key_prefix}{key}"
        for key, access in KEYS.items()
        if user in access
    ]
    channels = [f"&{key_prefix}{channel}" for channel, users in CHANNELS.items() if user in users]
    return " ".join(["on", "resetchannels", "-@all", *commands, *patterns, *channels])


def needed(user: User, key_prefix: str = "") -> dict[str, tuple[str, ...]]:
    """Words of the user's access string -> a command with arguments that only this right allows.

    A pattern is asked for with one key that it matches.
    """
    read = {f"%R~{key_prefix}{key}": ("get", _matching(key_prefix + key)) for key in _keys(user, "R")}
    written = {
        f"%W~{key_prefix}{key}": ("hset", _matching(key_prefix + key), "", "") for key in _keys(user, "W")
    }
    channels = (f"{key_prefix}{channel}" for channel, users in CHANNELS.items() if user in users)
    return {
        **{f"+{command}": _complete(command, key_prefix) for command in COMMANDS[user].split()},
        **read,
        **written,
        **{f"&{channel}": ("publish", _matching(channel), "") for channel in channels},
    }


def _complete(command: str, key_prefix: str) -> tuple[str, ...]:
    """The command with a key or channel that every service may use, as services give it."""
    key, channel = f"{key_prefix}settings", f"{key_prefix}{{0}}:probe:0"
    if command in WITHOUT_KEYS.split():
        return tuple(command.split("|"))
    if command in _SCRIPTS.split():
        return command, "", "0"
    if command in _CHANNELS.split():
        return command, channel, *([""] if "publish" in command else [])
    return (command, "streams", key, "0") if command == "xread" else (command, key)


def _keys(user: User, access: str) -> list[str]:
    return [key for key, users in KEYS.items() if access in users.get(user, "")]


def _matching(pattern: str) -> str:
    return pattern.replace("?", "0").replace("*", "0")


def as_json() -> str:
    """JSON with the user of each service and the rights of each user, without a key prefix."""
    rights = {user: access_string(user) for user in COMMANDS}
    return json.dumps({"user_of": dict(USER_OF), "rights": rights}, indent=2) + "\n"


def main() -> None:
    """Print a line for each user, or everything as JSON."""
    arguments = sys.argv[1:]
    if arguments == ["--json"]:
        print(as_json(), end="")
        return
    for user in COMMANDS:
        print(f"ACL SETUSER {user} resetkeys >PASSWORD {access_string(user, *arguments[:1])}")


if __name__ == "__main__":
    main()
