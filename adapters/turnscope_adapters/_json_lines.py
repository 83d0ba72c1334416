"""Events as JSON, one object to a line: an observer for programs that read.

Above: `_demo`. Below: `_record`'s two readings of values. ``turn`` counts the turns of the demo,
from 0, as the loop of one agent would.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, TextIO

from turnscope import ToolCall, ToolResult
from turnscope.events import (
    CallProgress,
    CallReady,
    CallSettled,
    CallStarted,
    RunEvent,
    TurnFinished,
)

from ._record import arguments_of, content_of

MOST_CHARACTERS: Final = 500
"""How much of a content is written."""


class JsonLines:
    """Writes each event to *file* as it comes, flushed; every line has the same six first keys.

    When nobody reads *file* any more, it calls *unread*, once, and writes no more.
    """

    def __init__(self, file: TextIO, unread: Callable[[], object]) -> None:
        self._file = file
        self._unread = unread
        self._turns: dict[str, int] = {}
        self.broken = False
        """Whether nobody reads any more."""

    def observe(self, event: RunEvent, /) -> None:
        """Write *event*."""
        if self.broken:
            return
        turn = self._turns.setdefault(event.run_id, len(self._turns))
        try:
            print(json.dumps(_as_data(event, turn)), file=self._file, flush=True)
        except BrokenPipeError:
            self.broken = True
            self._unread()


def _as_data(event: RunEvent, turn: int) -> dict[str, Any]:
    call = None if isinstance(event, TurnFinished) else event
    data: dict[str, Any] = {
        "type": type(event).__name__,
        "run_id": event.run_id,
        "turn": turn,
        "index": None if call is None else call.index,
        "time": event.time,
        "call": None if call is None else _call(call.call),
    }
    match event:
        case CallStarted():
            return data | {"backend": event.backend}
        case CallProgress():
            return data | {"value": _plain(event.value)}
        case CallSettled():
            return data | _result(event.result)
        case TurnFinished():
            return data | {"statuses": [str(result.status) for result in event.results]}
        case CallReady():
            return data


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "name": call.name, "arguments": arguments_of(call)}


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
