"""The blocks in the caller's task: what one finds when it opens, and how it is left.

Above: the faces, `_turn` and `_run`, which are such blocks. Below: the attempt in whose body a
block may stand; and the join.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._attempt import Attempt
from ._context import current
from ._errors import LimiterLeaked
from ._facts import TurnFacts
from ._loop import join
from ._parking import Nested

if TYPE_CHECKING:
    from ._budget import Ledger
    from ._kernel import Kernel


def seconds_of(what: str, timeout: float | None, deadline: float) -> None:
    """Raise ValueError for a *timeout* or *deadline* that is none."""
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"{what}(timeout={timeout!r}): a span in seconds, 0 or more")
    if deadline != deadline:
        raise ValueError(f"{what}(deadline=nan): a value of the event loop's clock")


def facts_here(
    kernel: Kernel,
    parent: Attempt | None,
    deps: Any,
    deadline: float,
    ledger: Ledger | None = None,
) -> TurnFacts:
    """The facts of what opens here, in *parent*'s body if there is one, with its own *deadline*.

    What runs in its calls spends by *ledger*; by that of the run above, if it has none.
    """
    above = None if parent is None else parent.facts
    return TurnFacts(
        run_id=kernel._names.new(),
        parents=() if above is None else (*above.parents, above.run_id),
        number=0,
        deps=deps,
        deadline=min(
            deadline,
            kernel._loop.anyio.current_effective_deadline(),
            math.inf if parent is None else parent.deadline,
        ),
        loop=kernel._loop,
        observed=kernel._observers.any if above is None else above.observed,
        kinds=kernel._observers.kinds if above is None else above.kinds,
        tell=kernel._observers.tell if above is None else above.tell,
        result_characters=kernel.limits.result_characters,
        ledger=ledger if ledger is not None or above is None else above.ledger,
    )


def parent_here(kernel: Kernel) -> Attempt | None:
    """The call in whose body this is, if it is one of *kernel*'s event loop and has not ended."""
    call = current.get()
    if (
        not isinstance(call, Attempt)
        or call.turn is None
        # A tool in a thread may run an event loop of its own: that call waits for its thread.
        or call.facts.loop.token != kernel._loop.token
    ):
        return None
    return call


def kernel_here(what: str, instead: str) -> Kernel:
    """The kernel that runs the call in whose body this is.

    Raises RuntimeError outside of any, with a word of *what* was called, and what to do *instead*.
    """
    call = current.get()
    if not isinstance(call, Attempt) or call.turn is None:
        raise RuntimeError(f"{what} runs in a call of a kernel; elsewhere, {instead}")
    return call.turn.kernel


async def leave(
    kernel: Kernel,
    inside: Nested,
    parent: Attempt | None,
    *,
    ask: Callable[[], None],
    raised: BaseException | None,
    fatal: Callable[[], BaseException | None],
) -> None:
    """Join *inside*, have *parent* work again, and raise what comes first, if anything does.

    Ctrl-C comes first, then the caller's cancellation, then, if the block has *raised* nothing,
    what was *fatal* inside.
    """
    stopped = None
    if not inside.done.is_set():
        stopped = await join(kernel._loop, inside.done, ask, raised)
    if parent is not None:
        parked = await parent.unhost(inside)
        if isinstance(parked, LimiterLeaked):
            raise parked from stopped  # whatever else: the body must not work without a slot
        stopped = stopped or parked
    failed = fatal()
    try:
        if isinstance(failed, KeyboardInterrupt):
            raise failed
        if stopped is not None:
            raise stopped
        if failed is not None and raised is None:
            raise failed
    finally:
        del failed, stopped, inside, ask, fatal  # this frame is in their tracebacks: a cycle
