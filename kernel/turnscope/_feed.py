"""The events of a run on their way to whoever reads them, who may be slow, or not there at all.

The run puts events in and never waits; the buffer has no bound, but pieces of text that nobody has
read yet become one. Above: the run. Below: the events.
"""

from __future__ import annotations

from collections import deque

import anyio
import attrs

from .events import ReasoningStreamed, RunEvent, TextStreamed


class _Pieces:
    """Adjacent pieces of one answer's text; joined when they are read, not at each piece."""

    __slots__ = ("_first", "_texts")

    def __init__(self, first: TextStreamed | ReasoningStreamed) -> None:
        self._first = first
        self._texts = [first.text]

    def take(self, more: TextStreamed | ReasoningStreamed) -> bool:
        """Add *more*, if it goes on with the same text."""
        first = self._first
        if type(more) is not type(first) or (more.run_id, more.turn) != (first.run_id, first.turn):
            return False
        self._texts.append(more.text)
        return True

    def joined(self) -> RunEvent:
        """All of it as one event, with the time of the first piece."""
        if len(self._texts) == 1:
            return self._first
        return attrs.evolve(self._first, text="".join(self._texts))


class Feed:
    """A buffer of events between a run and its readers; of several, each event goes to one."""

    __slots__ = ("_closed", "_events", "_more")

    def __init__(self) -> None:
        self._events: deque[RunEvent | _Pieces] = deque()
        self._more: anyio.Event | None = None
        self._closed = False

    def put(self, event: RunEvent) -> None:
        """Add *event*. Never waits."""
        if isinstance(event, (TextStreamed, ReasoningStreamed)):
            last = self._events[-1] if self._events else None
            if isinstance(last, _Pieces) and last.take(event):
                return
            self._events.append(_Pieces(event))
        else:
            self._events.append(event)
        self._wake()

    def close(self) -> None:
        """No more events come."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._more is not None:
            self._more.set()
            self._more = None

    async def get(self) -> RunEvent | None:
        """The next event; None after the last."""
        while not self._events:
            if self._closed:
                return None
            if self._more is None:
                self._more = anyio.Event()
            await self._more.wait()
        event = self._events.popleft()
        return event.joined() if isinstance(event, _Pieces) else event
