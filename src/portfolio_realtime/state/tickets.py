"""Tickets: a credential for one WebSocket connection, used up by the first server that reads it."""

import hashlib
import secrets
from collections.abc import Awaitable
from typing import Any, Final, cast

from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, reports_unavailable

TICKET_BYTES: Final = 32


class Tickets:
    """The keys `ticket:SHA256`. A ticket itself is kept nowhere, only its digest."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @reports_unavailable
    async def issue(self, bearer: bytes) -> str:
        """A new ticket for `bearer` (opaque here), good once and for keys.TICKET_TTL_S seconds."""
        ticket = secrets.token_urlsafe(TICKET_BYTES)
        await cast(
            "Awaitable[Any]", self._connection.commands.set(_key(ticket), bearer, ex=keys.TICKET_TTL_S)
        )
        return ticket

    @reports_unavailable
    async def redeem(self, ticket: str) -> bytes | None:
        """Use a ticket up: whom it was issued to, or None. Of two who try at once, one wins."""
        return await cast("Awaitable[bytes | None]", self._connection.commands.getdel(_key(ticket)))


def _key(ticket: str) -> str:
    return keys.ticket(hashlib.sha256(ticket.encode()).hexdigest())
