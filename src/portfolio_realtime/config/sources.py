"""Sources of settings beside the environment: `.env`, and files that contain one secret each."""

import os
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource

from portfolio_realtime.config import env_file
from portfolio_realtime.errors import SettingsError

SECRET_FILE_CHARACTERS_MAX: Final = 16_384


ENV_FILE: Final[ContextVar[Path | None]] = ContextVar("ENV_FILE", default=None)
"""The `.env` to read, or None. pydantic-settings does not read it: it would ignore unreadable lines."""


class EnvFile(EnvSettingsSource):
    """The settings in `.env`, read strictly by `env_file`. Raises SettingsError."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        path = ENV_FILE.get()
        values = env_file.read(path) if path is not None and os.path.lexists(path) else {}
        names = {name.upper() for name in self.settings_cls.model_fields}
        names |= {f"{name.upper()}_FILE" for name in secret_names(self.settings_cls)}
        env_file.check_names(values, names)
        return {name.lower(): value for name, value in values.items()}


class SecretFiles(PydanticBaseSettingsSource):
    """Secrets in files, as container platforms mount them: NAME_FILE is the path of a file with NAME."""

    def __init__(
        self, settings_cls: type[BaseSettings], values: Mapping[str, str | None], where: str
    ) -> None:
        """`values` are the variables of the environment or of `.env`, and `where` names which."""
        super().__init__(settings_cls)
        self._values = values
        self._where = where

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The content of the field's file, or None when no file is set. Raises SettingsError."""
        name = field_name.upper()
        if field.annotation is not SecretStr or not (path := self._values.get(f"{name}_FILE")):
            return None, field_name, False
        if self._values.get(name):
            raise SettingsError(f"{name} and {name}_FILE are both set in {self._where}: keep one")
        return _content(f"{name}_FILE", path), field_name, False

    def __call__(self) -> dict[str, Any]:
        """All secrets from files by field name. Raises SettingsError."""
        found = (self.get_field_value(field, name) for name, field in self.settings_cls.model_fields.items())
        return {key: value for value, key, _ in found if value is not None}


def sources(settings_cls: type[BaseSettings]) -> tuple[PydanticBaseSettingsSource, ...]:
    """Secret files that the environment names, secret files that `.env` names, and `.env`, in this order."""
    file = EnvFile(settings_cls)
    in_file = {name.upper(): value for name, value in file.env_vars.items()}
    return (
        SecretFiles(settings_cls, os.environ, "the environment"),
        SecretFiles(settings_cls, in_file, ".env"),
        file,
    )


def secret_names(settings_cls: type[BaseSettings]) -> list[str]:
    """The names of the fields that contain a secret."""
    return [name for name, field in settings_cls.model_fields.items() if field.annotation is SecretStr]


def _content(name: str, path: str) -> str:
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(SECRET_FILE_CHARACTERS_MAX + 1).strip()
    except UnicodeDecodeError:
        raise SettingsError(f"{name}={path!r} cannot be read: it is not UTF-8") from None
    except OSError as error:
        raise SettingsError(f"{name}={path!r} cannot be read: {error.strerror}") from None
    if not text or len(text) > SECRET_FILE_CHARACTERS_MAX:
        raise SettingsError(f"{name}={path!r} must contain a secret and nothing else")
    return text
