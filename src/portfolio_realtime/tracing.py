"""Traces by OpenTelemetry, for who asks for them: one price from the feed's frame to the client's message.

Off by default: its SDK is not imported then, and `open_tracing` gives None. Which price is
followed is decided where its trace begins; the other services record what they are told of. Spans go to an
OTLP collector over HTTP from a thread of their own, out of a queue of bounded length: a collector that is
away costs spans, and nothing else.
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
CLOSE_S_MAX: Final = 2.0  # for the last spans; whoever ends us does not wait for long
CLOSE_POLL_S: Final = 0.02
TRACEPARENT: Final = "traceparent"  # https://www.w3.org/TR/trace-context


class Tracing:
    """Begins spans and sends those that have ended."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("portfolio_realtime")
        self._propagator = TraceContextTextMapPropagator()
        self._api = trace

    def begin(self, name: str, start_ns: int, **attributes: str | int) -> "Span | None":
        """The first span of a trace, or None where sampling leaves it out. Times are since 1970, in ns."""
        span = self._tracer.start_span(
            name, context=self._propagator.extract({}), start_time=start_ns, attributes=attributes
        )
        return span if span.is_recording() else None

    def go_on(self, traceparent: str, name: str, start_ns: int, **attributes: str | int) -> "Span | None":
        """A span below another service's, or None where its context cannot be read or is not sampled."""
        context = self._propagator.extract({TRACEPARENT: traceparent})
        if not self._api.get_current_span(context).get_span_context().is_valid:
            return None
        span = self._tracer.start_span(name, context=context, start_time=start_ns, attributes=attributes)
        return span if span.is_recording() else None

    def add_part(self, whole: "Span", name: str, start_ns: int, end_ns: int) -> None:
        """A part of a span that has ended already."""
        context = self._api.set_span_in_context(whole)
        self._tracer.start_span(name, context=context, start_time=start_ns).end(max(start_ns, end_ns))

    def traceparent(self, span: "Span") -> str:
        """What another service needs to go on below this span: a W3C `traceparent`."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._api.set_span_in_context(span))
        return carrier[TRACEPARENT]

    async def close(self) -> None:
        """Send what is left, but not for longer than CLOSE_S_MAX."""
        ending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        ending.start()
        clock = asyncio.get_running_loop().time
        give_up_s = clock() + CLOSE_S_MAX
        while ending.is_alive() and clock() < give_up_s:
            await asyncio.sleep(CLOSE_POLL_S)


def open_tracing(service: str, instance: str, ratio: float, endpoint: str) -> Tracing | None:
    """Tracing of this process, or None for a ratio of 0. Raises SettingsError where the extra is missing."""
    if not ratio:
        return None
    from portfolio_realtime.outbound import proxy_of  # brings httpx

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
        shutdown_on_exit=False,  # `close` does it, in bounded time
    )
    url = (endpoint or DEFAULT_ENDPOINT).rstrip("/") + TRACES_PATH
    logging.getLogger(OTLPSpanExporter.__module__).addFilter(_is_final)
    session = requests.Session()
    session.trust_env = False  # it would ask the proxy for what runs on this machine
    proxy = proxy_of(url)
    session.proxies = {} if proxy is None else {"http": proxy, "https": proxy}
    exporter = OTLPSpanExporter(url, timeout=EXPORT_S_MAX, session=session)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)


def _is_final(record: logging.LogRecord) -> bool:
    """Tell of spans that are lost, not of each attempt; as a warning, for prices are not harmed."""
    is_final = record.levelno >= logging.ERROR
    record.levelno, record.levelname = logging.WARNING, "WARNING"
    return is_final
