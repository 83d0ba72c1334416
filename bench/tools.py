"""The tools that every contender is given, and the ledger by which a checker knows that they ran.

Plain functions at module level: worker processes import this module to find them. It knows nothing
of contenders. Only the standard library and anyio, as in all of `bench` but the drivers: a
contender may live in an environment of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

import anyio

begun: Final[list[int]] = []
"""The argument of each body that has begun, in this process, of those that tell."""
ended: Final[list[int]] = []
"""The argument of each body that has ended, in this process; `burn` tells in files."""
stamps: Final[list[float]] = []
"""When each body of `stamp`, `look` and `strike` began, in this process: seconds."""
spans: Final[list[tuple[int, float, float]]] = []
"""The argument of each body that sleeps for a known time, and its begin and end: seconds."""
cleaned: Final[list[int]] = []
"""The argument of each `tidy` whose cleanup has run to its end."""
thrown: Final[list[Exception]] = []
"""What each `strike` has raised."""
asked: Final[list[int]] = []
"""How many bodies had ended at each request to a stub of a model, in this process."""
gates: Final[list[anyio.Event]] = []
"""The last one holds `strike` back."""

STREAM: Final = 1.0
"""Seconds that a response streams whose calls become whole one after the other."""
LOOK: Final = 0.5
"""Seconds that `look` sleeps."""
PAUSE: Final = 0.02
"""Seconds that `pause` and `serve` sleep."""
REST: Final = 0.05
"""Seconds that `rest` sleeps."""
STEP: Final = 0.001
"""Seconds that `step` sleeps."""
TIDY: Final = 0.02
"""Seconds that the cleanup of `tidy` takes."""
EDIT: Final = 0.002
"""Seconds that `edit` and `peek` sleep."""
BLOCK: Final = 0.1
"""Seconds that `block` sleeps."""
NAP: Final = 60.0
"""Seconds that `nap` would sleep, if nobody cancelled it."""


async def noop(n: int) -> int:
    """Give n back."""
    ended.append(n)
    return n


async def stamp(n: int) -> int:
    """Note the time, and give n back."""
    stamps.append(time.perf_counter())
    ended.append(n)
    return n


async def look(n: int) -> int:
    """Note the time, wait, as for a slow server, and give n back."""
    stamps.append(time.perf_counter())
    await anyio.sleep(LOOK)
    ended.append(n)
    return n


async def pause(n: int) -> int:
    """Wait, as for a fast server, and give n back."""
    await anyio.sleep(PAUSE)
    ended.append(n)
    return n


async def rest(n: int) -> int:
    """Wait, as for a server, and give n back."""
    return await _asleep(n, REST)


async def serve(n: int) -> int:
    """Wait, as for a fast server, and give n back; `pause`, but it tells when."""
    return await _asleep(n, PAUSE)


async def step(n: int) -> int:
    """Wait for as short as a server can take, and give n back."""
    return await _asleep(n, STEP)


async def edit(n: int) -> int:
    """Wait, as for a file that is written, and give n back."""
    return await _asleep(n, EDIT)


async def peek(n: int) -> int:
    """Wait, as for a file that is read, and give n back."""
    return await _asleep(n, EDIT)


async def _asleep(n: int, seconds: float) -> int:
    began = time.perf_counter()
    await anyio.sleep(seconds)
    spans.append((n, began, time.perf_counter()))
    ended.append(n)
    return n


async def nap(n: int) -> int:
    """Sleep until cancelled."""
    begun.append(n)
    try:
        await anyio.sleep(NAP)
    finally:
        ended.append(n)
    return n


async def tidy(n: int) -> int:
    """Sleep until cancelled, and then clean up, which takes a moment."""
    begun.append(n)
    try:
        try:
            await anyio.sleep(NAP)
        finally:
            await anyio.sleep(TIDY)
            cleaned.append(n)
    finally:
        ended.append(n)
    return n


async def hang(n: int) -> int:
    """Never come back."""
    begun.append(n)
    try:
        await anyio.sleep_forever()
    finally:
        ended.append(n)


class Struck(Exception):
    """What `strike` raises."""


async def strike(n: int) -> int:
    """Raise, as soon as the gate is open."""
    begun.append(n)
    try:
        await gates[-1].wait()
        thrown.append(Struck(f"call {n}"))
        stamps.append(time.perf_counter())
        raise thrown[-1]
    finally:
        ended.append(n)


def ask() -> None:
    """Note that a stub of a model is asked for its next answer."""
    asked.append(len(ended))


def clear() -> None:
    """Forget all that was noted."""
    for ledger in (begun, ended, stamps, spans, cleaned, thrown, asked, gates):
        ledger.clear()


def block(n: int) -> int:
    """Sleep as a blocking client would: in the thread that it is called in."""
    begun.append(n)
    time.sleep(BLOCK)
    ended.append(n)
    return n


def burn(seed: int, rounds: int, ledger: str) -> int:
    """Compute in pure Python, step by step. What it leaves shows that it was done, not its value.

    ledger: the folder in which this body leaves a line, in a file named by the seed: when it began,
    and what it took of its thread's CPU time, in seconds. What a process keeps in lists is not seen
    by another.
    """
    began, used = time.perf_counter(), time.thread_time()
    state = seed
    for _ in range(rounds):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
    used = time.thread_time() - used
    # Who still works when the benchmark has looked finds no folder, and misses nothing.
    with suppress(FileNotFoundError), open(f"{ledger}/{seed}", "a") as file:
        file.write(f"{began!r} {used!r}\n")
    return state


@dataclass(frozen=True, slots=True)
class Tool:
    """A function and the place that it belongs to; a contender without such places ignores it."""

    fn: Callable[..., Any]
    place: Literal["inline", "thread", "process"]
    read_only: bool = False
    """It changes nothing: who can may start its calls while the model still streams."""
    timeout: float | None = None
    """Seconds that one call may take; one that takes longer is ended, and gives no value."""
    key: str | None = None
    """What its calls need for themselves: all calls with one key run one by one, in call order."""
    at_most: int | None = None
    """How many of its calls may work at once."""
    fatal: bool = False
    """Its exception ends the turn, and comes out of it, bare or in a group."""

    @property
    def name(self) -> str:
        """What a call names."""
        return self.fn.__name__


@dataclass(frozen=True, slots=True)
class Call:
    """What a model asked for, as it comes over the wire."""

    id: str
    name: str
    arguments: str
    """JSON text."""
    at: float = 0.0
    """Seconds from the start of its response until the call is whole; 0: all come at once."""


Conversation = Sequence[Sequence[Call]]
"""What the stub of a model answers, turn by turn; after the last it answers without calls."""


def lasts(calls: Sequence[Call]) -> float:
    """Seconds that the response with *calls* streams."""
    return STREAM if any(call.at for call in calls) else 0.0


NOOP: Final = Tool(noop, "inline")
STAMP: Final = Tool(stamp, "inline")
LOOK_TOOL: Final = Tool(look, "inline", read_only=True)
PAUSE_TOOL: Final = Tool(pause, "inline")
REST_TOOL: Final = Tool(rest, "inline")
EDIT_TOOL: Final = Tool(edit, "inline", key="file")
PEEK_TOOL: Final = Tool(peek, "inline")
SERVE_TOOL: Final = Tool(serve, "inline")
NAP_TOOL: Final = Tool(nap, "inline")
TIDY_TOOL: Final = Tool(tidy, "inline")
STRIKE_TOOL: Final = Tool(strike, "inline", fatal=True)
BLOCK_TOOL: Final = Tool(block, "thread")
BURN_TOOL: Final = Tool(burn, "process")
