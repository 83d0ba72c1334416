"""The backend of ``async def`` tools: the body runs in the event loop, in the call's own task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import CoroutineType, TracebackType
from typing import Any, TypeVar, cast

from turnscope import CallContext

T = TypeVar("T")


class InlineBackend:
    """Runs a body in the event loop. A ``def`` tool that is put here must not block."""

    name = "inline"

    async def __aenter__(self) -> InlineBackend:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Nothing was opened: the bodies are the kernel's tasks, and have ended."""

    def check(self, fn: Callable[..., object], /) -> None:
        """Any callable can be called in the event loop: nothing is refused."""

    async def call(
        self, fn: Callable[..., T], kwargs: Mapping[str, Any], context: CallContext[Any], /
    ) -> T:
        """Call *fn*, and await what it returns if that can be awaited."""
        value: object = fn(**kwargs)
        # The plain question first: to ask an abstract class takes as long as the rest of this.
        if type(value) is CoroutineType or isinstance(value, Awaitable):
            return await cast("Awaitable[T]", value)
        return cast("T", value)
