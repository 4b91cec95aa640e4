"""The one place that knows this process's secrets: whatever text leaves it passes `clean`.

Our own words never hold a secret, but those of the libraries do: an HTTP client quotes the header that it
refuses, a URL is repeated in an error, a traceback shows both.
"""

import base64
import json
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

HIDDEN: Final = "(hidden)"
LENGTH_MIN: Final = 4  # a shorter text is part of too many others to be taken out
LEARNT_MAX: Final = 64  # secrets that are given to us while we run, such as access tokens; the oldest goes

_known: dict[str, None] = {}  # every spelling, longest first
_configured: set[str] = set()
_learnt: dict[str, None] = {}


def know(secrets: Iterable[str]) -> None:
    """The secrets of the settings; what was known from there before is forgotten."""
    global _configured
    _configured = {secret for secret in secrets if len(secret) >= LENGTH_MIN}
    _spell()


def learn(secret: str) -> None:
    """One more, which somebody has given to us while we run."""
    if len(secret) < LENGTH_MIN or secret in _learnt or secret in _configured:
        return
    _learnt[secret] = None
    while len(_learnt) > LEARNT_MAX:
        del _learnt[next(iter(_learnt))]
    _spell()


def clean(text: str) -> str:
    """The text without any secret, however it is spelt."""
    for spelling in _known:
        if spelling in text:
            text = text.replace(spelling, HIDDEN)
    return text


def _spell() -> None:
    found = {spelling for secret in (*_configured, *_learnt) for spelling in _spellings(secret)}
    _known.clear()
    _known.update(dict.fromkeys(sorted(found, key=lambda one: (-len(one), one))))


def _spellings(secret: str) -> Iterable[str]:
    """As it stands in a text, JSON, a Python literal, a URL, and as the password of HTTP Basic."""
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
    """A user and a password that go over the wire as HTTP Basic."""
    learn(base64.b64encode(f"{user}:{password}".encode()).decode().rstrip("="))
