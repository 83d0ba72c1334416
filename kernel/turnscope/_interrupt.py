"""The coroutine driver: a body gets one interrupt, then time to clean up, then enforcement.

AnyIO's cancellation is level-triggered: in a cancelled scope *every* await raises, so that an
ordinary ``finally: await cleanup()`` dies at its first await. Authors do not write tools that way.
A driver stands between the event loop and a body. When it sees the first cancellation about to
reach the body, it has the call shield the body's scope and set that scope's deadline, and only
then resumes the body: the interrupt arrives, the cleanup runs as written, and AnyIO's own timer
enforces the end.

The drivers rely on how each loop resumes a coroutine: asyncio throws a cancellation in, trio sends
it in as an `outcome.Error`. Canary tests guard that. Above: the attempt. Below: `_whole`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from gc import get_referents
from types import CodeType, coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

import attrs

from ._whole import keep_whole, step, whole

if TYPE_CHECKING:
    import trio

    from ._awaited import AsyncioTraps

T = TypeVar("T")

PATIENCE: Final = 100
"""How many enforcing cancellations a body may swallow before `Expelled` comes in the place of one.

A body that cleans up in nested blocks takes one for each block, and never so many. One that
catches cancellations in an endless loop would otherwise spin for ever, at full speed. It comes
once, so that what cleans up after it is not cut in turn.
"""


class Expelled(BaseException):
    """Raised in a body that catches cancellations without end, which does not catch this.

    Not GeneratorExit: thrown into a coroutine that awaits another, that closes the other, whose
    cleanup may then not await.
    """


class Interruptible(Protocol):
    """What a driver tells a call."""

    watch: bool
    """Whether the call wants to be told of each step of the body."""

    stubborn: bool
    """Whether the body has used up the PATIENCE with it."""

    def deliver(self, cancellation: BaseException) -> None:
        """Told that *cancellation* is about to reach the body."""
        ...

    def stepped(self) -> None:
        """Told that the body has taken a step, and waits again."""
        ...

    def due(self) -> bool:
        """Whether the body is to be interrupted, and has not been."""
        ...

    def drop(self) -> None:
        """Told that the coroutine itself is being closed: nothing can be awaited any more."""
        ...


def _to_be_expelled(body: object, call: Interruptible) -> bool:
    """Whether `Expelled` is to reach *body*, of a stubborn *call*, in a cancellation's place: once.

    Where a group waits for its children, nothing but a cancellation may come: it would leave them.
    """
    if any(code.co_qualname.endswith(_GROUPS) for code in _waits_in(body)):
        return False
    call.stubborn = False
    return True


_SWALLOWED: Final = "cancellation was swallowed without end"
_GROUPS: Final = ("TaskGroup.__aexit__", "Nursery._nested_child_finished")


@coroutine
def drive_on_asyncio(
    body: Coroutine[Any, Any, T],
    call: Interruptible,
    traps: AsyncioTraps,
    struck: KeyboardInterrupt | None = None,
) -> Generator[Any, Any, T]:
    """Await *body*, telling *call* of each cancellation before *body* sees it.

    Raises what *body* raises; returns what it returns.

    A task that awaits another, or several by ``gather``, hands its cancellations down, and sees one
    only when the other has ended. AnyIO would hand one down in each round of the event loop, until
    then: no cleanup there could await anything. So the driver waits in the body's place, has *call*
    shield it at the first, and hands that one down.

    Ctrl-C that lands in here, between two steps of the body's, is the body's, as in one of them: it
    is thrown in. Else the body would be left half-way, and never clean up.
    """
    try:
        cancelled, plain = traps.cancelled, traps.future
        trap: Any = body.send(None) if struck is None else body.throw(struck)
        while True:
            waited = trap if trap is None or type(trap) is plain else traps.own(trap)
            try:
                sent = yield waited
            except GeneratorExit:
                call.drop()
                body.close()
                raise
            except BaseException as exc:
                if waited is not trap and traps.comes_again(exc, trap):
                    sent = None
                else:
                    if stops := isinstance(exc, cancelled):
                        call.deliver(exc)
                    # What is thrown gets no name of its own, which would make a cycle with its
                    # traceback, or a `finally` to delete it: 1,600 of the 107,000 instructions of
                    # each of 64 cancelled calls (callgrind, Python 3.11).
                    if call.stubborn and stops and _to_be_expelled(body, call):
                        trap = body.throw(Expelled(_SWALLOWED))
                    elif waited is trap or not traps.hand_down(exc, trap):
                        trap = body.throw(exc)
                    if call.watch:
                        call.stepped()
                    continue
            trap = body.send(sent)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # because StopIteration is not generic
    except KeyboardInterrupt as exc:
        if _has_ended(body):
            raise
        struck = exc
    # It is a generator, which it has been told to be awaitable.
    again = cast("Generator[Any, Any, T]", drive_on_asyncio(body, call, traps, struck))
    try:
        return (yield from again)
    finally:
        del struck  # as above


class Carrier(Protocol):
    """What trio sends into a coroutine to raise there: `outcome.Error`."""

    @property
    def error(self) -> BaseException:
        """What to raise."""
        ...


@attrs.frozen(eq=False, repr=False)
class TrioTraps:
    """What the driver must know of trio, looked up once for a kernel."""

    cancelled: type[BaseException]
    carrier: type[Carrier]
    checkpoint: CodeType
    """The code of ``trio.lowlevel.checkpoint``."""
    first_half: CodeType
    """The code of ``trio.lowlevel.checkpoint_if_cancelled``."""
    nursery: CodeType
    """The code in which the end of a nursery waits for its children."""
    running: Callable[[], trio.lowlevel.Task]
    """Finds the running task."""

    @classmethod
    def look(cls, cancelled: type[BaseException]) -> TrioTraps:
        """Look, where trio is installed."""
        import outcome
        import trio

        keep_whole()
        return cls(
            cancelled,
            outcome.Error,
            trio.lowlevel.checkpoint.__code__,
            trio.lowlevel.checkpoint_if_cancelled.__code__,
            trio.Nursery._nested_child_finished.__code__,
            trio.lowlevel.current_task,
        )

    def nurseries(self) -> int:
        """How many nurseries the running task has open."""
        return len(self.running().child_nurseries)

    def clock(self) -> Callable[[], float]:
        """The running loop's clock, which may be read in any thread."""
        import trio

        return trio.lowlevel.current_clock().current_time

    def cancellation(self) -> BaseException:
        """A cancellation to raise; trio has no public way, and AnyIO makes its own like this."""
        import trio

        return trio.Cancelled._create(source="explicit")


@whole
@coroutine
def drive_on_trio(
    body: Coroutine[Any, Any, T],
    call: Interruptible,
    traps: TrioTraps,
    struck: KeyboardInterrupt | None = None,
) -> Generator[Any, Any, T]:
    """As `drive_on_asyncio`, and for two waits of trio's into which it sends no cancellation.

    ``checkpoint()`` waits where it cannot be cancelled, and then, if it finds itself cancelled, in
    a scope of its own that has ended already; the body being shielded by then, that scope would
    take the interrupt, and it would be lost. So the interrupt is raised out of the first wait. The
    end of a nursery notes a cancellation, and raises it when the last of its children has ended:
    the step in which it does is the interrupt.
    """
    carrier, cancelled = traps.carrier, traps.cancelled
    try:
        trap = step(body.send, None) if struck is None else step(body.throw, struck)
        while True:
            if call.watch and traps.first_half not in _waits_in(body):
                # Not there: shielded now, it would raise "this should never happen".
                call.stepped()
            try:
                sent = yield trap
            except GeneratorExit:
                call.drop()
                body.close()
                raise
            except BaseException as exc:  # trio's own word on a foreign trap
                trap = step(body.throw, exc)
                continue
            delivered: BaseException | None = None
            if type(sent) is carrier:
                if isinstance(sent.error, cancelled):
                    call.deliver(sent.error)
                    if call.stubborn and _to_be_expelled(body, call):
                        delivered = Expelled(_SWALLOWED)  # else it comes as trio sends it
            elif call.due():
                waits = _waits_in(body)
                if traps.checkpoint in waits:
                    delivered = traps.cancellation()
                    call.deliver(delivered)
                    if call.due():  # a scope of the body's own is cancelled too, and comes first
                        delivered = None
                elif traps.nursery in waits:
                    call.deliver(traps.cancellation())
            try:
                trap = step(body.send, sent) if delivered is None else step(body.throw, delivered)
            finally:
                del delivered, sent  # an exception in a frame of its traceback is a cycle
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # because, as on asyncio
    except KeyboardInterrupt as exc:
        if _has_ended(body):
            raise
        struck = exc
    # It is a generator, which it has been told to be awaitable.
    again = cast("Generator[Any, Any, T]", drive_on_trio(body, call, traps, struck))
    try:
        return (yield from again)
    finally:
        del struck  # as above


def _has_ended(body: object) -> bool:
    return getattr(body, "cr_frame", None) is None


def _waits_in(body: object) -> list[CodeType]:
    """The code of the innermost coroutines in which *body* waits, as far as they can be trio's.

    Only there: others of trio's functions wait inside ``cancel_shielded_checkpoint`` because they
    have just taken what they must not drop.
    """
    codes: list[CodeType] = []
    awaited: Any = body
    while awaited is not None:
        if hasattr(awaited, "cr_await"):
            codes.append(awaited.cr_code)
            awaited = awaited.cr_await
        elif hasattr(awaited, "ag_await"):
            codes.append(awaited.ag_code)
            awaited = awaited.ag_await
        elif hasattr(awaited, "gi_yieldfrom"):
            awaited = awaited.gi_yieldfrom
        else:  # the asend() of an async generator does not tell whose it is, but holds it
            awaited = next((r for r in get_referents(awaited) if hasattr(r, "ag_await")), None)
    return codes[-3:]
