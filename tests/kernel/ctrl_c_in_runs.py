"""The program in which `test_ctrl_c_in_runs` has Ctrl-C land at each line of ours in turn.

``python ctrl_c_in_runs.py LOOP WHAT PRESS LINES``: WHAT is a "run" with another in one of its
tools, one whose calls start "early" in a stream that fails and is asked for again, or one with
"hedged" calls. PRESS is "first" for a signal at a line of ours from the opening of the kernel on,
or "second" for one that follows upon a first, which a body has sent. LINES is how many, spread
evenly, or "all".

It is a signal, not an exception, so that each event loop does with it what it does: asyncio makes
of the first a cancellation of the main task, and raises the second; trio raises each, or keeps it
for the main task where its own state is at stake. As in `ctrl_c_at_line`, each is in a process of
its own. It prints one JSON object for each: where it was, what came out, and what is wrong.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import json
import linecache
import math
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import anyio

import turnscope
from turnscope import Agent, History, Kernel, ModelError, Retry, Run, ToolCall, tool
from turnscope.events import (
    CallDelta,
    CallReady,
    CallSealed,
    CallSettled,
    ModelFinished,
    RunEvent,
    RunFinished,
    RunStarted,
    TextDelta,
)
from turnscope.testing import ScriptedModel, Stream

OURS = str(Path(turnscope.__file__).parent)
NEVER = 0
SECONDS = 20
"""How long one of the processes may take: a thousand times what it does."""


class Presser:
    """Presses Ctrl-C at the *left*-th line of ours, once it is armed; it counts them all."""

    def __init__(self, left: int, press: str) -> None:
        self.left = left
        self.press = press
        self.armed = False
        self.lines = 0
        self.place = ""
        self.within: list[str] = []
        """The names of the functions that were under way."""
        self.told: Callable[[str], object] | None = None
        """Told where, before it is pressed."""

    def begin(self) -> None:
        """All begins."""
        self.armed = self.press == "first"

    def first(self) -> None:
        """A body is at work: if another is to follow, here is the first."""
        if self.press == "second" and not self.armed:
            self.armed = True
            signal.raise_signal(signal.SIGINT)

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        if event == "line" and self.armed and not _is_with(frame):
            self.lines += 1
            if self.lines == self.left:
                self.place = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                self.within = [each.f_code.co_name for each, _ in traceback.walk_stack(frame)]
                if self.told is not None:
                    self.told(self.place)
                signal.raise_signal(signal.SIGINT)
        return self.trace


def _is_with(frame: FrameType) -> bool:
    """Whether *frame* is at a ``with``: 3.11 loses its stack if a trace function raises there."""
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()
    return line.startswith(("with ", "async with "))


class Seen:
    """What is known of one process: its events, its bodies and its run."""

    def __init__(self) -> None:
        self.events: list[RunEvent] = []
        self.at_work = 0
        self.kernel: Kernel | None = None
        self.run: Run[Any] | None = None

    def observe(self, event: RunEvent) -> None:
        self.events.append(event)

    @asynccontextmanager
    async def body(self, presser: Presser) -> AsyncIterator[None]:
        """A body that cleans up."""
        self.at_work += 1
        try:
            presser.first()
            yield
        finally:
            try:
                await anyio.sleep(0.001)
            finally:
                self.at_work -= 1

    def faults(self) -> list[str]:
        """Which promises were broken, after all has ended."""
        faults: list[str] = []
        told = defaultdict[tuple[str, int, int], str](str)
        for event in self.events:
            if isinstance(event, (CallReady, CallSettled)):
                told[event.run_id, event.turn, event.index] += type(event).__name__[4]
        faults += [f"call {key}: {each}" for key, each in told.items() if each.replace("RS", "")]
        started, finished = (
            {event.run_id for event in self.events if isinstance(event, kind)}
            for kind in (RunStarted, RunFinished)
        )
        if started - finished:
            faults.append(f"runs without an end: {started - finished}")
        if finished - started:
            faults.append(f"runs that never began: {finished - started}")
        if self.at_work:
            faults.append(f"{self.at_work} bodies have not ended")
        if self.run is not None and self.run._inside is not None:
            history = self.run.history
            calls = sum(len(getattr(message, "calls", ())) for message in history)
            if History(history) != history or calls != len(history.results):
                faults.append(f"history {history}")
        if self.kernel is not None:
            statistics = self.kernel.statistics()
            if statistics.runs or statistics.turns:
                faults.append(f"{statistics.runs} runs, {statistics.turns} turns are open")
            for name, limiter in statistics.limiters.items():
                if limiter.lent or limiter.waiting or limiter.leaked:
                    faults.append(f"limiter {name} {limiter}")
        return faults


def a_run(seen: Seen, presser: Presser) -> Agent[Any, str]:
    @tool
    async def works() -> str:
        async with seen.body(presser):
            await anyio.sleep(0.005)
        return "worked"

    @tool
    async def asks() -> str:
        assert seen.kernel is not None
        return (await seen.kernel.run(inner, "go")).output

    inner = Agent(model=ScriptedModel([[ToolCall("i", "works")], "inner"]), tools=[works])
    answers = [[ToolCall("a", "asks"), ToolCall("b", "works")], "outer"]
    return Agent(model=ScriptedModel(answers), tools=[works, asks])


def early(seen: Seen, presser: Presser) -> Agent[Any, str]:
    @tool(read_only=True)
    async def looks(name: str) -> str:
        async with seen.body(presser):
            await anyio.sleep(0.004 if name == "slow" else 0)
        return name

    @tool
    async def writes() -> str:
        async with seen.body(presser):
            return "written"

    def stream(end: Any) -> Stream:
        asked = ("looks", '{"name": "fast"}'), ("looks", '{"name": "slow"}'), ("writes", "{}")
        events: list[tuple[float, Any]] = []
        for n, (name, arguments) in enumerate(asked):
            events += [(0.0, CallDelta(n, f"c{n}", name, arguments)), (0.0, CallSealed(n))]
        return Stream([*events, (0.003, TextDelta("so")), (0.003, end)])

    failure = ModelError("it broke off")
    answers = [stream(failure), stream(ModelFinished("calls")), "done"]
    return Agent(
        model=ScriptedModel(answers),
        tools=[looks, writes],
        retry=Retry(attempts=2, on=ModelError, initial=0.001, jitter=0),
    )


def hedged(seen: Seen, presser: Presser) -> Agent[Any, str]:
    bodies: list[str] = []

    @tool(read_only=True, hedge=0.002)
    async def asks(name: str) -> str:
        bodies.append(name)
        slow = bodies.count(name) == 1
        async with seen.body(presser):
            await anyio.sleep(1 if slow else 0.002)
        return name

    calls = [ToolCall(name, "asks", {"name": name}) for name in ("a", "b")]
    return Agent(model=ScriptedModel([calls, "done"]), tools=[asks])


AGENTS: dict[str, Callable[[Seen, Presser], Agent[Any, str]]] = {
    "run": a_run,
    "early": early,
    "hedged": hedged,
}

RUN: dict[str, dict[str, Any]] = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}


def pressed_at(
    line: int, loop: str, what: str, press: str, told: Callable[[str], object] | None = None
) -> tuple[Presser, str, Seen]:
    """Run the program once, and press Ctrl-C at *line*; what came out of it."""
    presser, seen, raised = Presser(line, press), Seen(), "nothing"
    presser.told = told

    async def main() -> None:
        presser.begin()
        async with Kernel(grace=0.1, observers=[seen]) as seen.kernel:
            async with seen.kernel.start(AGENTS[what](seen, presser), "go") as seen.run:
                async for _ in seen.run:
                    ...
                await seen.run.wait()

    sys.settrace(presser.trace)
    try:
        anyio.run(main, **RUN[loop])
    except BaseException as exc:
        raised = type(exc).__name__
    finally:
        sys.settrace(None)
    return presser, raised, seen


def left_behind() -> list[str]:
    """What of the process goes on."""
    gc.collect()
    left = [
        f"task {each!r}"
        for each in gc.get_objects()
        if isinstance(each, asyncio.Task) and not each.done()
    ]
    left += [repr(each) for each in threading.enumerate() if each is not threading.main_thread()]
    with suppress(ChildProcessError):
        left.append(f"child processes {os.waitpid(-1, os.WNOHANG)}")
    return left


def in_a_fork(line: int, loop: str, what: str, press: str) -> str:
    """As `pressed_at`, in a process of its own; what it says of it, which is nothing if it died."""
    with (
        tempfile.TemporaryFile() as said,
        tempfile.TemporaryFile() as complained,
        tempfile.TemporaryFile() as where,
    ):
        child = os.fork()
        if not child:
            code = 1
            try:
                os.dup2(complained.fileno(), 2)
                faulthandler.dump_traceback_later(SECONDS, exit=True)
                gc.disable()
                presser, raised, seen = pressed_at(
                    line, loop, what, press, lambda place: os.write(where.fileno(), place.encode())
                )
                faults = [*seen.faults(), *left_behind()]
                faulthandler.cancel_dump_traceback_later()
                sys.stderr.flush()
                about = {
                    "place": presser.place,
                    "within": presser.within,
                    "raised": raised,
                    "faults": faults,
                }
                os.write(said.fileno(), json.dumps(about).encode())
                code = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        complained.seek(0)
        where.seek(0)
        nothing = {"place": where.read().decode(), "within": [], "raised": "nothing", "faults": []}
        about = {"line": line, **nothing, **json.loads(said.read() or "{}")}
        words = complained.read().decode()
        if status:
            about["faults"].append(f"it died: {os.waitstatus_to_exitcode(status)}")
        if words:
            about["faults"].append(words)
        return json.dumps(about)


def each_line(loop: str, what: str, press: str, lines: str) -> None:
    """One line after the other, or so many of them, evenly spread."""
    # Nothing is imported late in each fork; and so many lines are there.
    for _ in range(2):
        presser, _, _ = pressed_at(NEVER, loop, what, press)
    gc.collect()
    gc.freeze()  # so each fork looks through its own objects alone
    step = 1.0 if lines == "all" else max(1.0, presser.lines / int(lines))
    line = 1.0
    while line <= presser.lines:
        print(in_a_fork(math.floor(line), loop, what, press), flush=True)
        line += step


if __name__ == "__main__":
    # As in conftest.py: a shell that starts this in the background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    each_line(*sys.argv[1:])
