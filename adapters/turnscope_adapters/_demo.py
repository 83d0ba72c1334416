"""``turnscope demo``: three turns of real tools on a real folder, and no model.

What a model would say between the turns is written here: the second turn's calls come from the
first turn's listing, the third's arguments are the second's results. The turns use the kernel as
any loop of your own would. Above: `_commands`. Below: `_timeline` and `_json_lines`, which show it,
`_demo_tools`, and `_interrupts`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from importlib.util import find_spec
from typing import Any, Final

import anyio
import attrs
from anyio import CancelScope
from rich.console import Console
from rich.live import Live

from turnscope import Kernel, Limits, ToolCall, ToolResult
from turnscope.abc import Observer

from . import _files
from ._demo_tools import MOST_COUNTED, MOST_HASHED, MOST_LISTED, TOOLS
from ._errors import BadUsage
from ._interrupts import Interrupts
from ._json_lines import JsonLines
from ._record import Record
from ._timeline import Timeline

GRACE: Final = 1.0
"""Seconds that interrupted calls have to end; Ctrl-C takes no longer than that."""
LIMITS: Final = Limits(calls=16, threads=4, processes=2)

_LOOPS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}
_FRAME_SECONDS: Final = 0.08


@attrs.define
class _Story:
    """The turns, and how far they have come."""

    folder: str
    """As `_files.shown` writes it."""
    found: str = ""
    """What was found in the folder, in words."""
    problem: str = ""
    """Why the turns ended early."""

    async def play(self, kernel: Kernel) -> None:
        """Run the three turns."""
        (listed,) = await _turn(kernel, [_call("c1", "list_files", folder=self.folder)])
        if not listed.ok:
            self.problem = f"list_files {listed.status}: {listed.content}"
            return
        listing = json.loads(str(listed.content))
        files = listing["largest"]
        self.found = _found(listing)
        results = await _turn(kernel, _second(self.folder, files))
        values: dict[str, list[Any]] = {"count_words": [], "sha256": []}
        troubles: list[dict[str, str]] = []
        for result in results:
            if result.ok:
                values[result.call.name].append(json.loads(str(result.content)))
            else:
                troubles.append({"tool": result.call.name, "status": result.status})
        arguments = {
            "counts": values["count_words"],
            "digests": values["sha256"],
            "troubles": troubles,
        }
        (summed,) = await _turn(kernel, [_call("c1", "sum_up", **arguments)])
        if not summed.ok:
            self.problem = f"sum_up {summed.status}: {summed.content}"


async def _turn(kernel: Kernel, calls: Iterable[ToolCall]) -> tuple[ToolResult, ...]:
    async with kernel.turn(TOOLS) as turn:
        for call in calls:
            turn.submit(call)
    return turn.results


def _call(id: str, name: str, **arguments: Any) -> ToolCall:
    return ToolCall(id, name, json.dumps(arguments))


def _second(folder: str, files: list[str]) -> list[ToolCall]:
    """The second turn's calls: what can be done, and three that cannot."""
    missing = os.path.join(folder, "no-such-file")
    while os.path.lexists(_files.real(missing)):
        missing += "-either"
    wanted: list[tuple[str, dict[str, Any]]] = [
        *(("count_words", {"path": path}) for path in files[:MOST_COUNTED]),
        *(("sha256", {"path": path}) for path in files[:MOST_HASHED]),
        ("count_words", {"path": os.path.normpath(missing)}),
        ("wait_for_answer", {"question": "Is anybody there?"}),
        ("never_looks_up", {"seconds": 5}),
    ]
    return [_call(f"c{n}", name, **arguments) for n, (name, arguments) in enumerate(wanted, 1)]


def _found(listing: dict[str, Any]) -> str:
    read = len(listing["largest"])
    hashed = min(read, MOST_HASHED)
    more = "" if listing["complete"] else f", and stopped there: a listing ends at {MOST_LISTED:,}"
    besides = [
        f"{listing[name]:,} {words}"
        for name, words in (
            ("left_out", "hidden or generated names left out"),
            ("links", "links not followed"),
            ("unreadable", "names unreadable"),
        )
        if listing[name]
    ]
    megabytes = _files.MOST_BYTES / 1e6
    return (
        f"Found {listing['files']:,} files{more}; read {read} and hashed {hashed}, the largest "
        f"(at most {MOST_COUNTED} and {MOST_HASHED}, of at most {megabytes:g} MB each)."
        + (f" Besides: {', '.join(besides)}." if besides else "")
    )


def demo(folder: str, loop: str, json_lines: bool) -> int:
    """Run the demo on *folder*; returns the exit code: 0, 1 if it broke off, 130 after Ctrl-C.

    Raises BadUsage if *folder* is not one that can be read, or *loop* is not installed.
    """
    _check_folder(folder)
    if loop != "asyncio" and find_spec(loop) is None:
        raise BadUsage(f"{loop} is not installed: pip install 'turnscope[{loop}]'")
    # A leak is told of in the table; a line in the log beside it would break the drawing.
    logging.getLogger("turnscope").setLevel(logging.ERROR)
    # At its end asyncio may warn that a worker process is gone, which AnyIO has just seen to.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    story = _Story(_files.shown(folder))
    with Interrupts(patience=GRACE + 2) as interrupts:
        show = _show_json if json_lines else _show_table
        code = show(story, loop, interrupts)
        if interrupts.asked:
            print("turnscope: interrupted", file=sys.stderr, flush=True)
            return 130
        if story.problem:
            print(f"turnscope: the demo broke off: {story.problem}", file=sys.stderr)
            return 1
        return code


def _check_folder(folder: str) -> None:
    name = repr(folder)
    try:
        os.scandir(folder).close()
    except FileNotFoundError:
        raise BadUsage(f"there is no folder {name}: name one that exists") from None
    except NotADirectoryError:
        parent = os.path.dirname(folder) or "."
        raise BadUsage(f"{name} is not a folder; name one, such as {parent!r}") from None
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise BadUsage(f"the folder {name} cannot be read: {reason}") from None


def _show_json(story: _Story, loop: str, interrupts: Interrupts) -> int:
    lines = JsonLines(sys.stdout, interrupts.stop)
    _run(loop, _play, story, lines, interrupts)
    if lines.broken:
        raise BrokenPipeError
    return 0


def _show_table(story: _Story, loop: str, interrupts: Interrupts) -> int:
    live, console = _console()
    record = Record(TOOLS)
    timeline = Timeline(record, story.folder)
    seconds = _run(loop, _play_live, story, record, interrupts, timeline, console if live else None)
    if live:
        console.print()
    if record.rows:
        console.print(timeline.final(), crop=False)
        console.print()
        console.print(_summary(record, loop, seconds), highlight=False, markup=False)
    else:
        console.print("No call had begun.")
    if story.found:
        console.print(story.found, highlight=False, markup=False)
    return 0


def _console() -> tuple[bool, Console]:
    """Whether to draw live, and the console: without a terminal or colours, plain text."""
    colours = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    if sys.stdout.isatty() and colours:
        return True, Console()
    width = None if "COLUMNS" in os.environ or sys.stdout.isatty() else 120
    return False, Console(color_system=None, force_terminal=False, width=width)


def _summary(record: Record, loop: str, seconds: float) -> str:
    statuses = ", ".join(f"{n} {status}" for status, n in record.statuses.most_common())
    left = _counted(record.leaked, "thread")
    leaked = f"; {left} could not be stopped and left behind" if record.leaked else ""
    turns, calls = _counted(record.turns, "turn"), _counted(len(record.rows), "call")
    return f"{turns}, {calls} in {seconds:.1f} s on {loop}: {statuses}{leaked}."


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def _run(loop: str, main: Callable[..., Awaitable[float]], *arguments: object) -> float:
    backend, options = _LOOPS[loop]
    return anyio.run(main, *arguments, backend=backend, backend_options=options)


async def _play(story: _Story, observer: Observer, interrupts: Interrupts) -> float:
    """Run the turns until they are over or Ctrl-C ends them; returns the seconds they took."""
    scope = CancelScope()

    async def cancel() -> None:
        await interrupts.wait()
        scope.cancel()

    start = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(cancel)
        with scope:
            async with Kernel(limits=LIMITS, grace=GRACE, observers=[observer]) as kernel:
                await story.play(kernel)
        group.cancel_scope.cancel()
    return anyio.current_time() - start


async def _play_live(
    story: _Story,
    record: Record,
    interrupts: Interrupts,
    timeline: Timeline,
    console: Console | None,
) -> float:
    """As `_play`, drawing on *console* while it goes on."""
    if console is None:
        return await _play(story, record, interrupts)

    def draw() -> Any:
        return timeline.draw(anyio.current_time(), console.width)

    seconds = 0.0
    with Live(console=console, auto_refresh=False, get_renderable=draw) as live:

        async def redraw() -> None:
            while True:
                live.refresh()
                await anyio.sleep(_FRAME_SECONDS)

        async with anyio.create_task_group() as group:
            group.start_soon(redraw)
            seconds = await _play(story, record, interrupts)
            group.cancel_scope.cancel()
    return seconds
