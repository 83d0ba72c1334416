"""The program that `test_ctrl_c` interrupts: ``python ctrl_c.py LOOP WHAT``; prints what it sees.

WHAT is where it is when the signal comes: "inline" bodies, a "thread", a "nested" turn, the
"block" of the turn, or "cleanup", with a second signal while the first one's cleanup goes on.

On asyncio the second one is a KeyboardInterrupt wherever Python is just then. In AnyIO's or
asyncio's own bookkeeping it can leave a scope that is never taken down, or a task that is never
told: nobody above them can mend that. So the cleanup takes long enough for the loop to be asleep.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import anyio

from turnscope import Kernel, ToolCall, Turn, check_cancelled, tool
from turnscope.testing import nothing_left

RUN: dict[str, dict[str, Any]] = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}


begun: list[bool] = []


def say(*words: object) -> None:
    print(*words, flush=True)


@tool
async def tidy() -> None:
    """Wait, and clean up; for as long as it takes to send a second signal, if there is one."""
    try:
        if sys.argv[2] != "block":
            say("ready")  # in here, because the signal may come before the next line
        begun.append(True)
        await anyio.sleep(60)
    finally:
        say("cleaning")
        await anyio.sleep(20 if sys.argv[2] == "cleanup" else 0.5)
        say("cleaned")


@tool
def polls() -> None:
    """Work in a thread that looks up now and then."""
    end = time.monotonic() + 60
    try:
        say("ready")
        while time.monotonic() < end:
            check_cancelled()
            time.sleep(0.01)
    finally:
        say("cleaned")


async def main(what: str) -> None:
    turns: list[Turn] = []

    @tool
    async def nests() -> None:
        async with kernel.turn([tidy]) as nested:
            turns.append(nested)
            nested.submit(ToolCall("nested", "tidy"))

    name = {"thread": "polls", "nested": "nests"}.get(what, "tidy")
    async with nothing_left():
        async with Kernel(grace=30) as kernel:
            try:
                async with kernel.turn([tidy, polls, nests]) as turn:
                    turns.append(turn)
                    turn.submit(ToolCall("c1", name))
                    if what == "block":
                        # A Ctrl-C that lands in a body ends the turn, and is raised on leaving its
                        # block: so let the body be asleep.
                        while not begun:
                            await anyio.sleep(0.001)
                        await anyio.wait_all_tasks_blocked()
                        say("ready")
                        await anyio.sleep(60)
            finally:
                for each in turns:
                    say("statuses", *[result.status for result in each.results])


if __name__ == "__main__":
    try:
        anyio.run(main, sys.argv[2], **RUN[sys.argv[1]])
    except KeyboardInterrupt:
        say("KeyboardInterrupt")
    else:
        say("returned")
