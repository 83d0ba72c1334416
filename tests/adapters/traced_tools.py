"""A tool that makes a span in a worker process, with a tracer and an exporter of that process."""

from __future__ import annotations

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from turnscope import tool


@tool(backend="process")
def work(path: str) -> str:
    """Append the span, as one line of JSON, to the file at *path*."""
    with open(path, "a", encoding="utf-8") as file:
        exporter = ConsoleSpanExporter(
            out=file, formatter=lambda span: span.to_json(indent=None) + "\n"
        )
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        with provider.get_tracer("the tool's own").start_as_current_span("in a worker"):
            pass
    return "done"
