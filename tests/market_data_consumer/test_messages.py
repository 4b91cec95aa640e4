"""Messages are decoded tolerantly: MessagePack and JSON say the same, nothing odd costs its neighbours."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from portfolio_realtime.clock import parse_rfc3339
from portfolio_realtime.market_data_consumer.messages import (
    MALFORMED,
    NO_TIME,
    VECTOR_MIN,
    Cancel,
    Correction,
    Message,
    Refusal,
    StreamTrade,
    SubscriptionMessage,
    Success,
    as_of_ns,
    decode_frame,
    times_ns,
)

TRADE: dict[str, Any] = {
    "T": "t",
    "S": "AAPL",
    "i": 96921,
    "x": "D",
    "p": 126.55,
    "s": 1,
    "c": ["@", "I"],
    "z": "C",
    "t": "2021-02-22T15:51:44.208123456Z",
}
CORRECTION: dict[str, Any] = {
    "T": "c",
    "S": "EEM",
    "x": "M",
    "oi": 52983525033527,
    "op": 39.1582,
    "os": 440000,
    "oc": [" ", "7"],
    "ci": 52983525034326,
    "cp": 39.1809,
    "cs": 440000,
    "cc": [" ", "7"],
    "z": "B",
    "t": "2023-04-06T14:25:06.542305024Z",
}
CANCEL: dict[str, Any] = {
    "T": "x",
    "S": "GOOGL",
    "i": 465,
    "x": "D",
    "p": 105.31,
    "s": 300,
    "a": "C",
    "z": "C",
    "t": "2023-04-06T13:15:42.83540958Z",
}
QUOTE: dict[str, Any] = {
    "T": "q",
    "S": "AMD",
    "bp": 87.66,
    "ap": 87.68,
    "c": ["R"],
    "z": "C",
    "t": TRADE["t"],
}
OPTION: dict[str, Any] = {
    "T": "t",
    "S": "AAPL240315C00172500",
    "t": TRADE["t"],
    "p": 2.84,
    "s": 1,
    "x": "N",
    "c": "S",
}
CRYPTO: dict[str, Any] = {
    "T": "t",
    "S": "AVAX/USD",
    "p": 47.299,
    "s": 29.205707815,
    "t": TRADE["t"],
    "i": 2**63,
    "tks": "S",
}


def packed(*messages: Any) -> bytes:
    """A frame as Alpaca packs it: each time of day as a MessagePack timestamp."""
    return msgspec.msgpack.encode(
        [{**each, "t": timestamp(each["t"])} if "t" in each else each for each in messages]
    )


def timestamp(text: str) -> msgspec.msgpack.Ext:
    """The 64-bit timestamp extension."""
    seconds, nanoseconds = divmod(parse_rfc3339(text), 1_000_000_000)
    return msgspec.msgpack.Ext(-1, (nanoseconds << 34 | seconds).to_bytes(8, "big"))


def plain(message: Message) -> dict[str, Any]:
    """Fields of a message, its time as nanoseconds."""
    fields = msgspec.structs.asdict(message)
    if "at" in fields:
        fields["at"] = as_of_ns(fields["at"])
    return {"type": type(message).__name__, **fields}


@pytest.mark.parametrize("message", [TRADE, CORRECTION, CANCEL, OPTION, CRYPTO])
def test_messagepack_and_json_say_the_same(message: dict[str, Any]) -> None:
    """One frame in either encoding gives equal messages, to the nanosecond."""
    from_packed, skipped_packed = decode_frame(packed(message))
    from_json, skipped_json = decode_frame(json.dumps([message]))
    assert [] == skipped_packed == skipped_json
    assert [plain(each) for each in from_packed] == [plain(each) for each in from_json]
    assert message["S"] == plain(from_json[0])["symbol"]


def test_documented_frames_decode() -> None:
    """The bytes that Alpaca's reference prints."""
    welcome = bytes.fromhex("9182a154a773756363657373a36d7367a9636f6e6e6563746564")
    assert ([Success("connected")], []) == decode_frame(welcome)
    trade = bytes.fromhex(
        "9189a154a174a153a44141504ca169ce00017a99a178a144a170cb405fa33333333333"
        "a17301a16392a140a149a17aa143a174d7ff319750006033d310"
    )
    messages, skipped = decode_frame(trade)
    assert skipped == []
    assert isinstance(messages[0], StreamTrade)
    assert (
        messages[0].symbol,
        messages[0].price,
        messages[0].conditions,
        messages[0].tape,
        messages[0].exchange,
        messages[0].trade_id,
    ) == ("AAPL", 126.55, ("@", "I"), "C", "D", 96921)
    assert parse_rfc3339("2021-02-22T15:51:44.208Z") == as_of_ns(messages[0].at)
    refusal = msgspec.msgpack.encode([{"T": "error", "code": 406, "msg": "connection limit exceeded"}])
    assert ([Refusal(406, "connection limit exceeded")], []) == decode_frame(refusal)


@pytest.mark.parametrize(
    ("extension", "expected_ns"),
    [
        ("60 33 d3 10", 1614009104 * 10**9),
        ("31 97 50 00 60 33 d3 10", 1614009104_208000000),
        ("1d 6f 34 54 6b 09 93 e8", 1795789800_123456789),  # common decoders cut this to microseconds …
        ("ee 6b 20 30 6b 09 93 e8", 1795789800_999999500),  # … or round this into the next second
        ("00 00 00 07 00 00 00 00 60 33 d3 10", 1614009104_000000007),
        ("00 00 00 00 ff ff ff ff ff ff ff ff", -(10**9)),
        ("00", None),
    ],
)
def test_all_widths_of_the_timestamp_are_read(extension: str, expected_ns: int | None) -> None:
    """32, 64 and 96 bits, as the MessagePack specification has them; any other width is no time."""
    for code, expected in ((-1, expected_ns), (5, None)):
        moment = msgspec.msgpack.Ext(code, bytes.fromhex(extension))
        assert expected == as_of_ns(moment) == as_of_ns(msgspec.Raw(msgspec.msgpack.encode(moment)))
        trades = [StreamTrade("A", at=msgspec.Raw(msgspec.msgpack.encode(moment)))] * (VECTOR_MIN - 1)
        usual = StreamTrade("A", at=msgspec.Raw(msgspec.msgpack.encode(timestamp(TRADE["t"]))))
        assert [NO_TIME if expected is None else expected] * len(trades) == times_ns([*trades, usual])[:-1]


@pytest.mark.parametrize("text", ["", "soon", "2021-02-22", "2021-02-22T15:51:44"])
def test_a_time_that_cannot_be_read_is_none(text: str) -> None:
    """Such a trade is refused later, and does not end the stream here."""
    assert as_of_ns(text) is None
    assert as_of_ns(None) is None
    for encode in (msgspec.json.encode, msgspec.msgpack.encode):
        for odd in (text, None, 34, 1.5, ["2021-02-22T15:51:44Z"], b""):
            if not (encode is msgspec.json.encode and odd == b""):
                assert as_of_ns(msgspec.Raw(encode(odd))) is None


@pytest.mark.parametrize("encode", [json.dumps, msgspec.msgpack.encode])
def test_an_exchange_that_nobody_knows_costs_nothing(encode: Callable[[Any], str | bytes]) -> None:
    """A newly licensed one: Alpaca's Python SDK leaves out a cancel of it and the rest of its frame."""
    frame = [{**TRADE, "x": "G"}, {**CANCEL, "x": "G"}, {**TRADE, "i": 7}]
    if encode is not json.dumps:
        frame = [{**item, "t": timestamp(str(item["t"]))} for item in frame]
    messages, skipped = decode_frame(encode(frame))
    assert [type(each) for each in messages] == [StreamTrade, Cancel, StreamTrade]
    assert [getattr(each, "exchange", "") for each in messages] == ["G", "G", TRADE["x"]]
    assert skipped == []


@pytest.mark.parametrize(
    ("odd", "name"),
    [
        (QUOTE, "q"),
        ({"T": "brand_new", "S": 5}, "brand_new"),
        ({"T": "t", "S": "AAPL", "p": "126.55"}, MALFORMED),
        ({"T": "t", "p": 1.0}, MALFORMED),
        ({"S": "AAPL"}, MALFORMED),
        ({"T": 7}, MALFORMED),
        (7, MALFORMED),
        (None, MALFORMED),
    ],
)
def test_one_odd_item_costs_only_itself(odd: Any, name: str) -> None:
    """Its neighbours in the frame are read, and it is named so that it can be counted."""
    around = [{**TRADE, "unheard_of": {"a": [1]}}, odd, CANCEL]
    json_messages, json_skipped = decode_frame(json.dumps(around))
    assert [StreamTrade, Cancel] == [type(each) for each in json_messages]
    assert [name] == json_skipped
    without_times = [{**TRADE, "t": timestamp(TRADE["t"])}, odd, {**CANCEL, "t": timestamp(CANCEL["t"])}]
    packed_messages, packed_skipped = decode_frame(msgspec.msgpack.encode(without_times))
    assert [plain(each) for each in json_messages] == [plain(each) for each in packed_messages]
    assert [name] == packed_skipped


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x81\xa1T\xa1t", "", "{}", "[", "\ud7ff", '[{"T":"t"'])
def test_a_frame_that_is_no_array_is_one_malformed_message(frame: bytes | str) -> None:
    """It is counted and nothing else happens."""
    assert decode_frame(frame) == ([], [MALFORMED])


def test_every_field_but_the_symbol_may_be_missing_or_null() -> None:
    """What is missing is None, never a made-up value."""
    (trade,), _ = decode_frame('[{"T":"t","S":"A"}]')
    assert plain(StreamTrade("A")) == plain(trade)
    assert not any(
        name not in ("type", "symbol") and found is not None for name, found in plain(trade).items()
    )
    nulls = json.dumps(
        [{"T": "t", "S": "A", "p": None, "t": None, "c": None, "z": None, "x": None, "i": None}]
    )
    (null_trade,), _ = decode_frame(nulls)
    assert plain(null_trade) == plain(trade)
    (correction,), _ = decode_frame('[{"T":"c","S":"A"}]')
    assert Correction("A") == correction
    (subscription,), _ = decode_frame('[{"T":"subscription","quotes":[]}]')
    assert SubscriptionMessage(None) == subscription


def test_a_type_that_is_a_whole_text_is_no_name() -> None:
    """It would be a label of a metric and a word of the log."""
    assert decode_frame(json.dumps([{"T": "long" * 1000}, {"T": "zz"}])) == ([], [MALFORMED, "zz"])
