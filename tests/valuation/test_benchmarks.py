"""The benchmarks of the valuation, on books so small that only their arithmetic is tested, no speed."""

import itertools
from pathlib import Path

import msgspec
import pytest
from benchmarks import churn, curve, delta, provenance, valuation


def test_the_benchmark_gives_every_figure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One JSON line, a row in the table, and an incremental pass that ends where the full one does."""
    table = tmp_path / "results.csv"
    valuation.main(accounts=60, positions=3, symbols=40, seed=1, as_json=True, table=table)
    result = msgspec.json.decode(capsys.readouterr().out)
    assert result["positions"] == 180
    assert result["watched"] == 60
    assert result["incremental_drift_dollars"] < 1e-6
    positive = set(result) - {"incremental_drift_dollars", "exact_fallback_ratio", "bytes_per_position"}
    assert all(result[name] > 0 for name in positive - {"full_ms", "incremental_ms"})
    header, row = table.read_text().splitlines()
    assert header.split(",")[:3] == ["date", "commit", "cpu"]
    assert header.split(",")[3:] == list(result)
    assert row.count(",") == header.count(",")


def test_a_table_keeps_its_columns(tmp_path: Path) -> None:
    """Rows are appended under one header; other columns are refused and nothing is lost."""
    table = tmp_path / "results.csv"
    for number in range(2):
        provenance.record({"n": number}, table)
    before = table.read_text()
    assert [line.rsplit(",", 1)[1] for line in before.splitlines()] == ["n", "0", "1"]
    with pytest.raises(ValueError, match="other columns"):
        provenance.record({"m": 1}, table)
    assert table.read_text() == before


def test_a_knee_is_found_where_it_was_put() -> None:
    """Times made of 2 ms, 100 ns an account and 10 ns a position: the knee is at 10,000 accounts with 10."""
    sizes = [
        (accounts, accounts * positions) for accounts in (10, 1_000, 100_000) for positions in (1, 10, 100)
    ]
    times_ms = [2 + accounts * 100e-6 + positions * 10e-6 for accounts, positions in sizes]
    found = curve.fitted(sizes, times_ms)
    assert found.fixed_ms == pytest.approx(2)
    assert (found.account_ns, found.position_ns) == (pytest.approx(100), pytest.approx(10))
    assert found.knee(10) == 10_000


def test_the_curve_is_measured_drawn_and_put_into_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run on tiny books leaves data that can be drawn again, and a picture that is a picture."""
    for name, sizes in {"ACCOUNTS": (5, 50), "WATCHED": (0, 1, 9)}.items():
        monkeypatch.setattr(curve, name, sizes)
    monkeypatch.setattr(curve, "SYMBOLS", 100)
    data, chart = tmp_path / "curve.json", tmp_path / "curve.svg"
    curve.main(chart=None, data=data, drawn=None)
    measured = msgspec.json.decode(data.read_bytes(), type=curve.Curve)
    assert [(one.accounts, one.positions) for one in measured.passes] == [
        (accounts, positions) for accounts in (5, 50) for positions in curve.POSITIONS
    ]
    assert [one.watched for one in measured.flushes] == [0, 1, 9]
    said = capsys.readouterr().out
    curve.main(chart=chart, data=None, drawn=data)
    assert capsys.readouterr().out == said == curve.sentence(measured) + "\n"
    assert "</svg>" in chart.read_text()


def test_memory_that_grows_is_told_from_memory_that_breathes() -> None:
    """Judged is the slope after warming up: what was taken before, and odd samples, do not count."""
    sampled = churn.Sampled(at_s=[float(second) for second in range(100)])
    sampled.memory["level"] = [min(second, 40) + 5.0 * (second % 17 == 0) for second in range(100)]
    sampled.memory["leak"] = [100 + second / 20 for second in range(100)]
    judged = churn.judged(sampled, duration_s=100, hours=0.5, warm_up_share=0.5)
    assert judged["grows"] == ["leak"]
    assert judged["added_by_an_hour_mb"] == {"level": pytest.approx(0), "leak": pytest.approx(10)}


def test_a_delta_has_at_most_two_fifths_of_the_bytes() -> None:
    """One of twenty positions moves; counted on the product's own messages."""
    made = delta.publications(200)
    pairs = itertools.pairwise(made)
    deltas = sum(
        len(delta.delta_head(1) + delta.delta_body(base, newest)) for (base, _), (newest, _) in pairs
    )
    whole = sum(len(delta.message(one, moved)) for one, moved in made[1:])
    assert deltas <= delta.RATIO_MAX * whole
