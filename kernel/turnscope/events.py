"""What models stream, and what runs and turns report: frozen records, the same for everybody.

Two unions, and no name is in both. A `ModelEvent` is what a model adapter yields while it reads a
response; a `RunEvent` is what observers and the readers of a run are told. Every RunEvent says
whose it is (``run_id``, ``parents``, ``turn``) and when (``time``, seconds on the event loop's
clock). The events of one call come in order: ready < started < progress* < settled < discarded;
those of one turn: `ModelStarted`, its text, `ModelAnswered`, its calls, `TurnFinished`. Calls that
start early come, and may settle, among the text: if the response then fails or is refused, they are
`CallDiscarded`. What fails and is tried again is no other call and no other turn: between
`ModelStarted` and `ModelAnswered` each `ModelRetried` and `ModelFellBack`, and among the progress
of a call each `CallRetried` and `CallHedged`. After a turn whose answer does not fit comes
`OutputRetried`. Both unions may grow: keep a ``case _``.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs

from ._messages import AssistantMessage, Usage
from ._model_events import CallDelta as CallDelta
from ._model_events import CallSealed as CallSealed
from ._model_events import FellBack as FellBack
from ._model_events import FinishReason as FinishReason
from ._model_events import ModelEvent as ModelEvent
from ._model_events import ModelFinished as ModelFinished
from ._model_events import ReasoningDelta as ReasoningDelta
from ._model_events import TextDelta as TextDelta
from ._turn_events import CallEvent as CallEvent
from ._turn_events import CallHedged as CallHedged
from ._turn_events import CallProgress as CallProgress
from ._turn_events import CallReady as CallReady
from ._turn_events import CallRetried as CallRetried
from ._turn_events import CallSettled as CallSettled
from ._turn_events import CallStarted as CallStarted
from ._turn_events import TurnEvent as TurnEvent
from ._turn_events import TurnFinished as TurnFinished

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
    "OutputRetried",
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


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RunStarted(TurnEvent):
    """A run has begun; nothing was sent yet."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ModelStarted(TurnEvent):
    """A request is sent to the model."""

    model: str | None = None
    """Its ``name``, if it has one."""
    provider: str | None = None
    """Whose API it speaks, as ``"openai"``: its ``provider``, if it has one."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TextStreamed(TurnEvent):
    """More of the answer's text. Pieces that nobody has read yet come as one."""

    text: str


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ReasoningStreamed(TurnEvent):
    """More of what the model thinks. Pieces that nobody has read yet come as one."""

    text: str


@attrs.frozen(kw_only=True, eq=False, repr=False)
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


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ModelFellBack(TurnEvent):
    """The model failed with *error* before anything came of it; *model* is asked in its place."""

    model: str
    error: Exception


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ModelAnswered(TurnEvent):
    """The response is complete; its calls come next, but for those that have started early."""

    message: AssistantMessage
    reason: FinishReason
    usage: Usage
    """Of this request alone."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class CallDiscarded(CallEvent):
    """A call that started early has settled, and does not count: its last event.

    It is in no history, and another call may follow under its index.
    """

    reason: str
    """Why: its response failed, or nobody stands by its calls, or the budget is spent."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class OutputRetried(TurnEvent):
    """The answer does not fit ``Agent(output=...)``, and another is asked for in the next turn.

    It comes after `TurnFinished`. Who shows text takes back that of the turn, if it had no calls.
    """

    attempt: int
    """Which answer it was, from 1."""
    error: Exception
    """What is wrong with it, as the model is told."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
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
    | OutputRetried
    | RunFinished
)
