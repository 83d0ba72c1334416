"""`Telemetry`: spans and metrics of OpenTelemetry's, for every run, turn, request and call.

The names are those of OpenTelemetry's semantic conventions for generative AI (version 1.40, still
in development there), and ``turnscope.*`` for what they have no name for. Above: a Kernel, which
tells it as any observer. Below: ``opentelemetry.api``, and `_otel_attributes`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import attrs

from turnscope import UnknownTool
from turnscope.events import (
    CallDiscarded,
    CallEvent,
    CallHedged,
    CallReady,
    CallRetried,
    CallSettled,
    CallStarted,
    ModelAnswered,
    ModelFellBack,
    ModelRetried,
    ModelStarted,
    OutputRetried,
    ReasoningStreamed,
    RunEvent,
    RunFinished,
    RunStarted,
    TextStreamed,
    TurnEvent,
    TurnFinished,
)

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
except ModuleNotFoundError as _missing:  # pragma: no cover  # because the tests install every extra
    raise ModuleNotFoundError(
        "turnscope_adapters.otel needs opentelemetry-api: pip install 'turnscope[otel]'",
        name=_missing.name,
    ) from _missing

from . import _otel_attributes as attributes
from ._otel_carried import carried_span

__all__ = ["Telemetry", "carried_span"]

_SCOPE: Final = "turnscope"
_AGENT: Final[Mapping[str, Any]] = {attributes.OPERATION: "invoke_agent"}


@attrs.define(eq=False)
class _Open:
    """A span, and when it began on a clock that does not go back."""

    span: Span
    began: float = attrs.field(factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began


@attrs.define(eq=False)
class _Run:
    """The spans of a run that are open, or of a turn of one's own loop."""

    run: _Open | None = None
    """None for a turn of one's own loop."""
    turn: _Open | None = None
    request: _Open | None = None
    asked: dict[str, Any] = attrs.field(factory=dict[str, Any])
    """What the metrics of the request under way say of it."""
    provider: dict[str, Any] = attrs.field(factory=dict[str, Any])
    """Whose API the first request went to, which is said of the whole run."""
    heard: bool = False
    """Whether anything of the answer has come."""
    ready: dict[int, int] = attrs.field(factory=dict[int, int])
    """When a call became ready, in nanoseconds since the epoch, by its place in the turn."""
    calls: dict[int, _Open] = attrs.field(factory=dict[int, _Open])


class Telemetry:
    """An observer that makes spans and metrics of what it is told::

        Kernel(observers=[Telemetry()])

    Spans: ``invoke_agent`` for a run, ``turnscope.turn`` for a turn, ``chat MODEL`` for a request,
    with all its attempts, and ``execute_tool NAME`` for the body of a call. A call's span is the
    current one in its body, on both event loops and in threads, so that what the body makes spans
    of, and the runs that it nests, are below it; that of a request is current in its model. What
    calls the kernel is above. A worker process is told of a call's span by
    ``ProcessBackend(carry=carried_span)``, handed to the kernel in ``backends=``.

    Metrics: ``gen_ai.client.operation.duration`` and ``.time_to_first_chunk`` (seconds), and
    ``gen_ai.client.token.usage`` (tokens).

    *tracer_provider* and *meter_provider* are OpenTelemetry's global ones if none are given. With
    *content* spans also have what is private: answers, arguments, results and the texts of errors.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        content: bool = False,
    ) -> None:
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._durations = meter.create_histogram(
            "gen_ai.client.operation.duration", unit="s", description="Duration of an operation."
        )
        self._first = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            unit="s",
            description="Time until the first piece of an answer.",
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", unit="{token}", description="Tokens of a request."
        )
        self._content = content
        self._runs: dict[str, _Run] = {}

    def observe(self, event: RunEvent) -> None:
        """Take note of *event*."""
        match event:
            case RunStarted():
                self._runs[event.run_id] = _Run(self._begun("invoke_agent", event, None, _AGENT))
            case RunFinished():
                self._run_finished(event)
            case ModelStarted():
                self._request_started(event)
            case ModelAnswered():
                self._answered(event)
            case TextStreamed() | ReasoningStreamed():
                self._heard(event)
            case ModelRetried() | ModelFellBack():
                if (run := self._runs.get(event.run_id)) and run.request:
                    attributes.note(run.request.span, event, content=self._content)
            case OutputRetried():
                # After its turn's end, so the span of the run takes note of it.
                if (run := self._runs.get(event.run_id)) and run.run:
                    attributes.note(run.run.span, event, content=self._content)
            case CallEvent():
                self._call(event)
            case TurnFinished():
                self._turn_finished(event)

    # Runs and turns.

    def _run_finished(self, event: RunFinished) -> None:
        run = self._runs.pop(event.run_id, None)
        if run is None or run.run is None:
            return
        if run.request is not None:  # it has failed for good, or was interrupted
            self._end_request(run, event.error)
        if run.turn is not None:
            self._end(run.turn.span, event.error)
        run.run.span.set_attributes(attributes.of_usage(event.usage))
        self._end(run.run.span, event.error)
        about = {**_AGENT, **run.provider, **attributes.of_error(event.error)}
        self._durations.record(run.run.seconds, about)

    def _turn_finished(self, event: TurnFinished) -> None:
        run = self._runs.get(event.run_id)
        if run is None or run.turn is None or run.request is not None:
            return  # its request has failed, and the end of the run says of what
        run.turn.span.set_attribute("turnscope.calls", len(event.results))
        run.turn.span.end()
        run.turn = None
        run.ready.clear()
        if run.run is None:
            del self._runs[event.run_id]

    def _turn_of(self, event: TurnEvent) -> tuple[_Run, _Open]:
        """The turn that *event* is of, which begins with it if it is the first."""
        run = self._runs.setdefault(event.run_id, _Run())
        if run.turn is None:
            above = None if run.run is None else run.run.span
            run.turn = self._begun("turnscope.turn", event, above, {"turnscope.turn": event.turn})
        return run, run.turn

    # Requests.

    def _request_started(self, event: ModelStarted) -> None:
        run, turn = self._turn_of(event)
        run.asked = attributes.of_request(event)
        if run.run is not None and not run.provider:
            run.provider = attributes.of_provider(event)
            run.run.span.set_attributes(run.provider)
        run.heard = False
        name = f"chat {event.model}" if event.model else "chat"
        run.request = self._begun(name, event, turn.span, run.asked, SpanKind.CLIENT)
        # It is told in the task of the request, whose context ends with it.
        context.attach(trace.set_span_in_context(run.request.span))

    def _heard(self, event: TextStreamed | ReasoningStreamed) -> None:
        run = self._runs.get(event.run_id)
        if run is not None and run.request is not None and not run.heard:
            run.heard = True
            self._first.record(run.request.seconds, run.asked)

    def _answered(self, event: ModelAnswered) -> None:
        run = self._runs.get(event.run_id)
        if run is None or run.request is None:
            return
        span = run.request.span
        span.set_attributes(attributes.of_answer(event, content=self._content))
        for kind, count in attributes.counted(event.usage):
            self._tokens.record(count, {**run.asked, attributes.TOKEN_TYPE: kind})
        self._end_request(run, None)

    def _end_request(self, run: _Run, error: BaseException | None) -> None:
        request, run.request = run.request, None
        assert request is not None  # because whoever calls this has looked
        self._durations.record(request.seconds, {**run.asked, **attributes.of_error(error)})
        self._end(request.span, error)

    # Calls.

    def _call(self, event: CallEvent) -> None:
        run, turn = self._turn_of(event)
        call = run.calls.get(event.index)
        match event:
            case CallReady():
                run.ready[event.index] = time.time_ns()
            case CallStarted():
                call = run.calls[event.index] = self._call_begun(event, turn.span)
                call.span.set_attribute("turnscope.backend", event.backend)
                # It is told in the task of the call, whose context ends with it.
                context.attach(trace.set_span_in_context(call.span))
            case CallSettled():
                begun = run.ready.get(event.index)
                call = run.calls.pop(event.index, None) or self._call_begun(
                    event, turn.span, start_time=begun
                )
                self._settled(event, call)
            case CallRetried() | CallHedged() if call is not None:
                attributes.note(call.span, event, content=self._content)
            case CallDiscarded():
                turn.span.add_event(
                    "turnscope.discarded",
                    {"gen_ai.tool.name": event.call.name, "turnscope.reason": event.reason},
                )
            case _:
                pass

    def _call_begun(self, event: CallEvent, above: Span, **when: Any) -> _Open:
        about = attributes.of_call(event.call, content=self._content)
        name = f"execute_tool {event.call.name}"
        span = self._tracer.start_span(
            name,
            trace.set_span_in_context(above),
            attributes={**attributes.of_event(event), **about},
            **when,
        )
        return _Open(span)

    def _settled(self, event: CallSettled, call: _Open) -> None:
        result = event.result
        failed = {} if result.ok else attributes.of_failure(result)
        call.span.set_attributes(attributes.of_result(result, content=self._content))
        call.span.set_attributes(failed)
        if failed:
            words = str(result.error) if self._content else None
            call.span.set_status(Status(StatusCode.ERROR, words))
        call.span.end()
        about = {attributes.OPERATION: "execute_tool", **failed}
        if not isinstance(result.error, UnknownTool):  # or a model could make series without end
            about["gen_ai.tool.name"] = event.call.name
        self._durations.record(call.seconds, about)

    # Spans.

    def _begun(
        self,
        name: str,
        event: TurnEvent,
        above: Span | None,
        about: Mapping[str, Any],
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> _Open:
        """A span below *above*, or below the one that is current where the event is told."""
        under = None if above is None else trace.set_span_in_context(above)
        about = {**attributes.of_event(event), **about}
        return _Open(self._tracer.start_span(name, under, kind, about))

    def _end(self, span: Span, error: BaseException | None) -> None:
        if error is not None:
            span.set_attributes(attributes.of_error(error))
            span.set_status(Status(StatusCode.ERROR, str(error) if self._content else None))
        span.end()
