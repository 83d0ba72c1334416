"""What a body sees of its call, at work: the implementation of `CallContext`.

It outlives the call: a leaked thread may still ask it, and is told that the call has ended. Above:
the attempt, which is a view with a life. Below: the face in `_context`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from anyio import CancelScope

from ._calls import ToolCall
from ._context import CallContext
from ._holds import Holds, Release, post
from .events import CallProgress

if TYPE_CHECKING:
    from ._facts import TurnFacts
    from ._supervisor import Supervisor
    from ._tools import Tool


class View(CallContext[Any]):
    """The context of one call. Its members without an underscore are the attempt's too."""

    __slots__ = (
        "_call",
        "_holds",
        "asked",
        "facts",
        "index",
        "own",
        "started_at",
        "tool",
        "turn",
    )

    def __init__(self, turn: Supervisor, index: int, call: ToolCall, tool: Tool[..., Any]) -> None:
        self.turn: Supervisor | None = turn
        """None once the call has ended: results, errors and their tracebacks then make no cycle."""
        self.facts: TurnFacts = turn.facts
        self.index = index
        self._call = call
        self.tool = tool
        self.asked = False
        self.own: CancelScope | None = None
        """The scope that the call's own timeouts cancel."""
        self.started_at: float | None = None
        self._holds: Holds | None = None

    @property
    def deps(self) -> Any:
        return self.facts.deps

    @property
    def call(self) -> ToolCall:
        return self._call

    @property
    def run_id(self) -> str:
        return self.facts.run_id

    @property
    def deadline(self) -> float:
        own = math.inf if self.own is None else self.own.deadline
        return min(own, self.facts.deadline)

    @property
    def cancelling(self) -> bool:
        return self.asked

    def check_cancelled(self) -> None:
        if self.asked:
            raise self.facts.loop.cancellation()

    def progress(self, value: object) -> None:
        self._in_the_loop(self._progress, value)

    def heartbeat(self) -> None:
        self._in_the_loop(self._beat)

    def hold(self) -> Release:
        if self._holds is None:
            self._holds = Holds(self.facts.loop.token)
        return self._holds.take()

    def _in_the_loop(self, fn: Callable[..., object], *args: object) -> None:
        if self.facts.loop.here():
            fn(*args)
        else:
            post(self.facts.loop.token, fn, *args)

    def _beat(self) -> None:
        own = self.own
        if own is not None and self.tool.idle_timeout is not None and not own.cancel_called:
            own.deadline = self.next_deadline()

    def next_deadline(self) -> float:
        """When the call's own timeouts interrupt it, if nothing is heard of it from now on."""
        started, timeout, idle = self.started_at, self.tool.timeout, self.tool.idle_timeout
        hard = math.inf if timeout is None or started is None else started + timeout
        return hard if idle is None else min(hard, self.facts.loop.now() + idle)

    def _progress(self, value: object) -> None:
        self._beat()
        turn = self.turn
        if turn is not None and self.facts.observed:
            self.facts.tell_of(CallProgress, self.index, self._call, value=value)
