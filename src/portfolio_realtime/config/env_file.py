"""Reads the file `.env`, or refuses it with the line and the remedy.

A line is NAME=value, with or without `export`. 'Single quotes' keep their content unchanged; elsewhere,
${NAME} is replaced by the variable of the environment or of an earlier line. A line that cannot be read is an
error.
"""

import difflib
import io
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from dotenv.parser import Binding, parse_stream

from portfolio_realtime.errors import SettingsError

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
VARIABLE: Final = re.compile(r"\$\{([^}]*)\}")
SINGLE_QUOTED: Final = re.compile(r"[^=]*=[ \t]*'")
# A name this similar to a setting's (difflib's ratio) is reported as misspelt. The bound is higher in the
# environment, which has variables of other programs. Shorter names are too similar to each other.
LIKENESS_MIN: Final = 0.85
LIKENESS_MIN_OUTSIDE: Final = 0.92
NAME_LENGTH_MIN: Final = 6


def read(path: Path) -> dict[str, str]:
    """Read a file as name -> value. Raises SettingsError."""
    values: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(_text(path))):
        if binding.error or binding.key is not None:
            name, value = _checked(path, binding)
            values[name] = (
                value
                if SINGLE_QUOTED.match(binding.original.string.lstrip())
                else _expanded(path, binding, value, {**values, **os.environ})
            )
    return values


def _text(path: Path) -> str:
    if path.is_dir():
        raise SettingsError(
            f"{path} is a directory: Docker makes one where the file to mount is missing; remove it"
        )
    if path.exists() and not path.is_file():  # reading a pipe may never end
        raise SettingsError(f"{path} is a pipe or a device: write a plain file")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw:
        raise SettingsError(f"{path} is UTF-16, as PowerShell writes it: save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SettingsError(f"{path}, line {line}, is not UTF-8: save the file as UTF-8") from None


def _checked(path: Path, binding: Binding) -> tuple[str, str]:
    """The name and the value of a line. Raises SettingsError, without the value: it may be a secret."""
    if binding.error or binding.key is None or binding.value is None or not NAME.fullmatch(binding.key):
        raise SettingsError(
            f"{path}, line {_line(binding)}, cannot be read: write NAME=value, and close a quote that is open"
        )
    return binding.key, binding.value


def _expanded(path: Path, binding: Binding, value: str, known: Mapping[str, str]) -> str:
    def of(variable: re.Match[str]) -> str:
        name = variable[1]
        if name not in known:
            raise SettingsError(
                f"{path}, line {_line(binding)}: there is no {name} for ${{{name}}}; if this is "
                "plain text, put the value in 'single quotes'"
            )
        return known[name]

    return VARIABLE.sub(of, value)


def _line(binding: Binding) -> int:
    """The number of the first line of a binding that is not blank."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def check_names(in_file: Iterable[str], settings: Collection[str]) -> None:
    """Raises SettingsError for a name that is nearly a setting's, in the file or in the environment.

    `in_file` are the names in `.env`, `settings` are all known names, in capitals.
    """
    for where, names, likeness in (
        (".env", in_file, LIKENESS_MIN),
        ("the environment", os.environ, LIKENESS_MIN_OUTSIDE),
    ):
        for name in names:
            if name.upper() in settings or len(name) < NAME_LENGTH_MIN:
                continue
            if near := difflib.get_close_matches(name.upper(), settings, 1, likeness):
                raise SettingsError(f"{name} in {where} is not a setting: did you mean {near[0]}?")
