"""The types of the wire, held against what the calculator really encodes."""

from collections.abc import Mapping
from decimal import Decimal

import msgspec
import pytest

from portfolio_realtime.model import US_EQUITY, Account, Mark, Position, Publication
from portfolio_realtime.valuation.portfolio_message import Figures, constant, encode_row, encode_values
from portfolio_realtime.wire.messages import Disconnect, PortfolioMessage, PositionRow
from tests.support.publications import row, stored, value
from tests.valuation.records import figures as figures_of

HELD = Position("AAPL", US_EQUITY, Decimal(10), Decimal(1), Decimal(900))
ACCOUNT = Account(
    "a", 1, "ACTIVE", "USD", Decimal("10.5"), Decimal(990), "2026-11-20", Decimal(0), (HELD,), 0
)
MARK = Mark("AAPL", 101.5, 1, 2, "iex", 99.0, "2026-11-20")
PRICED = figures_of(102550, 3550)
UNPRICED = figures_of(1050, 0, unpriced=("AAPL",))
STALE = figures_of(102550, 3550, stale_ages_s={"AAPL": 3700})
BOTH = figures_of(1050, 0, unpriced=("MSFT",), stale_ages_s={"AAPL": 3700})


def test_no_reason_of_a_close_is_a_number() -> None:
    """Some clients read a numeric reason, or one in JSON, as their advice instead of the code's."""
    reasons = [one.reason for one in Disconnect]
    assert reasons
    assert [reason for reason in reasons if not reason.replace(" ", "").isalpha()] == []


@pytest.mark.parametrize(("figures", "mark"), [(PRICED, MARK), (UNPRICED, None), (STALE, MARK), (BOTH, MARK)])
@pytest.mark.parametrize("unvalued", [(), ("KO",)])
def test_what_the_calculator_encodes_is_what_the_protocol_says(
    figures: Figures, mark: Mark | None, unvalued: tuple[str, ...]
) -> None:
    """No field more, none less, in the same order: decoded and encoded again it is the same text."""
    held = msgspec.structs.replace(ACCOUNT, unvalued=unvalued)
    (encoded,) = encode_values([constant(held, 5)], [1], figures, 3)
    written = stored(Publication("a", 1, encoded, [("AAPL", encode_row(HELD, mark))]))
    message = msgspec.json.decode(written, type=PortfolioMessage)
    assert msgspec.json.encode(message) == written
    assert (message.equity is None) == (message.known_equity is not msgspec.UNSET)


@pytest.mark.parametrize("struct", [PortfolioMessage, PositionRow])
def test_the_messages_of_these_tests_are_those_of_the_protocol(struct: type[msgspec.Struct]) -> None:
    """So that the other tests here do not test a wire of their own."""
    made: Mapping[str, object] = value("a", 1, 1) if struct is PortfolioMessage else row("A", "1")
    assert msgspec.json.encode(msgspec.json.decode(msgspec.json.encode(made), type=struct)) == (
        msgspec.json.encode(made)
    )
