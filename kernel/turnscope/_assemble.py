"""From a model's events to one response with whole calls. Sans-I/O: events go in, nothing awaits.

Servers differ in what they repeat, omit and cut; adapters say what the protocol says, and here it
becomes a response that may enter a history: calls in call order, each with an id of its own, a name
and arguments that every provider takes back. Above: the request. Below: the values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Set
from heapq import heappop, heappush
from typing import Final, cast

import attrs

from ._calls import ToolCall, UnfrozenCall
from ._errors import ModelError
from ._messages import AssistantMessage, Reasoning, Usage
from ._record import frozen
from ._stored import encodable, is_object, wrapped
from .events import (
    CallDelta,
    CallSealed,
    FellBack,
    FinishReason,
    ModelEvent,
    ModelFinished,
    ReasoningDelta,
    TextDelta,
)

# What every provider takes as the name of a function in a conversation.
_LONGEST_NAME: Final = 64
_NAME: Final = re.compile(rf"[a-zA-Z0-9_-]{{1,{_LONGEST_NAME}}}")
_NOT_IN_NAMES: Final = re.compile(r"[^a-zA-Z0-9_-]")

REFUSED: Final = ("refusal", "filtered")
"""The ends of responses by whose calls nobody stands."""


@attrs.define
class _Growing:
    """A call whose arguments are still coming."""

    id: str
    name: str
    arguments: list[str]
    sealed: bool = False


@attrs.define
class Response:
    """What a model answered, whole."""

    message: AssistantMessage
    """As it enters the history."""
    calls: tuple[ToolCall, ...]
    """As they are run: with the names and arguments that the model gave."""
    reason: FinishReason
    usage: Usage


class Assembler:
    """Takes the events of one response; gives the response when it is complete.

    Raises ModelError for events that make no response: a call without a name, a piece of a call
    that was sealed, a call that begins after a later one was sealed, a usage that is not in
    numbers, anything after `ModelFinished`, and a stream that ends without it.
    """

    __slots__ = (
        "_begun",
        "_calls",
        "_finished",
        "_ids",
        "_last_sealed",
        "_made",
        "_reasoning",
        "_text",
        "_thinking",
    )

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[Reasoning] = []
        self._thinking: list[str] = []
        self._calls: dict[int, _Growing] = {}
        self._begun: list[int] = []
        """A heap: the indexes of those that have not been made yet."""
        self._last_sealed: float = -math.inf
        self._made: list[ToolCall] = []
        self._ids: set[str] = set()
        self._finished: ModelFinished | None = None

    def feed(self, event: ModelEvent) -> None:
        """Take the next event."""
        if self._finished is not None:
            raise ModelError(f"the model streamed {type(event).__name__} after ModelFinished")
        # By isinstance, since class patterns take twice as long, and there are many pieces.
        if isinstance(event, CallDelta):
            self._grow(event)
        elif isinstance(event, CallSealed):
            self._seal(event.index)
        elif isinstance(event, TextDelta):
            self._text.append(event.text)
        elif isinstance(event, ReasoningDelta):
            self._thinking.append(event.text)
            if event.opaque is not None:
                self._thought(event.opaque)
        elif isinstance(event, ModelFinished):
            _check_numbers(event.usage)
            self._finished = event
        elif not isinstance(cast("object", event), FellBack):
            raise ModelError(f"the model streamed a {type(event).__name__}, no ModelEvent")

    def _grow(self, delta: CallDelta) -> None:
        call = self._calls.get(delta.index)
        if call is None:
            if delta.index < self._last_sealed:
                raise ModelError(
                    f"the model began a call, {delta.index}, after it had ended a later one, "
                    f"{self._last_sealed}"
                )
            growing = _Growing(delta.id or "", delta.name or "", [delta.arguments])
            self._calls[delta.index] = growing
            heappush(self._begun, delta.index)
            return
        if call.sealed:
            raise ModelError(f"the model streamed more of call {delta.index} after its end")
        call.id = call.id or delta.id or ""
        call.name = call.name or delta.name or ""
        call.arguments.append(delta.arguments)

    def _seal(self, index: int) -> None:
        call = self._calls.get(index)
        if call is None:
            raise ModelError(f"the model ended a call, {index}, that it had not begun")
        call.sealed = True
        if index > self._last_sealed:
            self._last_sealed = index

    def _thought(self, opaque: object = None) -> None:
        self._reasoning.append(Reasoning(encodable("".join(self._thinking)), opaque))
        self._thinking.clear()

    @property
    def usage(self) -> Usage:
        """What the response has used, as far as that was reported."""
        return Usage() if self._finished is None else self._finished.usage

    @property
    def _cut(self) -> bool:
        return self._finished is not None and self._finished.reason == "length"

    def whole(self, taken: Callable[[str], bool]) -> list[ToolCall]:
        """The calls that are whole by now, each once: sealed, as is every one before it.

        They are those of the response, if it comes to its end and nobody refuses: none can begin
        before them. *taken* says whether an id is in use.
        """
        made: list[ToolCall] = []
        while self._begun and (call := self._calls[self._begun[0]]).sealed and call.name:
            made.append(self._make(heappop(self._begun), taken))
        return made

    def _make(self, index: int, taken: Callable[[str], bool]) -> ToolCall:
        growing, ids = self._calls[index], self._ids
        call_id, name, arguments = growing.id, growing.name, "".join(growing.arguments)
        if not name:
            raise ModelError(f"the model asked for a call, {index}, without a tool's name")
        # To ask `encodable` of each was a twentieth of all that a call costs here.
        if not (call_id.isascii() and name.isascii() and arguments.isascii()):
            call_id, name, arguments = encodable(call_id), encodable(name), encodable(arguments)
        arguments = arguments.strip()
        if not arguments and (growing.sealed or not self._cut):  # else none may have come yet
            arguments = "{}"
        if not call_id or call_id in ids or taken(call_id):
            call_id = _own_id(call_id, ids, taken)
        ids.add(call_id)
        call = frozen(UnfrozenCall(call_id, name, arguments), ToolCall)
        self._made.append(call)
        return call

    def finish(self, taken: Callable[[str], bool]) -> Response:
        """The response, after the stream has ended; *taken* says whether an id is in use."""
        finished = self._finished
        if finished is None:
            raise ModelError("the model's stream ended before the response was complete")
        if any(self._thinking):
            self._thought()
        calls: tuple[ToolCall, ...] = ()
        if finished.reason not in REFUSED:
            while self._begun:
                self._make(heappop(self._begun), taken)
            calls = tuple(self._made)
        message = AssistantMessage(
            text=encodable("".join(self._text)),
            calls=tuple([_sendable(call) for call in calls]),
            reasoning=tuple(self._reasoning),
        )
        return Response(message, calls, finished.reason, finished.usage)


def _check_numbers(usage: Usage) -> None:
    counts = usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens
    try:
        sum(counts)
    except TypeError:
        raise ModelError(f"the model reported {counts} tokens, which are no numbers") from None


def _own_id(given: str, ids: Set[str], taken: Callable[[str], bool]) -> str:
    """An id like *given*, which is empty or taken, that is neither; *ids* are taken too."""
    number = 1
    while (made := f"{given or 'call'}-{number}") in ids or taken(made):
        number += 1
    return made


def _sendable(call: ToolCall) -> ToolCall:
    """*call* as a provider takes it back: it may refuse a name or arguments that its model made.

    What could not be read is kept as text, so that the model sees what it had written.
    """
    readable = is_object(call.arguments)
    if readable and _NAME.fullmatch(call.name):
        return call
    name = _NOT_IN_NAMES.sub("_", call.name)[:_LONGEST_NAME]
    return ToolCall(call.id, name, call.arguments if readable else wrapped(str(call.arguments)))
