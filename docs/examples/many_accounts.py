"""The newest value of many accounts, in memory: one connection, subscribed in bulk, resumed after a cut."""

import asyncio
import json
import os
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

BATCH = 60  # ids, each with what we have, that fit into a message of 4096 bytes
FINAL = range(4500, 5000)  # close codes that say: do not come again


async def follow(url: str, headers: dict[str, str], ids: list[str], newest: dict[str, Any]) -> None:
    """Put every newer value into `newest`; a connection that is cut is made again, with growing pauses."""
    async for client in connect(f"{url}/ws", additional_headers=headers, compression=None):
        try:
            for at in range(0, len(ids), BATCH):
                some = ids[at : at + BATCH]
                seen = [newest.get(one) for one in some]
                have = [one and (one["epoch"], one["sequence"]) for one in seen]
                await client.send(json.dumps({"type": "subscribe_many", "account_ids": some, "have": have}))
            async for text in client:
                message = json.loads(text)
                if message["type"] == "portfolio":
                    newest[message["account_id"]] = message
                elif message["type"] in ("progress", "freshness", "error"):
                    print(text)
        except ConnectionClosed as end:
            if end.rcvd is not None and end.rcvd.code in FINAL:
                raise


async def visible(url: str, headers: dict[str, str]) -> list[str]:
    """The ids of all accounts that we may see, page by page; after a start the list may not be whole yet."""
    async with httpx.AsyncClient(base_url=url, headers=headers) as http:
        while True:
            ids: list[str] = []
            after: str | None = ""
            is_complete = True
            while after is not None:
                page = (await http.get("/v1/accounts", params={"after": after, "limit": 1000})).json()
                ids += [one["account_id"] for one in page["accounts"]]
                after, is_complete = page["next"], is_complete and page["is_complete"]
            if is_complete:
                return ids
            await asyncio.sleep(1)


async def main() -> None:
    """`PORTFOLIO_URL=http://127.0.0.1:8080 API_KEY=… python many_accounts.py`."""
    url, headers = os.environ["PORTFOLIO_URL"], {"X-API-Key": os.environ["API_KEY"]}
    await follow(url.replace("http", "ws", 1), headers, await visible(url, headers), {})


if __name__ == "__main__":
    asyncio.run(main())
