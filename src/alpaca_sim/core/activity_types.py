"""What each of Alpaca's activity types moves and whose money it is, as the OpenAPI files describe them.

Written from `ActivityType` and the schemas `…ActivityV2` of broker.yaml 1.1.1 and trading.yaml
2.0.1, not from any client. `cash` and `units`: may the booking move them; `flow`: is it the client's own.
"""

from typing import NamedTuple


class Meaning(NamedTuple):
    """One activity type."""

    cash: bool
    units: bool
    flow: bool


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
