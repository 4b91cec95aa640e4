"""Removes this process's secrets from all text that it writes: `clean`.

Our own messages contain no secret, but those of libraries may: an HTTP client quotes a header that it
refuses, an error repeats a URL, a traceback shows both.
"""

import base64
import json
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

HIDDEN: Final = "(hidden)"
LENGTH_MIN: Final = 4  # a shorter secret is not removed: it is a part of too many words
LEARNT_MAX: Final = 64  # secrets learnt at run time, such as access tokens; above it, the oldest is forgotten

_known: dict[str, None] = {}  # every spelling of all secrets, longest first
_configured: set[str] = set()
_learnt: dict[str, None] = {}


def know(secrets: Iterable[str]) -> None:
    """Replace the secrets of the settings."""
    global _configured
    _configured = {secret for secret in secrets if len(secret) >= LENGTH_MIN}
    _spell()


def learn(secret: str) -> None:
    """Add one secret that is learnt at run time."""
    if len(secret) < LENGTH_MIN or secret in _learnt or secret in _configured:
        return
    _learnt[secret] = None
    while len(_learnt) > LEARNT_MAX:
        del _learnt[next(iter(_learnt))]
    _spell()


def clean(text: str) -> str:
    """The text with every secret, in any spelling, replaced by HIDDEN."""
    for spelling in _known:
        if spelling in text:
            text = text.replace(spelling, HIDDEN)
    return text


def _spell() -> None:
    found = {spelling for secret in (*_configured, *_learnt) for spelling in _spellings(secret)}
    _known.clear()
    _known.update(dict.fromkeys(sorted(found, key=lambda one: (-len(one), one))))


def _spellings(secret: str) -> Iterable[str]:
    """The spellings of a secret in plain text, JSON, Python literals, URLs and Base64."""
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    yield repr(secret.encode())[2:-1]
    yield quote(secret)
    yield quote(secret, safe="")
    yield quote_plus(secret)
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    if len(encoded) >= LENGTH_MIN:
        yield encoded


def know_pair(user: str, password: str) -> None:
    """Add the Base64 text of a user and a password that are sent as HTTP Basic."""
    learn(base64.b64encode(f"{user}:{password}".encode()).decode().rstrip("="))
