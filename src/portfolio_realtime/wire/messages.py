"""The wire: every message and every reason to close, as types. The calculator encodes the portfolio message.

Money is a decimal string, a ratio a number (0.0101 = 1.01 %), a time RFC 3339 UTC with microseconds.
"""

import enum
import re
from typing import Annotated, Any, Final, Literal

import msgspec

ACCOUNT_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
MESSAGE_BYTES_MAX: Final = 4096  # of one message from a client
ACCOUNTS_OF_A_MESSAGE_MAX: Final = 100  # so many UUIDs fit

Hop = Literal["collector", "calculator", "valkey", "server"]
Detail = Literal["value", "positions"]
ErrorCode = Literal[
    "bad_message", "too_many_messages", "too_many_subscriptions", "forbidden", "account_not_in_dollars"
]
Money = Annotated[
    str, msgspec.Meta(pattern=r"^-?[0-9]+\.[0-9]{2}$", description="Dollars, exact to the cent")
]
Number = Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]+(\.[0-9]+)?$", description="An exact decimal number")]
Time = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$",
        description="RFC 3339 in UTC with microseconds",
        extra_json_schema={"format": "date-time"},
    ),
]

Number53 = Annotated[int, msgspec.Meta(ge=0, le=2**53)]  # exact in JavaScript, too
StreamPositionPair = Annotated[
    list[Number53], msgspec.Meta(min_length=2, max_length=2, description="epoch and sequence of a message")
]
Change = int | str | float | list[str] | dict[str, Any] | None
ValueText = Annotated[
    str, msgspec.Meta(description="For people: `$104,211.37`; `—` when it is not known, never null")
]
ReturnText = Annotated[
    str, msgspec.Meta(description="For people: `+$1,209.27 (+1.17%)`; `—` when it is not known, never null")
]


class Disconnect(enum.Enum):
    """Why the server closes, and by its range what the client does: 4000-4499 reconnect, 4500-4999 do not."""

    SHUTDOWN = 4001, "shutdown"
    SLOW_CONSUMER = 4002, "slow consumer"
    TOKEN_EXPIRED = 4004, "token expired"
    LIFETIME = 4005, "lifetime reached"
    NO_PONG = 4006, "no pong"
    UNVERIFIABLE = 4007, "try later"
    UNAUTHORIZED = 4500, "unauthorized"
    CONNECTION_LIMIT = 4501, "connection limit"
    FORBIDDEN = 4503, "forbidden"
    NOT_IN_DOLLARS = 4504, "account not in dollars"
    BAD_MESSAGE = 4505, "bad message"

    @property
    def code(self) -> int:
        """The WebSocket close code."""
        return self.value[0]

    @property
    def reason(self) -> str:
        """The text that travels with the code."""
        return self.value[1]


class PositionRow(msgspec.Struct):
    """One position of a portfolio message. A position that is gone is one last row with quantity "0"."""

    symbol: str
    quantity: Number
    mark: Number | None = None
    mark_source: str | None = None
    mark_as_of: Time | None = None
    mark_quality: str | None = None
    previous_close: Number | None = None
    market_value: Money | None = None
    day_pnl: Money | None = None
    unrealized_pnl: Money | None = None


class Doubt(msgspec.Struct):
    """Since when the broker has not confirmed the account, and by how much its figures are other than ours.

    `by`: symbol, `cash` or `equity` -> the broker's less ours; empty where nobody can tell.
    """

    since: Time
    reason: str
    by: dict[str, Number]


class PortfolioMessage(msgspec.Struct, tag_field="type", tag="portfolio"):
    """The value of one account. While a position is unpriced `equity` is null and `known_equity` is there.

    `awaited`, which is there only then, names symbols whose price has not been read yet: nobody knows whether
    there is one, and they are not in `unpriced`; `equity` is null for them, too.

    While a mark is stale its symbol is in `stale`, and its age at publication, in whole seconds, in
    `stale_ages_s`; `account_record` there says that the broker has not been heard of about this account since
    `record_as_of`. `unvalued` names what was transferred at a value that nobody tells, `unexplained` what has
    changed without any booking, and by how much: `day_pnl` is then null. The texts for people, `total_value`
    and `today_return`, are then "—". `unconfirmed` is there from the broker's first contradiction to its next
    agreement. `without_feed` names the asset classes of symbols that are held and never priced. `stale_hops`
    is there in an answer to one HTTP request only, see `freshness`.
    """

    account_id: str
    epoch: int
    sequence: int
    equity: Money | None
    cash: Money
    last_equity: Money
    external_cash_flow: Money
    day_pnl: Money | None
    day_pnl_ratio: float | None
    as_of: Time
    stale: list[str]
    unpriced: list[str]
    total_value: ValueText
    today_return: ReturnText
    timestamp: Time
    record_as_of: Time
    known_equity: Money | msgspec.UnsetType = msgspec.UNSET
    awaited: list[str] | msgspec.UnsetType = msgspec.UNSET
    stale_ages_s: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    unvalued: list[str] | msgspec.UnsetType = msgspec.UNSET
    without_feed: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    unexplained: dict[str, Number] | msgspec.UnsetType = msgspec.UNSET
    unconfirmed: Doubt | msgspec.UnsetType = msgspec.UNSET
    stale_hops: list[Hop] | msgspec.UnsetType = msgspec.UNSET
    positions: list[PositionRow] | msgspec.UnsetType = msgspec.UNSET


class Delta(msgspec.Struct, tag_field="type", tag="delta"):
    """What changed since the message before, for a client that asked for it with `delta` in `subscribe`.

    `delta` is the number that the client gave the account. `base` is the sequence of the message before, in
    the epoch of `at`, or else its epoch and sequence: whoever has another one has lost something and
    subscribes again. `value` goes by threes: the place of a field in the message before, counted from 0; how
    many characters of its text stay; what follows them. What is no text stands there whole. `epoch` and
    `sequence` are told by `at` alone. Where fields come or go, or the epoch is new, `value` is the message
    without `positions`. `positions` has whole rows of what is new or gone; of others the symbol, then threes
    of its row.
    """

    delta: int
    at: StreamPositionPair
    base: int | StreamPositionPair
    value: list[Change] | dict[str, Any]
    positions: list[PositionRow | list[Change]] | msgspec.UnsetType = msgspec.UNSET


class Freshness(msgspec.Struct, tag_field="type", tag="freshness"):
    """Is what is shown of an account of now? Sent when that changes, and before a value that is not.

    `stale_hops` names from where nothing fresh has come since `since`: `collector` (account records: nobody
    follows them, or the broker is silent), `calculator` (values), `valkey` (anything), `server` (this server
    is behind what the client has seen, and sends no value until it is not). While any is there, figures may
    be old. Prices have marks of their own: `stale` of the portfolio message.
    """

    account_id: str
    stale_hops: list[Hop]
    since: Time


class HeartbeatAck(msgspec.Struct, tag_field="type", tag="heartbeat_ack"):
    """Answers a heartbeat with the client's own timestamp, so that it can tell the round trip."""

    timestamp: str | int | float | None


class ErrorMessage(msgspec.Struct, tag_field="type", tag="error", omit_defaults=True):
    """What was wrong with a message of the client; the connection lives on."""

    code: ErrorCode
    message: str
    account_id: str | None = None


class TokenExpiring(msgspec.Struct, tag_field="type", tag="token_expiring"):
    """Send a fresh token within `in_s` seconds, or the connection is closed with 4004."""

    in_s: int


class RefusedAccount(msgspec.Struct):
    """One account of a `subscribe_many` that will not be sent, and why."""

    account_id: str
    code: ErrorCode


class Progress(msgspec.Struct, tag_field="type", tag="progress"):
    """How far `subscribe_many` is: sent at once, each second while first values are to come, and at the end.

    `waiting` accounts have no first value yet; 0: all have. `refused` are those since the last such message.
    """

    subscribed: int
    waiting: int
    refused: list[RefusedAccount]


class Heartbeat(msgspec.Struct, tag_field="type", tag="heartbeat"):
    """Is anybody there?"""

    timestamp: str | int | float | None = None


class Auth(msgspec.Struct, tag_field="type", tag="auth"):
    """Who the client is; sent again it refreshes the token."""

    token: str


class Subscribe(msgspec.Struct, tag_field="type", tag="subscribe"):
    """Send this account's publications, at most `max_frequency_hz` a second.

    `epoch` and `sequence`, both or none: of the newest value that the client has seen, on whichever server.
    Nothing older is sent. `delta`: after the first message send only what changed, as `delta` messages that
    call the account by this number, another one for each account of the connection.
    """

    account_id: str
    detail: Detail = "value"
    max_frequency_hz: float | None = None
    epoch: Number53 | None = None
    sequence: Number53 | None = None
    delta: Number53 | None = None


class SubscribeMany(msgspec.Struct, tag_field="type", tag="subscribe_many"):
    """The same for many accounts of a back end, answered by `progress`.

    `have`, of the same length, says for each account what the client has got before, as (epoch, sequence),
    or null: what is not newer is not sent again. With `detail` "positions" it is not looked at.
    """

    account_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=ACCOUNTS_OF_A_MESSAGE_MAX)]
    detail: Detail = "value"
    have: Annotated[list[StreamPositionPair | None], msgspec.Meta(max_length=ACCOUNTS_OF_A_MESSAGE_MAX)] = []


class Unsubscribe(msgspec.Struct, tag_field="type", tag="unsubscribe"):
    """Send no more of this account."""

    account_id: str


ClientMessage = Heartbeat | Auth | Subscribe | SubscribeMany | Unsubscribe
ServerMessage = Freshness | HeartbeatAck | ErrorMessage | TokenExpiring | Progress
FROM_SERVER: Final = (PortfolioMessage, Delta, Freshness, HeartbeatAck, ErrorMessage, TokenExpiring, Progress)
FROM_CLIENT: Final = (Auth, Subscribe, SubscribeMany, Unsubscribe, Heartbeat)

encode = msgspec.json.Encoder().encode
decode_client_message = msgspec.json.Decoder(ClientMessage).decode


def is_account_id(text: str) -> bool:
    """Is this a text that may become part of a key?"""
    return ACCOUNT_ID.fullmatch(text) is not None
