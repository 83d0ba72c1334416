"""The span that is current, on its way to a worker process, which makes spans below it.

Cheap to import, for the worker's sake. Above: `otel`. Below: ``opentelemetry.api``.
"""

from __future__ import annotations

from contextvars import Token
from types import TracebackType

from opentelemetry import context, propagate


class CarriedSpan:
    """In its block what *headers* say is OpenTelemetry's context; it can be pickled."""

    def __init__(self, headers: dict[str, str]) -> None:
        self._headers = headers
        self._token: Token[context.Context] | None = None

    def __enter__(self) -> None:
        self._token = context.attach(propagate.extract(self._headers))

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        assert self._token is not None
        context.detach(self._token)


def carried_span() -> CarriedSpan | None:
    """The span that is current here, for ``ProcessBackend(carry=carried_span)``; None without one.

    It crosses over by OpenTelemetry's global propagators: by W3C's trace context and baggage if the
    program sets no others. The worker's spans are made by the tracer provider that is set up in
    the worker, as by the module of the tool; they reach their exporter there.
    """
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return CarriedSpan(headers) if headers else None
