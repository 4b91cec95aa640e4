"""Faults to plant in the product, at least one for each promise of the core. The simulation must find each.

A mutant patches one name, or the text of one script, while trials run.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from typing import Any, Final, NamedTuple
from unittest import mock

import numpy as np

from portfolio_harness.simulation import made_up_valkey, makers
from portfolio_realtime.market_data_consumer.mark_book import MarkBook
from portfolio_realtime.pace import Pace
from portfolio_realtime.state import accounts
from portfolio_realtime.state.client import watched_keys
from portfolio_realtime.state.connection import Connection, Subscribed
from portfolio_realtime.state.feeds import Feeds, SourceStatus
from portfolio_realtime.state.revocations import Revocations
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords
from portfolio_realtime.symbol_collector.records.booked import Booked
from portfolio_realtime.valuation import float_rounding
from portfolio_realtime.websocket_server.access.identity import Identity
from portfolio_realtime.websocket_server.access.revocations import KnownRevocations
from portfolio_realtime.websocket_server.clients.connection import ClientConnection
from portfolio_realtime.websocket_server.fanout import hub
from portfolio_realtime.websocket_server.fanout.freshness import ShardSigns
from portfolio_realtime.websocket_server.fanout.newest_columns import NewestColumns
from portfolio_realtime.websocket_server.fanout.publication_follower import PublicationFollower
from portfolio_realtime.websocket_server.fanout.watched_account import WatchedAccount

Patch = contextlib.AbstractContextManager[Any]


class Mutant(NamedTuple):
    """One fault: the promise that it breaks, its description, and the patch that plants it."""

    promise: str
    what: str
    plant: Callable[[], Patch]
    found_by: tuple[int, ...] = ()  # short stories that found it when it was planted: they are tried first


def _replaced(owner: Any, name: str, value: Any) -> Callable[[], Patch]:
    return lambda: mock.patch.object(owner, name, value)


def _script(old: bytes, new: bytes) -> Callable[[], Patch]:
    return lambda: mock.patch.dict(made_up_valkey.planted, {old: new})


def _nothing(*_: Any, **__: Any) -> None:
    """Do nothing."""


def _only_read(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Read the keys, and watch none."""
    return [("PING",), ("MGET", *names)]


async def _at_once(*_: Any, **__: Any) -> None:
    """Do nothing."""


async def _never(*_: Any, **__: Any) -> None:
    await asyncio.Event().wait()


def _always(*_: Any, **__: Any) -> bool:
    return True


def _not(*_: Any) -> bool:
    return False


def _no_change(*_: Any, **__: Any) -> set[int]:
    return set()


def _decoded(decode: Callable[[bytes], Any], raw: bytes, _: str) -> Any:
    return decode(raw)


def _all_newer(_: Any, slots: Any, *__: Any) -> Any:
    return np.ones(len(slots), np.bool_)


def _a_cent_more(dollars: Any, error_bound: Any) -> Any:
    rounded, is_unsure = _round_to_cents(dollars, error_bound)
    return rounded + 1, is_unsure


def _begins_alike(self: Identity, account_id: str) -> bool:
    return any(own.startswith(account_id) or account_id.startswith(own) for own in self.accounts)


def _ends_alike(self: Identity, account_id: str) -> bool:
    return any(own.endswith(account_id) or account_id.endswith(own) for own in self.accounts)


def _until_quiet(self: Pace, now_s: float) -> float:
    return _wait_s(self, now_s) and 3600.0


async def _all_live(_: Any, sources: Any) -> dict[str, SourceStatus]:
    return dict.fromkeys(sources, SourceStatus.LIVE)


_message = WatchedAccount.message
_round_to_cents = float_rounding.round_to_cents
_follow = Connection.follow
_wait_s = Pace.wait_s


def _without_changes(self: WatchedAccount, since: Any, *, with_positions: bool) -> bytes:
    text = _message(self, since, with_positions=with_positions)
    if since is None or not with_positions:
        return text
    return text.partition(b',"positions":')[0] + b',"positions":[]}'


async def _subscribed_once(self: Connection, *channels: str) -> AsyncIterator[Any]:
    is_first = True
    async for event in _follow(self, *channels):
        if is_first or not isinstance(event, Subscribed):
            yield event
        is_first = False


@contextlib.contextmanager
def _older_accepted() -> Generator[None]:
    """The check in columns is left out, and few publications go that way, too."""
    with mock.patch.object(NewestColumns, "are_newer", _all_newer), mock.patch.object(hub, "COLUMNS_MIN", 0):
        yield


def _any_trade(_: Any, tape: str) -> Any:
    return _stock_effect(("@",), tape)


_stock_effect = makers.stock_effect

MUTANTS: Final = (
    Mutant(
        "P1",
        "the state is not read again after a broken subscription",
        _replaced(Connection, "follow", _subscribed_once),
        found_by=(74,),
    ),
    Mutant(
        "P1",
        "a server does not notice that Valkey has lost its interest",
        _replaced(PublicationFollower, "follow_life", _never),
    ),
    Mutant("P1", "changes wait for quiet while a service is busy", _replaced(Pace, "wait_s", _until_quiet)),
    Mutant(
        "P2",
        "older publications are accepted",
        _older_accepted,
        found_by=(56,),
    ),
    Mutant(
        "P2",
        "an owner that has lost its shard may write",
        _script(b"if token < fence then", b"if false then"),
        found_by=(44,),
    ),
    Mutant(
        "P2",
        "a shard that changes hands before a transaction is written all the same",
        _replaced(watched_keys, "_watching", _only_read),
        found_by=(44,),
    ),
    Mutant("P3", "changes of positions are left out", _replaced(WatchedAccount, "message", _without_changes)),
    Mutant("P4", "every feed counts as live", _replaced(Feeds, "read", _all_live)),
    Mutant("P5", "every client may see every account", _replaced(Identity, "may_see", _always)),
    Mutant(
        "P5", "ids count as equal when one begins the other", _replaced(Identity, "may_see", _begins_alike)
    ),
    Mutant("P5", "ids count as equal when one ends the other", _replaced(Identity, "may_see", _ends_alike)),
    Mutant("P6", "values are a cent too high", _replaced(float_rounding, "round_to_cents", _a_cent_more)),
    Mutant(
        "P7",
        "the server writes to a full socket",
        _replaced(ClientConnection, "pause", _nothing),
        found_by=(11,),
    ),
    Mutant(
        "P8",
        "nobody takes over the shards of a killed calculator",
        _script(b"redis.call('PEXPIRE', KEYS[1], ARGV[2])", b"redis.call('PEXPIRE', KEYS[1], ARGV[2] * 100)"),
        found_by=(21,),
    ),
    Mutant(
        "P9",
        "a repeated booking counts twice",
        lambda: mock.patch.multiple(Booked, get=_nothing, __contains__=_not),
        found_by=(7,),
    ),
    Mutant(
        "P9",
        "records of a new collector have lower versions than those before",
        _replaced(AccountRecords, "begin_versions", _nothing),
        found_by=(286,),
    ),
    Mutant(
        "P11",
        "marks of a new consumer have lower versions than those before",
        _replaced(MarkBook, "begin_versions", _nothing),
    ),
    Mutant("P10", "an expired token is accepted", _replaced(ClientConnection, "disconnect_due", _nothing)),
    Mutant(
        "P11",
        "a server does not notice that a shard is silent",
        _replaced(ShardSigns, "look", _no_change),
        found_by=(45,),
    ),
    Mutant(
        "P11",
        "any trade sets a price",
        _replaced(makers, "stock_effect", _any_trade),
        found_by=(5,),
    ),
    Mutant(
        "P12",
        "revocations that Valkey has lost are not written again",
        _replaced(Revocations, "write_again", _at_once),
        found_by=(26,),
    ),
    Mutant(
        "P12",
        "a server that cannot know what was revoked lets everybody in",
        _replaced(KnownRevocations, "can_tell", _always),
        found_by=(16,),
    ),
    Mutant(
        "P13",
        "a record that cannot be decoded ends its reader",
        _replaced(accounts, "readable", _decoded),
        found_by=(27,),
    ),
)


@contextlib.contextmanager
def planted(mutant: Mutant) -> Generator[None]:
    """Run the block with this fault in the product."""
    with mutant.plant():
        yield
