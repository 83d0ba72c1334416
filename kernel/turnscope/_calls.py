"""What a turn takes in and gives out: `ToolCall`, `ToolResult`, `Status`, `Content`.

Frozen, slotted values. Above: every other room. Below: what makes records. Nothing here runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import attrs

from ._record import Record, Shown


class Status(StrEnum):
    """How a call settled. A member equals its text: ``Status.OK == "ok"``."""

    OK = "ok"
    """The tool returned, and in time."""
    FAILED = "failed"
    """The tool raised (also SystemExit, or a cancellation of its own making)."""
    INVALID = "invalid"
    """No such tool, or arguments that do not fit it; the body never ran."""
    DENIED = "denied"
    """Somebody who was asked said no; the body never ran."""
    TIMED_OUT = "timed_out"
    """Started, then interrupted by a timeout or deadline; its effects are unknown."""
    CANCELLED = "cancelled"
    """Started, then interrupted by a cancellation; its effects are unknown."""
    NOT_STARTED = "not_started"
    """Never began; `ToolResult.error` has the reason. It had no effects."""
    LOST = "lost"
    """Its worker died; its effects are unknown."""


def _exactly_one(part: Content, _attribute: object, _value: Any) -> None:
    if [part.text, part.data, part.url].count(None) != 2:
        raise ValueError("a Content has exactly one of text=, data= and url=")


def _length(data: bytes | None) -> str:
    return "None" if data is None else f"<{len(data)} bytes>"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Content(Record):
    """One part of a message: text, bytes, or the address of bytes.

    >>> Content(media_type="image/png", data=png_bytes)

    A tool returns one, or a list of them, to give the model more than plain text.
    Raises ValueError unless exactly one of *text*, *data* and *url* is given.
    """

    media_type: str = "text/plain"
    text: str | None = None
    data: bytes | None = attrs.field(default=None, repr=_length)
    url: str | None = attrs.field(default=None, validator=_exactly_one)


def _name_and_arguments(call: ToolCall, _attribute: object, arguments: object) -> None:
    name: object = call.name
    if not isinstance(name, str):
        raise TypeError(f"ToolCall.name is the name of a tool, a str, not {type(name).__name__}")
    if not isinstance(arguments, (str, bytes, Mapping)):
        raise TypeError(
            "ToolCall.arguments is JSON text or a mapping, not "
            f"{type(arguments).__name__}; for a call without arguments pass '{{}}'"
        )


class UnfrozenCall(Record):
    """What is to become a `ToolCall`, by `frozen`; nothing is checked."""

    __slots__ = ("__weakref__", "arguments", "id", "name")

    def __init__(self, id: str, name: str, arguments: str) -> None:
        self.id: str = id
        self.name: str = name
        self.arguments: str | bytes | Mapping[str, Any] = arguments


@attrs.frozen(eq=False, repr=False)
class ToolCall(UnfrozenCall):
    """What a model asked for: ``ToolCall("c1", "weather", '{"city": "Beijing"}')``.

    *id* is the caller's name for the call; one that repeats or is empty runs all the same.
    *arguments* is JSON text, as models send it, or a mapping. Its contents are not checked here:
    what does not fit the tool becomes an ``invalid`` result. Raises TypeError for any other type,
    and for a *name* that is no str.
    """

    id: str
    name: str
    arguments: str | bytes | Mapping[str, Any] = attrs.field(
        default="{}", validator=_name_and_arguments
    )


class UnfrozenResult(Shown):
    """What a call came to; with the rest, which its settling adds, a `ToolResult` by `frozen`."""

    __slots__ = (
        "__weakref__",
        "backend",
        "call",
        "content",
        "ended_at",
        "error",
        "failures",
        "leaked",
        "started_at",
        "status",
        "value",
    )

    call: ToolCall
    started_at: float | None
    ended_at: float
    backend: str | None

    def __init__(
        self,
        status: Status,
        content: str | tuple[Content, ...],
        value: Any = None,
        error: BaseException | None = None,
    ) -> None:
        self.status: Status = status
        self.content: str | tuple[Content, ...] = content
        self.value: Any = value
        self.error: BaseException | None = error
        self.leaked: bool = False
        self.failures: tuple[BaseException, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ToolResult(UnfrozenResult):
    """The one answer that a call gets, however it ended."""

    call: ToolCall
    """What was submitted, unchanged."""
    status: Status
    content: str | tuple[Content, ...]
    """What the model reads. It says plainly whether effects may have happened."""
    value: Any = None
    """What the tool returned, whole; also a value that came too late to count."""
    error: BaseException | None = None
    """What the tool raised, or turnscope's reason; None for ``ok``."""
    started_at: float | None = None
    """When the body began: seconds on the event loop's clock; None if it never did."""
    ended_at: float = 0.0
    """When the call settled: seconds on the event loop's clock."""
    backend: str | None = None
    """Where the body ran: "inline", "thread", "process", ...; None if no tool was found."""
    leaked: bool = False
    """Whether a thread of this call was still at work when the call settled."""
    failures: tuple[BaseException, ...] = ()
    """What others of its attempts raised than the one that decided, in order: of a tool with
    ``retry=`` or ``hedge=``."""

    @property
    def ok(self) -> bool:
        """Whether ``status`` is `Status.OK`."""
        return self.status is OK


OK: Final = Status.OK
"""For where it counts: to read a member of an enum takes 900 instructions on Python 3.11."""
INTERRUPTED: Final = frozenset({Status.TIMED_OUT, Status.CANCELLED, Status.LOST})
"""The statuses of calls that had started and whose effects are unknown."""
