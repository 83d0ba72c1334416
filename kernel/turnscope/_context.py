"""What a tool's body can see and say of its own call: `CallContext`, and four functions beside it.

The attempt is the context of its call; this file is the public face, so that tools depend on a
small thing. The functions find the call through a context variable, which AnyIO carries into
threads. Above: `_attempt`, which implements the face. Below: the values.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Generic

from ._calls import ToolCall
from ._holds import Release

# The standard library has defaults from 3.13 on, and to import the others' takes 4 ms.
if sys.version_info >= (3, 13):
    from typing import TypeVar

    Deps = TypeVar("Deps", default=Any)
elif TYPE_CHECKING:
    from typing_extensions import TypeVar

    Deps = TypeVar("Deps", default=Any)
else:
    from typing import TypeVar

    Deps = TypeVar("Deps")


class CallContext(ABC, Generic[Deps]):
    """A tool's view of the call that it works on.

    A parameter annotated ``CallContext`` or ``CallContext[Deps]`` is filled in by the kernel and
    is not in the schema that the model sees::

        @tool
        async def look_up(key: str, context: CallContext[Database]) -> str:
            return await context.deps.get(key)
    """

    __slots__ = ()

    @property
    @abstractmethod
    def deps(self) -> Deps:
        """What was given to ``kernel.run(agent, prompt, deps=...)``, or to ``kernel.turn``."""

    @property
    @abstractmethod
    def call(self) -> ToolCall:
        """What the model asked for."""

    @property
    @abstractmethod
    def run_id(self) -> str:
        """A name for the run, or the turn of your own loop, that this call belongs to."""

    @property
    @abstractmethod
    def deadline(self) -> float:
        """When this call will be interrupted: seconds on the event loop's clock, or ``math.inf``.

        The earliest of its own timeout, its turn's deadline, those of the calls above it, and the
        cancel scopes in which its turn was opened.
        """

    @property
    def attempt(self) -> int:
        """Which of its bodies this is, from 1: for a tool with ``retry=`` or ``hedge=``."""
        return 1

    @property
    @abstractmethod
    def cancelling(self) -> bool:
        """Whether the call has been asked to end. May be read in any thread."""

    @abstractmethod
    def check_cancelled(self) -> None:
        """Raise the event loop's cancellation exception if the call has been asked to end."""

    @abstractmethod
    def progress(self, value: object) -> None:
        """Report *value* to the observers and refresh ``idle_timeout``; in any thread, at once."""

    @abstractmethod
    def heartbeat(self) -> None:
        """Refresh ``idle_timeout``; in any thread, at once, even if the event loop is held up."""

    @abstractmethod
    def hold(self) -> Release:
        """For backends: say that work of this call now goes on outside the event loop.

        Call what is returned, in any thread, when that work has really ended; give it a function
        that the event loop shall then call. Until then the call's slots are not lent again, and a
        call that settles meanwhile is reported as leaked. To be taken in the event loop.
        """


current: Final[ContextVar[CallContext[Any] | None]] = ContextVar("turnscope_call", default=None)


def current_call() -> CallContext[Any]:
    """The call whose body this code runs in, in the event loop and in threads.

    Raises RuntimeError outside of any tool's body, and in worker processes.
    """
    call = current.get()
    if call is None:
        raise RuntimeError(
            "no tool call is under way here: current_call(), check_cancelled(), progress() and "
            "heartbeat() are for the body of a tool, in the event loop or in a thread (a worker "
            "process cannot reach its call)"
        )
    return call


def check_cancelled() -> None:
    """Raise the event loop's cancellation exception if the current call has been asked to end.

    A ``def`` tool cannot be interrupted from outside: one that calls this in its loop ends in
    time, one that does not is reported as leaked. Raises RuntimeError outside a tool's body.
    """
    current_call().check_cancelled()


def progress(value: object) -> None:
    """Report *value* to the observers as the current call's progress; never waits.

    It also refreshes the call's ``idle_timeout``. Raises RuntimeError outside a tool's body.
    """
    current_call().progress(value)


def heartbeat() -> None:
    """Refresh the current call's ``idle_timeout``; never waits.

    Raises RuntimeError outside a tool's body.
    """
    current_call().heartbeat()
