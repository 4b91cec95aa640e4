"""Rules of the house that no linter holds; each message says what to do."""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("src", "tests", "benchmarks", "deploy")
FILE_LINES_MAX = 500
FOLDER_FILES_MAX = 30
FUNCTION_LINES_MAX = 70
LISTING_LINES_MAX = 120
LONG_RATIO_MAX = 0.01
SYSTEM_PORT_MAX = 1023
FULL_FOLDERS = {"tests/golden/situations": 100}  # data: one recorded situation each


@cache
def sources() -> tuple[Path, ...]:
    """Every Python file of ours."""
    found = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return tuple(path for path in found if not {"node_modules", "__pycache__"} & set(path.parts))


class Facts(NamedTuple):
    """What the rules ask of a file; its syntax tree is not kept, for all of them are millions of objects."""

    functions: dict[str, int]  # line and name -> lines, without the docstring
    classes: dict[str, int]  # name -> line
    imports: dict[str, int]  # module -> line
    ports: dict[int, list[int]]  # line of a call that binds -> ports that it names


@cache
def facts(path: Path) -> Facts:
    """One look at each file."""
    found = Facts({}, {}, {}, {})
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.functions[f"{node.lineno} {node.name}"] = length_of(node)
        elif isinstance(node, ast.ClassDef):
            found.classes[node.name] = node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.imports[node.module] = node.lineno
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("bind", "create_server"):
            constants = (one.value for one in ast.walk(node) if isinstance(one, ast.Constant))
            found.ports[node.lineno] = [value for value in constants if isinstance(value, int)]
    return found


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body, without the docstring."""
    assert function.end_lineno is not None
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


def name_of(path: Path) -> str:
    """The path from the repository's root."""
    return path.relative_to(ROOT).as_posix()


def test_no_file_is_longer_than_one_idea() -> None:
    """At most FILE_LINES_MAX lines."""
    for path in sources():
        lines, name = len(path.read_text().splitlines()), name_of(path)
        assert lines <= FILE_LINES_MAX, (
            f"{name} has {lines} lines: find the second idea in it and give that a file of its own"
        )


def test_no_folder_is_too_full_to_look_through() -> None:
    """At most FOLDER_FILES_MAX files."""
    counts: dict[str, int] = defaultdict(int)
    for path in sources():
        counts[name_of(path.parent)] += 1
    for folder, count in counts.items():
        assert count <= FULL_FOLDERS.get(folder, FOLDER_FILES_MAX), (
            f"{folder} has {count} files: put those that belong together into a folder of their own"
        )


@pytest.mark.parametrize("program", [("portfolio_realtime", "portfolio_harness"), ("alpaca_sim",)])
def test_no_two_classes_have_one_name(program: tuple[str, ...]) -> None:
    """A name leads to one place, over all of a program: the product with its harness, and the simulator."""
    places: dict[str, set[str]] = defaultdict(set)
    for path in sources():
        if path.is_relative_to(ROOT / "src") and path.relative_to(ROOT / "src").parts[0] in program:
            for name, line in facts(path).classes.items():
                if not name.startswith("_"):
                    places[name].add(f"{name_of(path)}:{line}")
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert not twice, f"rename one of each, so that a search finds one thing: {twice}"


def test_no_function_is_too_long_to_see() -> None:
    """Hardly any is longer than FUNCTION_LINES_MAX without its docstring, none than LISTING_LINES_MAX.

    What is longer lists something: metrics, routes, the parts of a document.
    """
    lengths = {
        f"{name_of(path)}:{place}": lines
        for path in sources()
        for place, lines in facts(path).functions.items()
    }
    endless = {place: lines for place, lines in lengths.items() if lines > LISTING_LINES_MAX}
    assert not endless, f"take a step out of each: {endless}"
    long = {place: lines for place, lines in lengths.items() if lines > FUNCTION_LINES_MAX}
    assert len(long) <= LONG_RATIO_MAX * len(lengths), f"too many are long; take a step out of some: {long}"


@pytest.mark.parametrize("folder", ["tests", "benchmarks"])
def test_no_test_imports_from_another(folder: str) -> None:
    """What two of them use stands in tests/support/."""
    for path in sources():
        if not name_of(path).startswith(f"{folder}/"):
            continue
        for module, line in facts(path).imports.items():
            assert not module.rpartition(".")[2].startswith("test_"), (
                f"{name_of(path)}:{line} imports from {module}: move it to tests/support/"
            )


def test_no_test_takes_a_port_for_granted() -> None:
    """Port 0 takes a free one; the guide's own ports are the subject of one file."""
    for path in sources():
        if not name_of(path).startswith("tests/"):
            continue
        for line, named in facts(path).ports.items():
            fixed = [port for port in named if port > SYSTEM_PORT_MAX]
            assert not fixed, f"{name_of(path)}:{line} binds port {fixed}: bind 0 and ask which"
