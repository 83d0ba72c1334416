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

from . import _raised
from ._adaptive import pushes_back
from ._agent import RunContext
from ._assemble import Assembler, Response
from ._attempt import Attempt
from ._calls import Status, ToolCall, ToolResult
from ._early import FAILED
from ._endings import model_error
from ._errors import BudgetExceeded, ModelError
from ._models import name_of, provider_of
from ._places import Route
from ._retry import Retry, covers
from ._retrying import retried
from ._tools import Tool
from .abc import ModelRequest
from .events import (
    CallSealed,
    FellBack,
    ModelEvent,
    ModelFellBack,
    ModelRetried,
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


@lru_cache(maxsize=64)
def tool_of(retry: Retry | None) -> Tool[..., Any]:
    """What stands for a tool in the requests of a run, which asks once: *retry* is slow to hash."""

    # Late, as all that needs a schema: pydantic takes as long to import as all the rest.
    async def model_request() -> None: ...

    return Tool(model_request, read_only=True, retry=retry)


async def _said(
    instructions: Callable[[RunContext[Any]], object], context: RunContext[Any]
) -> str | None:
    """What *instructions* come to; their mistakes are not the model's, and the error says so."""
    try:
        said = instructions(context)
        if inspect.isawaitable(said):
            said = await said
    except Exception as exc:
        raise ModelError(f"the agent's instructions failed: {_raised.described(exc)}") from exc
    if said is None or isinstance(said, str):
        return said
    raise ModelError(f"the agent's instructions gave {type(said).__name__}, not text")


def _nobody(failure: BaseException | None) -> None:
    """Told how an attempt ended where no limit adapts."""


class Request(Attempt):
    """The request of one turn; what it came to is in ``response``, if it came to an end."""

    __slots__ = ("_asking", "_conductor", "_handed_over", "response")

    def __init__(
        self, turn: Supervisor, conductor: Conductor, tool: Tool[..., Any], route: Route
    ) -> None:
        Attempt.__init__(self, turn, -1, _CALL, tool, route, {})
        self._conductor = conductor
        self._asking: ModelRequest | None = None
        """What is sent, with each attempt the same."""
        self.response: Response | None = None
        self._handed_over = False
        """Whether the conductor has been told what it came to."""

    def begin(self, turn: Supervisor) -> Coroutine[Any, Any, str]:
        if self.facts.observed:
            model = self._conductor.model
            name, provider = name_of(model), provider_of(model)
            self.facts.tell(ModelStarted(model=name, provider=provider, **self.facts.event()))
        retry = self.tool.retry
        return self.once() if retry is None else retried(self, retry)

    async def once(self) -> str:
        """One attempt: one stream, read to its end."""
        conductor = self._conductor
        if self._asking is None:
            said = conductor.agent.instructions
            if callable(said):
                said = await _said(said, self._context())
            self._asking = self._asked(said)
        assembler, early, heard = Assembler(), conductor.early, self._hearing()
        if early is not None:
            await early.joined()
            early.begin()
        try:
            async with conductor.model.stream(self._asking) as events:
                async for event in events:
                    assembler.feed(event)
                    if self.facts.observed:
                        self._show(event)
                    if early is not None and isinstance(event, CallSealed):
                        early.sealed(assembler, conductor.history.knows)
            response = assembler.finish(conductor.history.knows)
        except BaseException as exc:
            self._failed(assembler)
            heard(exc)
            raise
        heard(None)
        self.response = response
        return ""  # as a result: the response goes another way

    def _hearing(self) -> Callable[[BaseException | None], None]:
        """Begin an attempt; gives what is to be told how it ended, for a limit that adapts."""
        limiter = next((each for each in self.route.limiters if each.window is not None), None)
        if limiter is None or limiter.window is None:
            return _nobody
        window, epoch = limiter.window, limiter.window.epoch

        def heard(failure: BaseException | None) -> None:
            if failure is None:
                window.answered(epoch, in_full=limiter.lent >= limiter.capacity)
            elif pushes_back(failure):
                window.refused(epoch)
            limiter.follow(window)

        return heard

    def _failed(self, assembler: Assembler) -> None:
        """Told that a stream has failed, or was interrupted: what it has brought is void."""
        self._conductor.ledger.add(assembler.usage)

    def _context(self) -> RunContext[Any]:
        facts = self.facts
        return RunContext(
            deps=facts.deps,
            run_id=facts.run_id,
            turn=facts.number,
            history=self._conductor.history,
            deadline=facts.deadline,
        )

    def _asked(self, instructions: str | None) -> ModelRequest:
        conductor = self._conductor
        tools, output = conductor.asks()
        return ModelRequest(
            history=conductor.history,
            instructions=instructions,
            tools=tools,
            output=output,
            parallel_tool_calls=conductor.agent.parallel_tool_calls,
            settings=conductor.settings,
        )

    def _show(self, event: ModelEvent) -> None:
        if isinstance(event, TextDelta) and event.text:
            self.facts.tell(TextStreamed(text=event.text, **self.facts.event()))
        elif isinstance(event, ReasoningDelta) and event.text:
            self.facts.tell(ReasoningStreamed(text=event.text, **self.facts.event()))
        elif isinstance(event, FellBack):
            facts, model, error = self.facts, event.model, event.error
            facts.tell(ModelFellBack(model=model, error=error, **facts.event()))

    def covered(self, retry: Retry, failure: Exception) -> bool:
        if self._asking is None:  # the instructions failed, and nothing was sent
            return False
        return covers(retry, failure, of_model=True)

    def spent(self) -> BudgetExceeded | None:
        return self._conductor.ledger.overspent()

    def suspend(self) -> None:
        # Before the next attempt, whose calls may be the same: `once` waits until these have ended.
        if self._conductor.early is not None:
            self._conductor.early.drop(FAILED)
        super().suspend()

    def tell_retry(self, attempt: int, error: Exception, delay: float) -> None:
        if self.facts.observed:
            event = self.facts.event()
            self.facts.tell(ModelRetried(attempt=attempt, error=error, delay=delay, **event))

    def _progress(self, value: object) -> None:
        """Told nobody: a request is no call, and in no event of one."""

    def is_unsettled(self, turn: Supervisor) -> bool:
        return not self._handed_over

    def _came_to(self, turn: Supervisor, value: Any, error: BaseException | None) -> None:
        in_time = error is None and not self.told and self.own is None
        alone = self.tries is None and self._holds is None and self._parking is None
        if not in_time or not alone or self.facts.loop.now() >= turn.deadline:
            super()._came_to(turn, value, error)
            return
        # As nearly all do: without a result, which nobody would see. Of the 590,000 instructions of
        # a run without calls, that saves 14,000 (callgrind, Python 3.11).
        self.turn, self._handed_over = None, True
        try:
            self._conductor.answered(turn, self.response, None)
        finally:
            try:
                turn.released(self, None)
            finally:
                self.give_back()

    def _hand_over(self, turn: Supervisor, result: ToolResult, fatal: BaseException | None) -> None:
        error, self._handed_over = result.error, True
        if self.tool.retry is not None and self.response is None and not turn.is_asked():
            error = self._last_error(error, result)
        # The response first, whose calls keep the turn open.
        try:
            self._conductor.answered(turn, self.response, error)
        finally:
            turn.released(self, fatal)

    def _last_error(self, error: BaseException | None, result: ToolResult) -> BaseException:
        """What the run raises: the last failure, with those before it and why it was the last."""
        failures: list[BaseException] = [*result.failures]
        note = "" if self.tries is None or not self.tries.said else f"it was {self.tries.said}"
        if result.status is Status.TIMED_OUT and error is not None:
            # By the total, since the turn was not asked.
            note = f"the {self.tool.longest:g} s for all attempts were up in attempt {self.attempt}"
            late = error
            error = failures.pop() if failures else ModelError(f"the model did not answer: {note}")
            failures.append(late)
        raised = model_error(error)
        if isinstance(raised, ModelError):
            raised.failures = tuple(each for each in failures if each is not raised)
            if note:
                raised.add_note(note)
        return raised
