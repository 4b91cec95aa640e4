"""What so many viewers and accounts need: arithmetic on measured costs.

`measured_costs.json` is written by `python -m benchmarks.capacity` from runs of the whole system. This module
says what is multiplied by what; docs/capacity.md says how far to believe it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Final

import msgspec

FULL_SHARE: Final = 0.6  # of a core, or of a network card: more leaves no room for bursts and failovers
CONNECTIONS_PER_SERVER_MAX: Final = 50_000
CARD_GBIT_S: Final = 5.0  # of one machine in the cloud, for as long as it likes
SHARDS_MAX: Final = 99  # as SHARDS has it: a shard is one calculator's at a time
SEGMENT_BYTES: Final = 90  # of a message on the wire beside its text: frame, TLS, TCP, IP
FETCHES_PER_ACCOUNT: Final = 2  # state and positions, for one statement
FETCHES_PER_MIN: Final = 1_000  # the broker's limit
STATEMENTS_PER_S_MAX: Final = FETCHES_PER_MIN / FETCHES_PER_ACCOUNT / 60
RECONCILED_S: Final = 300.0  # SYMBOL_COLLECTION_INTERVAL
RECORD_TTL_S: Final = 3600.0  # RECORD_TTL: what the broker has not stated for longer is stale
WATCHED_HOURS: Final = 136.5  # a month of 21 trading days of 6.5 hours
MONTH_HOURS: Final = 730
GIB: Final = 1024**3
US: Final = 1e-6


class MeasuredCost(msgspec.Struct, frozen=True):
    """One measured figure, and where it comes from."""

    value: float
    unit: str
    source: str


class MeasuredCosts(msgspec.Struct, frozen=True):
    """All measured figures, when, at which commit and on which processor."""

    date: str
    commit: str
    cpu: str
    figures: dict[str, MeasuredCost]
    prices: dict[str, MeasuredCost]

    def __getitem__(self, name: str) -> float:
        return self.figures[name].value


class Demand(msgspec.Struct, frozen=True):
    """What is asked of the system."""

    viewers: float
    accounts: float
    positions: float = 10.0  # of one account
    rate: float = 1.0  # messages a second to one viewer while its value moves
    trades_per_s: float = 10_000.0  # of the market, over all symbols that are held
    recalculation_s: float = 15.0  # RECALCULATION_INTERVAL


class NeededProcesses(msgspec.Struct, frozen=True):
    """One kind of process: how much of it there must be."""

    name: str
    count: int
    cores: float  # busy, of all of them
    memory_gib: float  # of all of them


class Limit(msgspec.Struct, frozen=True):
    """What cannot be had twice, or not as often as needed, and how full it is; above 1 it is not enough."""

    name: str
    full: float
    remedy: str


class CapacityPlan(msgspec.Struct, frozen=True):
    """The answer: parts, flows, limits with the fullest first, and a month's dollars."""

    demand: Demand
    parts: list[NeededProcesses]
    to_browsers_gbit_s: float
    from_valkey_gbit_s: float
    cold_start_hours: float
    limits: list[Limit]
    month_usd: dict[str, float]

    @property
    def ends_first(self) -> Limit:
        """What is full first when everything grows."""
        return self.limits[0]


def measured() -> MeasuredCosts:
    """The costs that come with this version."""
    text = resources.files("portfolio_realtime.cli").joinpath("measured_costs.json").read_bytes()
    return msgspec.json.decode(text, type=MeasuredCosts)


@dataclass(frozen=True)
class _Flows:
    """Per second."""

    messages: float  # to browsers
    publications: float  # from calculators: an account is valued once, however many watch it
    trades: float


def plan(demand: Demand, costs: MeasuredCosts) -> CapacityPlan:
    """How many of each, and what ends first."""
    watched = min(demand.viewers, demand.accounts)
    flows = _Flows(demand.viewers * demand.rate, watched * demand.rate, demand.trades_per_s)
    servers = _server(demand, flows, costs)
    calculators = _calculator(demand, flows, costs)
    consumer = NeededProcesses(
        "market data consumer",
        1,
        costs["consumer_base_cores"] + flows.trades * costs["consumer_us_per_trade"] * US,
        costs["consumer_mib"] / 1024,
    )
    statements_per_s = min(demand.accounts / RECONCILED_S, STATEMENTS_PER_S_MAX)
    collector = NeededProcesses(
        "symbol collector",
        1,
        costs["collector_base_cores"]
        + demand.accounts * costs["collector_us_per_account_s"] * US
        + statements_per_s * costs["collector_us_per_statement"] * US,
        (costs["collector_mib"] * 1024**2 + demand.accounts * costs["collector_bytes_per_account"]) / GIB,
    )
    valkey = _valkey(demand, flows, watched, costs)
    sent = flows.publications * _watching_servers(demand.viewers / watched, servers.count)
    from_valkey = sent * costs["publication_bytes"] * 8 / 1e9
    to_browsers = flows.messages * (costs["message_bytes"] + SEGMENT_BYTES) * 8 / 1e9
    parts = [collector, consumer, calculators, servers, valkey]
    limits = [
        Limit(
            "the broker's requests: each watched account within RECORD_TTL",
            watched / (STATEMENTS_PER_S_MAX * RECORD_TTL_S),
            "a higher limit from the broker, or a longer RECORD_TTL",
        ),
        Limit("symbol collector: one core", collector.cores, "it cannot be divided yet"),
        Limit("market data consumer: one core", consumer.cores, "one consumer for each feed"),
        Limit("calculators: shards", calculators.count / SHARDS_MAX, f"SHARDS is at most {SHARDS_MAX}"),
        Limit(
            "each server: what it hears",
            from_valkey / servers.count / (CARD_GBIT_S * FULL_SHARE),
            "more servers than the cores need",
        ),
        Limit(
            "each Valkey primary: what it sends",
            from_valkey / valkey.count / (CARD_GBIT_S * FULL_SHARE),
            "more primaries than the core needs",
        ),
        Limit("Valkey primaries: shards", valkey.count / SHARDS_MAX, f"SHARDS is at most {SHARDS_MAX}"),
    ]
    return CapacityPlan(
        demand,
        parts,
        to_browsers,
        from_valkey,
        demand.accounts * FETCHES_PER_ACCOUNT / FETCHES_PER_MIN / 60,
        sorted(limits, key=lambda limit: -limit.full),
        _month(parts, to_browsers, costs),
    )


def _watching_servers(viewers: float, servers: int) -> float:
    """At how many servers an account with so many viewers is watched, if a balancer spreads them by chance.

    A publication is sent to each of these, and to no other (decision 35).
    """
    return servers * (1 - (1 - 1 / servers) ** viewers)


def _server(demand: Demand, flows: _Flows, costs: MeasuredCosts) -> NeededProcesses:
    cores = costs["server_base_cores"] + flows.messages * costs["server_us_per_message"] * US
    count = max(
        2,  # one may fail
        math.ceil(cores / FULL_SHARE),
        math.ceil(demand.viewers / CONNECTIONS_PER_SERVER_MAX),
    )
    held = count * costs["server_mib"] * 1024**2 + demand.viewers * costs["server_bytes_per_viewer"]
    return NeededProcesses("WebSocket server", count, cores, held / GIB)


def _calculator(demand: Demand, flows: _Flows, costs: MeasuredCosts) -> NeededProcesses:
    full_pass_ns = demand.accounts * (
        costs["full_pass_ns_per_account"] + demand.positions * costs["full_pass_ns_per_position"]
    )
    cores = (
        costs["calculator_base_cores"]
        + flows.publications * costs["calculator_us_per_publication"] * US
        + flows.trades * costs["calculator_us_per_trade"] * US
        + full_pass_ns * 1e-9 / demand.recalculation_s
    )
    count = max(2, math.ceil(cores / FULL_SHARE))
    held = count * costs["calculator_mib"] * 1024**2 + demand.accounts * costs["calculator_bytes_per_account"]
    return NeededProcesses("portfolio calculator", count, cores, held / GIB)


def _valkey(demand: Demand, flows: _Flows, watched: float, costs: MeasuredCosts) -> NeededProcesses:
    cores = (
        costs["valkey_base_cores"]
        + flows.publications * costs["valkey_us_per_publication"] * US
        + flows.trades * costs["valkey_us_per_trade"] * US
    )
    record = costs["record_bytes"] + demand.positions * costs["record_bytes_per_position"]
    held = demand.accounts * record + watched * costs["publication_bytes"]
    needed = math.ceil(cores / FULL_SHARE)
    count = 1 if needed <= 1 else max(3, needed)  # a cluster has three primaries at least
    return NeededProcesses("Valkey primary", count, cores, held / GIB)


def _month(parts: list[NeededProcesses], to_browsers_gbit_s: float, costs: MeasuredCosts) -> dict[str, float]:
    """Dollars: processes all month, with a replica for each primary; messages in the exchange's hours."""
    prices: Mapping[str, float] = {name: price.value for name, price in costs.prices.items()}
    cores = sum(max(part.cores / FULL_SHARE, 0.25 * part.count) for part in parts)
    memory = sum(part.memory_gib / FULL_SHARE for part in parts)
    replicas = next(part for part in parts if part.name == "Valkey primary")
    cores += max(replicas.cores / FULL_SHARE, 0.25 * replicas.count)
    memory += replicas.memory_gib / FULL_SHARE
    out_gb = to_browsers_gbit_s / 8 * 3600 * WATCHED_HOURS
    return {
        "processors": cores * prices["vcpu_hour"] * MONTH_HOURS,
        "memory": memory * prices["gb_hour"] * MONTH_HOURS,
        "traffic to browsers": out_gb * prices["out_gb"],
    }


def lines(planned: CapacityPlan, costs: MeasuredCosts) -> list[str]:
    """The plan for people."""
    demand = planned.demand
    asked = (
        f"{demand.viewers:,.0f} viewers, {demand.accounts:,.0f} accounts of {demand.positions:g} positions",
        f"{demand.rate:g} messages a second to each, {demand.trades_per_s:,.0f} trades a second",
    )
    basis = (
        f"It rests on runs of {costs.date} at {costs.commit} on {costs.cpu};",
        f"no core and no network card is planned for more than {FULL_SHARE:.0%}.",
        "--json shows every cost and its source, docs/capacity.md how it was measured.",
    )
    return [*asked, "", *_table(planned), "", *_flows(planned), "", *_ends(planned), "", *basis]


def _table(planned: CapacityPlan) -> list[str]:
    return [
        f"{'':22}{'processes':>10}{'busy cores':>12}{'memory, GiB':>13}",
        *(
            f"{part.name:22}{part.count:>10,}{part.cores:>12,.2f}{part.memory_gib:>13,.1f}"
            for part in planned.parts
        ),
    ]


def _flows(planned: CapacityPlan) -> list[str]:
    dollars = ", ".join(f"{name} {amount:,.0f}" for name, amount in planned.month_usd.items())
    return [
        f"to browsers          {planned.to_browsers_gbit_s:,.2f} Gbit/s",
        f"out of Valkey        {planned.from_valkey_gbit_s:,.2f} Gbit/s",
        f"cold start           {planned.cold_start_hours:,.1f} h, by the broker's limit of requests",
        f"dollars a month      {dollars}; without market data and balancer",
    ]


def _ends(planned: CapacityPlan) -> list[str]:
    return [
        "what ends first, as a share of what can be had:",
        *(
            f"  {limit.full:8.0%}  {limit.name}" + (f": {limit.remedy}" if limit.full > 1 else "")
            for limit in planned.limits
        ),
    ]
