"""Tickets: a single-use credential for one WebSocket connection, valid at any server."""

import hashlib
import secrets
from collections.abc import Awaitable
from typing import Any, Final, cast

from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, reports_unavailable

TICKET_BYTES: Final = 32


class Tickets:
    """The keys `ticket:SHA256`. Only a ticket's digest is stored, never the ticket."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @reports_unavailable
    async def issue(self, bearer: bytes) -> str:
        """A new ticket for `bearer` (opaque here), valid once, for keys.TICKET_TTL_S seconds.

        Raises StateUnavailable.
        """
        ticket = secrets.token_urlsafe(TICKET_BYTES)
        await cast(
            "Awaitable[Any]", self._connection.commands.set(_key(ticket), bearer, ex=keys.TICKET_TTL_S)
        )
        return ticket

    @reports_unavailable
    async def redeem(self, ticket: str) -> bytes | None:
        """Use a ticket: the `bearer` it was issued for, or None. Of two simultaneous uses one succeeds.

        Raises StateUnavailable.
        """
        return await cast("Awaitable[bytes | None]", self._connection.commands.getdel(_key(ticket)))


def _key(ticket: str) -> str:
    return keys.ticket(hashlib.sha256(ticket.encode()).hexdigest())
