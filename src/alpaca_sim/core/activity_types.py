"""What each of Alpaca's activity types may move, and whether it is an external cash flow.

Source: `ActivityType` and the schemas `…ActivityV2` of Alpaca's OpenAPI files broker.yaml 1.1.1 and
trading.yaml 2.0.1, and no client's code.
"""

from typing import NamedTuple


class Meaning(NamedTuple):
    """What an activity of one type may do."""

    cash: bool  # it may change the cash
    units: bool  # it may change a quantity
    flow: bool  # it is an external cash flow


_EARNED = Meaning(cash=True, units=False, flow=False)  # dividends, interest, their taxes, cash in lieu
_OWN_CASH = Meaning(cash=True, units=False, flow=True)
_OWN_UNITS = Meaning(cash=True, units=True, flow=True)
_EXCHANGED = Meaning(cash=True, units=True, flow=False)  # trades, fees in coins, corporate actions, options

_OF_EARNINGS = (
    "CGD CIL DIV DIVCGL DIVCGS DIVFEE DIVFT DIVNRA DIVROC DIVTW DIVTXEX DIVWH INT INTNRA INTTW OPCSH PTR WH"
)
_OF_OWN_CASH = "ACATC CSD CSW JNLC MEM TRANS"
_OF_OWN_UNITS = "ACATS FOPT JNL JNLS OCT"
_OF_EXCHANGES = "CFEE FEE FILL FIMAT MA MISC NC OPASN OPCA OPEXC OPEXP OPTRD PTC REO REORG SPIN SPLIT TRD VOF"

MEANINGS: dict[str, Meaning] = {
    **dict.fromkeys(_OF_EARNINGS.split(), _EARNED),
    **dict.fromkeys(_OF_OWN_CASH.split(), _OWN_CASH),
    **dict.fromkeys(_OF_OWN_UNITS.split(), _OWN_UNITS),
    **dict.fromkeys(_OF_EXCHANGES.split(), _EXCHANGED),
}
