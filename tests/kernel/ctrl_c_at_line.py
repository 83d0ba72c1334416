"""The program in which `test_ctrl_c` has a second Ctrl-C land at each line of ours in turn.

``python ctrl_c_at_line.py LOOP``: the first Ctrl-C cancels the main task, as `asyncio.run` has it.
From there on a trace function counts the kernel's lines, and raises KeyboardInterrupt at one of
them: at the first, then, in a new process, at the second, until there are no more. Each time it
prints where it was and what came of it.

A new process, because an interrupted run leaves coroutines behind. Collected during the next one,
they would be closed in the middle of it: the lines of ours that they run then would count as its
own, and 3.11 was seen to crash when one of them was the one to raise.
"""

from __future__ import annotations

import asyncio
import gc
import linecache
import os
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

import anyio

import turnscope
from turnscope import Kernel, ToolCall, Turn, tool

OURS = str(Path(turnscope.__file__).parent)
REACHED, ENDED_BEFORE = 10, 11
"""How the process for one line exits."""
NEVER = 0


class Interrupter:
    """Raises KeyboardInterrupt at the *left*-th line of ours, once it is armed."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.armed = False
        self.place = ""

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        path = frame.f_code.co_filename
        if not path.startswith(OURS):
            return None
        if event == "line" and self.armed and not self.place and not _is_with(frame):
            self.left -= 1
            if self.left == 0:
                self.place = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                raise KeyboardInterrupt
        return self.trace


def _is_with(frame: FrameType) -> bool:
    """Whether *frame* is at a ``with``: 3.11 loses its stack if a trace function raises there."""
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()
    return line.startswith(("with ", "async with "))


def interrupted_at(line: int, loop: str) -> str:
    """Run the program once; returns where it was interrupted, or nothing if it had ended."""
    interrupter = Interrupter(line)
    turns: list[Turn] = []

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None

        @tool
        async def tidy() -> None:
            try:
                task.cancel()
                interrupter.armed = True
                await anyio.sleep(20)
            finally:
                await anyio.sleep(0.001)

        async def nests() -> None:
            async with kernel.turn([tidy]) as nested:
                turns.append(nested)
                nested.submit(ToolCall("n", "tidy"))

        async with Kernel(grace=0.1) as kernel:
            async with kernel.turn([nests]) as turn:
                turns.append(turn)
                turn.submit(ToolCall("c", "nests"))
                await anyio.sleep(20)

    raised = "nothing"
    sys.settrace(interrupter.trace)
    try:
        anyio.run(main, backend="asyncio", backend_options={"use_uvloop": loop == "uvloop"})
    except BaseException as exc:
        raised = type(exc).__name__
    finally:
        sys.settrace(None)
    try:
        statuses = [str(result.status) for turn in turns for result in turn.results]
    except RuntimeError:
        statuses = ["unsettled"]
    if interrupter.place:
        print(interrupter.place, raised, *statuses, flush=True)
    return interrupter.place


def in_a_fork(line: int, loop: str) -> bool:
    """As `interrupted_at`, in a process of its own; whether it came to that line."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        ended = os.waitstatus_to_exitcode(status)
        if ended not in (REACHED, ENDED_BEFORE):
            raise RuntimeError(f"interrupted at line {line} of ours, it died: {ended}")
        return ended == REACHED
    try:
        gc.disable()
        reached = interrupted_at(line, loop)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(REACHED if reached else ENDED_BEFORE)


def each_line(loop: str) -> None:
    """One line after the other, until the program ends before it comes to it."""
    interrupted_at(NEVER, loop)  # so that what is imported late is not imported in each fork
    gc.collect()
    line = 1
    while in_a_fork(line, loop):
        line += 1


if __name__ == "__main__":
    each_line(sys.argv[1])
