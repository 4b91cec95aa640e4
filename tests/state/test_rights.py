"""The rights of each service's user cover the table of keys, and nothing else."""

import re
from types import MappingProxyType

import pytest
from deploy import valkey_rights

from portfolio_realtime.state import keys, rights


def _patterns(marked_as_channel: bool) -> set[str]:
    """Keys or channels of the table in keys.py as the patterns of an access string."""
    found: set[str] = set()
    for line in (keys.__doc__ or "").splitlines():
        match = re.match(r"\| (channel )?([^ |]+)", line)
        if match is None or match[2] in ("pattern", "HASH:fence") or set(match[2]) == {"-"}:
            continue
        if bool(match[1]) == marked_as_channel:
            pattern = match[2].replace("{sNN}", "{s????}").replace("{TAG}:probe:WORD", "{*}:probe:*")
            found.add(pattern.replace(":SERVER", ":*") if match[1] else pattern)
    return found


def test_every_file_that_shows_them_shows_these() -> None:
    """The page that people copy from, the list of users, the templates: python -m deploy.valkey_rights."""
    shown = dict(valkey_rights.written())
    assert len(shown) >= 4
    for path, text in shown.items():
        assert path.read_text() == text, f"{path.name}: run python -m deploy.valkey_rights"
    for user in rights.COMMANDS:
        assert rights.access_string(user) in shown[valkey_rights.DOCUMENT]


def test_a_changed_right_is_noticed_in_each_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page, the list and both templates would have to be written again."""
    monkeypatch.setattr(rights, "COMMANDS", MappingProxyType({**rights.COMMANDS, "server": "ping"}))
    changed = {path.name for path, text in valkey_rights.written() if path.read_text() != text}
    assert changed == {"security.md", "valkey-users.json", "small.json", "standard.json"}


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
