"""One model request: an attempt whose body reads the response, and whose result is a response.

So all that is promised of a call holds for it too: it waits at its limiter without a task, gets one
interrupt at the ask, and its adapter may clean up within grace. Above: the conductor. Below: the
attempt and the assembler.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from . import _outcome
from ._agent import RunContext
from ._assemble import Assembler, Response
from ._attempt import Attempt
from ._calls import ToolCall, ToolResult
from ._errors import ModelError
from ._places import Route
from ._tools import Tool
from .abc import ModelRequest
from .events import (
    CallSealed,
    ModelEvent,
    ModelStarted,
    ReasoningDelta,
    ReasoningStreamed,
    TextDelta,
    TextStreamed,
)

if TYPE_CHECKING:
    from ._conductor import Conductor
    from ._supervisor import Supervisor

_CALL: Final = ToolCall("", "model_request")


@lru_cache(maxsize=1)
def _tool() -> Tool[..., Any]:
    # Late, as all that needs a schema: pydantic takes as long to import as all the rest.
    async def model_request() -> None: ...

    return Tool(model_request)


async def _said(
    instructions: Callable[[RunContext[Any]], object], context: RunContext[Any]
) -> str | None:
    """What *instructions* come to; their mistakes are not the model's, and the error says so."""
    try:
        said = instructions(context)
        if inspect.isawaitable(said):
            said = await said
    except Exception as exc:
        raise ModelError(f"the agent's instructions failed: {_outcome.described(exc)}") from exc
    if said is None or isinstance(said, str):
        return said
    raise ModelError(f"the agent's instructions gave {type(said).__name__}, not text")


class Request(Attempt):
    """The request of one turn; what it came to is in ``response``, if it came to an end."""

    __slots__ = ("_conductor", "response")

    def __init__(self, turn: Supervisor, conductor: Conductor, route: Route) -> None:
        super().__init__(turn, -1, _CALL, _tool(), route, {})
        self._conductor = conductor
        self.response: Response | None = None

    def begin(self, turn: Supervisor) -> Coroutine[Any, Any, str]:
        if self.facts.observed:
            self.facts.tell(ModelStarted(**self.facts.event()))
        return self._read()

    async def _read(self) -> str:
        conductor = self._conductor
        assembler, early = Assembler(), conductor.early
        if early is not None:
            early.begin()
        async with conductor.model.stream(await self._asked()) as events:
            async for event in events:
                assembler.feed(event)
                if self.facts.observed:
                    self._show(event)
                if early is not None and isinstance(event, CallSealed):
                    early.sealed(assembler, conductor.history.knows)
        self.response = assembler.finish(conductor.history.knows)
        return ""  # as a result: the response goes another way

    async def _asked(self) -> ModelRequest:
        conductor, facts = self._conductor, self.facts
        agent, instructions = conductor.agent, conductor.agent.instructions
        if callable(instructions):
            context = RunContext(
                deps=facts.deps,
                run_id=facts.run_id,
                turn=facts.number,
                history=conductor.history,
                deadline=facts.deadline,
            )
            instructions = await _said(instructions, context)
        return ModelRequest(
            history=conductor.history,
            instructions=instructions,
            tools=agent.tools,
            parallel_tool_calls=agent.parallel_tool_calls,
            settings=conductor.settings,
        )

    def _show(self, event: ModelEvent) -> None:
        if isinstance(event, TextDelta) and event.text:
            self.facts.tell(TextStreamed(text=event.text, **self.facts.event()))
        elif isinstance(event, ReasoningDelta) and event.text:
            self.facts.tell(ReasoningStreamed(text=event.text, **self.facts.event()))

    def _progress(self, value: object) -> None:
        """Told nobody: a request is no call, and in no event of one."""

    def is_unsettled(self, turn: Supervisor) -> bool:
        return self.turn is not None

    def _hand_over(self, turn: Supervisor, result: ToolResult, outcome: _outcome.Outcome) -> None:
        # The response first, whose calls keep the turn open.
        self._conductor.answered(turn, self.response, outcome.error)
        turn.released(self, fatal=outcome.fatal)
