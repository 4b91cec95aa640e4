"""The least rights of Valkey's users, wherever they are written: `python -m deploy.valkey_rights`.

They come from `portfolio_realtime.state.rights`. `python -m deploy.aws write` makes the templates from these,
too, with the SDK; this needs none.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from portfolio_realtime.state import rights

ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENT: Final = ROOT / "docs" / "security.md"
USERS: Final = ROOT / "deploy" / "valkey-users.json"
TEMPLATES: Final = ROOT / "deploy" / "aws" / "templates"


def written() -> Iterator[tuple[Path, str]]:
    """Each file that shows rights, and how it must read."""
    yield USERS, rights.as_json()
    yield DOCUMENT, document(DOCUMENT.read_text())
    for path in sorted(TEMPLATES.glob("*.json")):
        yield path, template(path.read_text())


def document(text: str) -> str:
    """The page with today's lines for `ACL SETUSER`."""
    for user in rights.COMMANDS:
        line = f"ACL SETUSER {user} resetkeys >PASSWORD {rights.access_string(user)}"
        text = re.sub(rf"^ACL SETUSER {user} .*$", lambda _, line=line: line, text, flags=re.MULTILINE)
    return text


def template(text: str) -> str:
    """The template with today's access string of each user that it has."""
    users: dict[str, Any] = {
        one["Properties"]["UserName"]: one["Properties"]["AccessString"]
        for one in json.loads(text)["Resources"].values()
        if one["Type"] == "AWS::ElastiCache::User"
    }
    for user in rights.COMMANDS:
        if user in users:
            text = text.replace(json.dumps(users[user]), json.dumps(rights.access_string(user)))
    return text


def main() -> None:
    """Write all of them."""
    for path, text in written():
        path.write_text(text)


if __name__ == "__main__":
    main()
