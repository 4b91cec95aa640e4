"""Leases that tests write under."""

from portfolio_realtime.state import State
from portfolio_realtime.state.leases import Lease


async def lease_of(state: State, name: str = "work") -> Lease:
    """A new grant."""
    lease = await state.leases.acquire(name)
    assert lease is not None
    return lease
