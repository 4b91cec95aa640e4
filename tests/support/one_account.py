"""The settings of a system that follows one account."""

from typing import Any

from portfolio_realtime.service import Context
from portfolio_realtime.state import State
from tests.conftest import Simulator
from tests.support.collectors import context_of


def keys(index: int) -> dict[str, str]:
    """The settings that follow the simulator's account of this index, and no broker's."""
    return {
        "BROKER_API_KEY": "",
        "BROKER_SECRET_KEY": "",
        "APCA_API_KEY_ID": f"PK{900_000_000 + index}",
        "APCA_API_SECRET_KEY": f"sim-secret-{900_000_000 + index}",
    }


def context_of_one(simulator: Simulator, state: State, index: int, **settings: Any) -> Context:
    """A collector's context with the keys of one account."""
    own = {name.lower(): value for name, value in keys(index).items()}
    return context_of(simulator, state, **{**own, **settings})
