"""The site's pages that are not in docs/: references from the schemas, and documents of the root."""

import json
import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from portfolio_realtime.cli.reference import http_reference, wire_reference

ROOT: Final = Path(__file__).parent.parent
FROM_ROOT: Final = {  # page of the site -> document of the root
    "architecture.md": "ARCHITECTURE.md",
    "glossary.md": "GLOSSARY.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
LINK: Final = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """A folder in the navigation means all its pages, in order."""
    config.nav = [_expanded(entry) for entry in config.nav or []]
    return config


def _expanded(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    return {title: _pages(target) for title, target in entry.items()}  # pyright: ignore[reportUnknownVariableType]  # YAML


def _pages(target: Any) -> Any:
    if isinstance(target, list):
        return [_expanded(entry) for entry in target]  # pyright: ignore[reportUnknownVariableType]  # YAML
    if not (isinstance(target, str) and target.endswith("/")):
        return target
    pages = sorted(path.name for path in (ROOT / "docs" / target).glob("*.md"))
    return [f"{target}{name}" for name in sorted(pages, key=lambda name: (name != "README.md", name))]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and those of the root."""
    schema = ROOT / "docs" / "schema"
    made = {
        "reference/http.md": http_reference(json.loads((schema / "openapi.json").read_text())),
        "reference/websocket.md": wire_reference(json.loads((schema / "asyncapi.json").read_text())),
    }
    made |= {page: (ROOT / document).read_text() for page, document in FROM_ROOT.items()}
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files that the site does not have become their name; a file that is missing stays a fault."""
    document = FROM_ROOT.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    by_document = {document: uri for uri, document in FROM_ROOT.items()}

    def mended(link: re.Match[str]) -> str:
        is_image, text, target, anchor = link.groups()
        place = posixpath.normpath(posixpath.join(posixpath.dirname(document), target))
        inside = by_document.get(place) or place.removeprefix("docs/")
        is_page = place in by_document or place.startswith("docs/")
        if is_page and (files.get_file_from_path(inside) or is_image):
            relative = posixpath.relpath(inside, posixpath.dirname(page.file.src_uri) or ".")
            return f"{is_image}[{text}]({relative}{anchor or ''})"
        if (ROOT / place).exists() and not is_image:
            return text if "`" in text else f"`{place}`" if text == place else f"{text} (`{place}`)"
        return link.group(0)

    return LINK.sub(mended, markdown)
