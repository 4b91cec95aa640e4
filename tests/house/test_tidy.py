"""Rules of the house that no linter holds; each message says what to do."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

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


@cache
def tree(path: Path) -> ast.Module:
    """What a file says."""
    return ast.parse(path.read_text())


def name_of(path: Path) -> str:
    """The path from the repository's root."""
    return path.relative_to(ROOT).as_posix()


def defined(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file."""
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


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
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].add(f"{name_of(path)}:{node.lineno}")
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert not twice, f"rename one of each, so that a search finds one thing: {twice}"


def test_no_function_is_too_long_to_see() -> None:
    """Hardly any is longer than FUNCTION_LINES_MAX without its docstring, none than LISTING_LINES_MAX.

    What is longer lists something: metrics, routes, the parts of a document.
    """
    lengths: dict[str, int] = {}
    for path in sources():
        for function in defined(path):
            assert function.end_lineno is not None
            body = function.body[1:] if ast.get_docstring(function) else function.body
            place = f"{name_of(path)}:{function.lineno} {function.name}"
            lengths[place] = function.end_lineno - body[0].lineno + 1 if body else 0
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
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not node.module.rpartition(".")[2].startswith("test_"), (
                    f"{name_of(path)}:{node.lineno} imports from {node.module}: move it to tests/support/"
                )


def test_no_test_takes_a_port_for_granted() -> None:
    """Port 0 takes a free one; the guide's own ports are the subject of one file."""
    for path in sources():
        if not name_of(path).startswith("tests/"):
            continue
        for call in (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)):
            if getattr(call.func, "attr", "") in ("bind", "create_server"):
                constants = (one.value for one in ast.walk(call) if isinstance(one, ast.Constant))
                fixed = [value for value in constants if isinstance(value, int) and value > SYSTEM_PORT_MAX]
                assert not fixed, f"{name_of(path)}:{call.lineno} binds port {fixed}: bind 0 and ask which"
