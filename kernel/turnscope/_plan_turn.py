"""The turn of a plan: who is in its block is told of each call that has settled.

Above: `_plan_tool`, whose body waits for that. Below: the turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from ._attempt import Attempt
from ._calls import Status, ToolCall, ToolResult
from ._errors import InvalidArguments, NotStarted
from ._plan import Step
from ._supervisor import Supervisor
from ._turn import Turn

if TYPE_CHECKING:
    from ._facts import TurnFacts
    from ._kernel import Kernel


class Told(Supervisor):
    """The inside of a turn that says which of its calls have settled, however they did."""

    __slots__ = ("_came", "_waiting")

    def __init__(
        self, kernel: Kernel, facts: TurnFacts, deadline: float, parent: Attempt | None
    ) -> None:
        super().__init__(kernel, facts, deadline, parent)
        self._came: list[int] = []
        self._waiting: anyio.Event | None = None

    def commit(self, index: int, result: ToolResult) -> None:
        """As of any turn; who waits for it goes on in a step of its own.

        Not in this one, in which the call that settles still has its slots and its keys, and which
        runs in its context.
        """
        super().commit(index, result)
        self._came.append(index)
        if self._waiting is not None:
            self._waiting.set()

    async def next_settled(self) -> list[int]:
        """The indices of the calls that have settled since the last time; waits for one."""
        if not self._came:
            self._waiting = self.facts.loop.anyio.create_event()
            try:
                await self._waiting.wait()
            finally:
                self._waiting = None
        came, self._came = self._came, []
        return came


class PlanTurn(Turn):
    """The turn of one plan."""

    _inside_of = Told

    def begin(self, step: Step, call: ToolCall) -> int:
        """Submit the *call* of a step, if the budget has one left for it; returns its index."""
        inside = self._inside()
        ledger = inside.facts.ledger
        spent = None if ledger is None or inside.is_asked() else ledger.spend_call()
        if spent is None:
            return self._offer.submit(inside, call)
        return self.refuse(step, Status.NOT_STARTED, NotStarted(str(spent)))

    def refuse(self, step: Step, status: Status, error: NotStarted | InvalidArguments) -> int:
        """Settle a step that is not to be started; returns the index of its call."""
        inside = self._inside()
        call = ToolCall(step.id, step.tool, step.arguments)
        index = inside.ready(call)
        self._offer.refuse(inside, index, call, status, error)
        return index

    async def settled(self) -> list[tuple[int, ToolResult]]:
        """What has settled since the last time, with its index; waits for one."""
        inside = self._inside()
        assert isinstance(inside, Told)  # because `_inside_of` makes it so
        results = [(index, inside.results[index]) for index in await inside.next_settled()]
        return [(index, result) for index, result in results if result is not None]
