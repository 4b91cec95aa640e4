"""What a fault does when it begins or ends. A lasting fault is looked up wherever it has an effect."""

from collections.abc import Callable
from decimal import Decimal

from alpaca_sim.core.clock import SECOND_NS
from alpaca_sim.core.faults import Change, Fault
from alpaca_sim.simulator import Simulator
from alpaca_sim.streams.event_streams import INTERNAL_ERROR, Reader
from alpaca_sim.streams.feeds import Subscriber

CORRECTION_RATIO = Decimal("1.01")

Action = Callable[[Simulator, Fault], None]


def carry_out(sim: Simulator, change: Change) -> None:
    """Carry out the beginning or the end of a fault, and wake all event streams."""
    action = (BEGIN if change.begins else END).get(change.fault.kind)
    if action is not None:
        action(sim, change.fault)
    sim.events.notify()


def _sockets(sim: Simulator, fault: Fault) -> list[Subscriber]:
    return [subscriber for subscriber in sim.sockets if fault.hits((subscriber.feed_name,))]


def _readers(sim: Simulator, fault: Fault) -> list[Reader]:
    return [reader for reader in sim.events.readers if fault.hits((reader.stream_name,))]


def _cut_market(sim: Simulator, fault: Fault) -> None:
    for subscriber in _sockets(sim, fault):
        sim.abort(subscriber.client)


def _freeze(sim: Simulator, fault: Fault) -> None:
    for subscriber in _sockets(sim, fault):
        subscriber.is_frozen = True
        subscriber.drop_outbound()
        sim.freeze(subscriber.client)


def _cut_frozen(sim: Simulator, fault: Fault) -> None:
    for subscriber in _sockets(sim, fault):
        if subscriber.is_frozen:
            sim.abort(subscriber.client)


def _call_slow(sim: Simulator, fault: Fault) -> None:
    for subscriber in _sockets(sim, fault):
        subscriber.slow.set()


def _some_stocks(sim: Simulator, fault: Fault) -> list[str]:
    stocks = [
        symbol for symbol, state in sim.market.symbols.items()
        if state.listing.asset_class == "us_equity" and not state.is_halted and not state.is_unpriced
    ]  # fmt: skip
    return sim.faults.rng.sample(stocks, min(int(fault.level), len(stocks)))


def _correct(sim: Simulator, fault: Fault) -> None:
    for symbol in _some_stocks(sim, fault):
        state = sim.market.symbols[symbol]
        sim.market.correct(symbol, round(state.mark * CORRECTION_RATIO, state.listing.price_decimals))


def _cancel(sim: Simulator, fault: Fault) -> None:
    for symbol in _some_stocks(sim, fault):
        sim.market.cancel(symbol)


def _halt(sim: Simulator, fault: Fault) -> None:
    halted = _some_stocks(sim, fault)
    for symbol in halted:
        sim.market.set_halted(symbol, True)
    sim.halted_by[fault] = halted


def _resume(sim: Simulator, fault: Fault) -> None:
    for symbol in sim.halted_by.pop(fault, []):
        sim.market.set_halted(symbol, False)


def _say_error(sim: Simulator, fault: Fault) -> None:
    for reader in _readers(sim, fault):
        reader.last_chunk = INTERNAL_ERROR


def _end_streams(sim: Simulator, fault: Fault) -> None:
    for reader in _readers(sim, fault):
        reader.last_chunk = b""


def _cut_events(sim: Simulator, fault: Fault) -> None:
    for reader in _readers(sim, fault):
        sim.abort(reader.client)


def _expire_tokens(sim: Simulator, _fault: Fault) -> None:
    sim.credentials.expire_tokens()
    if sim.settings.switches.token_expiry == "closes":  # noqa: S105 - a switch
        for subscriber in list(sim.sockets):
            if subscriber.has_token:
                sim.abort(subscriber.client)


def _set_skew(sim: Simulator, _fault: Fault) -> None:
    sim.market.skew_ns = int((sim.faults.level("clock.skew") or 0.0) * SECOND_NS)


BEGIN: dict[str, Action] = {
    "market.cut": _cut_market,
    "market.ghosts": _cut_market,
    "market.half_open": _freeze,
    "market.slow_client": _call_slow,
    "market.correct": _correct,
    "market.cancel": _cancel,
    "market.halt": _halt,
    "events.error": _say_error,
    "events.eof": _end_streams,
    "events.cut": _cut_events,
    "token.expire": _expire_tokens,
    "clock.skew": _set_skew,
    "ledger.correct": lambda sim, fault: sim.trader.amend_some(int(fault.level), is_bust=False),
    "ledger.bust": lambda sim, fault: sim.trader.amend_some(int(fault.level), is_bust=True),
    "ledger.group": lambda sim, fault: sim.odd_bookings.exchange_some(int(fault.level)),
    "ledger.exercise": lambda sim, fault: sim.odd_bookings.exercise_some(int(fault.level)),
    "ledger.coins": lambda sim, fault: sim.odd_bookings.coins_for_some(int(fault.level)),
    "ledger.memo": lambda sim, fault: sim.odd_bookings.memos_for_some(int(fault.level)),
    "ledger.late": lambda sim, fault: sim.odd_bookings.late_deposit_for_one(fault.level),
}
END: dict[str, Action] = {
    "market.half_open": _cut_frozen,
    "market.halt": _resume,
    "clock.skew": _set_skew,
}
