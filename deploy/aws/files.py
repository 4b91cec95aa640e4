"""The templates as they are kept in the repository, for people without the CDK."""

import json
from pathlib import Path
from typing import Any, Final

from deploy.aws.sizes import SIZES

TEMPLATES: Final = Path(__file__).resolve().parent / "templates"
NAMES: Final = ("base", *SIZES)


def path_of(name: str) -> Path:
    """Where a template is kept: base, small or standard."""
    return TEMPLATES / f"{name}.json"


def read(name: str) -> dict[str, Any]:
    """A template that is kept."""
    return json.loads(path_of(name).read_text())
