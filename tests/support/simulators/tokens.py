"""Tokens of the simulator."""

import httpx

from tests.alpaca_sim.conftest import Running


async def token_of(running: Running) -> str:
    """A fresh bearer token."""
    form = {"grant_type": "client_credentials", "client_id": "sim-key", "client_secret": "sim-secret"}
    async with httpx.AsyncClient(base_url=running.url) as http:
        response = await http.post("/v1/oauth2/token", data=form)
    body = response.json()
    assert (response.status_code, body["expires_in"], body["token_type"]) == (200, 900, "Bearer")
    return body["access_token"]
