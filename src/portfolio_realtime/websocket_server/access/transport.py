"""How the server reaches JWKS_URL and AUTHZ_URL: through the proxy of the environment, if there is one."""

import httpx

from portfolio_realtime.outbound import proxy_of


def transport_to(url: str) -> httpx.AsyncHTTPTransport:
    """For a client that asks this URL only. Raises SettingsError."""
    return httpx.AsyncHTTPTransport(proxy=proxy_of(url))
