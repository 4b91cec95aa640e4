"""What the documents say must be so: every setting is documented, every link leads somewhere."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from portfolio_realtime.cli.write_api_documents import with_settings
from portfolio_realtime.config import Settings
from portfolio_realtime.config.meanings import MEANINGS
from portfolio_realtime.websocket_server.http_api.responses import ACCOUNT_LIST_EXAMPLE, EXPLANATION_EXAMPLE
from portfolio_realtime.wire.messages import Disconnect

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def test_the_tables_of_settings_are_those_of_the_code() -> None:
    """Every setting with its default and meaning; write them with the command that the page names."""
    page = (ROOT / "docs/configuration.md").read_text()

    assert [name for name in MEANINGS if name not in Settings.model_fields] == []
    assert page == with_settings(page), "run: python -m portfolio_realtime.cli.write_api_documents"
    assert all(f"| `{name.upper()}` |" in page for name in Settings.model_fields)


def test_every_message_in_troubleshooting_is_one_that_the_program_prints() -> None:
    """In the sources of Python, as it stands on the page."""
    page = (ROOT / "docs/troubleshooting.md").read_text()
    code = "\n".join(path.read_text() for path in (ROOT / "src/portfolio_realtime").rglob("*.py"))
    messages = re.findall(r"^\| (?:close code \d+, )?`([^`]+)` \|", page, re.MULTILINE)

    assert len(messages) > 30
    assert [message for message in messages if message not in code] == []


def test_every_decision_has_a_date_and_a_status_and_is_listed() -> None:
    """So that nobody takes an old one for the present."""
    listed = (ROOT / "docs/decisions/README.md").read_text()
    pages = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
    head = re.compile(r"# \d+\. .+\n\nDate: \d{4}-\d\d-\d\d.* · Status: (proposed|accepted|superseded.*)\n")

    assert [page.name for page in pages if not head.match(page.read_text())] == []
    assert [page.name for page in pages if f"({page.name})" not in listed] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    """Links between files of the repository exist."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text())

    missing = [link for link in links if not (document.parent / link).exists()]

    assert not missing


def test_every_path_in_the_architecture_exists() -> None:
    """A folder or file that has moved must move here, too."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    product = ROOT / "src" / "portfolio_realtime"
    folders = [folder for folder in (ROOT / "src").rglob("*") if folder.is_dir()]

    named = {name for name in re.findall(r"`([a-z_/]+(?:\.py|\.lua|/))`", text) if name != "/"}

    places = [ROOT, ROOT / "src", product, *folders]
    assert [name for name in sorted(named) if not any((place / name).exists() for place in places)] == []


def test_the_glossary_names_what_the_code_has() -> None:
    """Each name of the column "in code" is found in the sources."""
    text = (ROOT / "GLOSSARY.md").read_text()
    code = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    paths = "\n".join(str(path) for path in (ROOT / "src").rglob("*"))
    rows = re.findall(r"^\| [^|]+ \| [^|]+ \| ([^|]*`[^|]*) \|", text, re.MULTILINE)

    named = {name for row in rows for name in re.findall(r"`([A-Za-z_./]+)`", row)}

    assert len(named) > 30
    missing = [
        name
        for name in named
        if not re.search(rf"\b{re.escape(name)}\b", code) and name.rstrip("/") not in paths
    ]
    assert missing == []


def test_every_close_code_is_documented_with_its_advice() -> None:
    """The range says whether to come back, and so does the document."""
    text = (ROOT / "docs/api.md").read_text()
    rows = re.findall(r"^\| (4\d\d\d) \| ([^|:]+?)(?::[^|]*)? \| ([^|]+) \|$", text, re.MULTILINE)

    documented = {int(code): (reason, advice.split()[0]) for code, reason, advice in rows}

    assert documented == {
        disconnect.code: (disconnect.reason, "do" if disconnect.code >= 4500 else "reconnect")
        for disconnect in Disconnect
    }


def test_the_worked_example_is_the_one_that_is_tested() -> None:
    """The arithmetic in the document is the reference's example, which has a test of its own."""
    text = (ROOT / "docs/api.md").read_text()

    assert "\n".join(EXPLANATION_EXAMPLE["steps"]) in text


@pytest.mark.parametrize("example", [EXPLANATION_EXAMPLE, ACCOUNT_LIST_EXAMPLE])
def test_every_field_of_an_answer_is_in_the_interface(example: dict[str, Any]) -> None:
    """By its name, wherever it stands in the answer."""
    page = (ROOT / "docs/api.md").read_text()
    fields = set(re.findall(r'"(\w+)": ', json.dumps(example)))

    assert len(fields) > 3
    assert sorted(name for name in fields if not re.search(rf"\b{name}\b", page)) == []


def test_what_shows_a_fact_about_alpaca_exists() -> None:
    """Tests by their names, or by how they begin; files and folders by their paths."""
    page = (ROOT / "docs/alpaca-facts.md").read_text()
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    names, paths = re.findall(r"`(test_[a-z0-9_]+)…?`", page), re.findall(r"`(tests/[\w/.]+)`", page)

    assert len(names) > 100
    assert [name for name in names if f"def {name}" not in tests] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []
