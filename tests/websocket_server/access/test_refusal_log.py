"""Refusals in the log: who dials without end has a few lines a minute, and a count."""

from structlog.testing import capture_logs

from portfolio_realtime.websocket_server.access import refusal_log
from portfolio_realtime.websocket_server.access.refusal_log import RefusalLog


def test_the_first_of_a_kind_is_logged_and_the_rest_counted_once_a_minute() -> None:
    refusals = RefusalLog()
    with capture_logs() as logged:
        for second in range(150):
            refusals.add("credentials refused", "expired", "203.0.113.7", float(second))
        refusals.add("credentials refused", "expired", "203.0.113.8", 150.0)
        refusals.end_minute(180.0)
    assert [line["peer"] for line in logged if line["event"] == "credentials refused"] == [
        *(3 * refusal_log.LINES_PER_KIND_MAX * ["203.0.113.7"]),
        "203.0.113.8",
    ]
    counts = [line["expired"] for line in logged if line["event"] == "more refusals in the last minute"]
    assert counts == [57, 57, 27]


def test_many_addresses_do_not_fill_the_log() -> None:
    """A bounded number of lines a minute, whoever comes."""
    refusals = RefusalLog()
    with capture_logs() as logged:
        for number in range(1000):
            refusals.add("handshake refused", "403 origin_not_allowed", f"203.0.113.{number}", 1.0)
        refusals.end_minute(61.0)
    assert len(logged) == refusal_log.LINES_PER_MINUTE_MAX + 1
