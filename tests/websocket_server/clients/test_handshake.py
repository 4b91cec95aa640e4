"""Our handshake beside that of the package `websockets`, over whatever a client may ask."""

from http import HTTPStatus

from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from portfolio_realtime.websocket_server.access.client_address import joined
from portfolio_realtime.websocket_server.clients import handshake
from portfolio_realtime.wire.http_problems import HttpProblem

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455 §1.3
GOOD = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": KEY,
}
VALUES = {
    "connection": ["Upgrade", "keep-alive, Upgrade", "upgrade,close", "keep-alive", "xupgrade"],
    "upgrade": ["websocket", "WebSocket", "h2c", "websockets"],
    "sec-websocket-version": ["13", "8", "013", "13.0"],
    "sec-websocket-key": [
        KEY,
        KEY[:-4],
        KEY[:-1],
        KEY[4:],
        KEY + KEY,
        "!" + KEY[1:],
        "dGhl SHNhbXBsZSBub25jZQ==",
    ],
    "sec-websocket-protocol": ["bearer", "bearer, eyJ0", "chat,bearer", "chat", "bearers"],
    "sec-websocket-extensions": ["permessage-deflate; client_max_window_bits"],
}
KINDS = st.tuples(st.sampled_from(["GET", "POST", "HEAD"]), st.sampled_from(["1.1", "1.0"]))
HEADERS = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) for name, values in VALUES.items()}
)
NEARLY_GOOD = HEADERS.map(GOOD.__or__)


def theirs(method: str, version: str, headers: list[tuple[str, str]]) -> tuple[int, dict[str, str]]:
    def select(_: ServerProtocol, offered: object) -> Subprotocol | None:
        assert isinstance(offered, list)
        return Subprotocol(handshake.SUBPROTOCOL) if handshake.SUBPROTOCOL in offered else None

    request = Request("/ws", Headers(headers), method, f"HTTP/{version}")
    response = ServerProtocol(select_subprotocol=select).accept(request)
    return response.status_code, dict(response.headers.raw_items())


def answered(answer: bytes) -> dict[str, str]:
    first, *lines = answer.decode().split("\r\n")
    assert first == "HTTP/1.1 101 Switching Protocols"
    assert lines[-2:] == ["", ""]
    return dict(line.split(": ") for line in lines[:-2])


@given(KINDS, NEARLY_GOOD | HEADERS, st.sampled_from([None, *VALUES]))
def test_accepts_what_the_package_accepts_and_answers_the_same(
    kind: tuple[str, str], headers: dict[str, str], twice: str | None
) -> None:
    raw = [*headers.items(), *((name, value) for name, value in headers.items() if name == twice)]
    status, their_headers = theirs(*kind, raw)
    ours = joined(raw)
    refusal = handshake.refusal(*kind, ours)
    assert (refusal is None) == (status == HTTPStatus.SWITCHING_PROTOCOLS), (refusal, status)
    if refusal is None:
        their_headers.pop("Date")  # RFC 9110 §6.6.1: not asked of a 1xx answer
        assert answered(handshake.acceptance(ours)) == their_headers


def test_answers_as_the_example_of_rfc_6455() -> None:
    assert answered(handshake.acceptance(GOOD))["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_names_what_is_wrong() -> None:
    assert handshake.refusal("GET", "1.1", GOOD) is None
    assert handshake.refusal("POST", "1.1", GOOD) is HttpProblem.METHOD_NOT_ALLOWED
    assert handshake.refusal("GET", "1.0", GOOD) is HttpProblem.BAD_REQUEST
    assert (
        handshake.refusal("GET", "1.1", GOOD | {"sec-websocket-version": "8"}) is HttpProblem.UPGRADE_REQUIRED
    )
    assert handshake.refusal("GET", "1.1", GOOD | {"connection": "close"}) is HttpProblem.UPGRADE_REQUIRED
    assert handshake.refusal("GET", "1.1", GOOD | {"sec-websocket-key": "short"}) is HttpProblem.BAD_REQUEST
