"""The backend of ``async def`` tools: the body runs in the event loop, in the call's own task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
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

    def call(
        self, fn: Callable[..., T], kwargs: Mapping[str, Any], context: CallContext[Any], /
    ) -> Coroutine[Any, Any, T]:
        """Call *fn*; what is returned awaits what that returned, if it can be awaited."""
        value: object = fn(**kwargs)
        # As it is: one more coroutine around it is one more object that the collector walks.
        if type(value) is CoroutineType:
            return cast("Coroutine[Any, Any, T]", value)
        return self._awaited(value)

    async def _awaited(self, value: object) -> Any:
        if isinstance(value, Awaitable):
            return await value  # pyright: ignore[reportUnknownVariableType]  # because of anything
        return value
