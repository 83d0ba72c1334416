"""`turnscope.testing.virtual_time`: time that jumps when nothing happens, and only then."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any, Literal, TypeVar

import anyio
import anyio.lowlevel
import pytest
from anyio import CapacityLimiter, Event, from_thread, to_process, to_thread
from hypothesis import given
from hypothesis import strategies as st

import turnscope.testing
from turnscope._holds import Holds
from turnscope.testing import virtual_time

LoopName = Literal["asyncio", "trio"]
T = TypeVar("T")

START = 1_000_000

both = pytest.mark.parametrize("loop", ["asyncio", "trio"])


def run(loop: LoopName, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return anyio.run(main, **virtual_time(loop))


@pytest.fixture(autouse=True)
def real_time_bound() -> Iterator[None]:
    """Virtual timeouts cannot bound a clock that stands still."""

    def give_up(*_: object) -> None:
        raise TimeoutError("30 real seconds have passed")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@both
def test_an_hour_of_sleep_takes_no_real_time(loop: LoopName) -> None:
    async def main() -> tuple[float, float]:
        began = anyio.current_time()
        await anyio.sleep(3600)
        return began, anyio.current_time()

    real = time.monotonic()
    assert run(loop, main) == (START, START + 3600)
    assert time.monotonic() - real < 10


@both
def test_every_call_gives_a_clock_of_its_own(loop: LoopName) -> None:
    async def main() -> float:
        began = anyio.current_time()
        await anyio.sleep(7)
        return began

    assert [run(loop, main), run(loop, main)] == [START, START]


@both
def test_a_timeout_given_for_a_deadline_lies_in_the_past(loop: LoopName) -> None:
    async def main() -> bool:
        with anyio.CancelScope(deadline=30) as scope:
            await anyio.sleep(1)
        return scope.cancelled_caught

    assert run(loop, main)


@both
def test_sleepers_wake_in_the_order_of_their_times_and_sleep_together(loop: LoopName) -> None:
    woken: list[tuple[float, float]] = []

    async def sleeper(span: float) -> None:
        await anyio.sleep(span)
        woken.append((span, anyio.current_time() - START))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for span in (3, 0.5, 2, 86_400 * 3, 1):
                group.start_soon(sleeper, span)

    run(loop, main)
    assert woken == [(span, span) for span in (0.5, 1, 2, 3, 86_400 * 3)]


@both
def test_sleepers_of_one_instant_all_wake_at_it(loop: LoopName) -> None:
    woken: list[float] = []

    async def sleeper() -> None:
        await anyio.sleep(0.1)
        woken.append(anyio.current_time())

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(sleeper)

    run(loop, main)
    assert woken == [START + 0.1] * 50


@both
@given(spans=st.lists(st.floats(1e-12, 1e7), min_size=1, max_size=8))
def test_the_clock_never_goes_back_and_no_sleep_is_short(
    loop: LoopName, spans: list[float]
) -> None:
    async def main() -> None:
        for span in spans:
            began = anyio.current_time()
            await anyio.sleep(span)
            # Two roundings of a clock value: that of the deadline, and that of the jump.
            assert anyio.current_time() >= began + span - 2 * math.ulp(began + span)
            assert anyio.current_time() >= began

    run(loop, main)


def count_waits(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """The timeouts with which asyncio's selector is asked from now on."""
    waits: list[float | None] = []
    select = turnscope.testing._VirtualSelector.select

    def counted(self: Any, timeout: float | None = None) -> Any:
        waits.append(timeout)
        return select(self, timeout)

    monkeypatch.setattr(turnscope.testing._VirtualSelector, "select", counted)
    return waits


def test_a_tiny_sleep_on_asyncio_is_one_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        for tenth in range(1, 401):
            await asyncio.sleep(tenth * 1e-10)

    waits = count_waits(monkeypatch)
    run("asyncio", main)
    # A sleep is a jump and the step after it; a quarter more for rounding.
    assert len(waits) <= 2.5 * 400


@both
def test_time_stands_still_while_a_thread_works(loop: LoopName) -> None:
    async def main() -> tuple[bool, float]:
        with anyio.move_on_after(0.001) as scope:
            await to_thread.run_sync(time.sleep, 0.05)
        return scope.cancel_called, anyio.current_time()

    assert run(loop, main) == (False, START)


@both
def test_time_stands_still_for_threads_under_a_limiter_of_their_own(loop: LoopName) -> None:
    async def main() -> tuple[bool, float]:
        with anyio.move_on_after(0.001) as scope:
            await to_thread.run_sync(time.sleep, 0.05, limiter=CapacityLimiter(1))
        return scope.cancel_called, anyio.current_time()

    assert run(loop, main) == (False, START)


@both
def test_no_jump_slips_in_between_a_threads_end_and_its_result(loop: LoopName) -> None:
    async def worker(index: int) -> None:
        for _ in range(15):
            await to_thread.run_sync(time.sleep, index * 0.0001)

    async def main() -> tuple[bool, float]:
        with anyio.move_on_after(0.001) as scope:
            async with anyio.create_task_group() as group:
                for index in range(4):
                    group.start_soon(worker, index)
        return scope.cancel_called, anyio.current_time()

    assert run(loop, main) == (False, START)


@both
def test_time_goes_on_when_the_thread_has_ended(loop: LoopName) -> None:
    async def main() -> float:
        await to_thread.run_sync(time.sleep, 0.01)
        await anyio.sleep(100)
        return anyio.current_time()

    assert run(loop, main) == START + 100


@both
def test_time_stands_still_while_a_kernels_call_is_held(loop: LoopName) -> None:
    def work(done: Event, token: anyio.lowlevel.EventLoopToken, let_go: Callable[[], None]) -> None:
        time.sleep(0.05)
        from_thread.run_sync(done.set, token=token)
        let_go()

    async def main() -> tuple[bool, float]:
        token = anyio.lowlevel.current_token()
        done = Event()
        thread = threading.Thread(target=work, args=(done, token, Holds(token).take()))
        with anyio.move_on_after(0.001) as scope:
            thread.start()
            await done.wait()
        thread.join()
        return scope.cancel_called, anyio.current_time()

    assert run(loop, main) == (False, START)


@both
def test_time_stands_still_until_an_unwatched_hold_is_let_go(loop: LoopName) -> None:
    async def main() -> float:
        let_go = Holds(anyio.lowlevel.current_token()).take()
        timer = threading.Timer(0.05, let_go)
        began = time.monotonic()
        timer.start()
        await anyio.sleep(10)
        timer.join()
        return time.monotonic() - began

    assert run(loop, main) >= 0.04


@both
def test_time_stands_still_while_a_worker_process_starts_and_works(loop: LoopName) -> None:
    async def main() -> tuple[list[bool], float]:
        called: list[bool] = []
        for _ in range(2):  # a new worker, then an idle one
            with anyio.move_on_after(0.001) as scope:
                await to_process.run_sync(time.sleep, 0.05)
            called.append(scope.cancel_called)
        return called, anyio.current_time()

    assert run(loop, main) == ([False, False], START)


@both
def test_time_goes_on_beside_an_idle_worker_process(loop: LoopName) -> None:
    async def main() -> float:
        await to_process.run_sync(abs, -1)
        await anyio.sleep(100)
        return anyio.current_time()

    assert run(loop, main) == START + 100


@both
def test_a_subprocess_run_in_a_thread_is_waited_for(loop: LoopName) -> None:
    async def main() -> bool:
        with anyio.move_on_after(0.001) as scope:
            await to_thread.run_sync(subprocess.run, [sys.executable, "-c", ""])
        return scope.cancel_called

    assert run(loop, main) is False


@both
def test_a_thread_that_asks_the_event_loop_to_sleep_is_not_at_work(loop: LoopName) -> None:
    def body() -> None:
        from_thread.run(anyio.sleep, 100)
        time.sleep(0.02)
        from_thread.run(anyio.sleep, 100)

    async def main() -> tuple[bool, float]:
        # 201 s would be jumped to, if the thread did not count between its two sleeps.
        with anyio.move_on_after(201) as scope:
            await to_thread.run_sync(body)
        return scope.cancel_called, anyio.current_time()

    assert run(loop, main) == (False, START + 200)


@both
def test_a_held_thread_of_ones_own_may_ask_the_event_loop_to_sleep(loop: LoopName) -> None:
    def work(done: Event, token: anyio.lowlevel.EventLoopToken, let_go: Callable[[], None]) -> None:
        from_thread.run(anyio.sleep, 100, token=token)
        from_thread.run_sync(done.set, token=token)
        let_go()

    async def main() -> float:
        token = anyio.lowlevel.current_token()
        done = Event()
        thread = threading.Thread(target=work, args=(done, token, Holds(token).take()))
        thread.start()
        await done.wait()
        await to_thread.run_sync(thread.join)
        return anyio.current_time()

    assert run(loop, main) == START + 100


@both
def test_an_answer_to_a_thread_is_not_jumped_over(loop: LoopName) -> None:
    def body() -> None:
        for _ in range(20):
            from_thread.run(anyio.lowlevel.checkpoint)

    async def main() -> tuple[bool, float]:
        with anyio.move_on_after(0.001) as scope:
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(to_thread.run_sync, body)
        return scope.cancel_called, anyio.current_time()

    assert run(loop, main) == (False, START)


@both
def test_a_thread_that_may_be_abandoned_may_ask_too(loop: LoopName) -> None:
    async def main() -> float:
        await to_thread.run_sync(from_thread.run, anyio.sleep, 100, abandon_on_cancel=True)
        return anyio.current_time()

    assert run(loop, main) == START + 100


@both
def test_a_thread_may_ask_for_work_in_a_thread_that_asks(loop: LoopName) -> None:
    def outer() -> None:
        from_thread.run(to_thread.run_sync, inner)

    def inner() -> None:
        time.sleep(0.02)
        from_thread.run(anyio.sleep, 100)

    async def main() -> tuple[bool, float]:
        with anyio.move_on_after(101) as scope:
            await to_thread.run_sync(outer)
        return scope.cancel_called, anyio.current_time()

    assert run(loop, main) == (False, START + 100)


@both
def test_threads_under_a_driven_coroutine_may_ask(loop: LoopName) -> None:
    async def body() -> None:
        await to_thread.run_sync(from_thread.run, anyio.sleep, 100)

    @types.coroutine
    def drive(coro: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        trap = coro.send(None)
        with contextlib.suppress(StopIteration):
            while True:
                trap = coro.send((yield trap))

    async def main() -> float:
        await drive(body())
        return anyio.current_time()

    assert run(loop, main) == START + 100


@both
def test_one_asking_thread_does_not_hide_a_working_one(loop: LoopName) -> None:
    async def main() -> float:
        async with anyio.create_task_group() as group:
            group.start_soon(to_thread.run_sync, from_thread.run, anyio.sleep, 1)
            await to_thread.run_sync(time.sleep, 0.05)
            return anyio.current_time()

    assert run(loop, main) == START


@both
def test_loopback_connections_work_under_a_timeout(loop: LoopName) -> None:
    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.send(await stream.receive())

    async def main() -> tuple[bytes, float]:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port: int = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve)
            with anyio.fail_after(1):
                async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                    await stream.send(b"hello")
                    answer = await stream.receive()
            group.cancel_scope.cancel()
        return answer, anyio.current_time()

    assert run(loop, main) == (b"hello", START)


@both
def test_with_nothing_to_jump_to_the_loop_waits_for_the_world(
    loop: LoopName, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> float:
        token = anyio.lowlevel.current_token()
        done = Event()
        timer = threading.Timer(0.05, lambda: from_thread.run_sync(done.set, token=token))
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, math.inf)
            timer.start()
            await done.wait()
            group.cancel_scope.cancel()
        timer.join()
        return anyio.current_time()

    waits = count_waits(monkeypatch)
    assert run(loop, main) == START
    assert len(waits) < 100  # it sleeps until then, and does not ask again and again


def test_what_can_be_read_is_read_before_a_jump() -> None:
    async def main() -> float:
        ours, theirs = socket.socketpair()
        with ours, theirs, anyio.fail_after(1):
            came = asyncio.Event()
            theirs.send(b"x")
            asyncio.get_running_loop().add_reader(ours, came.set)
            # Nothing stands between this wait and the selector, as a checkpoint would.
            await came.wait()
            asyncio.get_running_loop().remove_reader(ours)
        return anyio.current_time()

    assert run("asyncio", main) == START


def test_a_wake_up_that_comes_with_the_end_of_the_work_is_seen_before_a_jump() -> None:
    ours, theirs = socket.socketpair()
    jumps: list[float] = []

    def ends_just_now() -> bool:
        theirs.send(b"x")
        return False

    selector = turnscope.testing._VirtualSelector(ends_just_now, jumps.append)
    with ours, theirs, selector:
        selector.register(ours, selectors.EVENT_READ)
        assert [key.fileobj for key, _ in selector.select(5)] == [ours]
    assert jumps == []


@both
def test_a_signal_wakes_the_loop(loop: LoopName) -> None:
    async def main() -> int:
        with anyio.open_signal_receiver(signal.SIGUSR1) as signals:
            timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            async for signum in signals:
                timer.join()
                return signum
        raise AssertionError("no signal came")

    assert run(loop, main) == signal.SIGUSR1


def test_a_cancelled_endless_sleep_is_forgotten_on_asyncio() -> None:
    async def main() -> int:
        for _ in range(20):
            with anyio.move_on_after(1):
                await anyio.sleep_forever()
        return len(asyncio.get_running_loop()._never)

    assert run("asyncio", main) <= 1


def test_the_loops_executor_is_real_work() -> None:
    async def main() -> tuple[bool, float]:
        with anyio.move_on_after(0.001) as scope:
            await asyncio.to_thread(time.sleep, 0.05)
        return scope.cancel_called, anyio.current_time()

    assert run("asyncio", main) == (False, START)


def test_an_executor_of_ones_own_is_real_work() -> None:
    async def main() -> tuple[bool, float]:
        with concurrent.futures.ThreadPoolExecutor() as executor:
            with anyio.move_on_after(0.001) as scope:
                await asyncio.get_running_loop().run_in_executor(executor, time.sleep, 0.05)
        return scope.cancel_called, anyio.current_time()

    assert run("asyncio", main) == (False, START)


def test_the_end_of_the_loop_waits_for_its_executor() -> None:
    begun = threading.Event()

    def work() -> None:
        begun.set()
        time.sleep(0.1)

    async def main() -> None:
        with anyio.move_on_after(0.001):
            future = asyncio.get_running_loop().run_in_executor(None, work)
            while not begun.is_set():
                await asyncio.sleep(0)
            future.cancel()  # the thread has begun: it goes on, and is joined at the end

    real = time.monotonic()
    run("asyncio", main)  # a jump over the end's own timeout would be a RuntimeWarning
    assert time.monotonic() - real >= 0.09


def test_asyncio_debug_mode_works_and_finds_nothing_slow(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> float:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            await to_thread.run_sync(time.sleep, 0.01)
            await asyncio.to_thread(time.sleep, 0.01)
            await anyio.sleep(5)
            time.sleep(0.15)  # what asyncio's debug mode looks for
            group.cancel_scope.cancel()
        return anyio.current_time()

    options = virtual_time("asyncio")
    options["backend_options"]["debug"] = True
    assert anyio.run(main, **options) == START + 5
    assert not [record for record in caplog.records if "took" in record.message]


def test_uvloop_is_refused_with_what_is_possible() -> None:
    with pytest.raises(ValueError, match=r'"asyncio" and "trio", not .uvloop.; uvloop has no'):
        virtual_time("uvloop")  # type: ignore[arg-type] # because that is the mistake


def test_without_trio_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio", None)
    monkeypatch.setitem(sys.modules, "trio.testing", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install turnscope\[trio\]"):
        virtual_time("trio")
    assert virtual_time("asyncio")["backend"] == "asyncio"


class TestWithThePluginOfAnyIO:
    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> tuple[object, ...]:
        return tuple(virtual_time(request.param).values())

    @pytest.mark.anyio
    async def test_the_clock_is_virtual(self) -> None:
        began = anyio.current_time()
        await anyio.sleep(3600)
        assert (began, anyio.current_time()) == (START, START + 3600)

    @pytest.mark.anyio
    async def test_threads_and_processes_are_waited_for(self) -> None:
        with anyio.fail_after(0.001):
            await to_thread.run_sync(time.sleep, 0.02)
            await to_process.run_sync(time.sleep, 0.02)
