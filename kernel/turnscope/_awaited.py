"""Tasks that a body awaits on asyncio: the driver waits in the body's place, and hands one down.

A task hands a cancellation down to what it awaits, and sees it only when that has ended. So the
driver must know a wait for another task from a wait for a plain future. Above: `_interrupt`, which
drives. Below: asyncio's tasks, by what they yield.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs


@attrs.frozen(eq=False, repr=False)
class AsyncioTraps:
    """What asyncio's coroutines yield to their task: a future to wait for, or None."""

    cancelled: type[BaseException]
    future: type[Any]
    """That which nobody else cancels. Other types are tasks, and what waits for several of them."""
    running: Callable[[], object]
    """Finds the running task."""
    sent_by_scope: Callable[[BaseException], bool]
    """Whether a cancellation is one of AnyIO's."""

    def own(self, trap: Any) -> Any:
        """*trap*, or if it is another task a future in its place, which ends with it."""
        # Also what asyncio will refuse: no future at all, a yield without an await, itself.
        if not getattr(trap, "_asyncio_future_blocking", False) or trap is self.running():
            return trap
        trap._asyncio_future_blocking = False
        return _ending_with(trap)

    def comes_again(self, exc: BaseException, task: Any) -> bool:
        """Whether *exc* can wait, because *task* has ended: first the body is told how.

        AnyIO does not cancel one whose wait is over, but repeats itself at each that follows. The
        wait in the task's place is over only in the next round of the event loop.
        """
        return task.done() and isinstance(exc, self.cancelled) and self.sent_by_scope(exc)

    def hand_down(self, exc: BaseException, task: Any) -> bool:
        """Give *exc* to *task*, if it is a cancellation; whether *task* is to be awaited anew."""
        if not isinstance(exc, self.cancelled):
            return False
        if not task.cancel(*exc.args[:1]):
            # A gather whose children have all ended is about to end. A task would wait for it, and
            # so see what it raises; if nobody did, asyncio would log that.
            if not task.done():
                task.add_done_callback(_seen)
            return False
        task._asyncio_future_blocking = True
        return True


def _seen(task: Any) -> None:
    if not task.cancelled():
        task.exception()


def _ending_with(task: Any) -> Any:
    future: Any = task.get_loop().create_future()

    def end(_: object) -> None:
        if not future.done():
            future.set_result(None)

    task.add_done_callback(end)
    future._asyncio_future_blocking = True
    return future
