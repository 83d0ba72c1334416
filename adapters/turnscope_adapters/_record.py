"""What a run and its calls have come to, kept row by row as the events tell it.

An observer. Above: `_timeline`, which draws the rows, and `_stage`. Below: `turnscope`'s public
names. It refuses to know how anything looks.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, cast

import attrs

from turnscope import Tool, ToolCall, ToolResult
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
    ModelRetried,
    ModelStarted,
    ReasoningStreamed,
    RunEvent,
    RunFinished,
    TextStreamed,
    TurnFinished,
)


@attrs.define(eq=False, kw_only=True)
class Row:
    """One call. Times are seconds on the event loop's clock."""

    turn: int
    """Which turn of the outermost run, from 1."""
    depth: int
    """In how many calls it is nested."""
    call: ToolCall
    backend: str
    """Where the tool runs; empty for an unknown tool."""
    ready_at: float
    started_at: float | None = None
    progress: str = ""
    """What it last reported."""
    result: ToolResult | None = None
    discarded: bool = False
    """It has settled, and does not count."""

    @property
    def state(self) -> str:
        """How it has settled; before that, "waiting" or "working"."""
        if self.result is not None:
            return "discarded" if self.discarded else str(self.result.status)
        return "waiting" if self.started_at is None else "working"


class Record:
    """Keeps a `Row` for each call that it is told of, in the order of their submission."""

    def __init__(self, tools: Iterable[Tool[..., Any]]) -> None:
        self.rows: list[Row] = []
        self.turns = 0
        """How many turns of the outermost run have begun."""
        self.doing = ""
        """What the outermost run's model does, if it is its turn: "waiting" or "thinking"."""
        self.reason = "stop"
        """Why the last response ended."""
        self._backends = {tool.name: tool.backend for tool in tools}
        self._of: dict[tuple[str, int, int], Row] = {}

    def observe(self, event: RunEvent, /) -> None:
        """Take note of *event*."""
        if isinstance(event, CallEvent):
            self._note_call(event)
        elif not event.parents:
            self._note_run(event)

    def _note_run(self, event: RunEvent) -> None:
        match event:
            case ModelStarted():
                self.turns = event.turn + 1
                self.doing = "waiting"
            case ModelRetried():
                self.doing = "waiting"
            case ReasoningStreamed():
                self.doing = "thinking"
            case ModelAnswered():
                self.doing, self.reason = "", event.reason
            case TextStreamed() | TurnFinished():
                self.doing = ""
            case _:
                return

    def _note_call(self, event: CallEvent) -> None:
        key = event.run_id, event.turn, event.index
        match event:
            case CallReady():
                row = Row(
                    turn=self.turns,
                    depth=len(event.parents),
                    call=event.call,
                    backend=self._backends.get(event.call.name, ""),
                    ready_at=event.time,
                )
                self.rows.append(row)
                self._of[key] = row
            case CallStarted():
                self._of[key].started_at = event.time
                self._of[key].backend = event.backend
            case CallProgress():
                self._of[key].progress = str(event.value)
            case CallRetried():
                said = f"attempt {event.attempt} failed: {type(event.error).__name__}"
                self._of[key].progress = said
            case CallHedged():
                self._of[key].progress = f"slow: attempt {event.attempt} begins beside it"
            case CallSettled():
                self._of[key].result = event.result
            case CallDiscarded():
                self._of[key].discarded = True
            case _:
                return

    @property
    def statuses(self) -> Counter[str]:
        """How many calls have settled in each way."""
        return Counter(row.state for row in self.rows if row.result is not None)

    @property
    def leaked(self) -> int:
        """How many calls have left a thread behind that was still at work."""
        return sum(row.result is not None and row.result.leaked for row in self.rows)


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


def output_of(event: RunFinished) -> object:
    """The output of a run as JSON data; of one that JSON has no form for, its text."""
    output = event.output
    if output is None or isinstance(output, str):
        return output
    from pydantic_core import to_jsonable_python  # late: most outputs are text

    try:
        return to_jsonable_python(output, fallback=_fields, inf_nan_mode="strings")
    except Exception:
        return str(output)


def _fields(value: object) -> dict[str, Any]:
    if not attrs.has(type(value)):
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return attrs.asdict(cast("attrs.AttrsInstance", value), recurse=False)
