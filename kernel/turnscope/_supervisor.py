"""What a turn does: one shielded scope, one task group, one task for each body; ask and enforce.

The supervisor is a task in the kernel's task group. A call comes in by `take`: it lines up for its
keys, then goes on to its limiters, gets a task when all have lent it a slot, and settles in one
synchronous step. An ask cancels the scope; from there `_attempt` and `_interrupt` see to it that
each body gets one interrupt and its grace.
Above: `_turn`, the face that waits in the caller's task. Below: `_attempt`.
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import anyio

from . import _outcome
from ._asking import Asking
from ._attempt import Attempt, leaked_here
from ._calls import ToolCall, ToolResult
from ._context import current
from ._errors import LimiterLeaked, NotStarted
from ._loop import Signal, scope_of
from ._parking import Nested
from ._whole import whole

if TYPE_CHECKING:
    from anyio import CancelScope
    from anyio.abc import TaskGroup

    from ._facts import TurnFacts
    from ._kernel import Kernel


class Supervisor(Asking):
    """The inside of one turn, from the entry of its block until `done`."""

    __slots__ = (
        "_closed",
        "_done",
        "_drained",
        "_group",
        "_leader",
        "_orphans",
        "_pending",
        "ended",
        "kernel",
        "parent",
        "results",
    )

    def __init__(
        self, kernel: Kernel, facts: TurnFacts, deadline: float, parent: Attempt | None
    ) -> None:
        super().__init__(facts, deadline, kernel.grace)
        self.kernel = kernel
        self.parent = parent
        self.results: list[ToolResult | None] = []
        self.ended = False
        """Whether nothing of the turn runs any more."""
        self._done: anyio.Event | None = None
        self._pending: list[Attempt] = []
        self._leader: Attempt | None = None
        self._group: TaskGroup | None = None
        self._orphans: tuple[Nested, ...] = ()
        self._closed = False
        self._drained: Signal | None = None

    # Admission: from a call to a task.

    def ready(self, call: ToolCall) -> int:
        """Give *call* the next index."""
        index = len(self.results)
        self.results.append(None)
        if self.facts.observed:
            self.facts.tell_of(self.facts.kinds.CallReady, index, call)
        return index

    def take(self, attempt: Attempt, *, leads: bool = False) -> None:
        """Take a call in: it starts at once, or when its keys and its limiters let it.

        One that *leads*, taken in before `run`, runs in the turn's own task: another would cost 12
        us of the 90 of a turn. If it has to wait for its limiters, it gets one all the same.
        """
        if attempt.claim is None:
            self._unsettled[attempt] = None
            self.go_on(attempt, leads=leads)
            return
        self.hold(attempt)
        self.let_go(attempt)

    def hold(self, attempt: Attempt) -> None:
        """Take a call in, and keep it until `let_go`: it has its place in the queues from here."""
        self._unsettled[attempt] = None
        if attempt.claim is not None:
            attempt.claim.refusal = attempt.claim.join(leaked_here())

    def let_go(self, attempt: Attempt) -> None:
        """Have a call that was taken in go on to its limiters, now or when its keys are its own.

        Or settle it, if it could wait for them for ever.
        """
        claim = attempt.claim
        if claim is None or claim.held:
            self.go_on(attempt)
        elif claim.refusal is not None:
            attempt.shut_out(claim.refusal)
        else:
            attempt.submitted_in = copy_context()
            if self.asked:  # by a function of the arguments: who waits has been settled already
                attempt.settle_unstarted(self.not_started(attempt))

    def go_on(self, attempt: Attempt, *, leads: bool = False) -> None:
        """Have *attempt*, whose keys are its own, pass its limiters, or wait there."""
        if attempt.claim is not None:
            attempt.claim.passed = True
        try:
            admitted = attempt.pass_limiters()
        except LimiterLeaked as exc:
            self.turned_away(attempt, exc)
        else:
            if not admitted:
                if attempt.submitted_in is None:
                    attempt.submitted_in = copy_context()
            elif leads:
                attempt.nurseries = 1
                self._leader = attempt
            else:
                self.start(attempt)

    def start(self, attempt: Attempt) -> None:
        """Give *attempt* its task: all limiters have lent it a slot."""
        if self._group is None:
            if attempt.submitted_in is None:
                attempt.submitted_in = copy_context()
            self._pending.append(attempt)
        else:
            call = attempt._call
            name = f"call {call.id} {call.name}"
            context, attempt.submitted_in = attempt.submitted_in, None  # the task has a copy
            task = self._group.create_task(attempt.run(), name=name, context=context)
            if attempt.inner is None:  # else the task has begun by now: it was made eagerly
                attempt.inner = scope_of(task)

    def beside(self, coro: Coroutine[Any, Any, None], *, name: str) -> anyio.TaskHandle[None]:
        """Run *coro* beside the calls; it is to be cancelled with the call that it is for."""
        assert self._group is not None  # because a call of the turn is under way
        return self._group.create_task(coro, name=name)

    def turned_away(self, attempt: Attempt, exc: LimiterLeaked) -> None:
        """Settle *attempt*, which could wait for leaks alone."""
        reason = NotStarted(str(exc))
        reason.__cause__ = exc
        attempt.settle_unstarted(reason)

    # The task.

    @whole
    async def run(self) -> None:
        """Be the supervisor: hold scope and task group until the block is left and all settled."""
        try:
            self.task = self.facts.loop.task()
            async with self.facts.loop.anyio.create_task_group() as group:
                group.cancel_scope.shield, group.cancel_scope.deadline = True, self.deadline
                await self.serve(group)
            await self.rest()
        except self.facts.loop.cancelled:
            # By a stranger, while the task group waited for the bodies; they have ended.
            ...
        finally:
            self.finish()

    async def serve(self, group: TaskGroup, around: CancelScope | None = None) -> None:
        """Run the calls in *group*, until it is drained or asked; what was asked ends with it."""
        self._group, self.scope = group, group.cancel_scope
        if self.asked:
            self.scope.cancel()
        for attempt in self._pending:
            self.start(attempt)
        self._pending.clear()
        leader, self._leader = self._leader, None
        if leader is not None:
            above = current.get()
            # This is awaited in it, and it is inside the group's. The timed need two of their own.
            leader.inner = None if leader.tool.timed else around
            await leader.run()
            del leader  # or this frame would keep 1 KiB of an ended call, as the context would
            current.set(above)
            if self.asked:
                return  # what is around may be shielded by now, for a cleanup that has ended
        if (drained := self._undrained()) is not None:
            await self._noted(drained)

    async def rest(self) -> None:
        """Wait, after `serve`, for what is not in the group."""
        if self.asked:  # so the group has been left: who has not settled never got a task
            self._abandon()  # because Ctrl-C landed while it was taken in
        if (drained := self._undrained()) is not None:
            await self._noted(drained)  # for a block that goes on although its turn was asked
        for orphan in self._orphans:
            await self._noted(orphan.done)

    def _undrained(self) -> Signal | None:
        """What is set when the block is left and all calls have settled; None if it is so now."""
        if self._closed and not self._unsettled:
            return None
        self._drained = self.facts.loop.signal()
        return self._drained

    @property
    def done(self) -> anyio.Event:
        """Set when the turn has ended."""
        # Made for who waits: an event is three objects, and nobody waits for a turn of a run.
        if self._done is None:
            self._done = self.facts.loop.anyio.create_event()
            if self.ended:
                self._done.set()
        return self._done

    async def _noted(self, signal: Signal) -> None:
        """Wait for *signal*; whatever else ends the wait is noted as an ask.

        That is an ask, the turn's deadline, or a stranger: asyncio.run cancels every task when it
        tears down. After an ask nothing starts any more, so the task group may be left at once,
        which waits for the bodies.
        """
        try:
            await signal.wait()
        except GeneratorExit:
            raise
        except BaseException as exc:
            if isinstance(exc, KeyboardInterrupt):
                self.fatal = exc
            if not self.is_asked():
                self.ask(_outcome.LOOP_ENDS)

    def finish(self) -> None:
        """Nothing of the turn runs any more: say so."""
        if self.ended:
            self.kernel._left(self)
            return
        # A task that is cancelled natively before its first step never takes it; and one in which
        # Ctrl-C landed on asyncio may not have come to its end.
        self._abandon()
        if self.facts.observed:
            results = tuple(result for result in self.results if result is not None)
            finished = self.facts.kinds.TurnFinished(results=results, **self.facts.event())
            self.facts.tell(finished)
        if self._done is not None:
            self._done.set()
        self.ended = True
        # Last: should Ctrl-C land here, the kernel still knows whom to finish.
        self.kernel._left(self)

    def _abandon(self) -> None:
        for attempt in tuple(self._unsettled):
            attempt.abandon()
            self.released(attempt, None)  # also one in whose settling Ctrl-C landed

    def close(self) -> None:
        """Told that the block is left: no more calls come."""
        self._closed = True
        self._check_drained()

    def _check_drained(self) -> None:
        if self._drained is not None and self._closed and not self._unsettled:
            self._drained.set()

    # Settling.

    def released(self, attempt: Attempt, fatal: BaseException | None) -> None:
        """Told that *attempt* has come to its end. In one step."""
        self._unsettled.pop(attempt, None)
        if fatal is not None:
            self.stop(fatal)
        if not self._unsettled:
            self._check_drained()

    def adopt(self, nested: list[Nested]) -> None:
        """Take over turns whose call ended without leaving them: end them, and wait for them."""
        for turn in nested:
            turn.ask(_outcome.PARENT_ENDS)
            turn.close()
            self._orphans += (turn,)

    def commit(self, index: int, result: ToolResult) -> None:
        """Put *result* in its place, in call order."""
        self.results[index] = result
        if self.facts.observed:
            kind = self.facts.kinds.CallSettled
            self.facts.tell_of(kind, index, result.call, result=result)
