"""Recognises weak secrets: examples from guides, and text made of words, keyboard patterns and repetitions.

These are removed from a text, and the rest must be long enough. Random text loses only a few characters, so
it is not refused.
"""

import re
from functools import cache
from typing import Final

LEFT_MIN: Final = 16  # characters that must be left
DIFFERENT_MIN: Final = 8  # different characters, in the secret and in what is left
WALK_MIN: Final = 4  # neighbouring keys

# Examples of widely copied guides, which the rules below do not recognise.
PRINTED: Final = frozenset(
    text.casefold()
    for text in (
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",  # FastAPI
        "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",  # Flask
        "404E635266556A586E3272357538782F413F4428472B4B6250645367566B5970",  # Spring Security, in tutorials
        "3EK6FD+o0+c7tzBNVfjpMkNDi2yARAAKzQlk8O2IKoxQu4nF7EdAh8s3TwpHwrdWT6R",  # Hasura
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",  # RFC 7515
        (
            "DO NOT USE THIS VALUE. INSTEAD, CREATE A COMPLEX SECRET AND KEEP IT SAFE "
            "OUTSIDE OF THE SOURCE CODE."  # NestJS
        ),
    )
)
BEGINNINGS: Final = ("your_", "your-", "changeme", "change-me", "change_me", "example", "super-secret")
WORDS: Final = """
    access account admin anything application auth authentication authorization base64 bearer before bits
    byte bytes change changeit changeme character characters chars correct default demo demonstration
    development dummy enter environment example except fake from generate generated goes hard hello here
    hidden hmac hs256 hs384 hs512 insecure insert jwt keep length least less like local localhost long make
    metrics minimum more must need only openssl pass passphrase passwd password phrase placeholder please
    portfolio private prod production rand random real realtime really refresh replace same sample secret
    secretkey secure server session shared should signature signing simple some someone something string
    strong super sure test testing text than that them then these thing thirty this those todo token tokens
    unguessable unknown unsafe user uuid valid value very webhook what whatever when which will with world
    your
"""
SHORT_WORDS: Final = """
    a an and any api app are as at be bit but by dev do env for get has hex hs if in is it its key keys me my
    new no not now of on one or our out put rs set sha so the to two up us use we you
    1 12 123 16 20 24 32 48 64 128 256 384 512
"""  # removed only where they stand alone
ROWS: Final = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890",
    "qwertyuiop",
    "qwertzuiop",
    "azertyuiop",
    "asdfghjkl",
    "yxcvbnm",
    "zxcvbnm",
    *("1qaz", "2wsx", "3edc", "4rfv", "5tgb", "6yhn", "7ujm"),
)


def _walks() -> set[str]:
    """All parts of ROWS of at least WALK_MIN keys, in both directions."""
    return {
        row[start:end]
        for key_row in ROWS
        for row in (key_row, key_row[::-1])
        for start in range(len(row))
        for end in range(start + WALK_MIN, len(row) + 1)
    }


@cache
def _known_parts() -> re.Pattern[str]:
    """A pattern of all words and walks, the longest first. It is compiled at the first use, not at import."""
    return re.compile("|".join(sorted({*WORDS.split(), *_walks()}, key=len, reverse=True)))


STANDING_ALONE: Final = frozenset(SHORT_WORDS.split())
PART: Final = re.compile(r"[^\W_]+")


def is_guessable(secret: str) -> bool:
    """Whether the text is an example from a guide, or too weak to be a secret."""
    text = secret.strip().casefold()
    if text in PRINTED or text.startswith(BEGINNINGS) or len(set(secret)) < DIFFERENT_MIN:
        return True
    left = _left(text)
    return len(left) < LEFT_MIN or len(set(left)) < DIFFERENT_MIN


def _left(text: str) -> str:
    """The rest of a text without repetition, words and walks."""
    rest = _known_parts().sub(" ", _repeated(text))
    return "".join(part for part in PART.findall(rest) if part not in STANDING_ALONE)


def _repeated(text: str) -> str:
    """The shortest text whose repetition gives this text: `abcabca` -> `abc`."""
    return next(text[:size] for size in range(1, len(text) + 1) if text.startswith(text[size:]))
