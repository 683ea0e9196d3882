"""OpenTelemetry spans: one for each request that is work, and below it its stages. Exported by OTLP over HTTP; no span holds
a text, a header or a key.

Configured by OpenTelemetry's own variables. Imported only when one of them names a collector, since the library takes its
time and memory.
"""

from __future__ import annotations

import socket
import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, get_current_span, set_span_in_context, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from winnow_server.model import Announced
from winnow_server.ticket import Ticket

PROPAGATED = (b"traceparent", b"tracestate")  # of the headers nothing else is looked at


class Tracing:
    def __init__(self, announced: Announced) -> None:
        """Raises ValueError in words for a variable that OpenTelemetry cannot use."""
        own = {
            "service.name": announced.name,
            "service.version": announced.version,
            "service.instance.id": socket.gethostname(),
        }
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before our own.
        resource = Resource.create(own).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("winnow_server")
        # And not those of OTEL_PROPAGATORS: where it names one that is not installed, the library cannot be imported.
        self._propagator = TraceContextTextMapPropagator()

    def around(self, app: ASGIApp) -> ASGIApp:
        """Below the edge, which knows the request's id and endpoint; probes and pages have none."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            endpoint = scope.get("state", {}).get("endpoint")
            if endpoint is None:
                await app(scope, receive, send)
                return
            caller = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in PROPAGATED}
            span = self._tracer.start_span(
                f"{scope['method']} {endpoint}",
                context=self._propagator.extract(caller),
                kind=SpanKind.SERVER,
                attributes={
                    "http.request.method": scope["method"],
                    "http.route": endpoint,
                    "winnow.request_id": scope["state"]["request_id"],
                },
            )

            async def send_and_note(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    span.set_attribute("http.response.status_code", status)
                    if status >= 500:
                        span.set_attribute("error.type", str(status))
                        span.set_status(StatusCode.ERROR)
                await send(message)

            # An exception's message may quote what the client sent.
            with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
                await app(scope, receive, send_and_note)

        return traced

    def stages(self, ticket: Ticket) -> None:
        """A request that got its results. Called in its own task, whose current span is the request's. Lines of streams have
        no spans: there may be a million."""
        if ticket.background:
            return
        request, timing = get_current_span(), ticket.timing
        if not request.is_recording():
            return
        request.set_attributes({"winnow.texts": len(ticket.texts), "winnow.tokens": sum(ticket.lengths)})
        context, epoch = set_span_in_context(request), time.time_ns() - time.perf_counter_ns()
        moments = [
            epoch + int(moment * 1e9) for moment in (timing.arrived, timing.tokenised, timing.started, timing.finished)
        ]
        for name, start, end in zip(("tokenize", "queue", "infer"), moments, moments[1:], strict=False):
            self._tracer.start_span(name, context=context, start_time=start).end(end)

    def close(self) -> None:
        """Sends what is left; a collector that does not answer is not waited for beyond its time-out."""
        self._provider.shutdown()
