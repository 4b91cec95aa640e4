"""Saves revocations and entitlements to a file, and restores them after Valkey was lost."""

import os
import time
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from portfolio_realtime.cli.users import MARGIN_S, opened_state, within
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.state.revocations import Revocation

FORMAT: Final = "portfolio-realtime revocations 1"
FILE_BYTES_MAX: Final = 256 * 1024 * 1024
ALL_S_MAX: Final = 120.0  # to read or write all of them
ONLY_FOR_US: Final = 0o600  # the file names users and their accounts


class Saved(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The content of the file, as JSON."""

    format: str = FORMAT
    saved_s: int  # seconds since 1970
    revocations: list[Revocation]
    entitlements: dict[str, list[str]]


class Restored(NamedTuple):
    """How many revocations and entitlements were written, and the age of the file in seconds."""

    revocations: int
    entitlements: int
    age_s: int


async def save(settings: Settings, path: Path) -> Saved:
    """Write all revocations and entitlements to a file atomically. Raises SettingsError, StateUnavailable."""
    async with opened_state(settings, is_long=True) as state, within(ALL_S_MAX, settings):
        revocations = await state.revocations.read_all()
        entitlements = await state.entitlements.read_all()
    saved = Saved(
        saved_s=int(time.time()),
        revocations=revocations,
        entitlements={subject: sorted(accounts) for subject, accounts in entitlements.items()},
    )
    _write(path, msgspec.json.format(msgspec.json.encode(saved), indent=1) + b"\n")
    return saved


async def restore(settings: Settings, path: Path | None) -> Restored:
    """Write the content of a file to Valkey (None: nothing was revoked), and confirm that nothing is missing.

    Revocations and entitlements made since then are kept. Servers accept older tokens again within a second.
    Raises SettingsError, StateUnavailable.
    """
    saved = Saved(saved_s=int(time.time()), revocations=[], entitlements={}) if path is None else _read(path)
    async with opened_state(settings, is_long=True) as state, within(ALL_S_MAX, settings):
        await state.revocations.write_again(saved.revocations, settings.jwt_lifetime_max + MARGIN_S)
        written = await state.entitlements.write_missing(saved.entitlements) if saved.entitlements else 0
        await state.revocations.confirm()
    return Restored(len(saved.revocations), written, int(time.time()) - saved.saved_s)


def _write(path: Path, text: bytes) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.touch(ONLY_FOR_US)
        part.write_bytes(text)
        part.replace(path)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


def _read(path: Path) -> Saved:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise SettingsError(
                f"{path} is larger than {FILE_BYTES_MAX} bytes: it was not written by `revocations save`"
            )
        saved = msgspec.json.decode(path.read_bytes(), type=Saved)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise SettingsError(f"{path} was not written by `revocations save`: {error}") from None
    if saved.format != FORMAT:
        raise SettingsError(f"{path} has the format {saved.format!r}; this version reads {FORMAT!r}")
    return saved
