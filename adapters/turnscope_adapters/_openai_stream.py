"""From the chunks of a Chat Completions stream to ModelEvents. Sans-I/O: events in, events out.

Servers that speak this protocol differ: in what they repeat and omit, in ids and indexes that are
constant or missing, in where the usage comes. What is read here is what most of them mean. Above:
`openai`. Below: `_sse` for the events, `_chunks` for the JSON in them, `_server_words` for what a
server says when it fails.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import attrs

from turnscope import ModelError, Usage
from turnscope.events import (
    CallDelta,
    CallSealed,
    FinishReason,
    ModelEvent,
    ModelFinished,
    ReasoningDelta,
    TextDelta,
)

from ._chunks import (
    Malformed,
    count,
    object_in,
    objects_in,
    parsed,
    text_in,
    unfinished,
    unreadable,
)
from ._server_words import Secret, shown, status_of, words_of
from ._sse import ServerEvent

# What is not named here, and there are many words for it, is a response that is complete.
_REASONS: Final[Mapping[str, FinishReason]] = {
    "length": "length",
    "max_tokens": "length",
    "content_filter": "filtered",
    "sensitive": "filtered",
    "refusal": "refusal",
}
_FAILURES: Final = frozenset({"error", "network_error", "insufficient_system_resource"})


@attrs.define(eq=False)
class _Call:
    """A call as far as it has come."""

    index: int
    """Ours: calls are counted as they begin."""
    wire: int | None
    """The server's, which may be missing, or the same for all."""
    id: str
    name: str
    arguments: list[str] = attrs.field(factory=list[str])
    sealed: bool = False

    def is_continued_by(self, call_id: str, name: str, arguments: str) -> bool:
        """Whether a piece that could be of this call is, rather than the beginning of another."""
        if not name:
            return True  # only the first piece of a call has to have it
        if call_id and self.id and call_id != self.id:
            return False
        if name != self.name and self.name:
            return False
        # A name that is repeated in each piece, or another call of the same tool from a server
        # that tells its calls apart by nothing else? No JSON goes on with { after its last }.
        if not arguments.lstrip().startswith("{") or not self.arguments:
            return True
        return not (self.arguments[-1].rstrip().endswith("}") and self._is_whole())

    def _is_whole(self) -> bool:
        try:
            json.loads("".join(self.arguments))
        except (ValueError, RecursionError):
            return False
        return True


class ChatReader:
    """Takes the events of one response, gives ModelEvents, `finish` the last of them.

    Of several choices it reads the first. Raises ModelError for a chunk that is not what the
    protocol says, with its beginning; for an error that the server reports in the stream, with its
    words; for more of a call after the next one has begun; and in `finish`, for a response that
    was not complete.
    """

    def __init__(self, secret: Secret) -> None:
        self._secret = secret
        self._calls: list[_Call] = []
        self._reason: FinishReason | None = None
        self._refused = False
        self._usage = Usage()
        self.done: bool = False
        """Whether the server has said that nothing follows."""

    @property
    def complete(self) -> bool:
        """Whether the response is whole; what may follow is how much it has used."""
        return self._reason is not None

    def read(self, event: ServerEvent) -> list[ModelEvent]:
        """What *event* adds to the response."""
        text = event.data.strip()
        if text == "[DONE]":
            self.done = True
        if not text or self.done:
            return []
        try:
            chunk = parsed(text)
            if event.name == "error" or chunk.get("error") or chunk.get("object") == "error":
                raise ModelError(
                    f"the server failed within its answer: {words_of(text, self._secret)}",
                    status=status_of(chunk),
                )
            if usage := chunk.get("usage"):
                self._usage = _usage(object_in(usage))
            made: list[ModelEvent] = []
            for choice in objects_in(chunk.get("choices")):
                if not choice.get("index"):
                    self._choice(choice, made)
        except Malformed as exc:
            raise unreadable(exc, text, self._secret) from None
        return made

    def finish(self) -> list[ModelEvent]:
        """What the end of the stream adds to the response."""
        if self._reason is None:
            raise unfinished()
        made: list[ModelEvent] = []
        self._seal(made)
        reason: FinishReason = "refusal" if self._refused else self._reason
        if reason == "stop" and self._calls:
            reason = "calls"
        made.append(ModelFinished(reason, self._usage))
        return made

    def _choice(self, choice: Mapping[str, Any], made: list[ModelEvent]) -> None:
        # A proxy that only pretends to stream sends one chunk, with the message of an answer in it.
        # Beside a delta it is all that was said so far.
        delta = object_in(choice["delta"] if "delta" in choice else choice.get("message"))
        for field in ("reasoning_content", "reasoning"):
            thought = delta.get(field)
            if isinstance(thought, str) and thought:
                made.append(ReasoningDelta(thought))
                break  # a server that gives both gives the same
        if text := text_in(delta.get("content")):
            made.append(TextDelta(text))
        if refusal := text_in(delta.get("refusal")):
            self._refused = True
            made.append(TextDelta(refusal))
        for piece in objects_in(delta.get("tool_calls")):
            self._piece(piece, object_in(piece.get("function")), made)
        if legacy := delta.get("function_call"):
            self._piece({}, object_in(legacy), made)
        if reason := text_in(choice.get("finish_reason")):
            if reason in _FAILURES:
                raise ModelError(
                    f"the server ended its answer with {shown(reason, self._secret)!r}; ask again",
                    transient=True,
                )
            self._reason = _REASONS.get(reason, "stop")
            self._seal(made)

    def _piece(
        self, piece: Mapping[str, Any], function: Mapping[str, Any], made: list[ModelEvent]
    ) -> None:
        call_id, name = text_in(piece.get("id")), text_in(function.get("name"))
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments, ensure_ascii=False)
        arguments = text_in(arguments)
        wire = piece.get("index")
        call = self._candidate(wire, call_id)
        if call is None or not call.is_continued_by(call_id, name, arguments):
            for before in self._calls:
                before.sealed = self._sealed(before, made)
            index = wire if isinstance(wire, int) else None
            call = _Call(len(self._calls), index, call_id, name)
            self._calls.append(call)
            made.append(CallDelta(call.index, call_id or None, name or None, arguments))
        elif call.sealed:
            if arguments.strip():
                raise ModelError(
                    f"the server went on with the call of {shown(call.name, self._secret)!r} after "
                    "it had begun another, or had ended its answer; its calls cannot be told apart"
                )
            return
        elif arguments or (name and not call.name) or (call_id and not call.id):
            made.append(CallDelta(call.index, call_id or None, name or None, arguments))
            call.id, call.name = call.id or call_id, call.name or name
        if arguments:
            call.arguments.append(arguments)

    def _candidate(self, wire: object, call_id: str) -> _Call | None:
        """The call that a piece would go on with, the latest one if there are several."""
        if isinstance(wire, int):
            return next((call for call in reversed(self._calls) if call.wire == wire), None)
        same = (call for call in reversed(self._calls) if call_id and call.id == call_id)
        return next(same, self._calls[-1] if self._calls else None)

    def _seal(self, made: list[ModelEvent]) -> None:
        """Seal the last call too, unless the response was cut: it is not known to be whole then."""
        if self._reason == "stop":
            for call in self._calls:
                call.sealed = self._sealed(call, made)

    @staticmethod
    def _sealed(call: _Call, made: list[ModelEvent]) -> bool:
        if not call.sealed:
            made.append(CallSealed(call.index))
        return True


def _usage(given: Mapping[str, Any]) -> Usage:
    return Usage(
        input_tokens=count(given, "prompt_tokens"),
        output_tokens=count(given, "completion_tokens"),
        cached_tokens=count(given, "cached_tokens", "prompt_tokens_details"),
        reasoning_tokens=count(given, "reasoning_tokens", "completion_tokens_details"),
    )
