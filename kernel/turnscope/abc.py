"""The ports: what a backend and an observer look like to the kernel.

Each has one or two methods. To add a backend, write a class like `Backend` and hand an instance to
``Kernel(backends=[...])``, or offer it to everybody as an entry point in ``turnscope.backends``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, TypeVar, runtime_checkable

from ._context import CallContext
from .events import RunEvent

__all__ = ["Backend", "Observer"]

T = TypeVar("T")


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
