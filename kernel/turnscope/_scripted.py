"""A model that answers from a script: for tests of agents, without a network.

It streams the same events as a real adapter, so all of the kernel is at work. Above: `testing`.
Below: the port.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, cast

import anyio
import attrs

from ._calls import ToolCall
from ._errors import ModelError
from ._messages import Usage
from .abc import ModelRequest, OutputSchema
from .events import CallDelta, CallSealed, ModelEvent, ModelFinished, TextDelta


def _timed(
    events: Iterable[tuple[float, ModelEvent | BaseException]],
) -> tuple[tuple[float, ModelEvent | BaseException], ...]:
    timed = tuple(events)
    for (before, _), (after, event) in zip(((0.0, None), *timed), timed, strict=False):
        if not after >= before:
            raise ValueError(
                f"Stream: {event!r} comes at {after!r} s, before the one in front of it: the times "
                "are seconds from the start of the stream"
            )
    return timed


@attrs.frozen
class Stream:
    """A response event by event, each at its time: ``Stream([(0.1, TextDelta("Hi")), ...])``.

    The times are seconds from the start of the stream, and never go back. An exception in the place
    of an event is raised there. Nothing is added: without `ModelFinished` the response fails.
    Raises ValueError for a time before the one in front of it.
    """

    events: tuple[tuple[float, ModelEvent | BaseException], ...] = attrs.field(converter=_timed)


Answer: TypeAlias = "str | ToolCall | Sequence[str | ToolCall] | Stream | BaseException"
"""Text; calls; text and calls; a stream; an exception to raise."""

Script: TypeAlias = "Answer | Callable[[ModelRequest], Answer | Awaitable[Answer]]"


class ScriptedModel:
    """Answers each request with the next item of a script; remembers what it was asked.

    ::

        model = ScriptedModel([
            [ToolCall("c1", "weather", {"city": "Beijing"})],
            lambda request: f"It is {request.history.results[-1].content}.",
        ])

    script: for each request in the order in which they come a text, a list of texts and ToolCalls,
    a `Stream`, an exception to raise, or a function, async or not, of the `ModelRequest` that
    gives one of these; or one such function for all requests.
    usage: what each response that is no Stream reports.
    takes_output: whether an agent with ``output=Type`` is answered in text, which is JSON; else it
    is by a ToolCall of "final_answer".

    A request beyond the script fails with ModelError.
    """

    def __init__(
        self,
        script: Iterable[Script] | Callable[[ModelRequest], Answer | Awaitable[Answer]],
        *,
        usage: Usage | None = None,
        takes_output: bool = False,
    ) -> None:
        if isinstance(script, str):
            raise TypeError("ScriptedModel takes a list of answers: ScriptedModel([text])")
        self._script: list[Script] | None = None if callable(script) else list(script)
        self._always = script if callable(script) else None
        self._usage = Usage() if usage is None else usage
        self._takes_output = takes_output
        self.requests: list[ModelRequest] = []
        """What was asked, in order."""

    def takes_output(self, output: OutputSchema, /) -> bool:
        """What the script was made to say."""
        return self._takes_output

    @asynccontextmanager
    async def stream(self, request: ModelRequest, /) -> AsyncGenerator[AsyncGenerator[ModelEvent]]:
        """Answer *request* with the next item of the script."""
        self.requests.append(request)
        answer = self._next()
        if callable(answer):
            said = answer(request)
            answer = await said if inspect.isawaitable(said) else said
        if isinstance(answer, BaseException):
            raise answer
        events = self._streamed(answer) if isinstance(answer, Stream) else self._at_once(answer)
        try:
            yield events
        finally:
            await events.aclose()

    def _next(self) -> Script:
        if self._always is not None:
            return self._always
        assert self._script is not None  # because it is one or the other
        if len(self.requests) > len(self._script):
            raise ModelError(
                f"the script has {len(self._script)} answers, and this is request "
                f"{len(self.requests)}: add what the model shall answer to it"
            )
        return self._script[len(self.requests) - 1]

    async def _streamed(self, stream: Stream) -> AsyncGenerator[ModelEvent]:
        start = anyio.current_time()
        for after, event in stream.events:
            await anyio.sleep_until(start + after)
            if isinstance(event, BaseException):
                raise event
            yield event

    async def _at_once(
        self, answer: str | ToolCall | Sequence[str | ToolCall]
    ) -> AsyncGenerator[ModelEvent]:
        parts = [answer] if isinstance(answer, (str, ToolCall)) else answer
        if isinstance(parts, (bytes, Mapping)) or not isinstance(parts, Iterable):
            raise TypeError(
                "a scripted answer is text, a ToolCall, a list of these, a Stream or an exception, "
                f"not {type(parts).__name__}"
            )
        for event in _events(parts, self._usage):
            yield event


def _events(parts: Sequence[str | ToolCall], usage: Usage) -> Iterator[ModelEvent]:
    calls = 0
    for part in parts:
        if isinstance(part, str):
            yield TextDelta(part)
        elif isinstance(cast("object", part), ToolCall):
            yield CallDelta(calls, part.id, part.name, _text(part.arguments))
            yield CallSealed(calls)
            calls += 1
        else:
            raise TypeError(
                f"a scripted answer is made of text and ToolCalls, not {type(part).__name__}"
            )
    yield ModelFinished("calls" if calls else "stop", usage)


def _text(arguments: Any) -> str:
    if isinstance(arguments, bytes):
        return arguments.decode("utf-8", "replace")
    return arguments if isinstance(arguments, str) else json.dumps(dict(arguments))
