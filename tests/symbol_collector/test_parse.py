"""What the broker sends, in the shapes of its own documentation, becomes our terms or is refused."""

from decimal import Decimal
from typing import Any

import pytest

from portfolio_realtime.clock import parse_rfc3339
from portfolio_realtime.symbol_collector.sources import parse
from portfolio_realtime.symbol_collector.sources.parse import PayloadRefused
from tests.support.broker_payloads import ACCOUNT, POSITION

SHORT: dict[str, Any] = {"symbol": "SLM", "side": "short", "qty": "-2478", "cost_basis": "-20716.08"}
ACTIVITY: dict[str, Any] = {
    "account_id": "c8f1ef5d-edc0-4f23-9ee4-378f19cb92a4",
    "event_id": "01HCMKNJJRJ4E3RNFA1XR8CX7R",
    "ref_id": "a958bb42-b034-4d17-bf07-805cf0820ffe",
    "activity_type": "TRD",
    "qty": "0.04",
    "price": "480.338",
    "currency": "USD",
    "net_amount": "-19.21",
    "status": "executed",
    "at": "2026-01-02T14:43:59.052726Z",
    "executed_at": "2026-01-02T14:43:59.05095724Z",
    "settle_date": "2026-01-05",
    "details": {"side": "buy", "symbol": "MSFT", "execution_type": "fill", "cum_qty": "0.04"},
}


def test_an_account_keeps_every_digit() -> None:
    """Money is Decimal from the string on."""
    state = parse.account_state("c8f1", ACCOUNT)

    assert Decimal("24861.91") == state.cash
    assert Decimal("26977.323677655") == state.last_equity
    assert (state.balance_asof, state.currency, state.status) == ("2021-04-01", "USD", "ACTIVE")


@pytest.mark.parametrize("field", ["cash", "last_equity"])
@pytest.mark.parametrize("value", [None, "", "NaN", "Infinity", "-Infinity", "12,50", True, [], {}])
def test_money_that_is_not_a_number_refuses_the_account(field: str, value: Any) -> None:
    """Nothing is guessed: the payload is refused, and the message names the field."""
    with pytest.raises(PayloadRefused, match=field):
        parse.account_state("c8f1", {**ACCOUNT, field: value})


@pytest.mark.parametrize("balance_asof", [None, "", "soon", "2021-13-01"])
def test_an_account_without_its_day_is_refused(balance_asof: Any) -> None:
    """Without `balance_asof` nobody knows which flows count."""
    with pytest.raises(PayloadRefused, match="balance_asof"):
        parse.account_state("c8f1", {**ACCOUNT, "balance_asof": balance_asof})


def test_an_account_in_another_currency_is_refused_with_the_reason() -> None:
    """Its cash cannot be added to positions in dollars."""
    with pytest.raises(PayloadRefused, match="the account is in EUR"):
        parse.account_state("c8f1", {**ACCOUNT, "currency": "EUR"})


def test_unknown_statuses_and_missing_optional_fields_pass() -> None:
    """New enum values are not breaking; an empty currency is the default one."""
    state = parse.account_state("c8f1", {**ACCOUNT, "status": "PAPER_ONLY", "currency": "", "new": [1]})

    assert (state.status, state.currency) == ("PAPER_ONLY", "USD")


@pytest.mark.parametrize(
    ("changes", "symbol", "quantity", "cost_basis"),
    [
        ({}, "AAPL", "4", "688.32"),
        ({"qty": "0.079145874", "cost_basis": "13.63999992516"}, "AAPL", "0.079145874", "13.63999992516"),
        (SHORT, "SLM", "-2478", "-20716.08"),
        ({**SHORT, "qty": "2478", "cost_basis": "20716.08"}, "SLM", "-2478", "-20716.08"),
        ({**SHORT, "side": None}, "SLM", "-2478", "-20716.08"),
        ({"qty": 4, "cost_basis": None}, "AAPL", "4", "0"),
        ({"symbol": "BTCUSD", "asset_class": "crypto"}, "BTC/USD", "4", "688.32"),
        ({"symbol": "BTC/USD", "asset_class": "crypto"}, "BTC/USD", "4", "688.32"),
        ({"symbol": "ETHBTC", "asset_class": "crypto"}, "ETH/USD", "4", "688.32"),
        ({"symbol": "AAVEUSDT", "asset_class": "crypto"}, "AAVE/USD", "4", "688.32"),
        ({"current_price": None, "market_value": None, "lastday_price": None}, "AAPL", "4", "688.32"),
    ],
)
def test_a_position_is_signed_and_spelled_as_market_data_spells_it(
    changes: dict[str, Any], symbol: str, quantity: str, cost_basis: str
) -> None:
    """Shorts are negative whether or not `qty` says so."""
    holding = parse.holding({**POSITION, **changes})

    assert (symbol, Decimal(quantity), Decimal(cost_basis)) == (
        holding.symbol,
        holding.quantity,
        holding.cost_basis,
    )


def test_the_broker_s_prices_are_kept_beside_the_positions() -> None:
    """Spelled as market data spells the symbol; what has no price, or 0, has none."""
    positions = [
        {**POSITION, "symbol": "AAPL", "current_price": "172.61"},
        {**POSITION, "symbol": "BTCUSD", "asset_class": "crypto", "current_price": "97000.5"},
        {**POSITION, "symbol": "NEW", "current_price": None},
        {**POSITION, "symbol": "OLD", "current_price": "0"},
    ]
    found = parse.statement("c8f1", ACCOUNT, positions)
    assert found.prices == {"AAPL": 172.61, "BTC/USD": 97000.5}
    assert found.holdings.keys() == {"AAPL", "BTC/USD", "NEW", "OLD"}


@pytest.mark.parametrize(
    ("figures", "multiplier"),
    [
        ({"current_price": None, "market_value": None, "avg_entry_price": None}, 100),
        ({"current_price": "1.50", "market_value": "600.00", "cost_basis": None}, 100),
        ({"current_price": "1.50", "market_value": "60.00", "cost_basis": None}, 10),
        ({"current_price": "0", "market_value": "0", "avg_entry_price": "2", "cost_basis": "1200"}, 150),
        # the two disagree, or there is no whole number: nobody knows better than the standard
        ({"current_price": "0.01", "market_value": "3.96", "avg_entry_price": "2", "cost_basis": "800"}, 100),
        ({"current_price": "1.50", "market_value": "603.00", "cost_basis": None}, 100),
        # an entry price that is rounded: 2000 / (4 × 3.333) is 150.015
        (
            {"current_price": "1", "market_value": "600", "avg_entry_price": "3.333", "cost_basis": "2000"},
            150,
        ),
        ({"current_price": None, "avg_entry_price": "3.333", "cost_basis": "2000"}, 150),
    ],
)
def test_an_options_multiplier_is_what_the_brokers_figures_show(
    figures: dict[str, Any], multiplier: int
) -> None:
    """A position does not name it; without figures that agree it is the standard contract's 100."""
    option = {**POSITION, "symbol": "F260109C00006000", "asset_class": "us_option", **figures}

    assert multiplier == parse.holding(option).multiplier
    assert parse.holding(POSITION).multiplier == 1


ANOTHER = {**POSITION, "asset_id": "another"}


@pytest.mark.parametrize("payload", [None, {}, [POSITION, ANOTHER], [{**POSITION, "qty": "NaN"}], ["AAPL"]])
def test_spoiled_positions_are_refused_as_a_whole(payload: Any) -> None:
    """One position that cannot be read makes the statement useless."""
    with pytest.raises(PayloadRefused):
        parse.holdings(payload)


def test_a_buy_is_positive_and_a_sale_negative_whatever_the_sign_of_qty() -> None:
    """Alpaca's samples do not show a sale's sign; the side decides."""
    for qty in ("0.04", "-0.04"):
        for side, sign in (("buy", 1), ("sell", -1), ("sell_short", -1)):
            details = {**ACTIVITY["details"], "side": side}
            read = parse.activity({**ACTIVITY, "qty": qty, "details": details})
            assert sign * Decimal("0.04") == read.quantity


def test_a_trade_without_a_side_is_what_was_paid_or_received_for_it() -> None:
    """A sign of its own decides first. Without any, the event is refused: buying is not the usual case."""
    for qty, net_amount, read in (("4", "404", "-4"), ("4", "-404", "4"), ("-4", "404", "-4")):
        sided = {**ACTIVITY, "qty": qty, "net_amount": net_amount, "details": {"symbol": "MSFT"}}
        assert parse.activity(sided).quantity == Decimal(read)
    with pytest.raises(PayloadRefused, match="side is missing"):
        parse.activity({**ACTIVITY, "net_amount": None, "details": {"symbol": "MSFT"}})


def test_a_side_in_capitals_is_one_and_an_unknown_side_is_refused() -> None:
    """The sign of a quantity depends on it: SHORT was read as long, and SELL as a purchase."""
    assert parse.holding({**POSITION, "side": "SHORT", "qty": "5"}).quantity == -5
    with pytest.raises(PayloadRefused, match="neither long nor short"):
        parse.holding({**POSITION, "side": "flat"})
    details = {**ACTIVITY["details"], "side": "SELL"}
    assert parse.activity({**ACTIVITY, "details": details}).quantity == Decimal("-0.04")
    with pytest.raises(PayloadRefused, match="neither buy nor sell"):
        parse.activity({**ACTIVITY, "details": {**ACTIVITY["details"], "side": "cross"}})


def test_an_option_trade_is_worth_a_hundred_times_its_price() -> None:
    """The sample: one contract at 9.3 costs 930 and a fee of two cents."""
    details = {"side": "buy", "symbol": "F260109C00006000", "execution_type": "fill"}
    read = parse.activity(
        {**ACTIVITY, "qty": "1", "price": "9.3", "net_amount": "-930.02", "details": details}
    )

    assert (Decimal(930), Decimal("-930.02")) == (read.value, read.net_amount)


def test_an_activity_may_be_irregular_as_in_the_samples() -> None:
    """String booleans, an empty currency, a date with a time, a crypto pair without a slash."""
    read = parse.activity(
        {
            **ACTIVITY,
            "activity_type": "NEWTYPE",
            "currency": "",
            "settle_date": "2025-10-17T00:00:00Z",
            "qty": Decimal("0.5"),
            "price": None,
            "net_amount": "",
            "details": {"foreign": "false", "symbol": "SOLUSD"},
        }
    )

    assert (read.activity_type, read.symbol, read.asset_class) == ("NEWTYPE", "SOL/USD", "crypto")
    assert Decimal(0) == read.net_amount == read.price


def test_json_numbers_keep_every_digit() -> None:
    """A number with more digits than a float holds is still exact."""
    assert {"cash": Decimal("122011.09751111286868")} == parse.decode(b'{"cash": 122011.09751111286868}')


def test_an_event_knows_when_it_was_published_from_its_id() -> None:
    """A late booking has an old `at`; its ULID is of the moment it was published."""
    read = parse.activity({**ACTIVITY, "at": "2020-01-01T00:00:00Z"})

    assert parse_rfc3339("2023-10-13T13:30:00.664Z") == read.published_ns
    plain = parse.activity({**ACTIVITY, "event_id": "12627518"})
    assert parse_rfc3339(ACTIVITY["at"]) == plain.published_ns


@pytest.mark.parametrize(
    "changes", [{"net_amount": "NaN"}, {"account_id": None}, {"at": "then"}, {"qty": "x"}]
)
def test_a_spoiled_activity_is_refused(changes: dict[str, Any]) -> None:
    """Money that cannot be read is not booked as zero."""
    with pytest.raises(PayloadRefused):
        parse.activity({**ACTIVITY, **changes})


def test_a_bust_only_takes_back() -> None:
    """A cancelled booking has no effect of its own."""
    assert parse.activity({**ACTIVITY, "status": "canceled", "previous_id": "x"}).is_void
    assert parse.activity({**ACTIVITY, "details": {"execution_type": "trade_bust"}}).is_void
    assert not parse.activity({**ACTIVITY, "status": "correct"}).is_void


@pytest.mark.parametrize(
    ("ex_date", "read"),
    [("2026-11-20", "2026-11-20"), ("2026-11-20T00:00:00Z", "2026-11-20"), ("", None), ("soon", None)],
)
def test_an_odd_ex_date_does_not_cost_the_booking(ex_date: str, read: str | None) -> None:
    """It only says since when prices contain a split; the booking's money and pieces count all the same."""
    activity = parse.activity({**ACTIVITY, "details": {"symbol": "AAPL", "ex_date": ex_date}})

    assert (read, Decimal("0.04")) == (activity.ex_date, activity.quantity)


CONTRACT, RENAMED = "AAPL261120C00250000", "AAPL1261120C00250000"
BOTH_CONTRACTS = {"symbol": "AAPL", "old_contract_symbol": CONTRACT, "new_contract_symbol": RENAMED}
MERGED = {"acquiree_symbol": "OLD", "acquirer_symbol": "NEW"}
OF_UNIT = {
    "old_symbol": "CCCXU",
    "new_symbol": "INFQ",
    "alternate_symbol": "INFQ.WS",
    "new_qty": "8",
    "alternate_qty": "2",
}


@pytest.mark.parametrize(
    ("kind", "qty", "details", "symbol"),
    [
        ("OPEXP", "-1", {"symbol": "AAPL", "contract_symbol": CONTRACT}, CONTRACT),
        ("OPASN", "14", {"symbol": "AAPL", "contract_symbol": CONTRACT}, CONTRACT),
        ("OPEXC", "-1", {"symbol": CONTRACT}, CONTRACT),
        ("OPTRD", "100", {"symbol": "AAPL", "contract_symbol": CONTRACT}, "AAPL"),
        ("OPCA", "-7", BOTH_CONTRACTS, CONTRACT),
        ("OPCA", "7", BOTH_CONTRACTS, RENAMED),
        ("MA", "-2000", MERGED, "OLD"),
        ("MA", "200", MERGED, "NEW"),
        ("MA", "10", {"acquiree_symbol": "OLD"}, "OLD"),  # a short position, for cash
        ("NC", "-7", {"old_symbol": "RNA", "new_symbol": "RNAM"}, "RNA"),
        ("NC", "7", {"old_symbol": "RNA", "new_symbol": "RNAM"}, "RNAM"),
        ("SPIN", "0.2", {"new_symbol": "RNA", "source_symbol": "RNAM"}, "RNA"),
        ("VOF", "9.9", {"new_symbol": "HYT.RT", "source_symbol": "HYT"}, "HYT.RT"),
        ("REO", "-50", {"source_symbol": "CEPT"}, "CEPT"),
        ("REO", "50", {"source_symbol": "CEPT", "symbol": "SECZ"}, "SECZ"),
        ("SPLIT", "8", OF_UNIT, "INFQ"),
        ("SPLIT", "2", OF_UNIT, "INFQ.WS"),
        ("SPLIT", "1.65", {"symbol": "XRPT", "new_qty": "1.65"}, "XRPT"),
    ],
)
def test_a_leg_moves_the_symbol_that_its_kind_of_booking_names(
    kind: str, qty: str, details: dict[str, str], symbol: str
) -> None:
    read = parse.activity({**ACTIVITY, "activity_type": kind, "qty": qty, "details": details})
    assert (read.symbol, read.quantity) == (symbol, Decimal(qty))
    assert read.activity_type == ("NC" if details == OF_UNIT else kind)  # no split: it is another unit


def test_the_asset_names_what_the_details_do_not_and_no_name_is_refused() -> None:
    for kind, asset in (("OPEXP", CONTRACT), ("FIMAT", "912828XX1"), ("JNLS", "AAPL")):
        moved = {**ACTIVITY, "activity_type": kind, "qty": "-1", "net_amount": "0", "details": {}}
        assert parse.activity({**moved, "asset": {"id": "x", "symbol": asset}}).symbol == asset
        with pytest.raises(parse.PayloadRefused, match="symbol is missing"):
            parse.activity(moved)
    shares = {**ACTIVITY, "activity_type": "OPTRD", "qty": "100", "details": {"symbol": "AAPL"}}
    assert parse.activity({**shares, "asset": {"symbol": CONTRACT}}).symbol == "AAPL"


def test_a_price_in_another_currency_is_no_price_in_dollars() -> None:
    moved = {**ACTIVITY, "activity_type": "JNLS", "net_amount": "0", "details": {"symbol": "SAP"}}
    assert parse.activity({**moved, "currency": "EUR"}).price == 0
    assert parse.activity({**moved, "currency": "usd"}).price == Decimal("480.338")


def test_a_status_is_read_in_any_letters() -> None:
    assert parse.activity({**ACTIVITY, "status": "EXECUTED"}).is_executed
    assert parse.activity({**ACTIVITY, "status": "Canceled"}).is_void


def test_legs_of_one_corporate_action_are_a_group_without_a_group_id_too() -> None:
    for details, group in (({"ca_id": "c"}, "c"), ({"ca_id": "c", "group_id": "g"}, "g"), ({}, None)):
        moved = {**ACTIVITY, "activity_type": "SPLIT", "details": {**details, "symbol": "SF"}}
        assert parse.activity(moved).group_id == group


def test_what_is_told_before_its_time_of_execution_has_happened_when_it_is_told() -> None:
    """As corporate actions do: booked at 08:25, executed at 16:00. The balances have it from 08:25 on."""
    told = {**ACTIVITY, "event_id": "no ULID", "at": "2026-07-13T08:25:15Z"}
    read = parse.activity({**told, "executed_at": "2026-07-13T16:00:00Z"})
    assert read.executed_ns == read.published_ns == parse_rfc3339("2026-07-13T08:25:15Z")
    earlier = parse.activity({**told, "executed_at": "2026-07-12T16:00:00Z"})
    assert earlier.executed_ns == parse_rfc3339("2026-07-12T16:00:00Z")
