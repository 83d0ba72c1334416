"""What the calls of some turns have come to, kept row by row as the events tell it.

An observer. Above: `_timeline`, which draws the rows, and `_demo`. Below: `turnscope`'s public
names. It refuses to know how anything looks.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from turnscope import Tool, ToolCall, ToolResult
from turnscope.events import CallProgress, CallReady, CallSettled, CallStarted, RunEvent


@attrs.define(eq=False, kw_only=True)
class Row:
    """One call. Times are seconds on the event loop's clock."""

    turn: int
    """Which turn, from 1."""
    call: ToolCall
    backend: str
    """Where the tool runs; empty for an unknown tool."""
    ready_at: float
    started_at: float | None = None
    progress: str = ""
    """What it last reported."""
    result: ToolResult | None = None


class Record:
    """Keeps a `Row` for each call that it is told of, in the order of their submission."""

    def __init__(self, tools: Iterable[Tool[..., Any]]) -> None:
        self.rows: list[Row] = []
        self._backends = {tool.name: tool.backend for tool in tools}
        self._of: dict[tuple[str, int], Row] = {}
        self._turns: dict[str, int] = {}

    def observe(self, event: RunEvent, /) -> None:
        """Take note of *event*."""
        match event:
            case CallReady():
                row = Row(
                    turn=self._turns.setdefault(event.run_id, len(self._turns) + 1),
                    call=event.call,
                    backend=self._backends.get(event.call.name, ""),
                    ready_at=event.time,
                )
                self.rows.append(row)
                self._of[event.run_id, event.index] = row
            case CallStarted():
                self._of[event.run_id, event.index].started_at = event.time
            case CallProgress():
                self._of[event.run_id, event.index].progress = str(event.value)
            case CallSettled():
                self._of[event.run_id, event.index].result = event.result
            case _:
                return

    @property
    def statuses(self) -> Counter[str]:
        """How many calls have settled in each way."""
        return Counter(str(row.result.status) for row in self.rows if row.result is not None)

    @property
    def leaked(self) -> int:
        """How many calls have left a thread behind that was still at work."""
        return sum(row.result is not None and row.result.leaked for row in self.rows)

    @property
    def turns(self) -> int:
        """How many turns there were."""
        return len(self._turns)


def arguments_of(call: ToolCall) -> object:
    """The arguments of *call* as data; text that is no JSON stays the text that it is."""
    if isinstance(call.arguments, Mapping):
        return dict(call.arguments)
    try:
        return json.loads(call.arguments)
    except ValueError:
        text = call.arguments
        return text if isinstance(text, str) else text.decode(errors="replace")


def content_of(result: ToolResult) -> str:
    """The content of *result* as text; of a part that is none, its type."""
    if isinstance(result.content, str):
        return result.content
    return " ".join(part.text or f"<{part.media_type}>" for part in result.content)
