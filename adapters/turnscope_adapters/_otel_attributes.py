"""What spans and metrics say of an event, by the names of OpenTelemetry's conventions. Pure.

Above: `otel`. Below: the kernel's events.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from opentelemetry.trace import Span

from turnscope import AssistantMessage, Content, ToolCall, ToolResult, Usage
from turnscope.events import (
    CallHedged,
    CallRetried,
    FinishReason,
    ModelAnswered,
    ModelFellBack,
    ModelRetried,
    ModelStarted,
    OutputRetried,
    TurnEvent,
)

Attributes = dict[str, Any]

OPERATION: Final = "gen_ai.operation.name"
TOKEN_TYPE: Final = "gen_ai.token.type"

# Where the conventions have a word of their own for it.
_REASONS: Final[Mapping[FinishReason, str]] = {"calls": "tool_calls", "filtered": "content_filter"}


def of_event(event: TurnEvent) -> Attributes:
    """Whose *event* is."""
    return {"turnscope.run_id": event.run_id}


def of_provider(event: ModelStarted) -> Attributes:
    """Whose API is asked; the conventions want a word also where nobody says one."""
    return {"gen_ai.provider.name": event.provider or "_OTHER"}


def of_request(event: ModelStarted) -> Attributes:
    """Which model is asked."""
    about: Attributes = {OPERATION: "chat", **of_provider(event)}
    if event.model:
        about["gen_ai.request.model"] = event.model
    return about


def of_usage(usage: Usage) -> Attributes:
    """What *usage* counts, as far as it was reported."""
    counts = {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }
    return {name: count for name, count in counts.items() if count}


def counted(usage: Usage) -> Iterable[tuple[str, int]]:
    """The tokens of a request, by their type; none if the server reported none."""
    if usage.tokens:
        yield "input", usage.input_tokens
        yield "output", usage.output_tokens


def of_answer(event: ModelAnswered, *, content: bool) -> Attributes:
    """What came of a request."""
    reason = _REASONS.get(event.reason, event.reason)
    about: Attributes = {"gen_ai.response.finish_reasons": [reason], **of_usage(event.usage)}
    if content:
        about["gen_ai.output.messages"] = json.dumps([_message(event.message, reason)])
    return about


def _message(message: AssistantMessage, reason: str) -> Attributes:
    parts: list[Attributes] = []
    if message.text:
        parts.append({"type": "text", "content": message.text})
    parts.extend(
        {"type": "tool_call", "id": call.id, "name": call.name, "arguments": _text(call)}
        for call in message.calls
    )
    return {"role": "assistant", "parts": parts, "finish_reason": reason}


def of_call(call: ToolCall, *, content: bool) -> Attributes:
    """Which call it is."""
    about: Attributes = {
        OPERATION: "execute_tool",
        "gen_ai.tool.name": call.name,
        "gen_ai.tool.call.id": call.id,
        "gen_ai.tool.type": "function",
    }
    if content:
        about["gen_ai.tool.call.arguments"] = _text(call)
    return about


def _text(call: ToolCall) -> str:
    if isinstance(call.arguments, bytes):
        return call.arguments.decode("utf-8", "replace")
    if isinstance(call.arguments, str):
        return call.arguments
    return json.dumps(dict(call.arguments), default=repr)


def of_result(result: ToolResult, *, content: bool) -> Attributes:
    """How a call settled."""
    about: Attributes = {"turnscope.status": str(result.status)}
    if result.leaked:
        about["turnscope.leaked"] = True
    if content:
        about["gen_ai.tool.call.result"] = (
            result.content
            if isinstance(result.content, str)
            else "\n".join(map(_shown, result.content))
        )
    return about


def _shown(part: Content) -> str:
    return part.text if part.text is not None else f"[{part.media_type}]"


def of_failure(result: ToolResult) -> Attributes:
    """What kind of failure *result* is: what was raised, or how else the call settled."""
    if result.status == "failed":
        return of_error(result.error)
    return {"error.type": str(result.status)}


def of_error(error: BaseException | None) -> Attributes:
    """What kind of error *error* is; nothing of its text, which may be private."""
    return {} if error is None else {"error.type": type(error).__qualname__}


def note(
    span: Span,
    event: ModelRetried | ModelFellBack | OutputRetried | CallRetried | CallHedged,
    *,
    content: bool,
) -> None:
    """Put down in *span* that it goes on with another attempt."""
    about: Attributes = {}
    if isinstance(event, ModelFellBack):
        about["gen_ai.request.model"] = event.model
    else:
        about["turnscope.attempt"] = event.attempt
    if not isinstance(event, CallHedged):
        about.update(of_error(event.error))
        if content:
            about["exception.message"] = str(event.error)
    if isinstance(event, (ModelRetried, CallRetried)):
        about["turnscope.delay"] = event.delay
    span.add_event(_NAMES[type(event)], about)


_NAMES: Final = {
    ModelRetried: "turnscope.retried",
    CallRetried: "turnscope.retried",
    CallHedged: "turnscope.hedged",
    ModelFellBack: "turnscope.fell_back",
    OutputRetried: "turnscope.output_retried",
}
