"""Canaries: what the kernel relies on in asyncio, uvloop, trio and AnyIO, and no document promises.

If one of these fails with a new release of a loop, the driver of bodies has to be read again.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from anyio import CancelScope

from tests.kernel.bodies import (
    UNIT,
    a_kernel,
    move_on_after,
    only_asyncio,
    only_trio,
    statuses,
    submit,
    took,
)
from tests.kernel.bodies import anyio_backend as anyio_backend
from turnscope._interrupt import PATIENCE

pytestmark = pytest.mark.anyio


class Spy:
    """Stands between the event loop and a coroutine, as the driver does, and takes notes."""

    def __init__(self) -> None:
        self.thrown: list[BaseException] = []
        self.sent: list[Any] = []
        self.traps: list[Any] = []

    @coroutine
    def watch(self, body: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        try:
            trap = body.send(None)
            while True:
                self.traps.append(trap)
                try:
                    sent = yield trap
                except BaseException as exc:
                    self.thrown.append(exc)
                    trap = body.throw(exc)
                else:
                    self.sent.append(sent)
                    trap = body.send(sent)
        except StopIteration as stop:
            return stop.value


async def cancelled_in_a_sleep() -> Spy:
    """Cancel a sleep that a spy watches."""
    spy = Spy()
    with move_on_after(UNIT) as scope:
        await spy.watch(anyio.sleep_forever())
    assert scope.cancelled_caught
    return spy


# How a coroutine is resumed


@only_asyncio
async def test_asyncio_throws_a_cancellation_into_the_coroutine() -> None:
    spy = await cancelled_in_a_sleep()
    assert [type(exc) for exc in spy.thrown] == [asyncio.CancelledError]
    assert spy.sent == []


@only_asyncio
async def test_asyncio_sends_none_for_every_other_step() -> None:
    spy = Spy()
    await spy.watch(anyio.sleep(UNIT / 10))
    await spy.watch(anyio.lowlevel.checkpoint())
    assert spy.thrown == []
    assert set(spy.sent) == {None}


@only_trio
async def test_trio_sends_a_cancellation_in_as_an_outcome() -> None:
    import outcome
    import trio

    spy = await cancelled_in_a_sleep()
    assert spy.thrown == []
    (sent,) = spy.sent
    assert type(sent) is outcome.Error
    assert isinstance(sent.error, trio.Cancelled)


@only_trio
async def test_a_value_that_trio_sends_is_no_outcome_error() -> None:
    import outcome

    spy = Spy()
    await spy.watch(anyio.lowlevel.checkpoint())
    await spy.watch(anyio.to_thread.run_sync(threading.get_ident))
    assert spy.sent
    assert not any(type(sent) is outcome.Error for sent in spy.sent)


@only_trio
async def test_trio_makes_a_cancellation_where_no_scope_is_cancelled() -> None:
    import trio

    made = trio.Cancelled._create(source="explicit")
    assert isinstance(made, trio.Cancelled)
    assert isinstance(made, anyio.get_cancelled_exc_class())
    # And no scope that is not cancelled takes it.
    with pytest.raises(trio.Cancelled) as raised:
        with CancelScope():
            raise made
    assert raised.value is made


@only_trio
async def test_the_first_wait_of_trios_checkpoint_cannot_be_cancelled_and_yields_one_object() -> (
    None
):
    import trio

    one, two = Spy(), Spy()
    await one.watch(trio.lowlevel.cancel_shielded_checkpoint())
    await two.watch(trio.lowlevel.checkpoint())
    assert len(one.traps) == len(two.traps) == 1
    assert one.traps[0] is two.traps[0]


@only_trio
async def test_a_cancelled_checkpoint_of_trio_waits_a_second_time_in_a_scope_of_its_own() -> None:
    import trio

    spy = Spy()
    with CancelScope() as scope:
        scope.cancel()
        await spy.watch(trio.lowlevel.checkpoint())
    assert scope.cancelled_caught
    assert len(spy.traps) == 2


@only_trio
async def test_trio_tells_which_nurseries_a_task_has_open() -> None:
    import trio

    task = trio.lowlevel.current_task()
    before = len(task.child_nurseries)
    async with anyio.create_task_group():
        assert len(task.child_nurseries) == before + 1
    assert len(task.child_nurseries) == before


async def test_a_shield_that_goes_up_before_the_resumption_lets_the_cleanup_run() -> None:
    """The mechanism itself, without the kernel: one interrupt, then ordinary awaits."""
    notes: list[str] = []

    async def body() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(UNIT / 10)
            await anyio.lowlevel.checkpoint()
            notes.append("cleaned")

    class Shielding(Spy):
        @coroutine
        def watch(self, body: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
            trap = body.send(None)
            try:
                while True:
                    try:
                        sent = yield trap
                    except BaseException as exc:
                        inner.shield = True
                        trap = body.throw(exc)
                    else:
                        inner.shield = inner.shield or hasattr(sent, "error")
                        trap = body.send(sent)
            except StopIteration as stop:
                return stop.value

    with move_on_after(UNIT) as outer:
        with CancelScope() as inner:
            await Shielding().watch(body())
    assert outer.cancelled_caught
    assert notes == ["cleaned"]


# What the driver makes of it


async def test_a_body_is_interrupted_once_and_then_enforced_when_grace_is_over() -> None:
    at: list[float] = []

    async def counts() -> None:
        for _ in range(2):
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                at.append(anyio.current_time())

    async with a_kernel(grace=2 * UNIT) as kernel:
        start = anyio.current_time()
        with move_on_after(UNIT):
            async with kernel.turn([counts]) as turn:
                submit(turn, counts)
        took(start, 3 * UNIT)
    assert len(at) == 2
    assert at[1] - at[0] >= 1.9 * UNIT
    assert statuses(turn) == ["cancelled"]


async def test_cleanup_that_the_body_shields_is_not_enforced_but_joined() -> None:
    notes: list[str] = []

    async def cleans() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with CancelScope(shield=True):
                await anyio.sleep(3 * UNIT)
                notes.append("cleaned")

    async with a_kernel(grace=UNIT) as kernel:
        start = anyio.current_time()
        with move_on_after(UNIT):
            async with kernel.turn([cleans]) as turn:
                submit(turn, cleans)
        took(start, 4 * UNIT)
    assert notes == ["cleaned"]


async def test_an_endless_swallower_of_cancellations_is_ended_by_something_else() -> None:
    swallowed = 0
    ended: list[BaseException] = []

    async def endless() -> None:
        nonlocal swallowed
        try:
            while True:
                try:
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    swallowed += 1
        except BaseException as exc:
            ended.append(exc)
            raise

    async with a_kernel(grace=UNIT) as kernel:
        with move_on_after(UNIT) as scope:
            async with kernel.turn([endless]) as turn:
                submit(turn, endless)
        assert scope.cancelled_caught
    # Nothing that an ordinary body catches, neither as an error nor as a cancellation.
    (raised,) = ended
    assert not isinstance(raised, (Exception, asyncio.CancelledError, trio.Cancelled))
    # It may be in a group, which is the error of a result, which may travel.
    assert repr(pickle.loads(pickle.dumps(raised))) == repr(raised)
    assert swallowed == 1 + PATIENCE  # the interrupt, and then its patience
    assert statuses(turn) == ["cancelled"]


async def test_a_body_that_nests_its_cleanups_is_not_taken_for_an_endless_swallower() -> None:
    notes: list[int] = []

    async def nests(depth: int = PATIENCE // 2) -> None:
        try:
            if depth:
                await nests(depth - 1)
            else:
                await anyio.sleep_forever()
        finally:
            try:
                await anyio.sleep_forever()  # dies with grace, at each level
            finally:
                notes.append(depth)

    async with a_kernel(grace=UNIT) as kernel:
        with move_on_after(UNIT):
            async with kernel.turn([nests]) as turn:
                submit(turn, nests)
    assert notes == list(range(PATIENCE // 2 + 1))
    assert statuses(turn) == ["cancelled"]


async def test_a_body_that_raises_in_its_first_step_fails_like_any_other() -> None:
    async def breaks() -> None:
        raise LookupError

    async with a_kernel() as kernel:
        async with kernel.turn([breaks]) as turn:
            submit(turn, breaks)
    assert statuses(turn) == ["failed"]


async def test_a_body_that_raises_stop_iteration_fails_and_does_not_return() -> None:
    async def stops() -> None:
        raise StopIteration("value")

    async with a_kernel() as kernel:
        async with kernel.turn([stops]) as turn:
            submit(turn, stops)
    assert statuses(turn) == ["failed"]


# What the backends' own threads rely on


async def test_anyios_worker_threads_know_their_loop_by_two_thread_locals() -> None:
    from anyio._core._eventloop import threadlocals

    seen: list[Any] = []

    def looks() -> None:
        seen.append(threadlocals.current_token)
        seen.append(getattr(threadlocals, "current_cancel_scope", None))

    await anyio.to_thread.run_sync(looks)
    token, scope = seen
    assert token == anyio.lowlevel.current_token()
    is_trio = anyio.get_cancelled_exc_class().__module__.startswith("trio")
    assert is_trio or isinstance(scope, CancelScope)


@only_asyncio
async def test_a_thread_of_ours_with_those_thread_locals_can_use_from_thread() -> None:
    from anyio._core._eventloop import threadlocals

    token = anyio.lowlevel.current_token()
    done = anyio.Event()
    seen: list[object] = []

    async def in_the_loop() -> int:
        await anyio.sleep(0)
        return threading.get_ident()

    def works(scope: CancelScope) -> None:
        threadlocals.current_token = token
        threadlocals.current_cancel_scope = scope
        try:
            anyio.from_thread.check_cancelled()
            seen.append(anyio.from_thread.run(in_the_loop))
            anyio.from_thread.run_sync(scope.cancel)
            try:
                anyio.from_thread.check_cancelled()
            except asyncio.CancelledError:
                seen.append("cancelled")
        finally:
            del threadlocals.current_cancel_scope, threadlocals.current_token
            token.backend_class.run_sync_soon(done.set, (), token=token.native_token)

    with CancelScope() as scope:
        thread = threading.Thread(target=works, args=(scope,))
        thread.start()
        with CancelScope(shield=True):
            await done.wait()
    thread.join(5)
    assert seen == [threading.get_ident(), "cancelled"]


async def test_a_token_posts_into_its_loop_from_any_thread_until_that_has_ended() -> None:
    token = anyio.lowlevel.current_token()
    done = anyio.Event()

    def posts() -> None:
        token.backend_class.run_sync_soon(done.set, (), token=token.native_token)

    thread = threading.Thread(target=posts)
    thread.start()
    with anyio.fail_after(5):
        await done.wait()
    thread.join(5)

    def other_loop() -> None:
        async def main() -> Any:
            return anyio.lowlevel.current_token()

        dead = anyio.run(main, backend=anyio_name)
        with pytest.raises(RuntimeError):
            dead.backend_class.run_sync_soon(done.set, (), token=dead.native_token)

    anyio_name = "trio" if token.backend_class.__module__.endswith("trio") else "asyncio"
    await anyio.to_thread.run_sync(other_loop)
