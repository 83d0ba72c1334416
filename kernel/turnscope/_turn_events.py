"""What is told of a turn and of its calls; `events`, the public room, has them all.

They are apart because who runs turns of their own loop needs no others. Above: `events`, and what
tells them. Below: the values.
"""

from __future__ import annotations

import attrs

from ._calls import ToolCall, ToolResult
from ._record import Record


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TurnEvent(Record):
    """What all events have in common."""

    run_id: str
    """The run, or the turn of your own loop."""
    parents: tuple[str, ...]
    """The ``run_id`` of each run or turn above, the outermost first."""
    turn: int
    """Which turn of the run, from 0."""
    time: float
    """Seconds on the event loop's clock, which never goes back."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class CallEvent(TurnEvent):
    """What the events of a call have in common."""

    index: int
    """Which call of the turn, from 0, in call order."""
    call: ToolCall


@attrs.frozen(kw_only=True, eq=False, repr=False)
class CallReady(CallEvent):
    """A call was submitted; one that starts early, before its response was complete."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class CallStarted(CallEvent):
    """A call has its slots, and its body begins."""

    backend: str
    """Where: "inline", "thread", "process", ..."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class CallProgress(CallEvent):
    """A body reported something by ``progress``, or by a yield."""

    value: object


@attrs.frozen(kw_only=True, eq=False, repr=False)
class CallRetried(CallEvent):
    """A body failed, and the call is to be tried again; if it ends while it waits, it is not."""

    attempt: int
    """Which attempt has failed, from 1."""
    error: Exception
    """What it raised."""
    delay: float
    """Seconds until it is tried again, or queues for its slots."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class CallHedged(CallEvent):
    """A body was slow, and a second one of the same call begins beside it."""

    attempt: int
    """Which body of the call the second is, from 1."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class CallSettled(CallEvent):
    """A call came to its one result."""

    result: ToolResult


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TurnFinished(TurnEvent):
    """Every call of a turn has settled, and nothing of it runs any more but for reported leaks."""

    results: tuple[ToolResult, ...]
    """One for each call, in call order."""
