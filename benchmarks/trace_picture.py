"""One price through the services, drawn: `make trace` writes docs/images/trace.svg from a real trace.

A stand-in for an OTLP collector takes the spans of a small system that follows every flush of marks. Drawn is
the complete trace of median length.
"""

import argparse
import asyncio
import threading
from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import AsyncExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.provenance import provenance
from portfolio_harness.system import System, running, simulator_options, wait_known

PICTURE: Final = Path("docs/images/trace.svg")
WAY: Final = ("market_data_consumer", "portfolio_calculator", "websocket_server")
COLOURS: Final[dict[str, str]] = dict(zip(WAY, ("#4a90d9", "#3a9d6e", "#d98a2b"), strict=True))
ACCOUNTS: Final = 4
SYMBOLS: Final = 30
TRADES_PER_S: Final = 3.0
SETTINGS: Final = {"OTEL_TRACES_RATIO": "1", "OTEL_BSP_SCHEDULE_DELAY": "200", "LOG_LEVEL": "error"}
NS_PER_MS: Final = 1_000_000


class Span(NamedTuple):
    """One span as it was exported; times are since 1970, in ns."""

    service: str
    name: str
    span_id: bytes
    parent_id: bytes
    start_ns: int
    end_ns: int


class Collector:
    """A stand-in for an OTLP collector: takes spans over HTTP and keeps them by trace."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.traces: dict[bytes, list[Span]] = defaultdict(list)

    def take(self, body: bytes) -> None:
        """Read one export request."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                for each in scope.spans:
                    self.traces[each.trace_id].append(
                        Span(
                            names["service.name"],
                            each.name,
                            each.span_id,
                            each.parent_span_id,
                            each.start_time_unix_nano,
                            each.end_time_unix_nano,
                        )
                    )

    def complete(self) -> list[list[Span]]:
        """The traces that have come from the frame to a client, each in the order of time."""
        return [ordered for spans in tuple(self.traces.values()) if (ordered := _whole(tuple(spans)))]


def _whole(spans: Sequence[Span]) -> list[Span]:
    """All spans, service by service, each whole before its parts; none while one is missing."""
    known = {span.span_id for span in spans} | {b""}
    if {span.service for span in spans} != set(WAY) or any(span.parent_id not in known for span in spans):
        return []
    return sorted(spans, key=lambda span: (WAY.index(span.service), is_part(span, spans), span.start_ns))


def is_part(span: Span, spans: Sequence[Span]) -> bool:
    """Is it a part of a span of its own service?"""
    return any(one.span_id == span.parent_id and one.service == span.service for one in spans)


@contextmanager
def collecting() -> Generator[Collector]:
    """A collector that listens on this machine until the end."""

    class Handler(BaseHTTPRequestHandler):
        """Takes POST /v1/traces."""

        def do_POST(self) -> None:
            """One export request."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            is_known = self.path == "/v1/traces"
            if is_known:
                collector.take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if is_known else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
            """Not a word."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(server.server_address[1])
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield collector
        server.shutdown()


async def watch_all(system: System, stack: AsyncExitStack) -> None:
    """A client for each account, which reads what it is sent."""
    url = system.url.replace("http", "ws", 1)
    for account_id in await system.oracle.account_ids():
        token = system.token_for(account_id)
        client = await stack.enter_async_context(
            connect(
                f"{url}/ws/portfolio/{account_id}",
                additional_headers={"Authorization": f"Bearer {token}"},
                proxy=None,
            )
        )
        reading = asyncio.create_task(_read(client))
        stack.callback(reading.cancel)


async def _read(client: ClientConnection) -> None:
    async for _ in client:
        pass


async def record(seconds: float) -> list[list[Span]]:
    """The complete traces of a small system within so many seconds."""
    options = simulator_options(ACCOUNTS, SYMBOLS, TRADES_PER_S, 7)
    with collecting() as collector:
        settings = {**SETTINGS, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        async with running(options, port=0, overrides=settings) as system, AsyncExitStack() as stack:
            await wait_known(system.url, ACCOUNTS, lambda _: None)
            await watch_all(system, stack)
            await asyncio.sleep(seconds)
        return collector.complete()


def length_ns(spans: Sequence[Span]) -> int:
    """From the frame to the client."""
    return max(span.end_ns for span in spans) - min(span.start_ns for span in spans)


def draw(spans: Sequence[Span], path: Path, caption: str) -> None:
    """A bar for each span, as it lies in time."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "trace"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.3 * len(spans) + 1.0), layout="constrained")
    begin_ns, whole_ms = min(span.start_ns for span in spans), length_ns(spans) / NS_PER_MS
    labels: list[str] = []
    for row, span in enumerate(spans):
        start_ms, took_ms = (span.start_ns - begin_ns) / NS_PER_MS, (span.end_ns - span.start_ns) / NS_PER_MS
        height, alpha = (0.45, 0.6) if is_part(span, spans) else (0.75, 1.0)
        width = max(took_ms, whole_ms / 400)  # else it cannot be seen
        axes.barh(row, width, left=start_ms, height=height, alpha=alpha, color=COLOURS[span.service])
        is_late = start_ms + took_ms > 0.8 * whole_ms and start_ms > 0.2 * whole_ms
        end_ms, side = (start_ms, "right") if is_late else (start_ms + width, "left")
        axes.text(end_ms, row, f" {took_ms:.2f} ms ", va="center", ha=side, fontsize=8)
        labels.append(span.name if is_part(span, spans) else f"{span.service}: {span.name}")
    axes.set_yticks(range(len(spans)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, whole_ms * 1.12)
    axes.set_xlabel("milliseconds since the feed's frame came", fontsize=8)
    axes.set_title(caption, fontsize=8, loc="left")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    """Record, choose, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="for which spans are taken")
    parser.add_argument("--out", type=Path, default=PICTURE)
    options = parser.parse_args()
    traces = sorted(asyncio.run(record(options.seconds)), key=length_ns)
    if not traces:
        raise SystemExit("no complete trace has come: give it more --seconds")
    chosen = traces[len(traces) // 2]
    origin = provenance()
    draw(chosen, options.out, f"the median of {len(traces)} traces, {origin['date']}, {origin['cpu']}")
    print(f"{options.out}: the median of {len(traces)} traces takes {length_ns(chosen) / NS_PER_MS:.1f} ms")


if __name__ == "__main__":
    main()
