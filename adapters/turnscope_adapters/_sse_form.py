"""Run events in the form in which a browser gets them: a name, and an object for JSON. Pure.

What a model was told and what tools said may be nobody's business but the service's, so they are
left out unless they are asked for. Above: `asgi`. Below: `_record`'s two readings of values.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Final, Literal, TypeAlias, get_args

import attrs

from turnscope import ToolResult
from turnscope.events import (
    CallDiscarded,
    CallEvent,
    CallHedged,
    CallProgress,
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
    TurnFinished,
)

from ._record import arguments_of, content_of, output_of

Shown: TypeAlias = Literal["arguments", "results", "progress", "reasoning", "errors", "nested"]
SHOWN: Final[frozenset[str]] = frozenset(get_args(Shown))

KEEP_ALIVE: Final = b":\n\n"
"""A comment, which clients skip."""


def encoded(event: RunEvent, show: Collection[str]) -> bytes | None:
    """*event* as it is sent; None if it is not to be shown."""
    formed = form(event, show)
    if formed is None:
        return None
    name, data = formed
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # JSON has no line ends in it, so one line of data it is. A lone surrogate is in no encoding.
    return f"event: {name}\ndata: {text}\n\n".encode("utf-8", "replace")


def form(event: RunEvent, show: Collection[str]) -> tuple[str, dict[str, Any]] | None:
    """The name of *event* and its data; None if it is not to be shown."""
    if event.parents and "nested" not in show:
        return None
    data: dict[str, Any] = {"run": event.run_id, "turn": event.turn}
    if event.parents:
        data["parents"] = list(event.parents)
    if isinstance(event, CallEvent):
        data |= {"index": event.index, "id": event.call.id, "name": event.call.name}
    match event:
        case RunStarted():
            return "run_started", data
        case ModelStarted():
            return "model_started", data
        case TextStreamed():
            return "text", data | {"text": event.text}
        case ReasoningStreamed():
            return ("reasoning", data | {"text": event.text}) if "reasoning" in show else None
        case ModelRetried():
            return "model_retried", data | _retried(event, show)
        case ModelFellBack():
            return "model_fell_back", data | {"model": event.model, **_failed(event, show)}
        case ModelAnswered():
            return "model_answered", data | {
                "reason": event.reason,
                "usage": attrs.asdict(event.usage),
            }
        case CallReady():
            if "arguments" in show:
                data["arguments"] = _plain(arguments_of(event.call))
            return "call_ready", data
        case CallStarted():
            return "call_started", data
        case CallProgress():
            shown = "progress" in show
            return ("call_progress", data | {"value": _plain(event.value)}) if shown else None
        case CallRetried():
            return "call_retried", data | _retried(event, show)
        case CallHedged():
            return "call_hedged", data | {"attempt": event.attempt}
        case CallSettled():
            return "call_settled", data | _result(event.result, show)
        case CallDiscarded():
            return "call_discarded", data | {"reason": event.reason}
        case TurnFinished():
            statuses = [str(result.status) for result in event.results]
            return "turn_finished", data | {"statuses": statuses}
        case OutputRetried():
            return "output_retried", data | {"attempt": event.attempt, **_failed(event, show)}
        case RunFinished(error=None):
            return "run_finished", data | {
                "output": output_of(event),
                "usage": attrs.asdict(event.usage),
            }
        case RunFinished():
            # Not "error": in a browser that is the name of a connection that broke.
            data["error"] = type(event.error).__name__
            if "errors" in show:
                data["message"] = str(event.error)
            return "run_failed", data
        case _:
            return None  # type: ignore[unreachable]  # because the union may grow


def _retried(event: ModelRetried | CallRetried, show: Collection[str]) -> dict[str, Any]:
    return {"attempt": event.attempt, "delay": event.delay, **_failed(event, show)}


def _failed(
    event: ModelFellBack | ModelRetried | CallRetried | OutputRetried, show: Collection[str]
) -> dict[str, Any]:
    data = {"error": type(event.error).__name__}
    return data | ({"message": str(event.error)} if "errors" in show else {})


def _result(result: ToolResult, show: Collection[str]) -> dict[str, Any]:
    data: dict[str, Any] = {"status": str(result.status)}
    if "results" in show:
        data["content"] = content_of(result)
    return data


def _plain(value: object) -> object:
    """A value that JSON has a form for; of any other, its text."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return str(value)
    return value
