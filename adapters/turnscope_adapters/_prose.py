"""The text of a model as it comes: for a file or a pipe as it is, for a live screen row by row.

Observers, of the outermost run alone: what runs inside tools say is for the model above them.
Above: `_stage`. Below: rich.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

from turnscope.events import ModelAnswered, ModelRetried, RunEvent, RunFinished, TextStreamed

CUT_OFF: Final = "[the answer was cut off, and is asked for again]\n"


class PlainProse:
    """Writes each piece to *file*, flushed; each answer ends with a line's end.

    To a terminal, without what would move its cursor. When nobody reads *file* any more, it calls
    *unread*, once, and writes no more.
    """

    def __init__(self, file: TextIO, unread: Callable[[], object]) -> None:
        self._file = file
        self._unread = unread
        self._terminal = file.isatty()
        self._within = False
        """Whether a line is begun."""
        self._answering = False
        """Whether there was text of an answer that is not whole."""
        self.broken = False
        """Whether nobody reads any more."""

    def observe(self, event: RunEvent, /) -> None:
        """Write what *event* says."""
        if event.parents or self.broken:
            return
        if isinstance(event, TextStreamed):
            self._answering = True
            self._write(_harmless(event.text) if self._terminal else event.text)
        elif isinstance(event, (ModelAnswered, ModelRetried, RunFinished)):
            if self._within:
                self._write("\n")
            if self._answering and isinstance(event, ModelRetried):
                self._write(CUT_OFF)
            self._answering = False

    def _write(self, text: str) -> None:
        self._within = not text.endswith("\n")
        try:
            self._file.write(text)
            self._file.flush()
        except BrokenPipeError:
            self.broken = True
            self._unread()


class LiveProse:
    """Prints each row on *console* when it is full, above what is drawn there."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = ""
        self._answering = False

    @property
    def begun(self) -> Text:
        """The row that is not full yet."""
        return Text(self._begun)

    def observe(self, event: RunEvent, /) -> None:
        """Take in what *event* says."""
        if event.parents:
            return
        if isinstance(event, TextStreamed):
            self._answering = True
            self._add(_harmless(event.text))
        elif isinstance(event, (ModelAnswered, ModelRetried, RunFinished)):
            if self._begun:
                self._add("\n")
            if self._answering and isinstance(event, ModelRetried):
                self._add(CUT_OFF)
            self._answering = False

    def _add(self, text: str) -> None:
        *lines, last = (self._begun + text).split("\n")
        for line in lines:
            self._console.print(Text(line))
        # What is drawn below must not grow with a paragraph, so that is cut into rows here.
        rows = Text(last).wrap(self._console, self._console.width)
        for row in rows[:-1]:
            self._console.print(row)
        self._begun = rows[-1].plain if rows else ""


def _harmless(text: str) -> str:
    """*text* without control characters but for the ends of lines and tabs."""
    return "".join(
        c if c in "\n\t" or not (c < " " or "\x7f" <= c <= "\x9f") else "\N{REPLACEMENT CHARACTER}"
        for c in text.replace("\r\n", "\n")
    )
