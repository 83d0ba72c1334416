"""What turns report while they run: frozen records, the same for every observer.

Every record says whose it is (``run_id``, ``parents``, ``turn``, ``index``) and when (``time``,
seconds on the event loop's clock). The events of one call come in order: ready < started <
progress* < settled. The union `RunEvent` may grow: keep a ``case _``.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from ._calls import ToolCall, ToolResult

__all__ = [
    "CallEvent",
    "CallProgress",
    "CallReady",
    "CallSettled",
    "CallStarted",
    "RunEvent",
    "TurnFinished",
]


@attrs.frozen(kw_only=True)
class CallEvent:
    """What the events of a call have in common."""

    run_id: str
    """The run, or the turn of your own loop."""
    parents: tuple[str, ...]
    """The ``run_id`` of each run or turn above, the outermost first."""
    turn: int
    """Which turn of the run, from 0."""
    index: int
    """Which call of the turn, from 0, in call order."""
    time: float
    """Seconds on the event loop's clock, which never goes back."""
    call: ToolCall


@attrs.frozen(kw_only=True)
class CallReady(CallEvent):
    """A call was submitted."""


@attrs.frozen(kw_only=True)
class CallStarted(CallEvent):
    """A call has its slots, and its body begins."""

    backend: str
    """Where: "inline", "thread", "process", ..."""


@attrs.frozen(kw_only=True)
class CallProgress(CallEvent):
    """A body reported something by ``progress``, or by a yield."""

    value: object


@attrs.frozen(kw_only=True)
class CallSettled(CallEvent):
    """A call came to its one result."""

    result: ToolResult


@attrs.frozen(kw_only=True)
class TurnFinished:
    """Every call of a turn has settled, and nothing of it runs any more but for reported leaks."""

    run_id: str
    parents: tuple[str, ...]
    turn: int
    time: float
    results: tuple[ToolResult, ...]
    """One for each call, in call order."""


RunEvent: TypeAlias = CallReady | CallStarted | CallProgress | CallSettled | TurnFinished
