"""The ports: what a model, a backend and an observer look like to the kernel.

Each has one or two methods. To add a backend, write a class like `Backend` and hand an instance to
``Kernel(backends=[...])``, or offer it to everybody as an entry point in ``turnscope.backends``. To
add a model, write a class like `Model` and hand an instance to an Agent, or offer the class in
``turnscope.models``: ``Agent(model="mine:NAME")`` then calls it with NAME. If its API can hold an
answer to a schema, it says so as in `TakesOutput`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import attrs

from ._context import CallContext
from ._record import Record, Shown

if TYPE_CHECKING:
    from ._history import History
    from ._tools import Tool
    from .events import ModelEvent, RunEvent

__all__ = ["Backend", "Model", "ModelRequest", "Observer", "OutputSchema", "TakesOutput"]

T = TypeVar("T")


def _no_tools() -> tuple[Tool[..., Any], ...]:
    return ()


def _no_settings() -> Mapping[str, Any]:
    return {}


@attrs.frozen(kw_only=True, eq=False, repr=False)
class OutputSchema(Shown):
    """What an answer has to be, for an API that holds a model to it."""

    name: str
    """Of the type: up to 64 letters, digits, _ and -."""
    schema: Mapping[str, Any]
    """A JSON schema of type object."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ModelRequest(Record):
    """What a model is asked, once a turn."""

    history: History
    """The conversation so far; it ends with a prompt or with results."""
    instructions: str | None = None
    """What the model is to be: a system prompt, or the provider's like."""
    tools: tuple[Tool[..., Any], ...] = attrs.field(factory=_no_tools)
    """What it may call: ``name``, ``description`` and ``schema`` are for the model."""
    output: OutputSchema | None = None
    """What the answer has to be; only of a model that `TakesOutput`, which said yes to it."""
    parallel_tool_calls: bool = True
    """Whether it may ask for several calls at once."""
    settings: Mapping[str, Any] = attrs.field(factory=_no_settings)
    """The provider's own options, passed through: ``{"temperature": 0}``."""


@runtime_checkable
class Model(Protocol):
    """A language model behind some API.

    It may be an async context manager too: it is then entered before its first request, in a task
    of the kernel's, and left in the same task when the kernel closes. If it has a ``name`` or a
    ``provider``, texts, events tell of them.
    """

    def stream(
        self, request: ModelRequest, /
    ) -> AbstractAsyncContextManager[AsyncIterator[ModelEvent]]:
        """Send *request*; in the block, iterate over the response, to its `ModelFinished`.

        When the run is to end, *one* cancellation is raised in here, at an await; what is awaited
        after that may take until the kernel's grace is over. Raises `turnscope.ModelError` with the
        server's status and words, and with ``transient=True`` for what may pass by itself, as a
        connection that broke: the same request then comes again, by the `turnscope.Retry` of the
        agent. Any other exception reaches the user as the cause of one.
        """
        ...


@runtime_checkable
class TakesOutput(Protocol):
    """What a `Model` has beside ``stream`` if its API can hold an answer to a schema.

    Of a model without it, and for a schema that it does not take, the answer is asked for as the
    call of a tool, which is among the tools of the request.
    """

    def takes_output(self, output: OutputSchema, /) -> bool:
        """Whether requests with this ``output`` get text that is JSON and fits.

        Asked once a run, before its first request.
        """
        ...


@runtime_checkable
class Backend(Protocol):
    """Where the bodies of calls run.

    An async context manager: entered before its first call, in a task of the kernel's, and left
    in the same task when the kernel closes, after the last call.
    """

    @property
    def name(self) -> str:
        """What tools call it: ``@tool(backend="thread")``."""
        ...

    def check(self, fn: Callable[..., object], /) -> None:
        """Refuse what this backend can never run, before any work is done.

        Raises TypeError or ValueError with a sentence that says what to do.
        """
        ...

    async def call(
        self, fn: Callable[..., T], kwargs: Mapping[str, Any], context: CallContext[Any], /
    ) -> T:
        """Run ``fn(**kwargs)`` and return or raise what it does.

        When the call is to end, *one* cancellation is raised in here, at an await; what is awaited
        after that may take until the kernel's grace is over, and is then cancelled for good. Work
        that leaves the event loop takes a ``context.hold()`` first. Raises
        `turnscope.WorkerLost` if the worker died under the call.
        """
        ...

    async def __aenter__(self) -> object:
        """Open what the backend needs: pools, connections."""
        ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool | None:
        """Close it."""
        ...


@runtime_checkable
class Observer(Protocol):
    """Is told what happens, and changes nothing.

    An exception that it raises is logged, once, to the logger ``turnscope``.
    """

    def observe(self, event: RunEvent, /) -> None:
        """Take note of *event*, in the event loop: return soon."""
        ...
