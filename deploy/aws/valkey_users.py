"""Valkey's users and their rights, as the product gives them (deploy/valkey-users.json)."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

USERS: Final = Path(__file__).resolve().parent.parent / "valkey-users.json"


@dataclass(frozen=True)
class ValkeyUsers:
    """Which user each service is, and what each user may do."""

    user_of: dict[str, str]
    rights: dict[str, str]


@cache
def valkey_users() -> ValkeyUsers:
    """Read once."""
    found = json.loads(USERS.read_text())
    return ValkeyUsers(found["user_of"], found["rights"])
