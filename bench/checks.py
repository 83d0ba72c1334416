"""What makes a measurement count: the work was done, every value is right, nothing is left over.

A checker's failure is the one thing that makes the benchmark fail. Above: the scenarios, which ask
after each turn, outside of the time that is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio
from anyio.lowlevel import checkpoint

from . import tools


class CheckFailed(Exception):
    """A contender did not do the work that it was timed for."""


class Unseen(Exception):
    """What is to be measured cannot be seen on this machine."""


def check_values(expected: Sequence[object], values: Sequence[object]) -> None:
    """Every call gave its value, in call order."""
    if len(values) != len(expected):
        raise CheckFailed(f"{len(values)} values for {len(expected)} calls")
    for index, (due, value) in enumerate(zip(expected, values, strict=True)):
        if type(value) is not type(due) or value != due:
            raise CheckFailed(f"call {index} gave {value!r}, not {due!r}")


def check_ended(expected: Sequence[int]) -> None:
    """The body of every call ran to its end, once."""
    if sorted(tools.ended) != list(expected):
        raise CheckFailed(f"{len(tools.ended)} bodies ended, for {len(expected)} calls")


def check_asked(turns: int) -> None:
    """A model was asked for each of *turns* of one call, and once more: each time when the call
    before had ended.
    """
    if tools.asked != list(range(turns + 1)):
        raise CheckFailed(
            f"the model was asked {len(tools.asked)} times, for {turns} turns and an answer"
            if len(tools.asked) != turns + 1
            else "the model was asked before the call that it had asked for had ended"
        )


def alive() -> int:
    """How many bodies have begun and not ended, in this process."""
    return len(tools.begun) - len(tools.ended)


def tasks() -> dict[int, str]:
    """The tasks of this event loop: their names by id."""
    return {task.id: task.name or "a task" for task in anyio.get_running_tasks()}


async def check_nothing_new(before: dict[int, str]) -> None:
    """No task runs that did not run *before*; those that are at their last step may take it."""
    for _ in range(3):
        left = {task: name for task, name in tasks().items() if task not in before}
        if not left:
            return
        await checkpoint()
    names = ", ".join(sorted(left.values())[:5])
    raise CheckFailed(f"{len(left)} tasks are alive after the turn: {names}")


def reaches(raised: BaseException, sought: BaseException) -> bool:
    """Whether *sought* is *raised*, or in it if it is a group, or what it was raised from."""
    if raised is sought:
        return True
    within = raised.exceptions if isinstance(raised, BaseExceptionGroup) else ()
    below = (*within, raised.__cause__)
    return any(reaches(each, sought) for each in below if each is not None)
