"""What OpenTelemetry is told of runs, turns, requests and calls, through its own SDK."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.adapters.traced_tools import work
from tests.support import Loop
from turnscope import Agent, Kernel, ModelError, Retry, RunResult, ToolCall, Usage, tool
from turnscope.events import CallDelta, ModelFinished, TextDelta
from turnscope.testing import ScriptedModel, Stream
from turnscope_adapters.openai import OpenAIChat
from turnscope_adapters.otel import Telemetry, carried_span
from turnscope_backends import ProcessBackend

SECRET = "the-secret"
USED = Usage(input_tokens=10, output_tokens=5, cached_tokens=3, reasoning_tokens=2)


class Told:
    """What the SDK was told."""

    def __init__(self, *, content: bool = False) -> None:
        self._spans = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._metrics = InMemoryMetricReader()
        meters = MeterProvider([self._metrics])
        self.tracer = self.tracers.get_tracer("the program's own")
        self.telemetry = Telemetry(
            tracer_provider=self.tracers, meter_provider=meters, content=content
        )

    @property
    def spans(self) -> list[ReadableSpan]:
        """Those that have ended, in the order in which they began."""
        return sorted(self._spans.get_finished_spans(), key=lambda span: span.start_time or 0)

    def one(self, name: str) -> ReadableSpan:
        """The one span of that *name*."""
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def tree(self) -> dict[str, str | None]:
        """The name of each span, and of the one above it."""
        names = {span.context.span_id: span.name for span in self.spans if span.context}
        return {
            span.name: None if span.parent is None else names[span.parent.span_id]
            for span in self.spans
        }

    def points(self) -> Iterator[tuple[str, Any]]:
        """The name of each metric, with each of its points."""
        data = self._metrics.get_metrics_data()
        if data is not None:
            for resource in data.resource_metrics:
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        for point in metric.data.data_points:
                            yield metric.name, point


class Named(ScriptedModel):
    """A scripted model that says what it is called."""

    name = "gpt-test"
    provider = "openai"


def answer(*calls: ToolCall, text: str = "", usage: Usage | None = None) -> Stream:
    events: list[Any] = [TextDelta(text)] if text else []
    events += [
        CallDelta(index, call.id, call.name, str(call.arguments))
        for index, call in enumerate(calls)
    ]
    events.append(ModelFinished("calls" if calls else "stop", usage or USED))
    return Stream([(0, event) for event in events])


def ran(loop: Loop, told: Told, agent: Agent[Any, str], *script: Any, **kernel: Any) -> Any:
    async def main() -> RunResult[str]:
        async with Kernel(observers=[told.telemetry], model=Named(script), **kernel) as opened:
            with told.tracer.start_as_current_span("request"):
                return await opened.run(agent, "Go.")

    return loop.run(main)


def ask(name: str, arguments: str = "{}") -> ToolCall:
    return ToolCall(f"id-{name}", name, arguments)


def test_a_run_is_a_tree_with_what_the_program_makes_spans_of(any_loop: Loop) -> None:
    told = Told()

    @tool
    async def awaits() -> str:
        await anyio.sleep(0)
        with told.tracer.start_as_current_span("in the event loop"):
            return "a"

    @tool
    def blocks() -> str:
        with told.tracer.start_as_current_span("in a thread"):
            return "b"

    result = ran(
        any_loop,
        told,
        Agent(tools=[awaits, blocks]),
        answer(ask("awaits"), ask("blocks")),
        answer(text="done"),
    )
    assert result.output == "done"
    turns = [span for span in told.spans if span.name == "turnscope.turn"]
    assert [span.attributes["turnscope.turn"] for span in turns if span.attributes] == [0, 1]
    assert told.tree() == {
        "request": None,
        "invoke_agent": "request",
        "turnscope.turn": "invoke_agent",
        "chat gpt-test": "turnscope.turn",
        "execute_tool awaits": "turnscope.turn",
        "in the event loop": "execute_tool awaits",
        "execute_tool blocks": "turnscope.turn",
        "in a thread": "execute_tool blocks",
    }
    assert len({span.context.trace_id for span in told.spans if span.context}) == 1


def test_attributes_have_the_conventions_names(any_loop: Loop) -> None:
    told = Told()

    @tool
    async def works() -> str:
        return "fine"

    ran(any_loop, told, Agent(tools=[works]), answer(ask("works")), answer(text="done"))
    first = next(span for span in told.spans if span.name == "chat gpt-test")
    run_id = (first.attributes or {})["turnscope.run_id"]
    assert dict(first.attributes or {}) == {
        "turnscope.run_id": run_id,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-test",
        "gen_ai.response.finish_reasons": ("tool_calls",),
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.usage.reasoning.output_tokens": 2,
    }
    assert dict(told.one("execute_tool works").attributes or {}) == {
        "turnscope.run_id": run_id,
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "works",
        "gen_ai.tool.call.id": "id-works",
        "gen_ai.tool.type": "function",
        "turnscope.backend": "inline",
        "turnscope.status": "ok",
    }
    whole = dict(told.one("invoke_agent").attributes or {})
    assert whole["gen_ai.usage.input_tokens"] == 20
    assert whole["gen_ai.operation.name"] == "invoke_agent"
    assert whole["gen_ai.provider.name"] == "openai"


@pytest.mark.parametrize("content", [False, True])
def test_what_is_private_is_told_on_request_alone(content: bool, any_loop: Loop) -> None:
    told = Told(content=content)

    @tool
    async def echo(words: str) -> str:
        return words

    @tool
    async def fails(words: str) -> str:
        raise ValueError(words)

    arguments = f'{{"words": "{SECRET}"}}'
    calls = [ask("echo", arguments), ask("fails", arguments)]
    ran(
        any_loop,
        told,
        Agent(tools=[echo, fails], retry=Retry(attempts=2, initial=0)),
        ModelError(SECRET, transient=True),
        answer(*calls),
        answer(text=SECRET),
    )
    shown = [span.to_json() for span in told.spans]
    assert sum(SECRET in text for text in shown) == (4 if content else 0)
    if content:
        failed = told.one("execute_tool fails")
        assert (failed.attributes or {})["gen_ai.tool.call.arguments"] == arguments
        assert SECRET in str(failed.status.description)
        last = [span for span in told.spans if span.name == "chat gpt-test"][-1]
        assert SECRET in str((last.attributes or {})["gen_ai.output.messages"])


@pytest.mark.parametrize("content", [False, True])
def test_keys_and_headers_are_in_no_span_and_no_metric(content: bool, any_loop: Loop) -> None:
    told = Told(content=content)
    key, header = "sk-proj-hush-0123456789", "whisper-0123456789"
    seen: list[str] = []

    def refuse(request: httpx2.Request) -> httpx2.Response:
        seen.extend((request.headers["authorization"], request.headers["x-team"]))
        error = {"message": f"Incorrect API key provided: {key}", "type": "auth"}
        return httpx2.Response(401, json={"error": error})

    async def main() -> None:
        headers = {"X-Team": header}
        transport = httpx2.MockTransport(refuse)
        async with httpx2.AsyncClient(transport=transport, headers=headers) as client:
            model = OpenAIChat("gpt-test", base_url="http://h/v1", api_key=key, client=client)
            async with Kernel(observers=[told.telemetry]) as kernel:
                await kernel.run(Agent(model=model, retry=None), SECRET)

    with pytest.raises(ModelError, match="Incorrect API key"):
        any_loop.run(main)
    assert seen == [f"Bearer {key}", header]
    failed = told.one("chat gpt-test")
    assert ("Incorrect API key" in str(failed.status.description)) is content
    shown = [span.to_json() for span in told.spans] + [repr(each) for each in told.points()]
    assert len(shown) > 3
    for private in (key, header, SECRET):
        assert private not in "".join(shown)


def test_failures_say_what_kind_they_are(any_loop: Loop) -> None:
    told = Told()

    @tool
    async def fails() -> str:
        raise KeyError("no")

    @tool(timeout=0.01)
    async def late() -> str:
        await anyio.sleep_forever()
        return "never"

    calls = [ask("fails"), ask("late"), ask("unknown")]
    ran(any_loop, told, Agent(tools=[fails, late]), answer(*calls), answer(text="done"))
    kinds = {
        name: (span.attributes or {}).get("error.type")
        for span in told.spans
        for name in [span.name.removeprefix("execute_tool ")]
        if name != span.name
    }
    assert kinds == {"fails": "KeyError", "late": "timed_out", "unknown": "invalid"}
    assert all(
        span.status.status_code.name == "ERROR"
        for span in told.spans
        if span.name.startswith("execute_tool")
    )
    timed = [point.attributes for name, point in told.points() if name.endswith(".duration")]
    # Of a name that a model has made up there is no series of its own.
    names = {
        about["error.type"]: about["gen_ai.tool.name"]
        for about in timed
        if "gen_ai.tool.name" in about
    }
    assert names == {"KeyError": "fails", "timed_out": "late"}
    assert {"gen_ai.operation.name": "execute_tool", "error.type": "invalid"} in timed


def test_a_run_that_fails_ends_every_span_of_it(any_loop: Loop) -> None:
    told = Told()
    with pytest.raises(ModelError):
        ran(any_loop, told, Agent(retry=None), ModelError("down", status=400))
    assert told.tree() == {
        "request": None,
        "invoke_agent": "request",
        "turnscope.turn": "invoke_agent",
        "chat gpt-test": "turnscope.turn",
    }
    for name in "invoke_agent", "turnscope.turn", "chat gpt-test":
        assert (told.one(name).attributes or {})["error.type"] == "ModelError"
    assert not told.telemetry._runs


def test_a_cancelled_run_ends_every_span_of_it(any_loop: Loop) -> None:
    told = Told()
    begun: list[anyio.Event] = []

    @tool
    async def waits() -> str:
        begun[0].set()
        await anyio.sleep_forever()
        return "never"

    async def main() -> None:
        begun.append(anyio.Event())
        model = Named([answer(ask("waits"))])
        async with Kernel(observers=[told.telemetry], model=model) as kernel:
            async with anyio.create_task_group() as group:
                group.start_soon(kernel.run, Agent(tools=[waits]), "Go.")
                await begun[0].wait()
                group.cancel_scope.cancel()

    any_loop.run(main)
    assert (told.one("execute_tool waits").attributes or {})["error.type"] == "cancelled"
    assert {span.name for span in told.spans} == {
        "invoke_agent",
        "turnscope.turn",
        "chat gpt-test",
        "execute_tool waits",
    }
    assert not told.telemetry._runs


def test_agents_as_tools_stand_below_the_call_that_runs_them(any_loop: Loop) -> None:
    told = Told()
    inner = Agent(model=ScriptedModel(["found"]))
    outer = Agent(tools=[inner.as_tool("search", "Search.")])

    async def main() -> None:
        async with Kernel(observers=[told.telemetry]) as kernel:
            model = Named([answer(ask("search", '{"prompt": "x"}')), answer(text="done")])
            await kernel.run(outer, "Go.", model=model)

    any_loop.run(main)
    above, below = (span for span in told.spans if span.name == "invoke_agent")
    call = told.one("execute_tool search")
    assert above.parent is None
    assert below.parent is not None and call.context is not None
    assert below.parent.span_id == call.context.span_id


def test_a_turn_of_ones_own_loop_has_a_span_below_the_programs(any_loop: Loop) -> None:
    told = Told()

    @tool
    async def works() -> str:
        return "fine"

    async def main() -> None:
        async with Kernel(observers=[told.telemetry]) as kernel:
            with told.tracer.start_as_current_span("request"):
                async with kernel.turn([works]) as turn:
                    turn.submit(ask("works"))
                    turn.submit(ask("nobody"))

    any_loop.run(main)
    assert told.tree() == {
        "request": None,
        "turnscope.turn": "request",
        "execute_tool works": "turnscope.turn",
        "execute_tool nobody": "turnscope.turn",
    }
    assert not told.telemetry._runs


def test_attempts_are_events_of_one_span(any_loop: Loop) -> None:
    told = Told()
    failures = iter([OSError("a"), OSError("b")])

    @tool(idempotent=True, retry=Retry(attempts=3, initial=0, on=OSError))
    async def flaky() -> str:
        for failure in failures:
            raise failure
        return "fine"

    ran(
        any_loop,
        told,
        Agent(tools=[flaky], retry=Retry(attempts=2, initial=0)),
        ModelError("busy", status=503, transient=True),
        answer(ask("flaky")),
        answer(text="done"),
    )
    call = told.one("execute_tool flaky")
    assert [
        (event.name, (event.attributes or {})["turnscope.attempt"]) for event in call.events
    ] == [("turnscope.retried", 1), ("turnscope.retried", 2)]
    first = next(span for span in told.spans if span.name == "chat gpt-test")
    (event,) = first.events
    assert (event.attributes or {})["error.type"] == "ModelError"


def test_metrics_count_tokens_and_time_operations(any_loop: Loop) -> None:
    told = Told()

    @tool
    async def works() -> str:
        return "fine"

    ran(any_loop, told, Agent(tools=[works]), answer(ask("works")), answer(text="done"))
    points = list(told.points())
    tokens = {
        point.attributes["gen_ai.token.type"]: point.sum
        for name, point in points
        if name == "gen_ai.client.token.usage"
    }
    assert tokens == {"input": 20, "output": 10}
    timed = {
        point.attributes["gen_ai.operation.name"]: point.count
        for name, point in points
        if name == "gen_ai.client.operation.duration"
    }
    assert timed == {"invoke_agent": 1, "chat": 2, "execute_tool": 1}
    asked = {"invoke_agent", "chat"}  # the conventions want a provider for these
    for name, point in points:
        if name.startswith("gen_ai.client.") and point.attributes["gen_ai.operation.name"] in asked:
            assert point.attributes["gen_ai.provider.name"] == "openai"
    (first,) = [p for name, p in points if name == "gen_ai.client.operation.time_to_first_chunk"]
    assert first.count == 1 and 0 <= first.sum < math.inf


@pytest.mark.parametrize("told_of", [True, False])
def test_spans_of_a_worker_process_are_below_their_calls(
    told_of: bool, any_loop: Loop, tmp_path: Path
) -> None:
    told = Told()
    calls = [
        ToolCall(name, "work", json.dumps({"path": str(tmp_path / name)}))
        for name in ("one", "two")
    ]
    backend = ProcessBackend(carry=carried_span if told_of else None)
    script = answer(*calls), answer(ToolCall("three", "work", calls[0].arguments)), answer()
    ran(any_loop, told, Agent(tools=[work]), *script, backends=[backend])
    spans = {
        (span.attributes or {})["gen_ai.tool.call.id"]: span.context
        for span in told.spans
        if span.name == "execute_tool work"
    }
    made = {
        name: [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("one", "two")
    }
    assert [len(made["one"]), len(made["two"])] == [2, 1]
    # A worker is used again: nothing of a call's span is left for the next.
    for span, call in zip([*made["one"], *made["two"]], ["one", "three", "two"], strict=True):
        above = spans[call]
        assert above is not None
        if told_of:
            assert span["parent_id"] == f"0x{above.span_id:016x}"
            assert span["context"]["trace_id"] == f"0x{above.trace_id:032x}"
        else:
            assert span["parent_id"] is None


def test_a_carried_span_is_current_in_its_block_alone_and_without_one_nothing_is() -> None:
    assert carried_span() is None
    with Told().tracer.start_as_current_span("a") as span:
        there = pickle.loads(pickle.dumps(carried_span()))
    with there:
        found = trace.get_current_span().get_span_context()
        assert found.span_id == span.get_span_context().span_id and found.is_remote
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_without_the_package_it_is_said_what_to_install() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import turnscope_adapters.otel"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.endswith("needs opentelemetry-api: pip install 'turnscope[otel]'\n")


def test_without_it_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys, turnscope, turnscope_adapters; "
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
