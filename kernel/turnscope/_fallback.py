"""Fallback: several models as one, of which the next is asked when one fails.

It is a model like any other: it knows the port and nothing of a run, so it may stand wherever a
model may. Above: nothing of the kernel; whoever makes an Agent. Below: the port, `_models`, which
finds models by name, and `_retry`, which says what names a failure.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
)
from types import TracebackType
from typing import Final

import anyio

from ._errors import ModelError, ModelsFailed
from ._models import checked, model_named, name_of, takes_output
from ._retry import On, check_on, named_by
from .abc import Model, ModelRequest, OutputSchema
from .events import FellBack, ModelEvent

_UNAVAILABLE: Final = (402, 429)
"""Statuses that name a lack of credit or of capacity, also where it will not pass by itself."""


def _is_unavailable(failure: Exception) -> bool:
    if not isinstance(failure, ModelError):
        return False  # a mistake in the adapter, which another would hide
    status = failure.status or 0
    return failure.transient or status in _UNAVAILABLE or status >= 500


class Fallback:
    """Several models as one; made by `fallback`."""

    def __init__(self, models: tuple[Model, ...], on: On | None) -> None:
        self.models: Final = models
        """In the order in which they are asked."""
        self._on = on
        self._open: dict[int, AsyncExitStack] = {}
        """By the task that entered: several kernels may use one fallback."""

    def __repr__(self) -> str:
        return f"<fallback {' > '.join(map(_name_of, self.models))}>"

    async def __aenter__(self) -> Fallback:
        """Open those of the models that need it."""
        async with AsyncExitStack() as stack:
            for model in self.models:
                if isinstance(model, AbstractAsyncContextManager):
                    await stack.enter_async_context(model)
            self._open[anyio.get_current_task().id] = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        await self._open.pop(anyio.get_current_task().id).__aexit__(exc_type, exc, traceback)

    def takes_output(self, output: OutputSchema, /) -> bool:
        """Whether all of the models do: any of them may be the one that answers."""
        return all(takes_output(model, output) for model in self.models)

    @asynccontextmanager
    async def stream(self, request: ModelRequest, /) -> AsyncGenerator[AsyncIterator[ModelEvent]]:
        """Send *request* to the first model, and to the next while nothing comes of it."""
        async with aclosing(self._events(request)) as events:
            yield events

    async def _events(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        failures: list[tuple[str, Exception]] = []
        for place, model in enumerate(self.models):
            if failures:
                yield FellBack(_name_of(model), failures[-1][1])
            begun = False
            try:
                async with model.stream(request) as events:
                    async for event in events:
                        # A call may be at work by then, so nobody else may answer.
                        begun = begun or not isinstance(event, FellBack)
                        yield event
                return
            except Exception as exc:
                failures.append((_name_of(model), exc))
                if not begun and place + 1 < len(self.models) and self._covers(exc):
                    continue
                if len(failures) == 1:
                    raise
                raise ModelsFailed(failures) from exc

    def _covers(self, failure: Exception) -> bool:
        return _is_unavailable(failure) if self._on is None else named_by(self._on, failure)


def _name_of(model: object) -> str:
    return name_of(model) or type(model).__name__


def fallback(model: Model | str, *others: Model | str, on: On | None = None) -> Model:
    """*model*, and each of *others* in turn while the one before it fails::

        Agent(model=fallback(OpenAIResponses("gpt-5"), OpenAIChat("qwen3", base_url=...)))
        Agent(model=fallback("openai:gpt-5", "openai:gpt-5-mini"))

    The next is asked at once, and only while nothing has come of the one before: what was streamed
    may have been shown, or have started a call. `turnscope.events.ModelFellBack` tells of it. Each
    request begins with the first model again. If all fail, ModelsFailed has what each raised; the
    agent's `Retry` then waits and asks them anew, if it may pass.

    *on* says of which failures: a type of exception, a tuple of types, or a function of the
    exception. By default of a `ModelError` that may pass by itself (a connection, 408, 409), and of
    402, 429 and the statuses from 500 up, also where the server says that it will not; never of a
    request that is wrong, or a key.

    An answer that has a type, ``Agent(output=...)``, is asked for in an API's own mode only if all
    of the models have one for it, else as the call of a tool, of all of them.

    Names are those of ``Agent(model=...)``. The models are opened with this one and closed with it.
    Raises ValueError for fewer than two or a name that nobody offers, and TypeError for what is no
    model, or an *on* that names no exceptions.
    """
    if not others:
        raise ValueError("fallback() takes at least two models: the one, and whom to ask next")
    check_on(on, "fallback")
    models = (model, *others)
    return Fallback(
        tuple(model_named(each) if isinstance(each, str) else checked(each) for each in models), on
    )
