"""What models stream, and what runs and turns report: frozen records, the same for everybody.

Two unions, and no name is in both. A `ModelEvent` is what a model adapter yields while it reads a
response; a `RunEvent` is what observers and the readers of a run are told. Every RunEvent says
whose it is (``run_id``, ``parents``, ``turn``) and when (``time``, seconds on the event loop's
clock). The events of one call come in order: ready < started < progress* < settled < discarded;
those of one turn: `ModelStarted`, its text, `ModelAnswered`, its calls, `TurnFinished`. Calls that
start early come, and may settle, among the text: if the response then fails or is refused, they are
`CallDiscarded`. What fails and is tried again is no other call and no other turn: between
`ModelStarted` and `ModelAnswered` each `ModelRetried` and `ModelFellBack`, and among the progress
of a call each `CallRetried` and `CallHedged`. Both unions may grow: keep a ``case _``.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import attrs

from ._calls import ToolCall, ToolResult
from ._messages import AssistantMessage, Usage

__all__ = [
    "CallDelta",
    "CallDiscarded",
    "CallEvent",
    "CallHedged",
    "CallProgress",
    "CallReady",
    "CallRetried",
    "CallSealed",
    "CallSettled",
    "CallStarted",
    "FellBack",
    "FinishReason",
    "ModelAnswered",
    "ModelEvent",
    "ModelFellBack",
    "ModelFinished",
    "ModelRetried",
    "ModelStarted",
    "ReasoningDelta",
    "ReasoningStreamed",
    "RunEvent",
    "RunFinished",
    "RunStarted",
    "TextDelta",
    "TextStreamed",
    "TurnEvent",
    "TurnFinished",
]

FinishReason: TypeAlias = Literal["stop", "calls", "length", "refusal", "filtered"]
"""Why a response ended: it was complete; it asks for calls; it was cut at the limit of tokens; the
model would not; the provider would not."""


@attrs.frozen
class TextDelta:
    """More of the answer's text."""

    text: str


@attrs.frozen
class ReasoningDelta:
    """More of what the model thinks, or the end of a part of it, with what goes back unchanged."""

    text: str
    opaque: Any = None
    """What the provider wants back with this part: JSON data. It ends the part."""


@attrs.frozen
class CallDelta:
    """More of a call: the first one of an *index* names it, all of them bring arguments."""

    index: int
    """Which call of the response: calls are in call order by it. It need not be without gaps, but a
    call begins before any that comes after it in call order is sealed."""
    id: str | None = None
    """The server's id; None or "" where it gave none. The first counts."""
    name: str | None = None
    """The tool's name; the first counts."""
    arguments: str = ""
    """A piece of the JSON text of the arguments, cut anywhere."""


@attrs.frozen
class CallSealed:
    """The arguments of a call are complete: the protocol said so, or went on to the next.

    Never because what has come happens to be JSON: calls of some tools start at their seal.
    """

    index: int


@attrs.frozen
class ModelFinished:
    """The response is complete; the last event of a stream. Without it the response has failed."""

    reason: FinishReason = "stop"
    usage: Usage = attrs.field(factory=Usage)


@attrs.frozen
class FellBack:
    """A model failed before anything came of it; the request goes on to another, *model*."""

    model: str
    error: Exception


ModelEvent: TypeAlias = (
    TextDelta | ReasoningDelta | CallDelta | CallSealed | ModelFinished | FellBack
)


@attrs.frozen(kw_only=True)
class TurnEvent:
    """What all events have in common."""

    run_id: str
    """The run, or the turn of your own loop."""
    parents: tuple[str, ...]
    """The ``run_id`` of each run or turn above, the outermost first."""
    turn: int
    """Which turn of the run, from 0."""
    time: float
    """Seconds on the event loop's clock, which never goes back."""


@attrs.frozen(kw_only=True)
class RunStarted(TurnEvent):
    """A run has begun; nothing was sent yet."""


@attrs.frozen(kw_only=True)
class ModelStarted(TurnEvent):
    """A request is sent to the model."""

    model: str | None = None
    """Its ``name``, if it has one."""


@attrs.frozen(kw_only=True)
class TextStreamed(TurnEvent):
    """More of the answer's text. Pieces that nobody has read yet come as one."""

    text: str


@attrs.frozen(kw_only=True)
class ReasoningStreamed(TurnEvent):
    """More of what the model thinks. Pieces that nobody has read yet come as one."""

    text: str


@attrs.frozen(kw_only=True)
class ModelRetried(TurnEvent):
    """A request failed, and is to be sent again: the text of the turn so far is void.

    Who shows text takes back what came since `ModelStarted`, or since the `ModelRetried` before
    this one; the answer comes anew, and may be another. If the run ends while it waits, it is not
    sent again.
    """

    attempt: int
    """Which attempt has failed, from 1."""
    error: Exception
    """What it raised."""
    delay: float
    """Seconds until it is sent again, or queues for ``Limits(model_requests=...)``."""


@attrs.frozen(kw_only=True)
class ModelFellBack(TurnEvent):
    """The model failed with *error* before anything came of it; *model* is asked in its place."""

    model: str
    error: Exception


@attrs.frozen(kw_only=True)
class ModelAnswered(TurnEvent):
    """The response is complete; its calls come next, but for those that have started early."""

    message: AssistantMessage
    reason: FinishReason
    usage: Usage
    """Of this request alone."""


@attrs.frozen(kw_only=True)
class CallEvent(TurnEvent):
    """What the events of a call have in common."""

    index: int
    """Which call of the turn, from 0, in call order."""
    call: ToolCall


@attrs.frozen(kw_only=True)
class CallReady(CallEvent):
    """A call was submitted; one that starts early, before its response was complete."""


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
class CallRetried(CallEvent):
    """A body failed, and the call is to be tried again; if it ends while it waits, it is not."""

    attempt: int
    """Which attempt has failed, from 1."""
    error: Exception
    """What it raised."""
    delay: float
    """Seconds until it is tried again, or queues for its slots."""


@attrs.frozen(kw_only=True)
class CallHedged(CallEvent):
    """A body was slow, and a second one of the same call begins beside it."""

    attempt: int
    """Which body of the call the second is, from 1."""


@attrs.frozen(kw_only=True)
class CallSettled(CallEvent):
    """A call came to its one result."""

    result: ToolResult


@attrs.frozen(kw_only=True)
class CallDiscarded(CallEvent):
    """A call that started early has settled, and does not count: its last event.

    It is in no history, and another call may follow under its index.
    """

    reason: str
    """Why: its response failed, or nobody stands by its calls, or the budget is spent."""


@attrs.frozen(kw_only=True)
class TurnFinished(TurnEvent):
    """Every call of a turn has settled, and nothing of it runs any more but for reported leaks."""

    results: tuple[ToolResult, ...]
    """One for each call, in call order."""


@attrs.frozen(kw_only=True)
class RunFinished(TurnEvent):
    """A run has ended, and nothing of it runs any more but for reported leaks; its last event."""

    output: Any
    """What the run came to; None if it failed or was cancelled."""
    usage: Usage
    """Of all requests of the run, and of the runs in its tools."""
    error: BaseException | None
    """What the run raises; None if it has an output."""


RunEvent: TypeAlias = (
    RunStarted
    | ModelStarted
    | TextStreamed
    | ReasoningStreamed
    | ModelRetried
    | ModelFellBack
    | ModelAnswered
    | CallReady
    | CallStarted
    | CallProgress
    | CallRetried
    | CallHedged
    | CallSettled
    | CallDiscarded
    | TurnFinished
    | RunFinished
)
