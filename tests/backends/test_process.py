"""Worker processes: accidents in them stay theirs, and nothing of ours stays behind."""

from __future__ import annotations

import functools
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import anyio
import psutil
import pytest

from tests.backends import process_tools as tools
from tests.support import Loop
from turnscope import CallContext, WorkerLost
from turnscope.testing import nothing_left
from turnscope_backends import _child, _parcels, _pool, _worker
from turnscope_backends._process import ProcessBackend

Run = Callable[[Callable[[], Awaitable[None]]], None]


class Context:
    """As much of a call's context as a backend uses."""

    held = 0

    def hold(self) -> Callable[[], None]:
        self.held += 1

        def release() -> None:
            self.held -= 1

        return release


def children() -> list[psutil.Process]:
    """The living child processes of this one, and theirs."""
    return [child for child in psutil.Process().children(recursive=True) if lives(child)]


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it has ended while it was looked at
        return False


class Backend:
    """A ProcessBackend with a short way to call it."""

    def __init__(self, backend: ProcessBackend) -> None:
        self.backend = backend
        self.context = Context()

    async def __call__(self, fn: Callable[..., Any], /, **kwargs: Any) -> Any:
        context = cast("CallContext[Any]", self.context)
        return await self.backend.call(getattr(fn, "fn", fn), kwargs, context)

    @property
    def pool(self) -> _pool.Pool:
        assert self.backend._pool is not None
        return self.backend._pool

    async def idle(self, count: int) -> None:
        """Wait until there are *count* idle workers."""
        while len(self.pool._idle) < count:
            await anyio.sleep(0.002)


@asynccontextmanager
async def opened(warm: int = 0, **options: Any) -> AsyncIterator[Backend]:
    backend = Backend(ProcessBackend(warm, **options))
    async with backend.backend:
        yield backend
    assert backend.context.held == 0
    assert not children(), "a process is left over"


@pytest.fixture
def run(any_loop: Loop) -> Iterator[Run]:
    """Run an async function in an event loop of its own, which leaves no process behind."""

    def run(body: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            with anyio.fail_after(120):
                await body()

        anyio.run(bounded, **any_loop)

    yield run
    _, alive = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=20)
    assert not alive


async def wait_for(path: Path) -> str:
    while not path.exists():
        await anyio.sleep(0.002)
    return path.read_text()


# What runs, and where


def test_a_function_runs_in_another_process_and_its_value_comes_back(run: Run) -> None:
    async def main() -> None:
        async with opened() as call:
            assert await call(tools.add, a=1, b=2) == 3
            assert await call(tools.pid) == await call(tools.pid) != os.getpid()

    run(main)


def test_a_decorated_function_and_one_in_a_class_are_found(run: Run) -> None:
    async def main() -> None:
        async with opened() as call:
            assert await call(cast("Any", tools.doubled), n=21) == 42
            assert await call(tools.Box.inside, n=1) == 2

    run(main)


def test_two_calls_overlap_on_two_workers(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        pids: list[int] = []
        a, b = str(tmp_path / "a"), str(tmp_path / "b")

        async def meet(mine: str, other: str) -> None:
            pids.append(await call(tools.meet, mine=mine, other=other))

        async with opened() as call, anyio.create_task_group() as group:
            group.start_soon(meet, a, b)
            group.start_soon(meet, b, a)
        assert len(set(pids)) == 2

    run(main)


def test_warm_workers_start_in_the_background_and_end_with_their_backend(run: Run) -> None:
    async def main() -> None:
        async with opened(warm=2) as call:
            assert not children(), "it has waited until a process was there"
            pids = {await call(tools.pid)}
            await call.idle(2)
            workers = children()
        assert pids < {worker.pid for worker in workers}
        assert not any(map(lives, workers))
        async with opened() as call:
            assert await call(tools.pid) not in {worker.pid for worker in workers}

    run(main)


def test_the_worker_used_last_is_used_next_and_one_long_idle_ends(run: Run) -> None:
    async def main() -> None:
        async with opened(warm=2) as call:
            await call.idle(2)
            pool = call.pool
            pids = {child._process.pid for child, _ in pool._idle}
            worker = await call(tools.pid)
            assert await call(tools.pid) == worker
            child, since = pool._idle[0]
            pool._idle[0] = child, since - _pool.KEPT
            assert await call(tools.pid) == worker
            while len(children()) > 1:
                await anyio.sleep(0.002)
            assert {worker.pid for worker in children()} == {worker} < pids

    run(main)


def test_a_backend_is_open_once_and_only_while_it_is_open(run: Run) -> None:
    async def main() -> None:
        async with opened() as call:
            with pytest.raises(RuntimeError, match="give each kernel one of its own"):
                await call.backend.__aenter__()
        with pytest.raises(RuntimeError, match="async with"):
            await call(tools.pid)

    run(main)
    with pytest.raises(ValueError, match="0 or more"):
        ProcessBackend(warm=-1)


# Accidents


@pytest.mark.parametrize(
    "accident",
    [functools.partial(tools.leave, 0), functools.partial(tools.leave, 7), tools.kill_myself],
    ids=["os._exit(0)", "os._exit(7)", "SIGKILL"],
)
def test_a_worker_that_dies_is_the_loss_of_its_call_alone(
    run: Run, tmp_path: Path, accident: Any
) -> None:
    async def main() -> None:
        async def neighbour() -> None:
            await call(tools.record_and_sleep, pid_file=str(tmp_path / "n"), seconds=0.1)
            survived.append(True)

        survived: list[bool] = []
        async with opened() as call:
            async with anyio.create_task_group() as group:
                group.start_soon(neighbour)
                await wait_for(tmp_path / "n")
                with pytest.raises(WorkerLost, match="died"):
                    if isinstance(accident, functools.partial):
                        await call(accident.func, code=accident.args[0])
                    else:
                        await call(accident)
            assert survived
            assert await call(tools.add, a=1, b=2) == 3

    run(main)


def test_a_worker_killed_from_outside_in_mid_call_is_lost(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async def kill() -> None:
            os.kill(int(await wait_for(tmp_path / "pid")), signal.SIGKILL)

        async with opened() as call:
            async with anyio.create_task_group() as group:
                group.start_soon(kill)
                with pytest.raises(WorkerLost, match="record_and_sleep"):
                    await call(tools.record_and_sleep, pid_file=str(tmp_path / "pid"), seconds=20)
            assert await call(tools.add, a=1, b=2) == 3

    run(main)


def test_a_fork_that_outlives_its_worker_does_not_hide_the_loss(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened() as call:
            with anyio.fail_after(25), pytest.raises(WorkerLost):
                await call(tools.fork_a_sleeper_and_die, pid_file=str(tmp_path / "pid"))
            with suppress(ProcessLookupError):  # it belongs to the worker's group
                os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    run(main)


def test_sys_exit_is_an_exception_of_the_tool_and_the_worker_lives_on(run: Run) -> None:
    async def main() -> None:
        async with opened() as call:
            before = await call(tools.pid)
            with pytest.raises(SystemExit) as caught:
                await call(tools.sys_exit)
            assert caught.value.code == 3
            assert await call(tools.pid) == before

    run(main)


def test_output_harms_nobody_and_is_dropped(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with opened() as call:
            assert await call(tools.chatter) == "done"
            assert await call(tools.add, a=1, b=2) == 3

    run(main)
    assert capfd.readouterr() == ("", "")


def test_much_output_does_not_bring_a_worker_to_a_standstill(run: Run) -> None:
    async def main() -> None:
        async with opened() as call:
            with anyio.fail_after(60):
                assert await call(tools.shout, size=2_000_000) == "done"

    run(main)


def test_standard_input_is_empty(run: Run) -> None:
    async def main() -> None:
        async with opened() as call:
            assert await call(tools.read_stdin) == ("", b"", "")
            assert await call(tools.add, a=1, b=2) == 3

    run(main)


def test_a_tool_may_close_its_own_standard_streams_but_not_the_line(run: Run) -> None:
    async def main() -> None:
        async with opened() as call:
            before = await call(tools.pid)
            assert await call(tools.close_stdout) == "closed"
            assert await call(tools.pid) == before
            with pytest.raises(WorkerLost):
                await call(tools.close_everything)
            assert await call(tools.add, a=1, b=2) == 3

    run(main)


@pytest.mark.parametrize("how", ["garbage", "half", "short", "closed"])
def test_what_is_no_answer_is_the_loss_of_its_call_alone(run: Run, how: str) -> None:
    async def main() -> None:
        async with opened() as call:
            for _ in range(2):
                with anyio.fail_after(25), pytest.raises(WorkerLost, match=r"spoil.*unknown"):
                    await call(tools.spoil, how=how)
                assert await call(tools.add, a=1, b=2) == 3

    run(main)


def test_what_follows_an_answer_is_no_beginning_of_the_next(run: Run) -> None:
    async def main() -> None:
        async with opened() as call:
            worker = await call(tools.pid)
            assert await call(tools.speak_after_the_answer) == "done"
            assert await call(tools.pid) != worker

    run(main)


def test_an_idle_worker_that_dies_is_replaced(run: Run) -> None:
    async def main() -> None:
        async with opened() as call:
            worker = await call(tools.pid)
            os.kill(worker, signal.SIGKILL)
            while call.pool._idle[0][0].usable:
                await anyio.sleep(0.002)
            assert await call(tools.pid) != worker

    run(main)


def test_much_goes_and_comes_whole(run: Run) -> None:
    async def main() -> None:
        much = os.urandom(5_000_000)
        async with opened() as call:
            for value in (much, b"", much):
                assert await call(tools.echo, value=value) == value

    run(main)


def test_a_fork_that_falls_out_of_the_tool_answers_nobody(run: Run) -> None:
    async def main() -> None:
        async with opened() as call:
            status = await call(tools.fork_and_both_return)
            assert os.waitstatus_to_exitcode(status) == 1
            for n in range(5):
                assert await call(tools.add, a=n, b=2) == n + 2

    run(main)


def test_ctrl_c_reaches_neither_a_busy_nor_an_idle_worker(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened() as call:
            worker = await call(tools.pid)
            assert await call(tools.interrupt_myself) == "still here"
            os.kill(worker, signal.SIGINT)
            await anyio.sleep(0.02)
            assert await call(tools.pid) == worker
            assert await call(tools.sigint_in_a_child_program) is False

    run(main)


def test_a_handler_of_the_users_own_is_left_alone(run: Run) -> None:
    async def main() -> None:
        async with opened() as call:
            await call(tools.install_own_sigint)
            assert await call(tools.sigint_is_default)

    run(main)


def test_the_checker_for_leftovers_lets_idle_workers_stay(run: Run) -> None:
    async def main() -> None:
        async with opened() as call:
            async with nothing_left():
                worker = await call(tools.pid)
            assert await call(tools.pid) == worker

    run(main)


def test_what_is_carried_is_around_its_call_and_no_other(run: Run) -> None:
    name: ContextVar[str | None] = ContextVar("name", default=None)

    def carry() -> tools.Around | None:
        found = name.get()
        return None if found is None else tools.Around(found)

    async def main() -> None:
        async with opened(carry=carry) as call:
            assert await call(tools.around) is None
            name.set("a")
            assert await call(tools.around) == "a"
            with pytest.raises(ValueError, match="plainly"):
                await call(tools.fails, how="plainly")
            name.set(None)
            assert await call(tools.around) is None
            assert len(call.pool._idle) == 1

    run(main)


# What cannot travel


def test_what_cannot_be_carried_is_told(run: Run) -> None:
    async def main() -> None:
        async with opened(carry=lambda: nullcontext(lambda: None)) as call:
            with pytest.raises(TypeError, match=r"what carry= gave, of type nullcontext"):
                await call(tools.pid)
        async with opened(carry=lambda: tools.AroundOnlyHere("a")) as call:
            with pytest.raises(TypeError, match=r"what carry= gave cannot be rebuilt"):
                await call(tools.pid)

    run(main)


def test_an_unpicklable_argument_is_named(run: Run) -> None:
    async def main() -> None:
        async with opened() as call:
            with pytest.raises(TypeError, match=r"argument 'b', of type function, .* plain data"):
                await call(tools.add, a=1, b=lambda: None)
            assert not children()

    run(main)


def test_an_argument_that_the_worker_cannot_rebuild_is_a_clear_failure(run: Run) -> None:
    async def main() -> None:
        async with opened() as call:
            with pytest.raises(TypeError, match=r"cannot be rebuilt .*made in another process"):
                await call(tools.echo, value=tools.OnlyHere())
            assert await call(tools.add, a=1, b=2) == 3

    run(main)


@pytest.mark.parametrize(
    ("fn", "type_name"), [(tools.unpicklable, "generator"), (tools.only_here, "OnlyHere")]
)
def test_a_result_that_cannot_travel_is_named_by_its_type(
    run: Run, fn: Callable[..., Any], type_name: str
) -> None:
    async def main() -> None:
        async with opened() as call:
            with pytest.raises(TypeError, match=f"of type {type_name}, .*return plain data"):
                await call(fn)
            assert await call(tools.add, a=1, b=2) == 3

    run(main)


def test_exceptions_arrive_as_they_are_or_as_their_words(run: Run) -> None:
    async def main() -> None:
        async with opened() as call:
            for how, expected, text in [
                ("two", RuntimeError, "TwoArguments: bob is over 3"),
                ("twice", RuntimeError, "SaysItTwice: no user bob"),
                ("mute", RuntimeError, "Mute: (its text cannot be had)"),
                ("only here", RuntimeError, "FailsOnlyHere: here"),
                ("cancelled", RuntimeError, "CancelledError: mine"),
                ("as it is", ValueError, "as it is"),
            ]:
                with pytest.raises(expected) as caught:
                    await call(tools.fails, how=how)
                assert type(caught.value) is expected
                assert str(caught.value) == text
                (note,) = caught.value.__notes__
                assert "in fails" in note
                assert "_worker.py" not in note
            assert "KeyError: 'deeper'" in note
            with pytest.raises(RuntimeError, match="ValueError: <function"):
                await call(tools.fails, how="unpicklable")

    run(main)


# Cancellation


def test_a_cancelled_call_kills_its_worker_at_once(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(warm=1) as call:
            with anyio.CancelScope() as scope:

                async def cancel() -> None:
                    await wait_for(tmp_path / "pid")
                    scope.cancel()

                async with anyio.create_task_group() as group:
                    group.start_soon(cancel)
                    await call(tools.record_and_sleep, pid_file=str(tmp_path / "pid"), seconds=30)
            assert scope.cancelled_caught
            assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
            assert await call(tools.add, a=1, b=2) == 3

    run(main)


@pytest.mark.parametrize("seconds", [0, 0.001, 0.02, 0.05, 0.08])
def test_a_call_cancelled_in_a_cold_start_leaves_no_process(run: Run, seconds: float) -> None:
    async def main() -> None:
        async with opened() as call:
            with anyio.move_on_after(seconds):
                await call(tools.sleep, seconds=30)
            assert call.context.held == 0
        async with opened() as call:
            with anyio.move_on_after(seconds):
                await call(tools.sleep, seconds=30)
            assert await call(tools.add, a=1, b=2) == 3
            assert len(children()) == 1, "the start that was under way served the next call"

    run(main)


def test_a_worker_that_is_ready_just_as_the_backend_closes_is_ended(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = _child.Child.ask

    async def heeds_no_cancellation(child: _child.Child, request: tuple[Any, ...]) -> Any:
        with anyio.CancelScope(shield=True):
            return await ask(child, request)

    async def main() -> None:
        async with opened(warm=1):
            await anyio.sleep(0)

    monkeypatch.setattr(_child.Child, "ask", heeds_no_cancellation)
    run(main)


@pytest.mark.parametrize("seconds", [0, 0.001, 0.01, 0.03, 0.2])
def test_a_backend_closed_or_cancelled_in_any_state_leaves_no_process(
    run: Run, seconds: float
) -> None:
    async def main() -> None:
        async with opened(warm=3):
            await anyio.sleep(seconds)
        assert not children()

        with anyio.CancelScope() as scope:
            async with opened(warm=3):
                await anyio.sleep(seconds)
                scope.cancel()
        assert not children()

        async def close() -> None:
            async with opened(warm=3) as call:
                await anyio.sleep(seconds)
                await call(tools.at_exit_sleep, seconds=30)

        with anyio.move_on_after(1):
            async with anyio.create_task_group() as group:
                group.start_soon(close)
                await anyio.sleep(seconds * 1.5)
                group.cancel_scope.cancel()
        assert not children()

    run(main)


def test_a_worker_has_a_second_to_end_in_and_a_cancellation_kills_it_at_once(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with opened(warm=1) as call:
            await call(tools.at_exit_sleep, seconds=30)
            began = anyio.current_time()
        assert 0.9 < anyio.current_time() - began < 10
        # Longer here and there, so that a machine that is slow to kill it is not taken for that.
        monkeypatch.setattr(_worker, "LAST", 20.0)
        with anyio.CancelScope() as scope:
            async with opened(warm=1) as call:
                await call(tools.at_exit_sleep, seconds=30)
                await call(tools.take_longer_to_end, seconds=20)
                began = anyio.current_time()
                scope.cancel()
        assert anyio.current_time() - began < 10

    run(main)


def test_an_idle_worker_ends_in_order(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened() as call:
            await call(tools.at_exit_touch, path=str(tmp_path / "ended"))
        assert (tmp_path / "ended").exists()

    run(main)


def test_a_call_that_is_at_work_when_its_backend_closes_takes_its_worker_with_it(
    run: Run, tmp_path: Path
) -> None:
    async def main() -> None:
        begun, free = tmp_path / "begun", tmp_path / "free"

        async def at_work() -> None:
            await call(tools.meet, mine=str(begun), other=str(free))

        async def waits() -> None:
            with pytest.raises(RuntimeError, match="the ProcessBackend was closed"):
                await call(tools.pid)

        call = Backend(ProcessBackend())
        async with anyio.create_task_group() as group:
            async with call.backend:
                group.start_soon(at_work)
                await wait_for(begun)
                group.start_soon(waits)
                while not call.pool._waiting:
                    await anyio.sleep(0)
            assert len(children()) == 1
            free.touch()
        assert not children()

    run(main)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups to be killed")
def test_programs_that_a_cancelled_call_has_started_end_with_it(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "pid"

    async def main() -> None:
        async def started() -> None:
            await call(tools.start_a_program_and_wait, pid_file=str(path))

        async with opened() as call:
            async with anyio.create_task_group() as group:
                group.start_soon(started)
                program = psutil.Process(int(await wait_for(path)))
                group.cancel_scope.cancel()
            while lives(program):
                await anyio.sleep(0.002)

    run(main)


@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
def test_a_worker_whose_parent_is_killed_ends(tmp_path: Path, any_loop: Loop, busy: bool) -> None:
    text = f"""
import anyio
from tests.backends import process_tools as tools
from tests.support import LOOPS
from turnscope_backends._process import ProcessBackend

class Context:
    def hold(self):
        return lambda: None

async def main():
    async with ProcessBackend() as backend:
        seconds = {60 if busy else 0}
        await backend.call(
            tools.record_and_sleep, dict(pid_file="pid", seconds=seconds), Context()
        )
        await anyio.sleep(60)

if __name__ == "__main__":
    backend, options = LOOPS["{any_loop.name}"]
    anyio.run(main, backend=backend, backend_options=options)
"""
    (tmp_path / "script.py").write_text(text)
    with subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as program:
        try:
            end = time.monotonic() + 20
            while not (tmp_path / "pid").exists():
                assert time.monotonic() < end
                time.sleep(0.01)
            worker = psutil.Process(int((tmp_path / "pid").read_text()))
            if not busy:
                time.sleep(0.1)  # until it has nothing to do
        finally:
            program.kill()
    _, alive = psutil.wait_procs([worker], timeout=10)
    assert not any(map(lives, alive))


def test_only_tasks_that_nobody_cancels_start_workers(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls end, are cancelled and lose their workers in disorder, in two backends at once."""
    starters: list[str | None] = []
    real = anyio.open_process

    async def open_process(*args: Any, **kwargs: Any) -> Any:
        starters.append(anyio.get_current_task().name)
        return await real(*args, **kwargs)

    monkeypatch.setattr(anyio, "open_process", open_process)
    chance = random.Random(20)

    async def main() -> None:
        done = 0

        async def customer(call: Backend) -> None:
            nonlocal done
            for _ in range(12):
                what = chance.choice(["add", "add", "add", "cancel", "lose"])
                await anyio.sleep(chance.choice([0, 0, 0.001]))
                if what == "add":
                    assert await call(tools.add, a=1, b=2) == 3
                elif what == "lose":
                    with pytest.raises(WorkerLost):
                        await call(tools.leave, code=1)
                else:
                    with anyio.move_on_after(chance.choice([0, 0.0002, 0.001, 0.01, 0.05])):
                        await call(tools.sleep, seconds=0.01)
                done += 1

        async with ProcessBackend(1) as one, ProcessBackend() as other:
            async with anyio.create_task_group() as group:
                for n in range(4):
                    group.start_soon(customer, Backend((one, other)[n % 2]))
        assert done == 48
        assert not children()

    run(main)
    assert set(starters) == {"start a worker process"}


def test_a_failed_start_fails_only_the_calls_that_no_other_start_can_serve(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = anyio.open_process
    failures = 1

    async def open_process(*args: Any, **kwargs: Any) -> Any:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise OSError("no more processes")
        return await real(*args, **kwargs)

    monkeypatch.setattr(anyio, "open_process", open_process)

    async def main() -> None:
        ended: list[object] = []

        async def one() -> None:
            try:
                ended.append(await call(tools.add, a=1, b=2))
            except RuntimeError as exc:
                assert isinstance(exc.__cause__, OSError)
                ended.append("no more processes" in str(exc))

        async with opened() as call:
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(one)
            assert sorted(map(str, ended)) == ["3", "3", "True"]
            assert await call(tools.add, a=1, b=2) == 3

    run(main)


# Refusals


def context_of_deps(n: int, context: CallContext[int]) -> None:
    return None


def context_or_none(context: CallContext[Any] | None = None) -> None:
    return None


@pytest.mark.parametrize(
    ("fn", "kind", "sentence"),
    [
        (tools.asynchronous, TypeError, "async.*inline backend"),
        (tools.generator, TypeError, "generator.*return a list"),
        (tools.bound, TypeError, "bound method.*module level"),
        (tools.partial, TypeError, "a partial, not a function.*module level"),
        (tools.instance, TypeError, "a Box, not a function.*module level"),
        (context_of_deps, TypeError, "'context' is a CallContext.*thread backend"),
        (context_or_none, TypeError, "'context' is a CallContext.*thread backend"),
        (tools.lambda_, ValueError, "lambda.*write a def"),
        (tools.hidden, ValueError, "tests.backends.process_tools.replaced does not lead to it"),
        ([].append, ValueError, "does not lead to it"),
    ],
)
def test_what_can_never_run_is_refused_before_any_work(
    fn: Callable[..., Any], kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        ProcessBackend().check(fn)


def test_a_function_in_a_function_is_refused() -> None:
    def local() -> None:
        return None

    with pytest.raises(ValueError, match="inside another function; move it to module level"):
        ProcessBackend().check(local)


def test_a_name_for_type_checkers_alone_does_not_hide_a_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(context_of_deps.__annotations__, "n", "OnlyForTypeCheckers")
    with pytest.raises(TypeError, match="'context' is a CallContext"):
        ProcessBackend().check(context_of_deps)


@pytest.mark.parametrize(
    "fn", [tools.add, cast("Any", tools.doubled).fn, tools.Box.inside, os.getpid]
)
def test_what_can_be_found_by_its_name_is_accepted(fn: Callable[..., Any]) -> None:
    ProcessBackend().check(fn)
    assert ProcessBackend().name == "process"


def test_what_check_refuses_call_refuses_too(run: Run) -> None:
    async def main() -> None:
        async with opened() as call:
            with pytest.raises(ValueError, match="lambda"):
                await call(tools.lambda_)
            assert not children()

    run(main)


# What a call comes to, in this process, where coverage sees it


def work(fn: Callable[..., Any], **kwargs: Any) -> _parcels.Outcome:
    place = _parcels.path_to(fn)
    assert place is not None
    told = _worker.call(*place, _parcels.pack(kwargs))
    return _parcels.Outcome(*pickle.loads(pickle.dumps(told)))  # as it travels


def test_everything_comes_back_as_data() -> None:
    assert _parcels.unpack(work(tools.echo, value=[1, 2])) == [1, 2]
    assert work(tools.sys_exit).type_name == "SystemExit"
    assert work(tools.unpicklable).pickled is None
    assert work(tools.fails, how="two").pickled is None
    assert work(tools.fails, how="mute").text == "(its text cannot be had)"


def test_a_function_that_the_worker_does_not_find_is_a_clear_failure() -> None:
    told = _worker.call(tools.__name__, "missing", _parcels.pack({}))
    with pytest.raises(LookupError, match=r"no 'missing' in module '.*process_tools'.*top level"):
        _parcels.unpack(_parcels.Outcome(*told))
    told = _worker.call("no_such_module", "f", _parcels.pack({}))
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        _parcels.unpack(_parcels.Outcome(*told))


def test_arguments_that_fail_only_together_are_told_of() -> None:
    class Grudge:
        calls = 0

        def __reduce__(self) -> Any:
            Grudge.calls += 1
            if Grudge.calls == 1:
                raise ValueError("not today")
            return int, ()

    with pytest.raises(TypeError, match=r"arguments cannot be sent .*not today"):
        _parcels.pack({"a": Grudge()})


# Scripts

SCRIPT = """
import os, sys, time
from collections import namedtuple
import anyio, psutil
from turnscope_backends import _pool
from turnscope_backends._process import ProcessBackend

from tests.backends import process_tools as tools
from tests.support import Loop

Pair = namedtuple("Pair", "a b")

def swap(pair):
    return Pair(pair.b, pair.a)

class Context:
    def hold(self):
        return lambda: None

async def main():
    async with ProcessBackend() as backend:
        for _ in range(2):
            try:
                backend.check(swap)
                with anyio.fail_after(20):
                    print(await backend.call(swap, dict(pair=Pair(1, 2)), Context()))
            except (RuntimeError, ValueError) as exc:
                if "__main__" not in sys.modules:
                    raise
                print(type(exc).__name__, exc)
    gone, alive = psutil.wait_procs(psutil.Process().children(), timeout=0.2)
    print(len(alive), "processes")
"""


def run_script(
    path: Path, text: str, *, typed_in: bool = False
) -> subprocess.CompletedProcess[str]:
    path.write_text(text)
    return subprocess.run(
        [sys.executable, *(["-c", text] if typed_in else [str(path)])],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_functions_and_classes_of_a_guarded_script_work(tmp_path: Path) -> None:
    end = 'if __name__ == "__main__":\n    anyio.run(main)\n'
    ran = run_script(tmp_path / "script.py", SCRIPT + end)
    assert ran.stdout.splitlines() == ["Pair(a=2, b=1)"] * 2 + ["0 processes"], ran.stderr


def test_a_script_without_a_guard_is_told_to_have_one_and_does_not_run_twice(
    tmp_path: Path,
) -> None:
    ran = run_script(tmp_path / "script.py", SCRIPT + "anyio.run(main)\n")
    *errors, processes = ran.stdout.splitlines()
    assert len(errors) == 2, ran.stderr
    for error in errors:
        assert error.startswith("RuntimeError no worker process could be started")
        assert "at work again in a worker process" in error
        assert 'under `if __name__ == "__main__":`' in error
    assert processes == "0 processes"


def test_a_script_that_hangs_in_the_worker_is_given_up(tmp_path: Path) -> None:
    hang = textwrap.dedent("""
        if __name__ == "__mp_main__":
            time.sleep(60)
        if __name__ == "__main__":
            _pool.START = 1.0
            anyio.run(main)
    """)
    began = time.monotonic()
    ran = run_script(tmp_path / "script.py", SCRIPT + hang)
    assert ran.stdout.count("not ready after 1 seconds") == 2, ran.stderr
    assert ran.stdout.endswith("0 processes\n")
    assert time.monotonic() - began < 50


def test_a_function_typed_in_is_refused(tmp_path: Path) -> None:
    ran = run_script(tmp_path / "script.py", SCRIPT + "anyio.run(main)\n", typed_in=True)
    assert ran.stdout.count("save it in a module") == 2, ran.stderr


ENDS = """
import asyncio, math, sys

if __name__ == "__main__":  # the workers need none of it
    import anyio
    from tests.backends import process_tools as tools
    from tests.support import LOOPS
    from turnscope_backends._process import ProcessBackend

class Context:
    def hold(self):
        return lambda: None

async def main(how):
    if sys.argv[1] != "trio":
        # The debug mode says what takes long, as the start of a process does on a slow machine.
        asyncio.get_running_loop().slow_callback_duration = math.inf
    async with ProcessBackend() as backend:
        await backend.call(tools.pid, {}, Context())
        if how == "busy":
            with anyio.move_on_after(0.01):
                await backend.call(tools.sleep, dict(seconds=30), Context())
        elif how == "dead":
            try:
                await backend.call(tools.leave, dict(code=1), Context())
            except Exception as exc:
                print(type(exc).__name__)
        elif how == "starting":
            backend._pool.start_soon()
            await anyio.sleep(0.02)

if __name__ == "__main__":
    backend, options = LOOPS[sys.argv[1]]
    for _ in range(4):
        for how in ("idle", "busy", "dead", "starting"):
            anyio.run(main, how, backend=backend, backend_options=options)
"""


def test_the_end_of_an_event_loop_says_nothing_of_its_workers(
    tmp_path: Path, any_loop: Loop
) -> None:
    (tmp_path / "script.py").write_text(ENDS)
    ran = subprocess.run(
        [sys.executable, "-X", "dev", str(tmp_path / "script.py"), any_loop.name],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "WorkerLost\n" * 4, "")
