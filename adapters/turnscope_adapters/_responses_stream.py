"""From the events of a Responses stream to ModelEvents. Sans-I/O: events in, events out.

Above: `openai`. Below: `_responses_growing` for the items that a response is made of,
`_responses_items` for those that are kept, `_sse` for the events, `_server_words` for what a server
says when it fails.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

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
from ._responses_growing import (
    GrowingItem,
    GrowingItems,
    arguments_in,
    same_json,
    thoughts_in,
)
from ._responses_items import Kept
from ._server_words import Secret, status_of, words_of
from ._sse import ServerEvent

# What the server's words for a failure would be as an HTTP status, where that says more.
_STATUSES: Final = {
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "server_is_overloaded": 503,
    "slow_down": 503,
    "vector_store_timeout": 504,
}
_LASTING: Final = frozenset({"insufficient_quota"})
_ENDS: Final = ("completed", "incomplete", "failed", "cancelled")
_FINAL: Final = frozenset(f"response.{end}" for end in _ENDS)
# Items that are questions to the client. Only functions are offered, so somebody's settings were.
_UNANSWERED: Final = frozenset(
    {
        "apply_patch_call",
        "computer_call",
        "custom_tool_call",
        "local_shell_call",
        "mcp_approval_request",
    }
)


class ResponsesReader:
    """Takes the events of one response, gives ModelEvents, `finish` the last of them.

    Kinds of events that it does not know say nothing. Raises ModelError for an event that is not
    what the protocol says, with its beginning; for the failure of a response, with the server's
    words; for more of a call that is done; for a call that nobody here can answer; and in
    `finish`, for a response that was not complete.
    """

    def __init__(self, secret: Secret, host: str) -> None:
        self._secret = secret
        self._host = host
        self._items = GrowingItems()
        self._text = 0
        """Characters of text so far."""
        self._calls = 0
        self._phase: object = None
        """Of the last message: whether it is the answer, or said on the way to it."""
        self._reason: FinishReason | None = None
        self._refused = False
        self._usage = Usage()
        self.done: bool = False
        """Whether the server has said that nothing follows."""

    @property
    def complete(self) -> bool:
        """Whether the response is whole."""
        return self._reason is not None

    def read(self, event: ServerEvent) -> list[ModelEvent]:
        """What *event* adds to the response."""
        text = event.data.strip()
        if text == "[DONE]":
            self.done = True
        if not text or self.done:
            return []
        made: list[ModelEvent] = []
        try:
            body = parsed(text)
            kind = text_in(body.get("type")) or event.name
            unnamed = not kind and (body.get("error") or body.get("object") == "error")
            if kind == "error" or unnamed:
                raise self._failed(body, text)
            if kind in _FINAL:
                self._final(kind, object_in(body.get("response")), made)
            else:
                self._event(kind, body, made)
        except Malformed as exc:
            raise unreadable(exc, text, self._secret) from None
        return made

    def finish(self) -> list[ModelEvent]:
        """What the end of the stream adds to the response."""
        if self._reason is None:
            raise unfinished()
        reason: FinishReason = "refusal" if self._refused else self._reason
        if reason == "stop" and self._calls:
            reason = "calls"
        return [ModelFinished(reason, self._usage)]

    def _event(self, kind: str, body: Mapping[str, Any], made: list[ModelEvent]) -> None:
        match kind.removeprefix("response."):
            case "output_item.added":
                self._begin(object_in(body.get("item")), body, made)
            case "output_item.done":
                self._end(object_in(body.get("item")), body, made)
            case "function_call_arguments.delta":
                self._grow(body, text_in(body.get("delta")), made)
            case "function_call_arguments.done":
                call = self._items.of_event("function_call", body)
                if call is not None and not call.done:
                    self._seal(call, body, made)
            case "output_text.delta" | "refusal.delta":
                self._say(body, text_in(body.get("delta")), kind, made)
            case "reasoning_summary_text.delta" | "reasoning_text.delta":
                self._think(body, text_in(body.get("delta")), made)
            case _:
                pass

    def _final(self, kind: str, response: Mapping[str, Any], made: list[ModelEvent]) -> None:
        status = kind.removeprefix("response.")
        if status == "completed" and response.get("status") in _ENDS:
            status = str(response["status"])
        if status in ("failed", "cancelled") or response.get("error"):
            body = {"error": response.get("error") or f"the response was {status}"}
            raise self._failed(body, json.dumps(body))
        if usage := response.get("usage"):
            self._usage = _usage(object_in(usage))
        if status == "incomplete":
            details = object_in(response.get("incomplete_details"))
            filtered = text_in(details.get("reason")) == "content_filter"
            self._reason = "filtered" if filtered else "length"
        else:
            self._reason = "stop"
        if not (self._text or self._calls):  # some servers say it all at once, in the end
            for item in objects_in(response.get("output")):
                self._end(item, {}, made)
        if self._reason == "stop":  # else a call is not known to be whole
            for call in self._items.unsealed():
                self._seal(call, {}, made)
        self.done = True

    def _failed(self, body: Mapping[str, Any], text: str) -> ModelError:
        error = body["error"] if isinstance(body.get("error"), dict) else body
        code = str(error.get("code") or error.get("type") or "")
        return ModelError(
            f"the server failed within its answer: {words_of(text, self._secret)}",
            status=_STATUSES.get(code) or status_of(body),
            transient=False if code in _LASTING else None,
        )

    def _begin(
        self, item: Mapping[str, Any], body: Mapping[str, Any], made: list[ModelEvent]
    ) -> GrowingItem:
        begun = self._items.begin(item, body, self._text, self._calls)
        if begun.kind == "function_call":
            self._calls += 1
            name, call_id = text_in(item.get("name")), begun.call_id or begun.id
            made.append(CallDelta(begun.calls_before, call_id or None, name or None))
        elif begun.kind in _UNANSWERED:
            raise ModelError(
                f"the model made a {begun.kind}, which nobody here can answer: offer it no tools "
                "in settings= but such as the server runs by itself"
            )
        return begun

    def _grow(self, body: Mapping[str, Any], piece: str, made: list[ModelEvent]) -> None:
        call = self._items.of_event("function_call", body)
        if call is None:
            raise Malformed("arguments of a call that has not begun")
        if call.done:
            if piece.strip():
                raise ModelError(
                    "the server went on with a call after it had ended it; its calls cannot be "
                    "told apart"
                )
        elif piece:
            call.streamed = True
            call.pieces.append(piece)
            made.append(CallDelta(call.calls_before, arguments=piece))

    def _seal(self, call: GrowingItem, body: Mapping[str, Any], made: list[ModelEvent]) -> None:
        """The call is whole; *body* may say once more what its arguments are."""
        whole, streamed = arguments_in(body) or call.arguments, "".join(call.pieces)
        if whole.startswith(streamed):
            if len(whole) > len(streamed):
                made.append(CallDelta(call.calls_before, arguments=whole[len(streamed) :]))
        elif whole.strip() and not same_json(whole, streamed):
            raise Malformed("these are not the arguments that were streamed before")
        call.done = True
        made.append(CallSealed(call.calls_before))

    def _end(
        self, item: Mapping[str, Any], body: Mapping[str, Any], made: list[ModelEvent]
    ) -> None:
        kind = text_in(item.get("type"))
        found = self._items.ended(item, body)
        if found is None:  # one that comes all at once
            found = self._begin(item, body, made)
        found.ended = True
        if found.done:
            return
        if kind == "function_call":
            if item.get("status") != "incomplete":  # cut at the limit of tokens
                self._seal(found, item, made)
            return
        found.done = True
        if kind == "message":
            self._message(found, item, made)
        elif kind:
            text = "" if found.streamed else thoughts_in(item)
            plain = {field: value for field, value in item.items() if value is not None}
            kept = Kept(plain, found.text_before, found.calls_before)
            made.append(ReasoningDelta(text, kept.opaque(self._host)))

    def _message(self, found: GrowingItem, item: Mapping[str, Any], made: list[ModelEvent]) -> None:
        phase = item.get("phase")
        if phase != self._phase:
            self._phase = phase
            mark = Kept({"type": "message", "phase": phase}, found.text_before, found.calls_before)
            made.append(ReasoningDelta("", mark.opaque(self._host)))
        if found.streamed:
            return
        for part in objects_in(item.get("content")):
            kind = text_in(part.get("type"))
            self._add(text_in(part.get("refusal") or part.get("text")), kind == "refusal", made)

    def _say(self, body: Mapping[str, Any], text: str, kind: str, made: list[ModelEvent]) -> None:
        item = self._items.of_event("message", body)
        if item is None:  # its text is no less the answer's
            item = self._begin({"type": "message"}, body, made)
        item.streamed = item.streamed or bool(text)
        self._add(text, kind == "response.refusal.delta", made)

    def _add(self, text: str, refusal: bool, made: list[ModelEvent]) -> None:
        if text:
            self._refused = self._refused or refusal
            self._text += len(text)
            made.append(TextDelta(text))

    def _think(self, body: Mapping[str, Any], text: str, made: list[ModelEvent]) -> None:
        item = self._items.of_event("reasoning", body)
        if item is not None:
            part = body.get("summary_index", body.get("content_index"))
            if item.streamed and part != item.part:
                made.append(ReasoningDelta("\n\n"))
            item.part, item.streamed = part, True
        if text:
            made.append(ReasoningDelta(text))


def _usage(given: Mapping[str, Any]) -> Usage:
    return Usage(
        input_tokens=count(given, "input_tokens"),
        output_tokens=count(given, "output_tokens"),
        cached_tokens=count(given, "cached_tokens", "input_tokens_details"),
        reasoning_tokens=count(given, "reasoning_tokens", "output_tokens_details"),
    )
