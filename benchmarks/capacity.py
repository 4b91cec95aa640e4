"""What the capacity plan rests on: `python -m benchmarks.capacity` gathers it and writes docs/capacity.md.

From benchmarks/results: growth.json (the whole system, one thing growing at a time), cost-curve.json (the
full pass) and compare-10000.json (a statement). From deploy/prices.json: dollars. Sizes of records and
messages are measured here, with the product's own encoders.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.curve import Curve
from benchmarks.growth import Series
from benchmarks.valuation import holdings
from portfolio_realtime.cli.capacity import CapacityPlan, Demand, MeasuredCost, MeasuredCosts, measured, plan
from portfolio_realtime.model import Publication, Publications
from portfolio_realtime.state.valuations import batch_of

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "benchmarks" / "results"
COMPARED: Final = RESULTS / "compare-10000.json"  # of 10,000 accounts
COSTS: Final = ROOT / "src" / "portfolio_realtime" / "cli" / "measured_costs.json"
PRICES: Final = ROOT / "deploy" / "prices.json"
TEMPLATE: Final = ROOT / "benchmarks" / "capacity.template.md"
PAGE: Final = ROOT / "docs" / "capacity.md"
GROWTH: Final = "python -m benchmarks.growth"
SIZES: Final = "python -m benchmarks.capacity"
POSITIONS: Final = (10, 30)  # of two accounts, whose records tell what a position adds
SIZED_ACCOUNTS: Final = 200
ENDS: Final = 2  # what is full first and second at each step
STEPS: Final = ((1e4, 1e5), (1e5, 1e6), (1e6, 1e7), (1e7, 1e8))  # viewers, accounts
MB: Final = 1024 * 1024


class Growth(msgspec.Struct, frozen=True):
    """benchmarks/results/growth.json."""

    date: str
    commit: str
    cpu: str
    series: dict[str, Series]


def gathered(
    growth: Growth, curve: Curve, compared: Mapping[str, Any], prices: Mapping[str, Any]
) -> MeasuredCosts:
    """All measured figures."""
    statement_us = float(compared["ratios"]["collector_us_per_account"]["now"])
    viewers, accounts, trades = (growth.series[name] for name in ("viewers", "accounts", "trades_per_s"))
    per_viewer = viewers.messages_per_s[-1] / viewers.sizes[-1]
    figures = {
        **_per_message("server", "websocket_server", "message", viewers, per_viewer),
        **_per_message("calculator", "portfolio_calculator", "publication", viewers, per_viewer),
        **_per_message("valkey", "valkey", "publication", viewers, per_viewer),
        "calculator_us_per_trade": _positive(trades.lines["cores.portfolio_calculator"].slope * 1e6, "µs"),
        "valkey_us_per_trade": _positive(trades.lines["cores.valkey"].slope * 1e6, "µs"),
        "consumer_us_per_trade": _positive(trades.lines["cores.market_data_consumer"].slope * 1e6, "µs"),
        "consumer_base_cores": _positive(trades.lines["cores.market_data_consumer"].base, "cores"),
        "collector_us_per_account_s": _positive(accounts.lines["cores.symbol_collector"].slope * 1e6, "µs/s"),
        "collector_us_per_statement": MeasuredCost(statement_us, "µs", "python -m benchmarks.compare"),
        "collector_base_cores": _positive(accounts.lines["cores.symbol_collector"].base, "cores"),
        "server_bytes_per_viewer": _positive(viewers.lines["resident_mb.websocket_server"].slope * MB, "B"),
        "server_mib": _positive(viewers.lines["resident_mb.websocket_server"].base, "MiB"),
        "consumer_mib": _positive(max(trades.figures["resident_mb.market_data_consumer"]), "MiB"),
    }
    for name, service in (("collector", "symbol_collector"), ("calculator", "portfolio_calculator")):
        line = accounts.lines[f"resident_mb.{service}"]
        figures[f"{name}_bytes_per_account"] = _positive(line.slope * MB, "B")
        figures[f"{name}_mib"] = _positive(line.base, "MiB")
    figures["full_pass_ns_per_account"] = MeasuredCost(
        curve.full.account_ns, "ns", "python -m benchmarks.curve"
    )
    figures["full_pass_ns_per_position"] = MeasuredCost(
        curve.full.position_ns, "ns", "python -m benchmarks.curve"
    )
    return MeasuredCosts(growth.date, growth.commit, growth.cpu, figures | sizes(growth), _prices(prices))


def _per_message(
    name: str, service: str, unit: str, viewers: Series, per_viewer: float
) -> dict[str, MeasuredCost]:
    line = viewers.lines[f"cores.{service}"]
    return {
        f"{name}_us_per_{unit}": _positive(line.slope / per_viewer * 1e6, "µs"),
        f"{name}_base_cores": _positive(line.base, "cores"),
    }


def _positive(value: float, unit: str) -> MeasuredCost:
    """A slope that the noise has made negative says that nothing was seen to grow."""
    return MeasuredCost(round(max(value, 0.0), 4), unit, GROWTH)


def sizes(growth: Growth) -> dict[str, MeasuredCost]:
    """Bytes of a record and of a publication between services, by the product's encoders."""
    small, large = (
        len(msgspec.json.encode(holdings(SIZED_ACCOUNTS, positions, 11_000, 7).account(0)))
        for positions in POSITIONS
    )
    each = (large - small) / (POSITIONS[1] - POSITIONS[0])
    message = growth.series["viewers"].figures["bytes_per_message"][-1]
    text = b"x" * round(message)
    batch = Publications.of(Publication(f"{number:036d}", 1, text) for number in range(100))
    announced = len(msgspec.msgpack.encode(batch_of(1, batch))) / len(batch)
    return {
        "record_bytes": MeasuredCost(round(small - POSITIONS[0] * each), "B", SIZES),
        "record_bytes_per_position": MeasuredCost(round(each, 1), "B", SIZES),
        "message_bytes": MeasuredCost(round(message), "B", GROWTH),
        "publication_bytes": MeasuredCost(round(announced), "B", SIZES),
    }


def _prices(prices: Mapping[str, Any]) -> dict[str, MeasuredCost]:
    names = {"vcpu_hour": "fargate_arm_vcpu_hour", "gb_hour": "fargate_arm_gb_hour", "out_gb": "out_gb"}
    rows = prices["prices"]
    return {
        name: MeasuredCost(rows[price]["usd"], "USD", f"{rows[price]['source']}, {rows[price]['as_of']}")
        for name, price in names.items()
    }


def page(costs: MeasuredCosts, growth: Growth) -> str:
    """docs/capacity.md."""
    plans = [plan(Demand(viewers, accounts), costs) for viewers, accounts in STEPS]
    return TEMPLATE.read_text().format(
        date=costs.date,
        commit=costs.commit,
        cpu=costs.cpu,
        steps=" | ".join(f"{viewers:,.0f} viewers, {accounts:,.0f} accounts" for viewers, accounts in STEPS),
        rows="\n".join(_rows(plans)),
        ends="\n".join(
            f"| {one.demand.viewers:,.0f} | {limit.name} | {limit.full:.1f} | {limit.remedy} |"
            for one in plans
            for limit in one.limits[:ENDS]
        ),
        exponents="\n".join(
            f"| {name.replace('_', ' ')} | {one.sizes[0]:,.0f} to {one.sizes[-1]:,.0f} | "
            f"{one.figures['cores'][0]:.2f} to {one.figures['cores'][-1]:.2f} | {_shown(one.exponent)} |"
            for name, one in growth.series.items()
        ),
        costs="\n".join(
            f"| {name.replace('_', ' ')} | {cost.value:,g} | {cost.unit} | `{cost.source}` |"
            for name, cost in costs.figures.items()
        ),
    )


def _shown(exponent: float | None) -> str:
    return "no power fits" if exponent is None else f"{exponent:.2f}"


def _rows(plans: list[CapacityPlan]) -> list[str]:
    rows = [
        [
            part.name,
            *(f"{one.parts[place].count} ({one.parts[place].cores:,.1f} cores)" for one in plans),
        ]
        for place, part in enumerate(plans[0].parts)
    ]
    rows.append(["memory, GiB", *(f"{sum(part.memory_gib for part in one.parts):,.0f}" for one in plans)])
    rows.append(["to browsers, Gbit/s", *(f"{one.to_browsers_gbit_s:,.2f}" for one in plans)])
    rows.append(["out of Valkey, Gbit/s", *(f"{one.from_valkey_gbit_s:,.2f}" for one in plans)])
    rows.append(["cold start, hours", *(f"{one.cold_start_hours:,.1f}" for one in plans)])
    rows.append(["dollars a month", *(f"{sum(one.month_usd.values()):,.0f}" for one in plans)])
    return ["| " + " | ".join(row) + " |" for row in rows]


def main() -> None:
    """Write both files."""
    growth = msgspec.json.decode((RESULTS / "growth.json").read_bytes(), type=Growth)
    curve = msgspec.json.decode((RESULTS / "cost-curve.json").read_bytes(), type=Curve)
    compared = msgspec.json.decode(COMPARED.read_bytes())
    costs = gathered(growth, curve, compared, msgspec.json.decode(PRICES.read_bytes()))
    COSTS.write_bytes(msgspec.json.format(msgspec.json.encode(costs), indent=1) + b"\n")
    PAGE.write_text(page(measured(), growth))
    print(f"{COSTS.relative_to(ROOT)} and {PAGE.relative_to(ROOT)} are written", file=sys.stderr)


if __name__ == "__main__":
    main()
