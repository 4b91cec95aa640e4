"""The rights of each service's user cover the table of keys, and nothing else."""

import re
from pathlib import Path

from portfolio_realtime.state import keys, rights

SECURITY = Path(__file__).parents[2] / "docs" / "security.md"


def _patterns(marked_as_channel: bool) -> set[str]:
    """Keys or channels of the table in keys.py as the patterns of an access string."""
    found: set[str] = set()
    for line in (keys.__doc__ or "").splitlines():
        match = re.match(r"\| (channel )?([^ |]+)", line)
        if match is None or match[2] in ("pattern", "HASH:fence") or set(match[2]) == {"-"}:
            continue
        if bool(match[1]) == marked_as_channel:
            found.add(match[2].replace("{sNN}", "{s??}").replace("PROCESS", "*"))
    return found


def test_the_document_shows_them() -> None:
    """docs/security.md has the lines that people copy."""
    shown = SECURITY.read_text()
    for user in rights.COMMANDS:
        assert f"ACL SETUSER {user} resetkeys >PASSWORD {rights.access_string(user)}\n" in shown


def test_every_key_and_channel_of_the_table_belongs_to_somebody() -> None:
    """A key that is new in the table needs rights."""
    for key in _patterns(marked_as_channel=False):
        stem = re.sub(r"\b[A-Z][A-Z0-9]+\b.*", "", key)
        assert any(pattern.startswith(stem) for pattern in rights.KEYS), key
    assert _patterns(marked_as_channel=True) == set(rights.CHANNELS)


def test_the_prefix_of_a_tenant_stands_before_every_pattern() -> None:
    """Another tenant's keys are out of reach."""
    for user in rights.COMMANDS:
        patterns = [part for part in rights.access_string(user, "bank-a:").split() if part[0] in "~%&"]
        assert patterns
        assert all(re.match(r"(~|%R~|%W~|&)bank-a:", pattern) for pattern in patterns)
