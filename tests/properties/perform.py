"""The one interpreter of plans, for a world that is either the kernel's or the model's.

Above: `machine` and `model`, which are the worlds. Below: `plans`. What a body does of its own is
said here once; what the kernel does to it is not said here at all.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from .plans import (
    Beat,
    Body,
    CallPlan,
    Cancel,
    Fail,
    Nest,
    Pause,
    Sleep,
    Submit,
    Tasks,
    TurnPlan,
)


class PlannedTurn(Protocol):
    def submit(self, call: CallPlan) -> None: ...
    def cancel(self) -> None: ...


class World(Protocol):
    """What a body, or the caller of the outermost turn, can do."""

    cancelled: type[BaseException]

    async def sleep(self, span: float, shield: bool = False) -> None: ...
    async def fail(self, how: str) -> None: ...
    def beat(self, progress: bool) -> None: ...
    def note(self, what: str) -> None: ...
    def enter_a_scope(self) -> None: ...
    async def tasks(self, step: Tasks) -> None: ...
    def turn(self, plan: TurnPlan) -> AbstractAsyncContextManager[PlannedTurn]: ...


async def perform(body: Body, world: World) -> None:
    """Do what *body* says; raises what it raises."""
    world.note("start")
    for _ in range(body.leaves):
        world.enter_a_scope()
    try:
        for step in body.steps:
            if isinstance(step, Sleep):
                await _sleep(step, world)
            elif isinstance(step, Beat):
                world.beat(step.progress)
            elif isinstance(step, Tasks):
                await world.tasks(step)
            else:
                await perform_turn(step.turn, world)
        if body.end != "return":
            await world.fail(body.end)
    except world.cancelled:
        world.note("interrupt")
        raise
    finally:
        try:
            for span in body.cleanup:
                await world.sleep(span)
            world.note("cleaned")
            if body.cleanup_raises:
                await world.fail("task group" if body.cleanup_in_group else "cleanup")
        except world.cancelled:
            world.note("interrupt")
            raise
        finally:
            world.note("end")


async def _sleep(step: Sleep, world: World) -> None:
    swallowed = 0
    while True:
        try:
            await world.sleep(step.span, step.shield)
        except world.cancelled:
            world.note("interrupt")
            swallowed += 1
            if swallowed > step.swallows:
                raise
            if step.again:
                continue
        return


async def perform_turn(plan: TurnPlan, world: World) -> None:
    """Open the turn and do what its block does; raises what leaves the block."""
    async with world.turn(plan) as turn:
        for op in plan.ops:
            if isinstance(op, Submit):
                turn.submit(op.call)
            elif isinstance(op, Pause):
                await world.sleep(op.span, op.shield)
            elif isinstance(op, Cancel):
                turn.cancel()
            else:
                assert isinstance(op, Fail)
                await world.fail("host")


__all__ = ["Nest", "PlannedTurn", "World", "perform", "perform_turn"]
