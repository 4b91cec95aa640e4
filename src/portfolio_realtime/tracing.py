"""OpenTelemetry traces of single prices, from the feed's frame to the client's message.

Tracing is off by default: `open_tracing` then returns None, and the SDK is not imported. The service in which
a trace begins decides which price is traced; the others continue its traces. A thread sends spans from a
bounded queue to an OTLP collector over HTTP. While the collector is unavailable, only spans are lost.
"""

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Final

from portfolio_realtime.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

DEFAULT_ENDPOINT: Final = "http://127.0.0.1:4318"
TRACES_PATH: Final = "/v1/traces"
EXPORT_S_MAX: Final = 5.0
CLOSE_S_MAX: Final = 2.0  # for the last spans: a process that ends must not take long
CLOSE_POLL_S: Final = 0.02
TRACEPARENT: Final = "traceparent"  # https://www.w3.org/TR/trace-context


class Tracing:
    """Begins spans. Ended spans are sent to the collector."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("portfolio_realtime")
        self._propagator = TraceContextTextMapPropagator()
        self._api = trace

    def begin(self, name: str, start_ns: int, **attributes: str | int) -> "Span | None":
        """Begin the first span of a trace; None: it is not sampled. `start_ns` is in ns since the epoch."""
        span = self._tracer.start_span(
            name, context=self._propagator.extract({}), start_time=start_ns, attributes=attributes
        )
        return span if span.is_recording() else None

    def go_on(self, traceparent: str, name: str, start_ns: int, **attributes: str | int) -> "Span | None":
        """Begin a child of another service's span; None: its context is not valid or not sampled."""
        context = self._propagator.extract({TRACEPARENT: traceparent})
        if not self._api.get_current_span(context).get_span_context().is_valid:
            return None
        span = self._tracer.start_span(name, context=context, start_time=start_ns, attributes=attributes)
        return span if span.is_recording() else None

    def add_part(self, whole: "Span", name: str, start_ns: int, end_ns: int) -> None:
        """Add a child span that has ended already."""
        context = self._api.set_span_in_context(whole)
        self._tracer.start_span(name, context=context, start_time=start_ns).end(max(start_ns, end_ns))

    def traceparent(self, span: "Span") -> str:
        """The W3C `traceparent` of a span, with which another service continues the trace."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._api.set_span_in_context(span))
        return carrier[TRACEPARENT]

    async def close(self) -> None:
        """Send the remaining spans, for at most CLOSE_S_MAX."""
        ending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        ending.start()
        clock = asyncio.get_running_loop().time
        give_up_s = clock() + CLOSE_S_MAX
        while ending.is_alive() and clock() < give_up_s:
            await asyncio.sleep(CLOSE_POLL_S)


def open_tracing(service: str, instance: str, ratio: float, endpoint: str) -> Tracing | None:
    """Start the tracing of this process; None for a ratio of 0.

    Raises SettingsError when the extra `otel` is not installed.
    """
    if not ratio:
        return None
    # It imports httpx, which not every service needs.
    from portfolio_realtime.outbound import proxy_of

    try:
        import requests
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"OTEL_TRACES_RATIO={ratio:g}, but the package {error.name} is not installed: "
            "pip install 'portfolio-realtime[otel]', or set OTEL_TRACES_RATIO=0"
        ) from None
    provider = TracerProvider(
        sampler=ParentBasedTraceIdRatio(ratio),
        resource=Resource.create({"service.name": service, "service.instance.id": instance}),
        shutdown_on_exit=False,  # `close` does this in bounded time
    )
    url = (endpoint or DEFAULT_ENDPOINT).rstrip("/") + TRACES_PATH
    logging.getLogger(OTLPSpanExporter.__module__).addFilter(_is_final)
    session = requests.Session()
    session.trust_env = False  # it would use the proxy also for a collector on this machine
    proxy = proxy_of(url)
    session.proxies = {} if proxy is None else {"http": proxy, "https": proxy}
    exporter = OTLPSpanExporter(url, timeout=EXPORT_S_MAX, session=session)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)


def _is_final(record: logging.LogRecord) -> bool:
    """Log lost spans, but not each attempt, and as a warning, because no price is affected."""
    is_final = record.levelno >= logging.ERROR
    record.levelno, record.levelname = logging.WARNING, "WARNING"
    return is_final
