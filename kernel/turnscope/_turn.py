"""The turn's face: a block in the caller's task, which only asks and waits.

No scope and no task group of ours is open in the caller's task between two statements. So the block
may stand in an async generator that is abandoned at its ``yield``, and no number of native
cancellations of the caller can tear what goes on in `_supervisor`. Above: the kernel.
"""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from . import _outcome
from ._block import facts_here, leave, parent_here
from ._calls import Status, ToolCall, ToolResult
from ._supervisor import Supervisor
from ._whole import whole

if TYPE_CHECKING:
    from ._kernel import Kernel
    from ._routes import Offer


class Turn:
    """The calls of one model response, run at once; made by ``kernel.turn(tools)``.

    ::

        async with kernel.turn([weather, factorise], timeout=60) as turn:
            for call in response.tool_calls:
                turn.submit(ToolCall(call.id, call.function.name, call.function.arguments))
        turn.results    # one ToolResult for each call, in call order

    Leaving the block waits for the calls. Leaving it by an exception or a cancellation asks them
    to end first, and joins them within the kernel's ``grace``. At the turn's deadline the calls
    are settled; the code in the block goes on.

    Raises, on leaving: the caller's own cancellation, whatever came of the calls; the exception
    of a tool with ``on_error="raise"``, bare; KeyboardInterrupt, bare; LimiterLeaked, in a nested
    turn whose call can never have its slot back.
    """

    _inside_of: ClassVar[type[Supervisor]] = Supervisor

    def __init__(
        self,
        kernel: Kernel,
        offer: Any,  # an Offer: the surface that is verified from outside ends here
        *,
        deps: Any,
        timeout: float | None,
        deadline: float,
    ) -> None:
        self._kernel = kernel
        self._offer: Offer = offer
        self._deps = deps
        self._timeout = timeout
        self._deadline = deadline
        self._supervisor: Supervisor | None = None
        self._left = False

    @whole
    async def __aenter__(self) -> Turn:
        # Nothing is awaited here: an entry that is cancelled half-way would leave a turn that
        # nobody leaves. The supervisor opens its task group when it runs; calls may come before.
        if self._supervisor is not None:
            raise RuntimeError("a turn is entered once; ask kernel.turn() for another")
        kernel = self._kernel
        kernel._check_open("kernel.turn()")
        parent = parent_here(kernel)
        deadline = self._deadline
        if self._timeout is not None:
            deadline = min(deadline, kernel._loop.now() + self._timeout)
        facts = facts_here(kernel, parent, self._deps, deadline)
        self._supervisor = self._inside_of(kernel, facts, deadline, parent)
        kernel._supervise(self._supervisor)
        if parent is not None:
            parent.host(self._supervisor)
        return self

    @whole
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        inside = self._supervisor
        assert inside is not None  # because the block was entered
        self._left = True
        ask = partial(inside.ask, _outcome.LEFT)
        if exc is not None:
            ask()
        inside.close()
        try:
            await leave(self._kernel, inside, inside.parent, ask=ask, raised=exc, fatal=self._fatal)
        finally:
            del inside, ask  # this frame is in the traceback of what it raises: a cycle

    def _fatal(self) -> BaseException | None:
        return None if self._supervisor is None else self._supervisor.fatal

    @whole
    def submit(self, call: ToolCall, /) -> int:
        """Start *call* at once, or as soon as the limits let it; returns its index.

        Never waits, and never raises for what a model may have got wrong: an unknown tool or bad
        arguments settle the call as ``invalid``. After the turn was asked to end, it settles the
        call as ``not_started``.

        Raises TypeError if *call* is no ToolCall; RuntimeError outside of the turn's block, and in
        any thread but the event loop's.
        """
        if not isinstance(call, ToolCall):
            raise TypeError(
                f"submit takes a ToolCall(id, name, arguments), not {type(call).__name__}"
            )
        inside = self._inside()
        if self._left:
            raise RuntimeError("this turn's block has ended; open another with kernel.turn()")
        return self._offer.submit(inside, call)

    def cancel(self, reason: str = "the turn was cancelled") -> None:
        """Ask the calls to end, as leaving the block by an exception does; returns at once.

        Calls that have started get one interrupt and the kernel's ``grace`` to clean up; the
        others settle as ``not_started``. The code in the block goes on. Any task may call this,
        also while the block waits at its end. Raises RuntimeError before the block, after the
        turn has ended, and in any thread but the event loop's.
        """
        self._inside().ask(_outcome.Cause(Status.CANCELLED, reason))

    @property
    def results(self) -> tuple[ToolResult, ...]:
        """One result for each call, in call order.

        Raises RuntimeError while calls of the turn are unsettled.
        """
        results = [] if self._supervisor is None else self._supervisor.results
        settled = tuple([result for result in results if result is not None])
        if len(settled) < len(results):
            raise RuntimeError(
                f"{len(results) - len(settled)} of {len(results)} calls have not settled: read "
                "turn.results after the `async with` block"
            )
        return settled

    def _inside(self) -> Supervisor:
        if self._supervisor is None:
            raise RuntimeError("a turn takes calls inside `async with kernel.turn(...) as turn:`")
        if not self._kernel._loop.here():
            raise RuntimeError(
                "a turn takes calls in its event loop's thread only: from another thread, use "
                "anyio.from_thread.run_sync(turn.submit, call)"
            )
        if self._supervisor.ended:
            raise RuntimeError("this turn has ended; open another with kernel.turn()")
        return self._supervisor
