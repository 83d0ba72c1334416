"""Broken kernels whose mistake is in what becomes of the tasks that a body awaits, on asyncio.

Above: the test that tries them. Below: `bugs`, which keeps them, and the law.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.properties.generate import plans
from tests.properties.test_l4_bounded_cancel import TASKS, bounded_cancel
from turnscope._awaited import AsyncioTraps

from .bugs import planted

hand_down = AsyncioTraps.hand_down

# As many as the `ci` profile draws: the law finds them as it is run on each change.
EXAMPLES = 50


@planted(bounded_cancel, plans(**TASKS), examples=EXAMPLES)
def each_cancellation_is_handed_down_by_the_event_loop(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AsyncioTraps, "own", lambda self, trap: trap)


@planted(bounded_cancel, plans(**TASKS), examples=EXAMPLES)
def the_interrupt_is_handed_down_in_each_round(patch: pytest.MonkeyPatch) -> None:
    def handed(self: Any, exc: BaseException, task: Any) -> bool:
        if task.done():
            return hand_down(self, exc, task)
        task.get_loop().call_soon(lambda: task.get_loop().call_soon(task.cancel))
        return hand_down(self, exc, task)

    patch.setattr(AsyncioTraps, "hand_down", handed)


@planted(bounded_cancel, plans(**TASKS), examples=EXAMPLES)
def only_the_first_of_several_is_interrupted(patch: pytest.MonkeyPatch) -> None:
    def handed(self: Any, exc: BaseException, task: Any) -> bool:
        first = next(iter(getattr(task, "_children", ())), task)
        if not hand_down(self, exc, first):
            return False
        first._asyncio_future_blocking = False
        task._asyncio_future_blocking = True
        return True

    patch.setattr(AsyncioTraps, "hand_down", handed)


@planted(bounded_cancel, plans(**TASKS), examples=EXAMPLES)
def the_interrupt_stays_with_the_body(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AsyncioTraps, "hand_down", lambda self, exc, task: False)


@planted(bounded_cancel, plans(**TASKS), examples=EXAMPLES)
def the_end_of_grace_is_not_handed_down(patch: pytest.MonkeyPatch) -> None:
    def handed(self: Any, exc: BaseException, task: Any) -> bool:
        if task in told:
            return False
        told.append(task)
        return hand_down(self, exc, task)

    told: list[Any] = []
    patch.setattr(AsyncioTraps, "hand_down", handed)
