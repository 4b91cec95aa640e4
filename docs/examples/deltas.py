"""One account with its positions, in memory, from messages that say no more than what changed."""

import asyncio
import json
import os
from typing import Any

from websockets.asyncio.client import connect

NUMBER = 1  # what deltas call the account


class LostBase(Exception):
    """A delta that begins where we are not: subscribe again, and the next message is whole."""


class Portfolio:
    """The newest value and the rows of one account."""

    def __init__(self) -> None:
        self.value: dict[str, Any] = {}
        self.rows: dict[str, dict[str, Any]] = {}

    def clear(self) -> None:
        """Nothing is known: the next message is whole."""
        self.value, self.rows = {}, {}

    def take(self, message: dict[str, Any]) -> None:
        """A `portfolio` or a `delta` message. Raises LostBase, once, and is empty then until a whole one."""
        if message["type"] == "portfolio":
            self.value = {name: field for name, field in message.items() if name != "positions"}
        elif not self.value:
            return
        else:
            epoch, sequence = message["at"]
            base, changes = message["base"], message["value"]
            if [self.value["epoch"], self.value["sequence"]] != (
                base if isinstance(base, list) else [epoch, base]
            ):
                self.clear()
                raise LostBase
            is_whole = isinstance(changes, dict)
            self.value = changes if is_whole else {**changed(self.value, changes), "sequence": sequence}
        for row in message.get("positions", []):
            self._take_row(row)

    def _take_row(self, row: dict[str, Any] | list[Any]) -> None:
        if isinstance(row, list):
            symbol, *changes = row
            self.rows[symbol] = changed(self.rows[symbol], changes)
        elif "market_value" in row:
            self.rows[row["symbol"]] = row
        else:  # the last row of a position that is gone
            self.rows.pop(row["symbol"], None)


def changed(before: dict[str, Any], changes: list[Any]) -> dict[str, Any]:
    """The fields with these changes: by threes a place, how many characters stay, and what follows them."""
    names, after = list(before), dict(before)
    for place, kept, rest in zip(changes[::3], changes[1::3], changes[2::3], strict=True):
        name = names[place]
        after[name] = before[name][:kept] + rest if kept else rest
    return after


async def follow(url: str, headers: dict[str, str], account_id: str, portfolio: Portfolio) -> None:
    """Keep it current; a connection that is cut is made again and begins with a whole message."""
    wanted = {"type": "subscribe", "account_id": account_id, "detail": "positions", "delta": NUMBER}
    async for client in connect(f"{url}/ws", additional_headers=headers, compression=None):
        portfolio.clear()
        await client.send(json.dumps(wanted))
        async for text in client:
            message = json.loads(text)
            try:
                if message["type"] in ("portfolio", "delta"):
                    portfolio.take(message)
                    print(portfolio.value["total_value"], len(text))
            except LostBase:
                await client.send(json.dumps(wanted))


async def main() -> None:
    """`PORTFOLIO_URL=http://127.0.0.1:8080 API_KEY=… ACCOUNT=… python deltas.py`."""
    url, headers = os.environ["PORTFOLIO_URL"], {"X-API-Key": os.environ["API_KEY"]}
    await follow(url.replace("http", "ws", 1), headers, os.environ["ACCOUNT"], Portfolio())


if __name__ == "__main__":
    asyncio.run(main())
