#!/usr/bin/env python3
"""docs/cost.md: what a month costs, for 50 to 100,000 viewers, from dated prices: `python -m deploy.cost`.

Sizes, counts, alarms and metrics are those that are deployed; prices are deploy/prices.json.
"""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.aws.alarms import alarms
from deploy.aws.services import KEPT_RUNNING, SECRETS
from deploy.aws.sizes import SERVERS_MIN, SIZES, Size, TaskSize

from portfolio_realtime.embedded_metrics import INTERVAL_S, METRICS

ROOT: Final = Path(__file__).resolve().parent.parent
PRICES: Final = ROOT / "deploy" / "prices.json"
PAGE: Final = ROOT / "docs" / "cost.md"
TEMPLATE: Final = ROOT / "deploy" / "cost.template.md"

MESSAGES_PER_S: Final = 0.4  # to one viewer, over a trading day; at most 1 / MIN_UPDATE_INTERVAL
MESSAGE_BYTES: Final = 600  # 417 of JSON, frame, TLS, TCP
WATCHED_HOURS: Final = 136.5  # 21 trading days of 6.5 hours, each viewer the whole day: the most
FREE_GB: Final = 100
FIRST_TIER_GB: Final = 10_240
VIEWERS_PER_LCU: Final = 3_000
LOG_LINE_BYTES: Final = 1_500  # of the embedded metric format
OTHER_LOG_GB: Final = 1.0
ALPACA_GB: Final = 10  # through the NAT gateway
ZONES: Final = 2
SERVERS_PER_CALCULATOR: Final = 10


@dataclass(frozen=True)
class Case:
    """So many viewers, and what is deployed for them beyond the size's own."""

    viewers: int
    size: Size
    node: str
    calculator: TaskSize


CASES: Final = (
    Case(50, SIZES["small"], "cache.t4g.micro", SIZES["small"].tasks["portfolio_calculator"]),
    Case(1_000, SIZES["standard"], "cache.t4g.small", SIZES["standard"].tasks["portfolio_calculator"]),
    Case(10_000, SIZES["standard"], "cache.t4g.small", SIZES["standard"].tasks["portfolio_calculator"]),
    Case(100_000, SIZES["standard"], "cache.m7g.large", TaskSize(2048, 4096)),
)
COLUMNS: Final = ("services", "Valkey", "NAT, addresses", "balancer", "traffic", "CloudWatch", "secrets")


class Prices:
    """Dollars by name."""

    def __init__(self, text: str) -> None:
        read: dict[str, Any] = json.loads(text)
        self.hours: int = read["hours"]
        self.region: str = read["region"]
        self.rows: Mapping[str, Mapping[str, Any]] = read["prices"]

    def __getitem__(self, name: str) -> float:
        return float(self.rows[name]["usd"])

    def task(self, size: TaskSize, *, is_on_spot: bool = False) -> float:
        """One task, an hour."""
        full = (
            size.cpu / 1024 * self["fargate_arm_vcpu_hour"]
            + size.memory_mib / 1024 * self["fargate_arm_gb_hour"]
        )
        return full * (self["spot_share"] if is_on_spot else 1)


def servers(case: Case) -> int:
    """Servers while the exchange is open."""
    return max(case.size.servers_by_day, math.ceil(case.viewers / case.size.connections_per_server))


def traffic_gb(viewers: int) -> float:
    """To all viewers, a month."""
    return viewers * MESSAGES_PER_S * MESSAGE_BYTES * WATCHED_HOURS * 3600 / 1e9


def month(case: Case, prices: Prices, *, by_night: bool = True, spot: bool = True) -> dict[str, float]:
    """Dollars of each column; `by_night`: fewer servers while the exchange is closed."""
    return {
        "services": _services(case, prices, by_night=by_night, spot=spot),
        "Valkey": (case.size.replicas + 1) * prices[f"{case.node}_hour"] * prices.hours,
        "NAT, addresses": _network(case, prices),
        "balancer": _balancer(case, prices),
        "traffic": _traffic(traffic_gb(case.viewers), prices),
        "CloudWatch": _cloudwatch(case, prices),
        "secrets": (len(SECRETS) + len(KEPT_RUNNING) + 2) * prices["secret_month"],
    }


def _services(case: Case, prices: Prices, *, by_night: bool, spot: bool) -> float:
    total = 0.0
    for service in KEPT_RUNNING:
        task = case.size.tasks[service.name]
        if service.is_server:
            open_hours = WATCHED_HOURS if by_night else prices.hours
            task_hours = servers(case) * open_hours + SERVERS_MIN * (prices.hours - open_hours)
            total += prices.task(task) * task_hours
            continue
        count = case.size.counts[service.name]
        if service.name == "portfolio_calculator":
            task, count = case.calculator, max(count, servers(case) // SERVERS_PER_CALCULATOR)
        total += prices.task(task, is_on_spot=service.is_on_spot and spot) * count * prices.hours
    return total


def _network(case: Case, prices: Prices) -> float:
    if case.size.has_private_tasks:
        addresses = ZONES + 1
        return (prices["nat_hour"] + addresses * prices["ipv4_hour"]) * prices.hours + ALPACA_GB * prices[
            "nat_gb"
        ]
    tasks = sum(case.size.counts.values())
    return (ZONES + tasks) * prices["ipv4_hour"] * prices.hours


def _balancer(case: Case, prices: Prices) -> float:
    gb_an_hour = case.viewers * MESSAGES_PER_S * MESSAGE_BYTES * 3600 / 1e9
    units = max(case.viewers / VIEWERS_PER_LCU, gb_an_hour)
    return prices["balancer_hour"] * prices.hours + units * WATCHED_HOURS * prices["balancer_lcu_hour"]


def _traffic(gigabytes: float, prices: Prices) -> float:
    paid = max(0.0, gigabytes - FREE_GB)
    beyond = max(0.0, gigabytes - FIRST_TIER_GB)
    return (paid - beyond) * prices["out_gb"] + beyond * prices["out_gb_beyond_10_tb"]


def _cloudwatch(case: Case, prices: Prices) -> float:
    processes = sum(case.size.counts.values()) - SERVERS_MIN + servers(case)
    lines_gb = processes * LOG_LINE_BYTES * prices.hours * 3600 / INTERVAL_S / 1e9
    return (
        len(METRICS) * prices["metric_month"]
        + len(list(alarms(case.size))) * prices["alarm_month"]
        + (lines_gb + OTHER_LOG_GB) * prices["log_gb"]
    )


def _one_task(prices: Prices) -> float:
    """Half a processor with everything in it, a balancer in two zones, three public addresses."""
    task = prices.task(TaskSize(512, 1024))
    return (task + prices["balancer_hour"] + (ZONES + 1) * prices["ipv4_hour"]) * prices.hours


def page(prices: Prices) -> str:
    """The whole page."""
    rows: list[str] = []
    savings: list[str] = []
    for case in CASES:
        costs = month(case, prices)
        cells = [f"`{case.size.name}`, {case.viewers:,}", *(f"{costs[name]:,.0f}" for name in COLUMNS)]
        rows.append("| " + " | ".join([*cells, f"**{sum(costs.values()):,.0f}**"]) + " |")
        whole = costs["services"]
        nights = _services(case, prices, by_night=False, spot=True) - whole
        spot = _services(case, prices, by_night=True, spot=False) - whole
        savings.append(f"| {case.viewers:,} | {servers(case)} | {spot:,.0f} | {nights:,.0f} |")
    listed = [
        f"| {name.replace('_', ' ')} | {row['usd']} | {row['as_of']} | {row['source']} |"
        for name, row in prices.rows.items()
    ]
    return TEMPLATE.read_text().format(
        rows="\n".join(rows),
        savings="\n".join(savings),
        prices="\n".join(listed),
        columns=" | ".join(COLUMNS),
        lines=" | ".join("---:" for _ in COLUMNS),
        region=prices.region,
        hours=prices.hours,
        gb=f"{traffic_gb(1):.2f}",
        metrics=len(METRICS),
        one=_one_task(prices),
    )


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(Prices(PRICES.read_text())))
    print(f"{PAGE.relative_to(ROOT)} is written", file=sys.stderr)


if __name__ == "__main__":
    main()
