"""One run of an agent, shown while it goes on: as lines of JSON, as text, or drawn live.

What a command shows, and how Ctrl-C ends it, is the same for `_demo` and `_run_command`, which are
above. Below: `_timeline`, `_prose` and `_json_lines`, which show it, `_record`, `_servers` and
`_interrupts`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO, TypeAlias

import anyio
import attrs
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from turnscope import Agent, Budget, History, Kernel, Limits, Run, RunResult, TurnscopeError
from turnscope.abc import Observer

from ._errors import BadUsage
from ._interrupts import Interrupts
from ._json_lines import JsonLines
from ._mcp_errors import ServerError
from ._prose import LiveProse, PlainProse
from ._record import Record
from ._servers import play_with
from ._timeline import Timeline

if TYPE_CHECKING:
    from .mcp import MCPServer

Loop: TypeAlias = Literal["asyncio", "uvloop", "trio"]

GRACE: Final = 1.0
"""Seconds that interrupted calls have to end; Ctrl-C takes no longer than that."""
PATIENCE: Final = GRACE + 2
"""Seconds after which a second Ctrl-C no longer waits for an orderly end."""

_LOOPS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}
_FRAME_SECONDS: Final = 0.08
_BESIDES: Final = 5
"""Rows of a terminal that are not for calls: the head, the text, the line of the shell."""
_CUT: Final = {
    "length": "the answer was cut at the limit of tokens",
    "refusal": "the model refused to answer",
    "filtered": "the provider held the answer back",
}


def check_loop(loop: str) -> None:
    """Raise BadUsage if *loop* is not installed."""
    if loop != "asyncio" and find_spec(loop) is None:
        raise BadUsage(f"{loop} is not installed: pip install 'turnscope[{loop}]'")


@attrs.define(kw_only=True, eq=False)
class Stage:
    """A run to be shown, and what it came to."""

    agent: Agent[Any, Any]
    prompt: str | None
    loop: Loop
    folder: str
    """Left out of the paths in the timeline."""
    interrupts: Interrupts
    history: History | None = None
    """The conversation before the run; with `show`, the conversation so far."""
    timeout: float | None = None
    budget: Budget | None = None
    limits: Limits | None = None
    servers: Sequence[MCPServer] = ()
    """Whose tools the agent has, too."""
    error: TurnscopeError | None = None
    """What the run raised."""
    _run: Run[Any] | None = None
    _result: RunResult[Any] | None = None
    _seconds: float = 0.0

    def show(self, json_lines: bool, tables: TextIO) -> None:
        """Run it to its end, or until Ctrl-C.

        Without a terminal, text goes to standard output, and what the calls came to into *tables*.
        What tools print goes to standard error.

        Raises BadUsage for what no run can begin with; BrokenPipeError, after an orderly end, if
        nobody reads any more.
        """
        # A leak is told of in the table; a line in the log beside it would break the drawing.
        logging.getLogger("turnscope").setLevel(logging.ERROR)
        try:
            if json_lines:
                self._show_plainly(JsonLines(sys.stdout, self.interrupts.stop))
            elif _draws():
                self._show_live(Console())
            else:
                record = Record(self.agent.tools)
                self._show_plainly(PlainProse(sys.stdout, self.interrupts.stop), record)
                self._conclude(record, _plain_console(tables), tables is sys.stdout)
        finally:
            if self._run is not None:
                self.history = self._run.history

    def _show_plainly(self, written: JsonLines | PlainProse, *others: Observer) -> None:
        with redirect_stdout(sys.stderr):
            self._go(self._play, (written, *others))
        if written.broken:
            raise BrokenPipeError

    def _show_live(self, console: Console) -> None:
        record, prose = Record(self.agent.tools), LiveProse(console)
        timeline = Timeline(record, self.folder)

        def draw() -> Group:
            doing = [Text(f"the model is {record.doing}", style="bright_black")]
            most = console.height - _BESIDES
            return Group(
                *([prose.begun] if prose.begun else doing if record.doing else []),
                *(
                    [timeline.draw(anyio.current_time(), console.width, most)]
                    if record.rows
                    else []
                ),
            )

        self._go(self._play_live, (prose, record), console, draw)
        self._conclude(record, console, True)

    def _conclude(self, record: Record, console: Console, apart: bool) -> None:
        """Print what the calls came to; nothing, if there is nothing to tell but an error."""
        if record.rows:
            if apart:
                console.print()
            console.print(Timeline(record, self.folder).final(), crop=False)
            console.print()
        if record.rows or self._result is not None:
            console.print(self._summary(record), highlight=False, markup=False)

    def _summary(self, record: Record) -> str:
        turns, calls = _counted(record.turns, "turn"), _counted(len(record.rows), "call")
        statuses = ", ".join(f"{n} {status}" for status, n in record.statuses.most_common())
        left = _counted(record.leaked, "thread")
        leaked = f"; {left} could not be stopped and left behind" if record.leaked else ""
        usage = None if self._run is None else self._run.usage
        tokens = (
            f"; {usage.input_tokens:,} tokens in, {usage.output_tokens:,} out"
            if usage is not None and usage.tokens
            else ""
        )
        cut = f"; {_CUT[record.reason]}" if record.reason in _CUT else ""
        return (
            f"{turns}, {calls} in {self._seconds:.1f} s on {self.loop}"
            f"{': ' if statuses else ''}{statuses}{leaked}{tokens}{cut}."
        )

    def _go(self, main: Callable[..., Awaitable[None]], *arguments: object) -> None:
        backend, options = _LOOPS[self.loop]
        anyio.run(main, *arguments, backend=backend, backend_options=options)

    async def _play(self, observers: Sequence[Observer]) -> None:
        """Run the agent until it is done, or Ctrl-C ends it; nothing is lost of its events."""

        async def play(agent: Agent[Any, Any]) -> None:
            await self._run_on_kernel(agent, observers)

        try:
            await play_with(self.agent, self.servers, self.interrupts, play)
        except ServerError as exc:  # of a start; those of the run are noted there
            self.error = exc

    async def _run_on_kernel(self, agent: Agent[Any, Any], observers: Sequence[Observer]) -> None:
        start = anyio.current_time()
        async with Kernel(limits=self.limits, grace=GRACE) as kernel:
            try:
                begun = kernel.start(
                    agent,
                    self.prompt,
                    history=self.history,
                    timeout=self.timeout,
                    budget=self.budget,
                )
            except (TypeError, ValueError) as exc:
                raise BadUsage(str(exc)) from exc
            async with begun as run, anyio.create_task_group() as group:
                self._run = run
                group.start_soon(self._cancel_when_asked, run)
                try:
                    async for event in run:
                        for observer in observers:
                            observer.observe(event)
                    self._result = await run.wait()
                except TurnscopeError as exc:
                    self.error = exc
                group.cancel_scope.cancel()
        self._seconds = anyio.current_time() - start

    async def _cancel_when_asked(self, run: Run[Any]) -> None:
        await self.interrupts.wait()
        run.cancel("Ctrl-C was pressed")

    async def _play_live(
        self, observers: Sequence[Observer], console: Console, draw: Callable[[], Group]
    ) -> None:
        """As `_play`, drawing on *console* while it goes on."""
        with Live(console=console, auto_refresh=False, get_renderable=draw) as live:

            async def redraw() -> None:
                while True:
                    live.refresh()
                    await anyio.sleep(_FRAME_SECONDS)

            async with anyio.create_task_group() as group:
                group.start_soon(redraw)
                await self._play(observers)
                group.cancel_scope.cancel()


def _draws() -> bool:
    """Whether to draw live: on a terminal that takes colours."""
    colours = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return sys.stdout.isatty() and colours


def _plain_console(file: TextIO) -> Console:
    width = None if "COLUMNS" in os.environ or file.isatty() else 120
    return Console(file=file, color_system=None, force_terminal=False, width=width)


def _counted(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'s' * (number != 1)}"
