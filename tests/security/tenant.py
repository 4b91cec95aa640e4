"""A tenant's calculator in a process of its own: `python -m tests.security.tenant URL PREFIX EQUITY`."""

import asyncio
import itertools
import sys

from portfolio_realtime.state import keys, open_state
from tests.conftest import SHARDS
from tests.support.websocket_servers import Calculator, write_accounts

PAUSE_S = 0.1


async def publish_forever(url: str, prefix: str, equity: str) -> None:
    """The account `a`, which every tenant has, at this tenant's value."""
    keys.use_prefix(prefix)
    state = open_state(url, holder=prefix, shards=SHARDS, lease_ms=60_000)
    await write_accounts(state, "a")
    calculator = Calculator(state)
    for sequence in itertools.count(1):
        await calculator.publish("a", sequence, equity=equity)
        await asyncio.sleep(PAUSE_S)


if __name__ == "__main__":
    asyncio.run(publish_forever(*sys.argv[1:]))
