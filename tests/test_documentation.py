"""What the documents say must be so: every setting is documented, every link leads somewhere."""

import re
from pathlib import Path

import pytest

from portfolio_realtime.config import Settings

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def test_every_setting_is_documented() -> None:
    """A setting that nobody can find might as well not exist."""
    text = (ROOT / "docs/configuration.md").read_text()

    missing = [name.upper() for name in Settings.model_fields if f"`{name.upper()}`" not in text]

    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    """Links between files of the repository exist."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text())

    missing = [link for link in links if not (document.parent / link).exists()]

    assert not missing
