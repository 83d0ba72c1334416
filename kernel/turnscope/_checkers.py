"""What a turn must leave behind, as checkers for tests: `nothing_left` and `check_results`.

They look from outside, at tasks, threads, processes and values, and know nothing of kernels. Above:
`turnscope.testing`, which exports them. Below: `_calls` for the values, `_holds` for the count of
work outside the event loop.
"""

from __future__ import annotations

import inspect
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from queue import Queue
from types import FrameType
from typing import Final

import anyio
import anyio.lowlevel
from anyio import CapacityLimiter, to_process, to_thread

from ._calls import Status, ToolCall, ToolResult
from ._holds import outstanding

_PATIENCE: Final = 0.1

_PAUSES: Final = 50
"""How often is looked again, at the least: on a machine that stands still for longer than all of
them should take, threads and processes have not had the time that has passed."""


@asynccontextmanager
async def nothing_left(*, within: float = 1.0) -> AsyncGenerator[None]:
    """Assert that what was started inside the block has ended soon after it.

    >>> async with nothing_left():
    ...     async with Kernel() as kernel:
    ...         await kernel.run(agent, "...")

    Looks for tasks of this event loop, for thread and process calls of kernels, for threads at work
    and, where ``/proc`` tells, for child processes; those that were there before the block are
    nobody's fault. Idle workers of thread and process pools may stay. It gives tasks *within*
    seconds of the event loop's clock to end, and threads and processes as much of real time, but
    no less than 0.1 s: a worker needs a moment to put its job down. It looks 50 times before it
    complains of those, so they have longer on a machine that is slow or stands still.

    Raises AssertionError, with the names of what is left. If the block itself raises, that is
    raised and nothing is looked for.
    """
    tasks = set(_tasks())
    children = set(_children())
    held = outstanding()
    threads = await _threads_before()
    yield
    await anyio.lowlevel.checkpoint()
    real_end = time.monotonic() + max(within, _PATIENCE)
    end = anyio.current_time() + within
    idle: threading.Thread | None = None
    pauses = 0
    while True:
        working = _threads()
        outside = [working[thread] for thread in working.keys() - threads - {idle}]
        outside += [text for pid, text in _children().items() if pid not in children]
        if outstanding() > held:
            outside.append(f"{outstanding() - held} thread or process calls of a kernel")
        left = [text for task, text in _tasks().items() if task not in tasks] + outside
        if not left:
            return
        if not outside:
            over = anyio.current_time() >= end
        else:
            over = time.monotonic() >= real_end and pauses >= _PAUSES
        if over:
            break
        if outside:
            idle = await _real_pause(max(within, _PATIENCE) / _PAUSES)
            pauses += 1
        else:
            await anyio.sleep(within / _PAUSES)
    raise AssertionError(
        f"still there {within:g} s after the block:\n"
        + "".join(f"  {text}\n" for text in left)
        + "Cancel or join what the block starts; if it only needs longer, give a larger within="
    )


async def _real_pause(span: float) -> threading.Thread:
    """Let *span* real seconds pass, and no virtual ones; returns the worker thread that waited.

    That one may still look as if it were at work, though it has nothing more to do.
    """

    def wait() -> threading.Thread:
        time.sleep(span)
        return threading.current_thread()

    return await to_thread.run_sync(wait, limiter=CapacityLimiter(1))


async def _threads_before() -> set[threading.Thread | None]:
    """The threads that are at work now; not those that are just about to put a job down."""
    first = _threads()
    if first.keys() <= {threading.current_thread()}:
        return set(first)
    idle = await _real_pause(0.002)
    return {thread for thread in _threads() if thread in first and thread is not idle}


def _tasks() -> dict[object, str]:
    """The tasks of this event loop, but for the caller's and the one that ends AnyIO's pool.

    By their coroutines: a kept coroutine is no other's, where the id of a task may be used again.
    """
    current = anyio.get_current_task()
    chains = {task: _chain(task.coro) for task in anyio.get_running_tasks() if task != current}
    return {
        task.coro: f"task {task.name!r} (in {' > '.join(chain)})"
        for task, chain in chains.items()
        if not chain[0].startswith("_shutdown_process_pool")
    }


def _chain(coro: object) -> list[str]:
    names = [getattr(each, "__qualname__", "") for each in awaits(coro)]
    return [name for name in names if name] or ["?"]


def awaits(coro: object) -> Iterator[object]:
    """*coro* and what it awaits, from the outside in, as far as Python tells."""
    while coro is not None:
        yield coro
        inner = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None)
        if inner is None and inspect.isgenerator(coro) and coro.gi_frame is not None:
            # One that drives a coroutine by hand, as the kernel's own does.
            held = coro.gi_frame.f_locals.values()
            inner = next((value for value in held if inspect.iscoroutine(value)), None)
        coro = inner


def _threads() -> dict[threading.Thread | None, str]:
    """The threads that are at work, with the place where each is."""
    frames = sys._current_frames()
    return {
        thread: f"thread {thread.name!r} (at {frame.f_code.co_filename}:{frame.f_lineno})"
        for thread in threading.enumerate()
        if (frame := frames.get(thread.ident or 0)) and not _idle(thread, frame)
    }


def _idle(thread: threading.Thread, frame: FrameType) -> bool:
    """Whether *thread*, whose innermost frame is *frame*, is a worker of a pool without a job."""
    if thread.name == "AnyIO worker thread":
        return not has_job(thread)
    # The kernel's own threads count by their holds; asyncio's waiters by the child they wait for.
    if thread.name.startswith(("turnscope", "asyncio-waitpid", "waitpid")):
        return True
    # trio's and the standard library's wait in their main loop, just above the thread's beginning.
    module: str = frame.f_globals.get("__name__", "")
    caller = frame.f_back.f_globals.get("__name__") if frame.f_back else None
    return module.startswith(("trio.", "concurrent.futures.")) and caller == "threading"


_POOLS: Final = (
    to_process.__name__,
    "turnscope-worker",  # an argument of every worker of the backend `process`
    "multiprocessing.resource_tracker",
    "multiprocessing.forkserver",
)


def _children() -> dict[object, str]:
    """The child processes that are at work, by their id, with their command lines."""
    found: dict[object, str] = {}
    for pid in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
                # After the name, which may hold anything, in parentheses: state and parent.
                state, parent = stat.read().rpartition(")")[2].split()[:2]
            if parent != str(os.getpid()) or state in "ZX":
                continue
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as cmdline:
                command = cmdline.read().replace("\0", " ").strip()
        except OSError:  # it has ended while it was looked at
            continue
        # A pool's worker may stay, but not run.
        if state == "R" or not any(pool in command for pool in _POOLS):
            found[int(pid)] = f"process {pid} ({command})"
    return found


_UNSTARTED: Final = frozenset({Status.INVALID, Status.DENIED, Status.NOT_STARTED})


def check_results(calls: Sequence[ToolCall], results: Sequence[ToolResult]) -> None:
    """Assert that *results* are what a turn promises: one result for each call, in call order.

    >>> check_results(calls, turn.results)

    Also that each result agrees with itself: ``ok`` has no error, ``failed`` and ``not_started``
    have one; a call has a start exactly if its status says that it began; its end does not come
    before its start; a model that gets no value gets at least words.

    Raises AssertionError, with all that is wrong.
    """
    wrong: list[str] = []
    if len(calls) != len(results):
        wrong.append(f"{len(calls)} calls have {len(results)} results")
    for index, call in enumerate(calls):
        places = [place for place, result in enumerate(results) if result.call is call]
        times = sum(other is call for other in calls)  # the same object may be submitted twice
        if len(places) != times:
            wrong.append(f"call {index} ({call.id!r}, {call.name}) has {len(places)} results")
        elif index not in places:
            wrong.append(f"call {index} ({call.id!r}, {call.name}) has its result at {places[0]}")
    for index, result in enumerate(results):
        if not any(result.call is call for call in calls):
            wrong.append(f"result {index} is of {result.call!r}, which is none of the calls")
        wrong += [f"result {index} ({result.status}) {text}" for text in _contradictions(result)]
    if wrong:
        raise AssertionError("results do not fit their calls:\n  " + "\n  ".join(wrong))


def _contradictions(result: ToolResult) -> list[str]:
    started = result.started_at
    texts = {
        "has an error": result.ok and result.error is not None,
        "has no error": result.status in (Status.FAILED, Status.NOT_STARTED)
        and result.error is None,
        f"has begun, at {started}": result.status in _UNSTARTED and started is not None,
        "has no start": result.status not in _UNSTARTED and started is None,
        f"ended at {result.ended_at}, before its start at {started}": started is not None
        and result.ended_at < started,
        "has no content for the model": not result.ok and not result.content,
        "has leaked, though it never began": result.leaked and started is None,
    }
    return [text for text, applies in texts.items() if applies]


def has_job(thread: threading.Thread) -> bool:
    """Whether *thread* is one of AnyIO's workers on asyncio, and has a job.

    Its queue counts a job from before its start until after its result has been posted.
    """
    queue = getattr(thread, "queue", None)
    return isinstance(queue, Queue) and queue.unfinished_tasks > 0
