"""The state that the services share in Valkey. No other folder reads or writes Valkey."""

from dataclasses import dataclass

from portfolio_realtime.config import Settings
from portfolio_realtime.state.account_numbers import AccountNumbers
from portfolio_realtime.state.accounts import Accounts
from portfolio_realtime.state.agreement import Agreement, WireVersions
from portfolio_realtime.state.asset_names import AssetNames
from portfolio_realtime.state.closed_days import ClosedDaysStore
from portfolio_realtime.state.connection import Connection
from portfolio_realtime.state.entitlements import Entitlements
from portfolio_realtime.state.feeds import Feeds
from portfolio_realtime.state.interest import Interest, server_name
from portfolio_realtime.state.leases import Leases
from portfolio_realtime.state.marks import Marks
from portfolio_realtime.state.metrics import Metrics
from portfolio_realtime.state.minutes import Minutes
from portfolio_realtime.state.revocations import Revocations
from portfolio_realtime.state.tickets import Tickets
from portfolio_realtime.state.valuations import Valuations


@dataclass(frozen=True)
class State:
    """The opened state: one attribute for each kind of entry."""

    connection: Connection
    leases: Leases
    accounts: Accounts
    account_numbers: AccountNumbers
    asset_names: AssetNames
    closed_days: ClosedDaysStore
    marks: Marks
    feeds: Feeds
    minutes: Minutes
    valuations: Valuations
    interest: Interest
    metrics: Metrics
    agreement: Agreement
    wire: WireVersions
    tickets: Tickets
    revocations: Revocations
    entitlements: Entitlements

    async def close(self) -> None:
        """Close all connections."""
        await self.connection.close()


def open_state(url: str, *, holder: str, shards: int, lease_ms: int, is_cluster: bool | None = None) -> State:
    """The state at `url` (redis:// or rediss://). `holder` names this process in its leases.

    `shards`: the number of shards. `lease_ms`: how long a lease lasts without renewal. `is_cluster`: whether
    the URL leads to a cluster; None: the server tells.
    """
    connection, server = Connection(url, is_cluster=is_cluster), server_name(holder)
    return State(
        connection=connection,
        leases=Leases(connection, holder, lease_ms),
        accounts=Accounts(connection, shards),
        account_numbers=AccountNumbers(connection),
        asset_names=AssetNames(connection),
        closed_days=ClosedDaysStore(connection),
        marks=Marks(connection),
        feeds=Feeds(connection),
        minutes=Minutes(connection),
        valuations=Valuations(connection, shards, server),
        interest=Interest(connection, shards, server),
        metrics=Metrics(connection),
        agreement=Agreement(connection),
        wire=WireVersions(connection, holder),
        tickets=Tickets(connection),
        revocations=Revocations(connection),
        entitlements=Entitlements(connection),
    )


def state_of(settings: Settings, holder: str) -> State:
    """The state that settings name. An embedded one is known to who has started it: see `open_state`."""
    return open_state(
        settings.state_url,
        holder=holder,
        shards=settings.shards,
        lease_ms=settings.lease_ms,
        is_cluster=settings.is_cluster,
    )
