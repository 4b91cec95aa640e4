"""What we ask of Alpaca: reading, and nothing else, whatever the key would allow."""

import ast
from collections.abc import Iterator
from pathlib import Path

import portfolio_realtime

SOURCE = Path(portfolio_realtime.__file__).parent
ASKS_ALPACA = ("alpaca", "symbol_collector", "market_data_consumer", "cli")
CHANGES = {"post", "put", "patch", "delete"}
TOKEN_REQUEST = ("alpaca/oauth.py", "post")  # credentials for a token
OUR_CLIENT = ("alpaca/http.py", "request")  # what `post` is made of, which only a token is asked for with


def requests_that_change(path: Path) -> Iterator[str]:
    """Calls that would send something else than GET."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name, whose = node.func.attr, ast.unparse(node.func.value).lower()
        if name in CHANGES and ("http" in whose or "client" in whose):
            yield name
        if name in ("request", "build_request", "stream") and node.args:
            method = node.args[0]
            if not (isinstance(method, ast.Constant) and method.value == "GET"):
                yield name


def test_nothing_but_reading_is_asked_of_alpaca() -> None:
    """So that a key that can only read is enough, and a fault of ours trades nothing."""
    found = [
        (str(path.relative_to(SOURCE)), name)
        for folder in ASKS_ALPACA
        for path in sorted((SOURCE / folder).rglob("*.py"))
        for name in requests_that_change(path)
    ]

    asks_something = [one for one in found if one[1] != "stream"]
    assert sorted(asks_something) == [OUR_CLIENT, TOKEN_REQUEST]


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    """An order in disguise."""
    path = tmp_path / "order.py"
    path.write_text("http.post(url)\nhttp.build_request('DELETE', url)\nhttp.build_request('GET', url)\n")

    assert list(requests_that_change(path)) == ["post", "build_request"]
