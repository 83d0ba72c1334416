"""How a turn ends when a tool of it fails: it raises, or it hangs.

As in `endings`, what is timed of a turn that raises is how long it takes until it is left and
quiet. Above: `scenarios`. Below: `endings`, the tools and the checks.
"""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import Any, Final

import anyio

from . import tools
from .checks import CheckFailed, check_ended, check_nothing_new, check_values, reaches, tasks
from .drivers import Session
from .endings import Ended, Ending
from .tools import Tool
from .turns import TICK, Effort, Metrics, Scenario, one_each, repeated

WAIT: Final = 10.0
"""Seconds within which a turn must have raised: some wait for the calls that sleep."""


class Raise(Ending):
    """One of *n* calls raises, in a turn that this must end; the others sleep."""

    name = "raise"
    title = "One of {n} calls raises, the others sleep"
    what = "raise"
    metric = "until raised"
    tools = (tools.NAP_TOOL, tools.TIDY_TOOL, tools.STRIKE_TOOL)

    def turn_of(self, sleeper: Tool) -> list[Tool]:
        """The one in the middle raises."""
        before = self.n // 2
        return [*[sleeper] * before, tools.STRIKE_TOOL, *[sleeper] * (self.n - before - 1)]

    async def ended(self, session: Session, prepared: Any) -> Ended:
        """Let the tool raise once all others sleep."""
        over = anyio.Event()
        late = False
        in_time = 0
        left = 0.0
        raised: Exception | None = None
        tools.gates.append(anyio.Event())

        async def watch() -> None:
            nonlocal in_time, late
            in_time = await self.begun(over.is_set)
            if in_time == self.n:
                tools.gates[-1].set()
                with anyio.move_on_after(WAIT):
                    await over.wait()
                    return
                late = True
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            try:
                await session.turn(prepared)
            except Exception as exc:
                raised = exc
            left = perf_counter()
            # Not by a cancel: before Python 3.13 an asyncio.TaskGroup that has raised leaves one
            # behind in its task, for which AnyIO would let this one out.
            over.set()
        if late:
            raise CheckFailed(f"the turn has not raised within {WAIT:g} s of the tool")
        complaint = ""
        if raised is None:
            complaint = "the turn swallowed the exception of a tool"
        elif not any(reaches(raised, each) for each in tools.thrown):
            complaint = f"the turn raised {raised!r}, and the tool's exception is lost"
        return Ended(left - min(tools.stamps, default=left), in_time, complaint)


class Hang(Scenario):
    """One of *n* tools never comes back, and has a timeout: the others do."""

    name = "hang"
    units: Final = {"wall": "ms"}
    full = Effort(rounds=3, seconds=0.6)
    quick = Effort(rounds=1, seconds=0.0)

    def __init__(self, n: int, timeout: float) -> None:
        self.n = n
        self.timeout = timeout
        self.title = f"One of {n} tools hangs, and has a timeout of {timeout * 1e3:g} ms"
        self._hang = Tool(tools.hang, "inline", timeout=timeout)
        self.tools = (tools.PAUSE_TOOL, self._hang)

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure turns."""
        stuck = self.n // 2
        chosen = [tools.PAUSE_TOOL] * self.n
        chosen[stuck] = self._hang
        prepared = session.prepare(one_each(chosen))
        await self._turn(session, prepared, stuck, first=True)
        taken = await repeated(
            lambda: self._turn(session, prepared, stuck), effort, least=2, warm=0
        )
        return {"wall": median(taken) * 1e3}

    async def _turn(
        self, session: Session, prepared: Any, stuck: int, *, first: bool = False
    ) -> float:
        tools.clear()
        before = tasks()
        started = perf_counter()
        values = list(await session.turn(prepared))
        taken = perf_counter() - started
        if tools.begun != [stuck]:
            raise CheckFailed("the call that hangs has not begun")
        if values[stuck : stuck + 1] == [stuck]:
            raise CheckFailed(f"call {stuck}, which hangs, gave a value: {stuck}")
        check_values(range(self.n), [*values[:stuck], stuck, *values[stuck + 1 :]])
        check_ended(range(self.n))
        if taken < self.timeout - TICK:
            raise CheckFailed(f"a timeout of {self.timeout} s was over in {taken:.3f} s")
        if not first:
            await check_nothing_new(before)
        return taken
