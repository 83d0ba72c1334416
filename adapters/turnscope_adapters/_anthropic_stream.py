"""From the events of a Messages stream to ModelEvents. Sans-I/O: events in, events out.

A response is blocks, one after the other: text, calls, thoughts, and kinds that this reader does
not know, which it passes over. Above: `anthropic`. Below: `_sse` for the events, `_chunks` for the
JSON in them, `_anthropic_thinking` for what is kept of a thought, `_server_words` for what a server
says when it fails.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, cast

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

from ._anthropic_thinking import kept
from ._chunks import Malformed, object_in, parsed, text_in, unfinished, unreadable
from ._server_words import Secret, shown, status_of, words_of
from ._sse import ServerEvent

# What is not named here, as "end_turn" and "stop_sequence", is a response that is complete.
_REASONS: Final[Mapping[str, FinishReason]] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}
# An error within a stream names its kind where a refusal has a status.
_STATUSES: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


@attrs.define(eq=False)
class _Block:
    """A block as far as it has come."""

    kind: str
    call: int | None = None
    """Of a call: which one, counted as they begin."""
    name: str = ""
    given: str = ""
    """Of a call: arguments that came with its beginning, as JSON; they count if none come after."""
    begun: bool = False
    """Of a call: whether any of its arguments have come."""
    signature: str = ""
    """Of a thought."""
    place: tuple[int, int] = (0, 0)
    """Of a thought: how many characters of text, and how many calls, came before it."""
    ended: bool = False


class MessageReader:
    """Takes the events of one response, gives ModelEvents, `finish` the last of them.

    A call is sealed when its block stops or the next one starts; one of which no arguments have
    come when the next one starts, or the response ends by itself: it could have been cut there.
    Raises ModelError for an event that is not what the protocol says, with its beginning; for an
    error that the server reports in the stream, with its words; for more of a call after its end;
    for a response that waits for tools of the server's own; and in `finish`, for a response that
    was not complete.
    """

    def __init__(self, secret: Secret) -> None:
        self._secret = secret
        self._blocks: dict[int, _Block] = {}
        """By the server's index."""
        self._open: list[_Block] = []
        """Those that have not ended: one, from a server that keeps to the protocol."""
        self._calls = 0
        self._text = 0
        """Characters of text so far."""
        self._reason: FinishReason | None = None
        self._counts: dict[str, int] = {}
        self.done: bool = False
        """Whether the server has said that nothing follows."""

    @property
    def complete(self) -> bool:
        """Whether the response is whole: the server has said why it ended."""
        return self.done or self._reason is not None

    def read(self, event: ServerEvent) -> list[ModelEvent]:
        """What *event* adds to the response."""
        text = event.data.strip()
        if not text or self.done or event.name == "ping":
            return []
        made: list[ModelEvent] = []
        try:
            chunk = parsed(text)
            kind = text_in(chunk.get("type")) or event.name
            if kind == "error" or event.name == "error" or chunk.get("error"):
                raise ModelError(
                    f"the server failed within its answer: {words_of(text, self._secret)}",
                    status=_status(chunk),
                )
            self._take(kind, chunk, made)
        except Malformed as exc:
            raise unreadable(exc, text, self._secret) from None
        return made

    def finish(self) -> list[ModelEvent]:
        """What the end of the stream adds to the response."""
        if not self.complete:
            raise unfinished()
        made: list[ModelEvent] = []
        reason = self._reason or "stop"
        self._end_all(made, cut=reason != "stop")
        if reason == "stop" and self._calls:
            reason = "calls"
        made.append(ModelFinished(reason, self._usage()))
        return made

    def _take(self, kind: str, chunk: Mapping[str, Any], made: list[ModelEvent]) -> None:
        if kind == "content_block_delta":
            delta = object_in(chunk.get("delta"))
            block = self._blocks.get(_index(chunk))
            if block is None:
                raise Malformed("a piece of a block that has not begun")
            self._grow(block, text_in(delta.get("type")), delta, made)
        elif kind == "content_block_start":
            self._end_all(made)
            block = self._begin(object_in(chunk.get("content_block")), made)
            self._blocks[_index(chunk)] = block
            self._open.append(block)
        elif kind == "content_block_stop":
            block = self._blocks.get(_index(chunk))
            if block is not None and (block.call is None or block.begun or block.given):
                self._end(block, made)
        elif kind == "message_start":
            self._count(object_in(object_in(chunk.get("message")).get("usage")))
        elif kind == "message_delta":
            self._count(object_in(chunk.get("usage")))
            reason = text_in(object_in(chunk.get("delta")).get("stop_reason"))
            if reason == "pause_turn":
                raise ModelError(
                    "the server paused its answer in the middle of tools that it runs itself "
                    "(pause_turn), which cannot be gone on with: leave those tools out of the "
                    "settings, or give them less to do"
                )
            if reason:
                self._reason = _REASONS.get(reason, "stop")
                self._end_all(made, cut=self._reason != "stop")
        elif kind == "message_stop":
            self.done = True

    def _begin(self, given: Mapping[str, Any], made: list[ModelEvent]) -> _Block:
        kind = text_in(given.get("type"))
        if not kind:
            raise Malformed("a block without a type")
        block = _Block(kind, place=(self._text, self._calls))
        if kind == "tool_use":
            block.call, block.name = self._calls, text_in(given.get("name"))
            self._calls += 1
            if given.get("input"):
                block.given = json.dumps(object_in(given["input"]), ensure_ascii=False)
            made.append(CallDelta(block.call, text_in(given.get("id")) or None, block.name or None))
        elif kind == "text":
            self._say(text_in(given.get("text")), made)
        elif kind == "thinking":
            block.signature = text_in(given.get("signature"))
            self._think(text_in(given.get("thinking")), made)
        elif kind == "redacted_thinking":
            whole = {"type": kind, "data": text_in(given.get("data"))}
            made.append(ReasoningDelta("", kept(whole, *block.place)))
        return block

    def _grow(
        self, block: _Block, kind: str, delta: Mapping[str, Any], made: list[ModelEvent]
    ) -> None:
        if not kind:
            raise Malformed("a piece without a type")
        if block.call is not None and kind == "input_json_delta":
            arguments = text_in(delta.get("partial_json"))
            if block.ended and arguments.strip():
                raise ModelError(
                    f"the server went on with the call of {shown(block.name, self._secret)!r} "
                    "after its end, or after it had begun another; its calls cannot be told apart"
                )
            if arguments and not block.ended:
                block.begun = True
                made.append(CallDelta(block.call, arguments=arguments))
        elif block.kind == "text" and kind == "text_delta":
            self._say(text_in(delta.get("text")), made)
        elif block.kind == "thinking" and not block.ended:
            if kind == "thinking_delta":
                self._think(text_in(delta.get("thinking")), made)
            elif kind == "signature_delta":
                block.signature = text_in(delta.get("signature"))

    def _say(self, text: str, made: list[ModelEvent]) -> None:
        if text:
            self._text += len(text)
            made.append(TextDelta(text))

    def _think(self, text: str, made: list[ModelEvent]) -> None:
        if text:
            made.append(ReasoningDelta(text))

    def _end_all(self, made: list[ModelEvent], cut: bool = False) -> None:
        """End every block: the next one has begun, or the response has ended.

        Not the calls of one that was *cut*: it is not known that they are whole.
        """
        for block in self._open:
            if not cut or block.call is None:
                self._end(block, made)
        self._open.clear()

    def _end(self, block: _Block, made: list[ModelEvent]) -> None:
        if block.ended:
            return
        block.ended = True
        if block.call is not None:
            if block.given and not block.begun:
                made.append(CallDelta(block.call, arguments=block.given))
            made.append(CallSealed(block.call))
        elif block.kind == "thinking":
            # Also without a signature: the next thought must not be taken for more of this one.
            whole = {"type": "thinking", "signature": block.signature}
            made.append(ReasoningDelta("", kept(whole, *block.place)))

    def _count(self, usage: Mapping[str, Any]) -> None:
        """Take note of counts, which are of all so far: the last of each counts."""
        details = object_in(usage.get("output_tokens_details"))
        for field, count in (*usage.items(), *details.items()):
            if isinstance(count, int):
                self._counts[field] = count

    def _usage(self) -> Usage:
        def counted(*fields: str) -> int:
            return sum(self._counts.get(field, 0) for field in fields)

        written, cached = "cache_creation_input_tokens", "cache_read_input_tokens"
        return Usage(
            input_tokens=counted("input_tokens", written, cached),
            output_tokens=counted("output_tokens"),
            cached_tokens=counted(cached),
            reasoning_tokens=counted("thinking_tokens"),
        )


def _status(chunk: Mapping[str, Any]) -> int | None:
    """The HTTP status that an error within a stream stands for, if it says so."""
    error: object = chunk.get("error")
    for place in (cast("dict[str, object]", error) if isinstance(error, dict) else {}, chunk):
        status = _STATUSES.get(str(place.get("type")))
        if status is not None:
            return status
    return status_of(chunk)


def _index(chunk: Mapping[str, Any]) -> int:
    index = chunk.get("index")
    if not isinstance(index, int):
        raise Malformed("a block without an index")
    return index
