"""The types of all messages, and the close codes. The calculator encodes the portfolio message itself.

Money is a decimal string, a ratio is a number (0.0101 = 1.01 %), a time is RFC 3339 in UTC with microseconds.
"""

import enum
import re
from typing import Annotated, Any, Final, Literal

import msgspec

ACCOUNT_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
MESSAGE_BYTES_MAX: Final = 4096  # of one message from a client
ACCOUNTS_OF_A_MESSAGE_MAX: Final = 100  # as many UUIDs fit into MESSAGE_BYTES_MAX

Hop = Literal["collector", "calculator", "valkey", "server"]
VALKEY: Final[Hop] = "valkey"
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

Number53 = Annotated[int, msgspec.Meta(ge=0, le=2**53)]  # exact in JavaScript as well
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
    """Why the server closes. After 4000-4499 the client reconnects, after 4500-4999 it does not."""

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
        """The close reason that is sent with the code."""
        return self.value[1]


class PositionRow(msgspec.Struct):
    """One position of a portfolio message. When it is gone, its last row has quantity "0"."""

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
    """Since when the broker has not confirmed the account, why, and by how much its figures differ from ours.

    `by`: symbol, `cash` or `equity` -> the broker's figure minus ours; empty when this is not known.
    """

    since: Time
    reason: str
    by: dict[str, Number]


class PortfolioMessage(msgspec.Struct, tag_field="type", tag="portfolio"):
    """The value of one account. `equity` is null while a position has no price.

    `known_equity` is then present, with the sum of the rest. `unpriced` names the symbols without a price.
    `awaited` names symbols whose price has not been read yet; they are not in `unpriced`, and `equity` is
    null for them too. `without_feed` names the asset classes of held symbols that no feed prices.

    While a mark is stale, its symbol is in `stale`, and `stale_ages_s` has its age at publication in whole
    seconds. `account_record` in `stale` means that the broker has stated nothing readable about this account
    since `record_as_of`.

    `unvalued` names what was transferred at an unknown value. `unexplained` names what has changed without a
    booking, and by how much. With either, `day_pnl` is null. The text of a figure that is null
    (`total_value`, `today_return`) is "—". `unconfirmed` is present from the broker's first contradiction to
    its next agreement. `stale_hops` is present only in HTTP answers; see `freshness`.
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
    """What changed since the previous message, for a client that sent `delta` in `subscribe`.

    `delta` is the number that the client gave the account. `base` is the sequence of the previous message if
    it has the epoch of `at`, else its epoch and sequence. A client with another base has lost a message and
    subscribes again. `value` is a list of threes: the place of a field in the previous message, counted from
    0; how many characters of its text stay; and the text after them. A value that is not text is whole.
    `epoch` and `sequence` are only in `at`. If fields are added or removed, or the epoch is new, `value` is
    the message without `positions`. `positions` has the whole rows of new and removed positions; for others
    the symbol, then threes of its row.
    """

    delta: int
    at: StreamPositionPair
    base: int | StreamPositionPair
    value: list[Change] | dict[str, Any]
    positions: list[PositionRow | list[Change]] | msgspec.UnsetType = msgspec.UNSET


class Freshness(msgspec.Struct, tag_field="type", tag="freshness"):
    """Whether an account's figures are current. Sent when this changes, and before an old value.

    `stale_hops` names the components that have delivered nothing new since `since`: `collector` (account
    records: nobody follows them, or the broker is silent), `calculator` (values), `valkey` (everything),
    `server` (this server is behind what the client has seen, and sends no value until it has caught up).
    While the list is not empty, figures may be old. Stale prices are in `stale` of the portfolio message.
    """

    account_id: str
    stale_hops: list[Hop]
    since: Time


class HeartbeatAck(msgspec.Struct, tag_field="type", tag="heartbeat_ack"):
    """Answers a heartbeat with the client's own timestamp, so that it can measure the round trip."""

    timestamp: str | int | float | None


class ErrorMessage(msgspec.Struct, tag_field="type", tag="error", omit_defaults=True):
    """What was wrong with a client message. The connection stays open."""

    code: ErrorCode
    message: str
    account_id: str | None = None


class TokenExpiring(msgspec.Struct, tag_field="type", tag="token_expiring"):
    """The client must send a new token within `in_s` seconds, or the connection is closed with 4004."""

    in_s: int


class RefusedAccount(msgspec.Struct):
    """An account of a `subscribe_many` that was refused, and why."""

    account_id: str
    code: ErrorCode


class Progress(msgspec.Struct, tag_field="type", tag="progress"):
    """Progress of `subscribe_many`: sent at once, each second while first values are missing, and last.

    `waiting`: how many accounts have no first value yet. `refused`: the accounts refused since the last
    progress message.
    """

    subscribed: int
    waiting: int
    refused: list[RefusedAccount]


class Heartbeat(msgspec.Struct, tag_field="type", tag="heartbeat"):
    """Asks for a `heartbeat_ack`."""

    timestamp: str | int | float | None = None


class Auth(msgspec.Struct, tag_field="type", tag="auth"):
    """The client's token; sent again, it replaces an expiring one."""

    token: str


class Subscribe(msgspec.Struct, tag_field="type", tag="subscribe"):
    """Send this account's publications, at most `max_frequency_hz` a second.

    `epoch` and `sequence` (both or neither) are those of the newest value that the client has received, from
    any server. Nothing older is sent. `delta`: after the first message, send only what changed, in `delta`
    messages with this number. Each account of a connection has a different number.
    """

    account_id: str
    detail: Detail = "value"
    max_frequency_hz: float | None = None
    epoch: Number53 | None = None
    sequence: Number53 | None = None
    delta: Number53 | None = None


class SubscribeMany(msgspec.Struct, tag_field="type", tag="subscribe_many"):
    """Send the publications of many accounts, for a back end; answered by `progress`.

    `have`, of the same length, has for each account the newest (epoch, sequence) that the client has
    received, or null. Only newer values are sent. With `detail` "positions" it is ignored.
    """

    account_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=ACCOUNTS_OF_A_MESSAGE_MAX)]
    detail: Detail = "value"
    have: Annotated[list[StreamPositionPair | None], msgspec.Meta(max_length=ACCOUNTS_OF_A_MESSAGE_MAX)] = []


class Unsubscribe(msgspec.Struct, tag_field="type", tag="unsubscribe"):
    """Stop sending this account's publications."""

    account_id: str


ClientMessage = Heartbeat | Auth | Subscribe | SubscribeMany | Unsubscribe
ServerMessage = Freshness | HeartbeatAck | ErrorMessage | TokenExpiring | Progress
FROM_SERVER: Final = (PortfolioMessage, Delta, Freshness, HeartbeatAck, ErrorMessage, TokenExpiring, Progress)
FROM_CLIENT: Final = (Auth, Subscribe, SubscribeMany, Unsubscribe, Heartbeat)

encode = msgspec.json.Encoder().encode
decode_client_message = msgspec.json.Decoder(ClientMessage).decode


def is_account_id(text: str) -> bool:
    """Whether the text has the form of an account id, so that it may be part of a key in Valkey."""
    return ACCOUNT_ID.fullmatch(text) is not None
