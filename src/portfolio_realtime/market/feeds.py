"""The three feeds: where each is, what it carries, and which of its trades may move a mark."""

from dataclasses import dataclass

from portfolio_realtime.config import Settings
from portfolio_realtime.market.conditions import crypto_effect, option_effect, stock_effect
from portfolio_realtime.market.marks import EffectOf
from portfolio_realtime.model import CRYPTO, US_EQUITY, US_OPTION

_BETA_FEEDS = ("boats", "overnight")
_FEEDS_WITHOUT_REST = ("test",)


@dataclass(frozen=True)
class Feed:
    """One stream and its REST counterpart."""

    name: str  # of its lease and in metrics
    asset_class: str
    source: str  # what its marks say they come from
    stream_path: str
    snapshots_path: str
    snapshots_feed: str | None  # the REST parameter `feed`
    effect_of: EffectOf


def feeds(settings: Settings) -> list[Feed]:
    """Stocks, crypto and options, as the settings choose them."""
    stocks = settings.alpaca_data_feed
    version = "v1beta1" if stocks in _BETA_FEEDS else "v2"
    rest_feed = None if stocks in _FEEDS_WITHOUT_REST else stocks
    return [
        Feed(
            "stocks",
            US_EQUITY,
            stocks,
            f"/{version}/{stocks}",
            "/v2/stocks/snapshots",
            rest_feed,
            stock_effect,
        ),
        Feed(
            "crypto",
            CRYPTO,
            "crypto",
            "/v1beta3/crypto/us",
            "/v1beta3/crypto/us/snapshots",
            None,
            crypto_effect,
        ),
        Feed(
            "options",
            US_OPTION,
            "options",
            "/v1beta1/indicative",
            "/v1beta1/options/snapshots",
            "indicative",
            option_effect,
        ),
    ]
