"""The capacity plan: what it rests on is what was measured, and its arithmetic has no steps back."""

from dataclasses import replace
from typing import Final

import msgspec
from benchmarks import capacity as gathering
from benchmarks.compare.figures import Run
from benchmarks.curve import Curve
from benchmarks.growth import BASE, exponent, fitted, series_of
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from portfolio_realtime.cli.app import app
from portfolio_realtime.cli.capacity import (
    CARD_GBIT_S,
    FULL_SHARE,
    SHARDS_MAX,
    Demand,
    measured,
    plan,
)

DEMANDS: Final = st.builds(
    Demand,
    viewers=st.floats(1, 1e8),
    accounts=st.floats(1, 1e9),
    positions=st.floats(0, 100),
    rate=st.floats(0.01, 10),
    trades_per_s=st.floats(0, 1e6),
)


def test_the_costs_and_the_page_are_what_the_measurements_give() -> None:
    growth = msgspec.json.decode((gathering.RESULTS / "growth.json").read_bytes(), type=gathering.Growth)
    curve = msgspec.json.decode((gathering.RESULTS / "cost-curve.json").read_bytes(), type=Curve)
    compared = msgspec.json.decode(gathering.COMPARED.read_bytes())
    prices = msgspec.json.decode(gathering.PRICES.read_bytes())
    assert gathering.gathered(growth, curve, compared, prices) == measured()
    assert gathering.PAGE.read_text() == gathering.page(measured(), growth)


@given(DEMANDS, st.floats(1, 10), st.floats(1, 10))
def test_more_viewers_and_accounts_never_need_less(demand: Demand, viewers: float, accounts: float) -> None:
    costs = measured()
    less = plan(demand, costs)
    more = plan(
        msgspec.structs.replace(
            demand, viewers=demand.viewers * viewers, accounts=demand.accounts * accounts
        ),
        costs,
    )
    for before, after in zip(less.parts, more.parts, strict=True):
        assert after.name == before.name
        assert after.count >= before.count
        assert after.cores >= before.cores * (1 - 1e-9)
        assert after.memory_gib >= before.memory_gib * (1 - 1e-9)


@given(DEMANDS)
def test_nothing_that_can_be_had_twice_is_planned_too_full(demand: Demand) -> None:
    planned = plan(demand, measured())
    for part in planned.parts[2:]:  # the collector and the consumer are one each
        assert part.cores / part.count <= FULL_SHARE * (1 + 1e-9), part.name
    assert planned.limits == sorted(planned.limits, key=lambda limit: -limit.full)
    by_name = {limit.name: limit.full for limit in planned.limits}
    assert (by_name["calculators: shards"] > 1) == (planned.parts[2].count > SHARDS_MAX)


def test_a_server_hears_what_its_clients_watch() -> None:
    """An account with one viewer is sent to one server; with many viewers, to all."""
    costs = measured()
    alone, crowded = plan(Demand(1e6, 1e7), costs), plan(Demand(1e6, 10), costs)
    all_gbit_s = 1e6 * costs["publication_bytes"] * 8 / 1e9
    assert abs(alone.from_valkey_gbit_s - all_gbit_s) < 1e-6 * all_gbit_s
    count = {part.name: part.count for part in crowded.parts}["WebSocket server"]
    expected = 10 * costs["publication_bytes"] * 8 / 1e9 * count
    assert abs(crowded.from_valkey_gbit_s - expected) < 1e-6 * expected
    by_name = {limit.name: limit.full for limit in alone.limits}
    servers = {part.name: part.count for part in alone.parts}["WebSocket server"]
    assert by_name["each server: what it hears"] == alone.from_valkey_gbit_s / servers / (
        CARD_GBIT_S * FULL_SHARE
    )


def test_the_brokers_limit_bounds_statements_however_many_accounts_there_are() -> None:
    """Twice 30,000 watched accounts are not all confirmed within RECORD_TTL, with however many processes."""
    costs = measured()
    few, half, all_, more = (plan(Demand(1e3, accounts), costs) for accounts in (1e3, 1250, 2500, 1e6))
    grows = costs["collector_us_per_account_s"] / 1e6
    of_statements = [
        one.parts[0].cores - one.demand.accounts * grows - costs["collector_base_cores"]
        for one in (few, half, all_, more)
    ]
    assert of_statements[0] < of_statements[1] < of_statements[2]
    assert abs(of_statements[2] - of_statements[3]) < 1e-9
    assert abs(of_statements[3] - 1000 / 60 / 2 * costs["collector_us_per_statement"] / 1e6) < 1e-9
    watched = plan(Demand(60_000, 1e6), costs).ends_first
    assert watched.name.startswith("the broker's requests")
    assert round(watched.full, 6) == 2


def test_the_command_says_what_ends_first_and_what_it_rests_on() -> None:
    result = CliRunner().invoke(app, ["plan", "--viewers", "1e6", "--accounts", "1e7"])
    assert result.exit_code == 0, result.output
    assert "1,000,000 viewers, 10,000,000 accounts" in result.output
    assert "what ends first" in result.output
    assert measured().commit in result.output
    told = CliRunner().invoke(app, ["plan", "--viewers", "1e3", "--accounts", "1e3", "--json"])
    assert {"parts", "limits", "costs"} <= msgspec.json.decode(told.output).keys()


def test_the_exponent_is_that_of_what_grows_above_the_base() -> None:
    sizes = [250.0, 1000.0, 2000.0, 4000.0]
    assert exponent(sizes, [0.1 + size / 1e4 for size in sizes]) == 1
    assert exponent(sizes, [0.1 + (size / 1e3) ** 2 for size in sizes]) == 2
    assert exponent(sizes, [0.5, 0.51, 0.5, 0.51]) is None
    assert fitted(sizes, [3 + 2 * size for size in sizes]).slope == 2


def test_a_series_has_a_line_for_each_process_and_their_sum() -> None:
    loads = [replace(BASE, connections=count) for count in (100, 200, 300)]
    runs = [
        Run({"messages_per_s": count, "cores.valkey": count / 1000, "cores.supervisor": 0.1}, 0)
        for count in (100.0, 200.0, 300.0)
    ]
    series = series_of("viewers", loads, runs)
    assert series.figures["cores"] == [0.2, 0.30000000000000004, 0.4]
    assert abs(series.lines["cores.valkey"].slope - 0.001) < 1e-9
