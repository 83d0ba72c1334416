"""`turnscope.testing.nothing_left` and `check_results`: what they find, and what they let pass."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, Literal, TypeVar

import anyio
import anyio.lowlevel
import attrs
import pytest
from anyio import to_process, to_thread

from turnscope import _checkers
from turnscope._calls import Status, ToolCall, ToolResult
from turnscope._holds import Holds
from turnscope.testing import check_results, nothing_left, virtual_time

LoopName = Literal["asyncio", "trio"]
T = TypeVar("T")

every_clock = pytest.mark.parametrize(
    "options",
    [
        pytest.param({"backend": "asyncio"}, id="asyncio"),
        pytest.param({"backend": "asyncio", "backend_options": {"use_uvloop": True}}, id="uvloop"),
        pytest.param({"backend": "trio"}, id="trio"),
        pytest.param("asyncio", id="asyncio-virtual"),
        pytest.param("trio", id="trio-virtual"),
    ],
)
Options = dict[str, Any] | LoopName


def run(options: Options, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    if isinstance(options, dict):
        return anyio.run(main, **options)
    return anyio.run(main, **virtual_time(options))


@asynccontextmanager
async def group_around() -> AsyncGenerator[anyio.abc.TaskGroup]:
    """A task group that outlives the block under test, and is cancelled at the end."""
    async with anyio.create_task_group() as group:
        yield group
        group.cancel_scope.cancel()


# nothing_left


@every_clock
def test_an_empty_block_leaves_nothing(options: Options) -> None:
    async def main() -> float:
        began = time.monotonic()
        async with nothing_left(within=60):
            pass
        return time.monotonic() - began

    assert run(options, main) < 30


@every_clock
def test_a_task_that_goes_on_is_named(options: Options) -> None:
    async def main() -> None:
        async with group_around() as group:
            with pytest.raises(AssertionError, match=r"task 'call c1 weather' \(in .* > sleep"):
                async with nothing_left(within=0.05):
                    group.start_soon(anyio.sleep_forever, name="call c1 weather")

    run(options, main)


@every_clock
def test_a_nested_task_that_goes_on_is_named(options: Options) -> None:
    async def parent() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever, name="the child")

    async def main() -> None:
        async with group_around() as group:
            with pytest.raises(AssertionError, match="'the child'"):
                async with nothing_left(within=0.05):
                    group.start_soon(parent, name="the parent")

    run(options, main)


@every_clock
def test_a_task_that_ends_soon_is_given_the_time(options: Options) -> None:
    async def main() -> None:
        async with group_around() as group, nothing_left(within=5):
            group.start_soon(anyio.sleep, 0.1)

    run(options, main)


@every_clock
def test_a_task_that_ends_too_late_is_found(options: Options) -> None:
    async def main() -> float:
        async with group_around() as group:
            began = anyio.current_time()
            with pytest.raises(AssertionError, match=r"there 0\.1 s after"):
                async with nothing_left(within=0.1):
                    group.start_soon(anyio.sleep, 60)
            return anyio.current_time() - began

    assert 0.09 <= run(options, main) < 30


@every_clock
def test_tasks_from_before_the_block_may_stay(options: Options) -> None:
    async def main() -> None:
        async with group_around() as group:
            group.start_soon(anyio.sleep_forever)
            await anyio.lowlevel.checkpoint()
            async with nothing_left(within=0.05):
                await anyio.sleep(0.01)

    run(options, main)


@every_clock
def test_idle_worker_threads_and_processes_may_stay(options: Options) -> None:
    async def main() -> None:
        together = threading.Barrier(3)
        async with nothing_left():
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(to_thread.run_sync, together.wait)
            await to_process.run_sync(abs, -1)

    run(options, main)


@pytest.mark.parametrize("options", [{"backend": "asyncio"}, "asyncio"])
def test_idle_threads_of_an_executor_may_stay(options: Options) -> None:
    async def main() -> None:
        async with nothing_left():
            await asyncio.to_thread(abs, -1)

    run(options, main)


@every_clock
def test_an_abandoned_worker_thread_is_found_while_it_works(options: Options) -> None:
    async def main() -> None:
        release, started = threading.Event(), threading.Event()
        with pytest.raises(AssertionError, match="thread '"):
            async with nothing_left(within=0.05):
                async with anyio.create_task_group() as group:
                    group.start_soon(abandon, release, started)
                    await to_thread.run_sync(started.wait)
                    group.cancel_scope.cancel()
        release.set()
        async with nothing_left():  # and no more when it has ended
            pass

    async def abandon(release: threading.Event, started: threading.Event) -> None:
        def body() -> None:
            started.set()
            release.wait()

        await to_thread.run_sync(body, abandon_on_cancel=True)

    run(options, main)


@every_clock
def test_a_pool_thread_from_before_is_found_if_the_block_left_it_at_work(options: Options) -> None:
    async def main() -> None:
        release, started = threading.Event(), threading.Semaphore(0)
        together = threading.Barrier(4)

        def body() -> None:
            started.release()
            release.wait()

        async def abandon() -> None:
            await to_thread.run_sync(body, abandon_on_cancel=True)

        async with anyio.create_task_group() as group:
            for _ in range(4):  # idle, or about to be, when the block begins
                group.start_soon(to_thread.run_sync, together.wait)
        before = set(threading.enumerate())
        try:
            with pytest.raises(AssertionError, match=r"(thread '.*\n.*){3}"):
                async with nothing_left(within=0.05):
                    async with anyio.create_task_group() as group:
                        for _ in range(3):
                            group.start_soon(abandon)
                        for _ in range(3):
                            await to_thread.run_sync(started.acquire)
                        group.cancel_scope.cancel()
                    # Those of other tests end when they have been idle for long enough.
                    assert set(threading.enumerate()) <= before
        finally:
            release.set()

    run(options, main)


@every_clock
def test_a_thread_that_puts_its_job_down_as_the_block_begins_is_not_spared(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    stays, ends = threading.Thread(), threading.Thread()
    looks = [{stays: "", ends: ""}, {stays: ""}]
    monkeypatch.setattr(_checkers, "_threads", lambda: looks.pop(0))
    assert run(options, _checkers._threads_before) == {stays}


@every_clock
def test_a_thread_of_ones_own_is_named_with_its_place(options: Options) -> None:
    async def main() -> None:
        release = threading.Event()
        thread = threading.Thread(target=release.wait, name="forgotten")
        with pytest.raises(AssertionError, match=r"thread 'forgotten' \(at .*threading\.py:\d+\)"):
            async with nothing_left(within=0.05):
                thread.start()
        release.set()
        thread.join()

    run(options, main)


@every_clock
def test_a_thread_that_ends_soon_is_given_real_time(options: Options) -> None:
    async def main() -> None:
        async with nothing_left(within=5):
            threading.Thread(target=time.sleep, args=(0.1,)).start()

    run(options, main)


@every_clock
def test_a_worker_that_is_just_putting_its_job_down_has_a_moment_for_it(options: Options) -> None:
    async def main() -> None:
        async with nothing_left(within=0):
            threading.Thread(target=time.sleep, args=(0.03,)).start()

    run(options, main)


@every_clock
def test_a_machine_that_stands_still_does_not_use_up_a_threads_time(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    stood_still = 0.0
    naps = 0

    def nap(span: float) -> None:
        nonlocal stood_still, naps
        stood_still += 60.0
        naps += 1
        if naps == 4:  # one or none of them is before the block
            release.set()
        time.sleep(span)

    def now() -> float:
        return time.monotonic() + stood_still

    monkeypatch.setattr(_checkers, "time", SimpleNamespace(monotonic=now, sleep=nap))

    async def main() -> None:
        async with nothing_left(within=0.05):
            threading.Thread(target=release.wait).start()

    try:
        run(options, main)
    finally:
        release.set()
    assert naps >= 4


@every_clock
def test_a_call_that_is_still_held_is_found(options: Options) -> None:
    async def main() -> None:
        holds = Holds(anyio.lowlevel.current_token())
        with pytest.raises(AssertionError, match="2 thread or process calls"):
            async with nothing_left(within=0.05):
                ends = [holds.take(), holds.take()]
        for end in ends:
            end()

    run(options, main)


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="child processes are seen in /proc")
@every_clock
def test_a_child_process_is_named_by_its_command(options: Options) -> None:
    async def main() -> None:
        child = None
        try:
            with pytest.raises(AssertionError, match=r"process \d+ \(.*time\.sleep\(60\)"):
                async with nothing_left(within=0.05):
                    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        finally:
            assert child is not None
            child.kill()
            child.wait()

    run(options, main)


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="child processes are seen in /proc")
def test_a_worker_process_that_was_left_running_is_found() -> None:
    # A worker that nobody waits for any more: AnyIO's own calls kill theirs.
    program = "import itertools, collections; print('at work', flush=True); "
    program += "collections.deque(itertools.count(), 0)"
    child: subprocess.Popen[bytes] | None = None

    async def main() -> None:
        nonlocal child
        with pytest.raises(AssertionError, match=r"process \d+ \(.*anyio\.to_process"):
            async with nothing_left(within=0.2):
                child = subprocess.Popen(
                    [sys.executable, "-c", program, "-m", "anyio.to_process"],
                    stdout=subprocess.PIPE,
                )
                assert child.stdout is not None
                assert await to_thread.run_sync(child.stdout.readline) == b"at work\n"

    try:
        anyio.run(main)
    finally:
        assert child is not None
        child.kill()
        child.communicate()


@every_clock
def test_a_killed_process_call_leaves_nothing(options: Options) -> None:
    async def main() -> None:
        async with nothing_left():
            # A worker that is cancelled while it starts is left to itself by AnyIO.
            await to_process.run_sync(os.getpid)
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(cancel_soon, scope)
                    await to_process.run_sync(time.sleep, 60, cancellable=True)

    async def cancel_soon(scope: anyio.CancelScope) -> None:
        await to_thread.run_sync(time.sleep, 0.2)
        scope.cancel()

    run(options, main)


@every_clock
def test_an_exception_of_the_block_comes_out_bare(options: Options) -> None:
    async def main() -> None:
        async with group_around() as group:
            with pytest.raises(KeyError, match="mine"):
                async with nothing_left(within=0.05):
                    group.start_soon(anyio.sleep_forever)
                    raise KeyError("mine")

    run(options, main)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_leaked_thread_does_not_make_the_checker_wait_for_virtual_time(loop: LoopName) -> None:
    async def main() -> float:
        began = time.monotonic()
        release = threading.Event()
        async with group_around() as group:
            with pytest.raises(AssertionError, match=r"task(.|\n)*thread"):
                async with nothing_left(within=0.1):
                    group.start_soon(to_thread.run_sync, release.wait)
                    await to_thread.run_sync(time.sleep, 0.01)
            took = time.monotonic() - began
            release.set()
        return took

    assert run(loop, main) < 5


# check_results

CALLS = [ToolCall("a", "one"), ToolCall("b", "two"), ToolCall("b", "two")]


def result(call: ToolCall, status: Status = Status.OK, **changes: Any) -> ToolResult:
    fields: dict[str, Any] = {"content": "text", "started_at": 1.0, "ended_at": 2.0}
    if status in (Status.INVALID, Status.DENIED, Status.NOT_STARTED):
        fields["started_at"] = None
    if status is not Status.OK:
        fields["error"] = RuntimeError("why")
    return ToolResult(call=call, status=status, **(fields | changes))


@pytest.mark.parametrize("status", list(Status))
def test_results_that_agree_pass(status: Status) -> None:
    check_results(CALLS, [result(call, status) for call in CALLS])
    check_results([], [])


def test_an_empty_text_is_content_enough_for_a_success() -> None:
    check_results(CALLS[:1], [result(CALLS[0], content="", started_at=1.0, ended_at=1.0)])


def test_one_call_object_submitted_twice_has_two_results() -> None:
    check_results([CALLS[0]] * 2, [result(CALLS[0])] * 2)
    with pytest.raises(AssertionError, match="2 calls have 1 results"):
        check_results([CALLS[0]] * 2, [result(CALLS[0])])


def test_a_call_without_a_result_is_named() -> None:
    with pytest.raises(AssertionError, match=r"(?s)3 calls have 2.*call 1 \('b', two\) has 0"):
        check_results(CALLS, [result(CALLS[0]), result(CALLS[2])])


def test_a_call_with_two_results_is_named() -> None:
    with pytest.raises(AssertionError, match=r"call 0 \('a', one\) has 2 results"):
        check_results(CALLS, [result(CALLS[0]), result(CALLS[0]), result(CALLS[2])])


def test_results_out_of_order_are_named() -> None:
    # The second and third call are equal, but not the same.
    with pytest.raises(AssertionError, match=r"call 1 \('b', two\) has its result at 2"):
        check_results(CALLS, [result(CALLS[0]), result(CALLS[2]), result(CALLS[1])])


def test_a_result_of_an_equal_call_is_not_a_result_of_the_call() -> None:
    with pytest.raises(AssertionError, match=r"result 0 is of .*none of the calls"):
        check_results(CALLS[:1], [result(attrs.evolve(CALLS[0]))])


@pytest.mark.parametrize(
    ("status", "changes", "message"),
    [
        (Status.OK, {"error": ValueError()}, "has an error"),
        (Status.OK, {"started_at": None}, "has no start"),
        (Status.FAILED, {"started_at": None}, "has no start"),
        (Status.FAILED, {"error": None}, "has no error"),
        (Status.TIMED_OUT, {"started_at": None}, "has no start"),
        (Status.CANCELLED, {"started_at": None}, "has no start"),
        (Status.LOST, {"started_at": None}, "has no start"),
        (Status.NOT_STARTED, {"started_at": 1.0}, "has begun, at 1.0"),
        (Status.NOT_STARTED, {"error": None}, "has no error"),
        (Status.NOT_STARTED, {"leaked": True}, "has leaked"),
        (Status.INVALID, {"started_at": 1.0}, "has begun, at 1.0"),
        (Status.DENIED, {"started_at": 1.0}, "has begun, at 1.0"),
        (Status.OK, {"ended_at": 0.5}, "ended at 0.5, before its start at 1.0"),
        (Status.FAILED, {"ended_at": -math.inf}, "ended at -inf, before its start at 1.0"),
        (Status.CANCELLED, {"content": ""}, "has no content"),
        (Status.INVALID, {"content": ()}, "has no content"),
    ],
)
def test_a_result_that_contradicts_itself_is_named(
    status: Status, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(AssertionError) as caught:
        check_results(CALLS[:1], [result(CALLS[0], status, **changes)])
    assert f"result 0 ({status}) {message}" in str(caught.value)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    wrong = [result(CALLS[0], error=ValueError()), result(CALLS[1], Status.FAILED, content="")]
    with pytest.raises(AssertionError, match=r"(?s)3 calls.*result 0 .*result 1"):
        check_results(CALLS, wrong)
