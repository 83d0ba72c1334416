"""The calls on a terminal: a timeline that grows while they work, and the table at the end.

Drawn with rich from the rows of a `Record`. Each call has a line: its bar begins where it was
submitted, is pale while it waits and full while it works, and shares one scale with all others, so
that what overlaps in time overlaps on the screen. Above: `_stage`. Below: `_record`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

import attrs
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from turnscope import Status, ToolCall

from ._record import Record, Row, arguments_of, content_of

FEWEST_SECONDS: Final = 2.0
"""The span of the timeline, until the calls take longer: a scale that moves is hard to read."""

# For each status its sign, the sign where there is only ASCII, and its colour.
_LOOKS: Final[Mapping[str, tuple[str, str, str]]] = {
    Status.OK: ("✓", "+", "green"),
    Status.FAILED: ("✗", "x", "red"),
    Status.INVALID: ("✗", "x", "red"),
    Status.DENIED: ("✗", "x", "red"),
    Status.TIMED_OUT: ("◷", "t", "yellow"),
    Status.CANCELLED: ("■", "#", "magenta"),
    Status.NOT_STARTED: ("○", "o", "bright_black"),
    Status.LOST: ("✗", "x", "red"),
    "discarded": ("○", "o", "bright_black"),
    "waiting": ("·", ".", "bright_black"),
    "working": ("▸", ">", "cyan"),
}
# What a bar is made of, and in ASCII: waiting, working, a thread that works on after its call.
_BARS: Final = ("┄━╌", ".=-")


@attrs.frozen
class _Bar:
    """One call's part of the time from *start* on, *span* seconds wide."""

    row: Row
    start: float
    span: float
    now: float

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(8, options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, row = options.max_width, self.row
        waits, works, leaks = _BARS[options.ascii_only]

        def column(time: float) -> int:
            return min(width - 1, max(0, int((time - self.start) / self.span * width)))

        settled = self.now if row.result is None else row.result.ended_at
        ready, end = column(row.ready_at), column(settled)
        began = end + 1 if row.started_at is None else column(row.started_at)
        bar = Text(" " * ready + waits * (began - ready), style="bright_black")
        if row.started_at is not None:
            bar.append(works * (end + 1 - began), style=_looks(row)[2])
        if row.result is not None and row.result.leaked:
            bar.append(leaks * (column(self.now) - end), style="red")
        yield bar


@attrs.frozen
class _Scale:
    """The head of the bars' column: where the time begins and ends."""

    span: float

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(8, options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        end = f"{self.span:.1f} s"
        yield Text(f"0{end:>{options.max_width - 1}}", style="bright_black")


class Timeline:
    """Draws *record*'s rows as they are at a given time; *folder* is left out of their paths."""

    def __init__(self, record: Record, folder: str) -> None:
        self._record = record
        self._folder = folder

    def draw(self, now: float, width: int, most: int) -> Table:
        """One line for each call, up to *now*, a value of the event loop's clock.

        width: columns of the terminal, by which the arguments get their share.
        most: how many lines there is room for; the last calls get them.
        """
        rows = self._record.rows[-max(1, most) :]
        start = rows[0].ready_at if rows else now
        span = max(FEWEST_SECONDS, now - start)
        table = Table(
            box=None,
            # Some columns stay free: a terminal writes ^C there, and must not wrap, or what is
            # drawn next is drawn one line too low.
            width=max(width - 4, min(width, 60)),
            padding=(0, 1, 0, 0),
            header_style="bright_black",
        )
        # Widths that do not depend on what is in them, so that nothing jumps.
        table.add_column("", justify="right", no_wrap=True, width=2)
        table.add_column("call", no_wrap=True, width=15)
        table.add_column("arguments", width=max(12, min(30, width // 6)), style="bright_black")
        table.add_column("where", no_wrap=True, width=7)
        table.add_column(_Scale(span), ratio=1)
        table.add_column("", no_wrap=True, width=19)
        for number, row in _with_turns(rows):
            table.add_row(
                number,
                _name(row),
                _Short(row.call, self._folder),
                row.backend,
                _Bar(row, start, span, now),
                _Status(row),
            )
        return table

    def final(self) -> Table:
        """What each call came to: one line for each, cut where the console ends."""
        table = Table(box=None, pad_edge=False, header_style="bright_black")
        table.add_column("turn", justify="right", no_wrap=True)
        table.add_column("call", no_wrap=True)
        table.add_column("where", no_wrap=True)
        table.add_column("status", no_wrap=True)
        table.add_column("seconds", justify="right", no_wrap=True)
        table.add_column("what it came to")
        for number, row in _with_turns(self._record.rows):
            table.add_row(
                number,
                _name(row),
                row.backend,
                _Status(row),
                _seconds(row),
                _Line("" if row.result is None else _printable(content_of(row.result))),
            )
        return table


@attrs.frozen
class _Line:
    """Text in one line: rich would narrow the other columns, or wrap this one."""

    text: str

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(8, max(8, len(self.text)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = Text(self.text, no_wrap=True)
        text.truncate(options.max_width, overflow="crop" if options.ascii_only else "ellipsis")
        yield text


@attrs.frozen
class _Status:
    row: Row

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._text(options))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._text(options)

    def _text(self, options: ConsoleOptions) -> Text:
        row = self.row
        sign, ascii_sign, colour = _looks(row)
        word = row.progress or row.state
        if row.result is not None:
            word = f"{row.state}{', leaked' if row.result.leaked else ''}"
        return Text(
            f"{ascii_sign if options.ascii_only else sign} {_printable(word)}", style=colour
        )


@attrs.frozen
class _Short:
    """The arguments of a call in the room there is: of a long path the end, where its name is."""

    call: ToolCall
    folder: str

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(8, max(8, min(options.max_width, len(self._text()))))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text, width = self._text(), options.max_width
        dots = ".." if options.ascii_only else "…"
        if len(text) > width and "/" in text:
            name = text.rpartition("/")[2]
            text = dots + text[max(len(text) - width + len(dots), 0) :]
            text = name if len(text) - len(dots) < len(name) <= width else text
        if len(text) > width:
            text = text[: width - len(dots)] + dots
        yield Text(text)

    def _text(self) -> str:
        arguments = arguments_of(self.call)
        if not isinstance(arguments, dict):
            return _printable(str(arguments))
        return _printable(", ".join(self._each(cast("dict[str, Any]", arguments))))

    def _each(self, arguments: Mapping[str, Any]) -> Iterable[str]:
        for name, value in arguments.items():
            if isinstance(value, str):
                yield value.removeprefix(f"{self.folder.rstrip('/')}/")
            elif isinstance(value, list):
                yield f"{len(cast('list[object]', value))} {name}"
            else:
                yield f"{name}={value}"


def _with_turns(rows: Iterable[Row]) -> Iterable[tuple[str, Row]]:
    """Each row with the number of its turn, which is said once."""
    last = 0
    for row in rows:
        yield ("" if row.turn == last else str(row.turn)), row
        last = row.turn


def _name(row: Row) -> Text:
    """Which tool, as the model wrote it; a call in a call is set in."""
    return Text("  " * row.depth + _printable(row.call.name))


def _looks(row: Row) -> tuple[str, str, str]:
    return _LOOKS.get(row.state, ("?", "?", "default"))


def _seconds(row: Row) -> str:
    if row.result is None or row.started_at is None:
        return ""
    return f"{row.result.ended_at - row.started_at:.3f}"


def _printable(text: str) -> str:
    """*text* on one line, without what would move a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in text)
