"""docs/api.md and the code's own tables say the same, both ways: nothing is left out, nothing made up."""

import re
import typing
from pathlib import Path

import msgspec

from portfolio_realtime.state.keys import TICKET_TTL_S
from portfolio_realtime.symbol_collector.records.open_reasons import Reason
from portfolio_realtime.websocket_server.clients import connection
from portfolio_realtime.websocket_server.http_api import account_queries, many_accounts, portfolios
from portfolio_realtime.wire.http_problems import HttpProblem
from portfolio_realtime.wire.messages import (
    ACCOUNTS_OF_A_MESSAGE_MAX,
    FROM_CLIENT,
    FROM_SERVER,
    MESSAGE_BYTES_MAX,
    ErrorCode,
    Hop,
    PortfolioMessage,
    PositionRow,
)

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/api.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the tables below a heading, up to the next one, without their heads."""
    section = re.split(r"^#{2,3} ", TEXT.partition(f" {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    assert section, f"docs/api.md has no heading {heading}"
    lines = [line for line in section.splitlines() if line.startswith("|")]
    tables = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [
        cells
        for at, cells in enumerate(tables)
        if "---" not in cells[0] and not (at + 1 < len(tables) and "---" in tables[at + 1][0])
    ]


def quoted(cells: list[str]) -> list[str]:
    """What stands in backticks in them."""
    return re.findall(r"`([^`]+)`", " ".join(cells))


def test_every_message_is_there_with_its_sender() -> None:
    """And no other."""
    told = {(quoted(cells)[0], cells[1]) for cells in rows("Messages")}
    sent = {(str(struct.__struct_config__.tag), "server") for struct in FROM_SERVER}
    assert told == sent | {(str(struct.__struct_config__.tag), "client") for struct in FROM_CLIENT}


def test_every_field_of_every_message_is_named() -> None:
    """Somewhere in the document."""
    for struct in (*FROM_SERVER, *FROM_CLIENT, PositionRow):
        for field in msgspec.structs.fields(struct):
            assert re.search(rf"\b{field.encode_name}\b", TEXT), (struct.__name__, field.encode_name)
    optional = {
        field.encode_name
        for field in msgspec.structs.fields(PortfolioMessage)
        if field.default is msgspec.UNSET
    }
    named = {"known_equity", "stale_ages_s", "positions", "stale_hops"}
    assert optional - named <= set(re.findall(r"`(\w+)`", TEXT))


def test_every_hop_is_named() -> None:
    """From where nothing fresh may come."""
    (row,) = [cells for cells in rows("Messages") if cells[0] == "`freshness`"]
    assert set(typing.get_args(Hop)) <= set(quoted(row))


def test_every_error_code_is_there() -> None:
    """And no other."""
    assert {quoted(cells[:1])[0] for cells in rows("Errors")} == set(typing.get_args(ErrorCode))


def test_every_http_code_is_there_with_its_status() -> None:
    """In the table of answers or of handshakes, and no other."""
    told: dict[str, set[int]] = {}
    for cells in rows("HTTP") + rows("Refused handshakes"):
        statuses = {int(status) for status in re.findall(r"\b[45]\d\d\b", cells[0])}
        for code in re.findall(r"`([a-z]+(?:_[a-z]+)*)`", cells[1]) if statuses else ():
            told.setdefault(code, set()).update(statuses)
    codes = {problem.code: int(problem.status) for problem in HttpProblem}
    assert told.keys() == codes.keys()
    assert all(codes[code] in statuses for code, statuses in told.items())


def test_every_challenge_is_there() -> None:
    """What a 401 says in `WWW-Authenticate`."""
    told = {quoted(cells)[0] for cells in rows("HTTP") if cells[0].startswith("`Bearer")}
    assert told == {
        problem.headers["WWW-Authenticate"]
        for problem in HttpProblem
        if "WWW-Authenticate" in problem.headers
    }


def test_every_limit_is_the_codes() -> None:
    """Numbers, in the order of the table."""
    factor = connection.BACK_END_FACTOR
    expected = [
        [MESSAGE_BYTES_MAX],
        [connection.MESSAGES_PER_MINUTE_MAX, connection.MESSAGES_PER_MINUTE_CLOSE],
        [factor * connection.MESSAGES_PER_MINUTE_MAX, factor * connection.MESSAGES_PER_MINUTE_CLOSE],
        [connection.SUBSCRIPTIONS_MAX],
        [connection.SUBSCRIPTIONS_MAX_BACK_END],
        [ACCOUNTS_OF_A_MESSAGE_MAX],
        [connection.BAD_MESSAGES_MAX],
        [connection.AUTH_S_MAX],
        [connection.UNSENT_S_MAX],
        [connection.EXPIRY_NOTICE_S],
        [connection.PING_S, connection.PING_S + connection.PING_JITTER_S, connection.PONG_S_MAX],
        [connection.FREQUENCY_HZ_MIN],
        [connection.REPLIES_MAX],
        [many_accounts.IDS_MAX],
        [many_accounts.URL_IDS_CHARACTERS_MAX],
        [1, many_accounts.PAGE_MAX, many_accounts.PAGE_DEFAULT],
        [account_queries.HISTORY_POINTS_MAX],
        [portfolios.ASKED_MAX],
        [portfolios.FIRST_VALUE_S_MAX],
        [TICKET_TTL_S],
    ]
    told = [
        [float(number) for number in re.findall(r"(?<![\d.])\d+(?:\.\d+)?", cells[1].replace("4505", ""))]
        for cells in rows("Limits")
    ]
    assert told == expected


def test_every_mark_and_reason_has_its_meaning_and_its_end() -> None:
    """In the decision about them."""
    page = (ROOT / "docs/decisions/0024-what-the-marks-of-a-value-mean.md").read_text()
    told = set(re.findall(r"^\| `([^`]+)`", page, re.MULTILINE))
    optional = {
        field.encode_name
        for field in msgspec.structs.fields(PortfolioMessage)
        if field.default is msgspec.UNSET
    }
    figures = {"known_equity", "stale_ages_s", "positions"}
    assert told == (optional - figures) | {"stale", "unpriced"} | {reason.value for reason in Reason}


def test_a_closed_position_is_told_apart_from_one_that_is_gone() -> None:
    """As the document says: by `market_value`, which only a row that stays has."""
    assert 'one last row of `symbol` and `quantity` `"0"` alone, without `market_value`' in TEXT
    assert {"symbol", "quantity"} <= {field.encode_name for field in msgspec.structs.fields(PositionRow)}
