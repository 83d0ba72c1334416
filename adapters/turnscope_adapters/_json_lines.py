"""Events as JSON, one object to a line: an observer for programs that read.

Above: `_stage`. Below: `_record`'s two readings of values.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, TextIO

import attrs

from turnscope import ToolCall, ToolResult
from turnscope.events import (
    CallDiscarded,
    CallEvent,
    CallHedged,
    CallProgress,
    CallRetried,
    CallSettled,
    CallStarted,
    ModelAnswered,
    ModelFellBack,
    ModelRetried,
    OutputRetried,
    ReasoningStreamed,
    RunEvent,
    RunFinished,
    TextStreamed,
    TurnFinished,
)

from ._record import arguments_of, content_of, output_of

MOST_CHARACTERS: Final = 500
"""How much of a result's content is written; the texts of a model are written whole."""


class JsonLines:
    """Writes each event to *file* as it comes, flushed; every line has the same seven first keys.

    When nobody reads *file* any more, it calls *unread*, once, and writes no more.
    """

    def __init__(self, file: TextIO, unread: Callable[[], object]) -> None:
        self._file = file
        self._unread = unread
        self.broken = False
        """Whether nobody reads any more."""

    def observe(self, event: RunEvent, /) -> None:
        """Write *event*."""
        if self.broken:
            return
        try:
            print(json.dumps(_as_data(event)), file=self._file, flush=True)
        except BrokenPipeError:
            self.broken = True
            self._unread()


def _as_data(event: RunEvent) -> dict[str, Any]:
    call = event if isinstance(event, CallEvent) else None
    data: dict[str, Any] = {
        "type": type(event).__name__,
        "run_id": event.run_id,
        "turn": event.turn,
        "index": None if call is None else call.index,
        "time": event.time,
        "call": None if call is None else _call(call.call),
        "parents": list(event.parents),
    }
    match event:
        case TextStreamed() | ReasoningStreamed():
            return data | {"text": event.text}
        case ModelAnswered():
            return data | {
                "text": event.message.text,
                "calls": [_call(each) for each in event.message.calls],
                "reason": event.reason,
                "usage": attrs.asdict(event.usage),
            }
        case CallStarted():
            return data | {"backend": event.backend}
        case CallProgress():
            return data | {"value": _plain(event.value)}
        case ModelRetried() | CallRetried():
            return data | {
                "attempt": event.attempt,
                "delay": event.delay,
                "error": _error(event.error),
            }
        case OutputRetried():
            return data | {"attempt": event.attempt, "error": _error(event.error)}
        case ModelFellBack():
            return data | {"model": event.model, "error": _error(event.error)}
        case CallHedged():
            return data | {"attempt": event.attempt}
        case CallSettled():
            return data | _result(event.result)
        case CallDiscarded():
            return data | {"reason": event.reason}
        case TurnFinished():
            return data | {"statuses": [str(result.status) for result in event.results]}
        case RunFinished():
            return data | {
                "output": output_of(event),
                "usage": attrs.asdict(event.usage),
                "error": None if event.error is None else _error(event.error),
            }
        case _:  # what has no more to tell, and what may come to be
            return data


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "name": call.name, "arguments": arguments_of(call)}


def _error(error: BaseException) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "message": str(error),
        "status": getattr(error, "status", None),  # a ModelError's, of HTTP
    }


def _result(result: ToolResult) -> dict[str, Any]:
    content = content_of(result)
    if len(content) > MOST_CHARACTERS:
        content = f"{content[:MOST_CHARACTERS]}..."
    return {
        "status": str(result.status),
        "content": content,
        "started_at": result.started_at,
        "ended_at": result.ended_at,
        "backend": result.backend,
        "leaked": result.leaked,
    }


def _plain(value: object) -> object:
    """A value that JSON has a form for; of any other, its text."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return str(value)
    return value
