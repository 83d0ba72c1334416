"""Server-sent events out of bytes that are cut anywhere. Pure: bytes in, events out.

httpx2 reads server-sent events too, but only from a response of its own and under one content
type, and it drops a last event that no blank line ends; servers that stream chat differ in both.
Above: `openai`. Below: the kernel's ModelError.
"""

from __future__ import annotations

from typing import Final

import attrs

from turnscope import ModelError

_BOM: Final = b"\xef\xbb\xbf"


@attrs.frozen
class ServerEvent:
    """One event of a stream."""

    name: str
    """What the server called it; "" if it did not."""
    data: str


class EventReader:
    """Takes bytes as they come; gives the events that they complete.

    Raises ModelError for an event of more than *longest* bytes: else a server, or whatever stands
    in its place, could fill the memory.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._size = 0
        """Bytes of the event that is coming, as far as it has come."""
        self._line: list[bytes] = []
        """Pieces of the line that is coming."""
        self._after_cr = False
        self._at_start = True
        self._name = ""
        self._data: list[str] = []

    def feed(self, received: bytes) -> list[ServerEvent]:
        """The events that end within *received*."""
        if not received:
            return []
        last = received[-1:]
        if self._after_cr:
            received = received.removeprefix(b"\n")  # the second half of a line's end
        self._after_cr = last == b"\r"
        events: list[ServerEvent] = []
        for piece in received.splitlines(keepends=True):
            line = piece.rstrip(b"\r\n")
            self._size += len(line)
            if self._size > self._longest:
                raise ModelError(
                    f"the server sent a chunk of more than {self._longest:,} bytes; if that is "
                    "no mistake, raise longest_chunk="
                )
            if self._line or len(line) == len(piece):
                self._line.append(line)
                if len(line) == len(piece):
                    continue  # its end is still to come
                line = b"".join(self._line)
                self._line.clear()
            self._take(line, events)
        return events

    def finish(self) -> list[ServerEvent]:
        """The last event, if the stream has ended in the middle of it."""
        events: list[ServerEvent] = []
        if self._line:
            self._take(b"".join(self._line), events)
            self._line.clear()
        self._take(b"", events)
        return events

    def _take(self, line: bytes, events: list[ServerEvent]) -> None:
        """Take a whole line: only a whole one is sure to be whole in UTF-8."""
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            if self._data:
                events.append(ServerEvent(self._name, "\n".join(self._data)))
            self._name = ""
            self._data.clear()
            self._size = 0
            return
        field, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif not field:
            self._size -= len(line)  # a comment, sent to keep the connection alive
