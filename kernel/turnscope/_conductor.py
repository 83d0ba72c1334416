"""What a run does: turn after turn, until the model answers without calls, or something ends it.

One task in the kernel's task group is the supervisor of each turn of its run, one after the other.
History grows by whole turns, in one synchronous step, when every call of the turn has settled: so
whenever control leaves, it is one that a provider accepts. Above: `_run`, the face that waits in
the caller's task. Below: the request and the supervisor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from . import _outcome
from ._assemble import Response
from ._budget import Ledger
from ._calls import Status, ToolCall
from ._early import FAILED, REFUSED, Early
from ._endings import beneath, failed, messages_of, model_error, out_of_time
from ._errors import BudgetExceeded, InvalidArguments, NotStarted, RunCancelled, TurnscopeError
from ._history import History
from ._loop import has_ended
from ._request import Request, tool_of
from ._stored import is_object
from ._supervisor import Supervisor
from ._whole import whole
from .events import FinishReason, ModelAnswered, RunFinished, RunStarted

if TYPE_CHECKING:
    from anyio import TaskHandle

    from ._agent import Agent
    from ._attempt import Attempt
    from ._facts import TurnFacts
    from ._feed import Feed
    from ._kernel import Kernel
    from ._loop import Task
    from ._outcome import Cause
    from ._places import Route
    from ._routes import Offer
    from ._tools import Tool
    from .abc import Model, OutputSchema


class Conductor:
    """The inside of one run, from the entry of its block until `done`."""

    __slots__ = (
        "_beneath",
        "_cause",
        "_end",
        "_feed",
        "_offer",
        "_response",
        "_seconds",
        "_spent",
        "_turn",
        "_way",
        "agent",
        "asked",
        "context",
        "deadline",
        "done",
        "early",
        "error",
        "facts",
        "handle",
        "history",
        "kernel",
        "ledger",
        "model",
        "output",
        "over",
        "parent",
        "reason",
        "settings",
        "task",
        "turns",
    )

    def __init__(
        self,
        kernel: Kernel,
        agent: Agent[Any, Any],
        model: Model,
        way: Route,
        offer: Offer,
        *,
        facts: TurnFacts,
        history: History,
        settings: Mapping[str, Any],
        deadline: float,
        ledger: Ledger,
        seconds: float,
        parent: Attempt | None,
        feed: Feed | None,
    ) -> None:
        self.kernel, self.agent, self.model = kernel, agent, model
        self._way = tool_of(agent.retry), way
        self._offer = offer
        self.facts = facts
        self.history = history
        self.settings = settings
        self.deadline = deadline
        self.ledger = ledger
        self._seconds = seconds
        """The budget's, if it is they that set the deadline; else infinite."""
        self.parent = parent
        self._feed = feed
        self.context = copy_context()
        """That of the caller: what a model or the instructions set in theirs is not for calls."""
        self.task: Task | None = None
        self.handle: TaskHandle[None] | None = None
        self.turns = 0
        """Responses that are complete."""
        self.output: Any = None
        self.reason: FinishReason = "stop"
        self.error: BaseException | None = None
        """What the run raises."""
        self.done = facts.loop.anyio.create_event()
        self._cause: Cause | None = None
        self.asked, self.over, self._end = False, False, math.inf  # over: an output may be None
        self._turn: Supervisor | None = None
        self.early: Early | None = None
        """The calls of the turn that are taken in while the model streams, if any may start."""
        self._response: Response | None = None
        self._spent: BudgetExceeded | None = None
        self._beneath: BaseException | None = None
        """What the model raised while the run was being ended: the cause of the run's error."""

    @whole
    async def run(self) -> None:
        """Be the task of the run, and the supervisor of each of its turns.

        All turns are in one task group, because another for each would cost 15 us of the 70 of a
        turn, and an ask ends the run with its turn.
        """
        try:
            self.task = self.facts.loop.task()
            if self.facts.observed:
                self.facts.tell(RunStarted(**self.facts.event()))
            async with self.facts.loop.anyio.create_task_group() as group:
                group.cancel_scope.shield, group.cancel_scope.deadline = True, self.deadline
                # For all requests: each is alone in it, and the run ends if one is interrupted.
                with self.facts.loop.scope_for_many() as around:
                    while (turn := self._next_turn()) is not None:
                        await turn.serve(group, around)
                        if turn.asked:
                            break
                        await turn.rest()
                        self._commit(turn)
            if self._turn is not None:
                self._turn.close()  # it is not, if Ctrl-C landed where its calls were submitted
                await self._turn.rest()
        except self.facts.loop.cancelled:
            # By a stranger, while the task group waited for the bodies; they have ended.
            ...
        except Exception as exc:
            self.error = exc  # of no tool and no model: a mistake of ours, which must not hang
        except BaseException as exc:
            self.error = self.error or exc  # Ctrl-C between two statements
            raise
        finally:
            self.finish()

    def _next_turn(self) -> Supervisor | None:
        if self.error is not None or self.over or self._cause is not None:
            return None
        if self.facts.loop.now() >= self.deadline:
            self.error = out_of_time(self._seconds)
            return None
        if (spent := self.ledger.spend_turn()) is not None:
            self.error = spent
            return None
        facts = self.facts.at(self.turns) if self.turns else self.facts
        self._turn = turn = Supervisor(self.kernel, facts, self.deadline, self.parent)
        turn.task = self.task
        self.kernel._supervise(turn, in_a_run=True)
        if self._offer.early and self.agent.parallel_tool_calls:  # else those held are overtaken
            self.early = Early(turn, self._offer, self.ledger, self.context)
        turn.take(Request(turn, self, *self._way), leads=True)
        return turn

    def answered(
        self, turn: Supervisor, response: Response | None, error: BaseException | None
    ) -> None:
        """Told what the request of *turn* came to: submit its calls. In one step."""
        if response is not None:
            self._response = response
            self.ledger.add(response.usage)
            if turn.facts.observed:
                turn.facts.tell(
                    ModelAnswered(
                        message=response.message,
                        reason=response.reason,
                        usage=response.usage,
                        **turn.facts.event(),
                    )
                )
            self.context.run(self._submit, turn, response)
        elif not turn.is_asked():
            self.error = model_error(error)
        elif error is not None:
            self._beneath = beneath(error)
        if self.early is not None:
            self.early.drop(FAILED if response is None else REFUSED)
        turn.close()

    def _submit(self, turn: Supervisor, response: Response) -> None:
        overspent = self.ledger.overspent() if response.calls else None
        for call in response.calls:
            spent = overspent or (None if turn.is_asked() else self.ledger.spend_call())
            if spent is not None:
                self._spent = spent
                self._refuse(turn, call, Status.NOT_STARTED, NotStarted(str(spent)))
            elif response.reason == "length" and not is_object(call.arguments):
                cut = ["your answer was cut at the limit of tokens before they were complete"]
                self._refuse(turn, call, Status.INVALID, InvalidArguments(call.name, cut))
            elif self.early is None or not self.early.count(call):
                self._offer.submit(turn, call)

    def _refuse(
        self,
        turn: Supervisor,
        call: ToolCall,
        status: Status,
        error: NotStarted | InvalidArguments,
    ) -> None:
        if self.early is None:
            self._offer.refuse(turn, turn.ready(call), call, status, error)
        else:
            self.early.refuse(call, status, error)

    def asks(self) -> tuple[tuple[Tool[..., Any], ...], OutputSchema | None]:
        """The tools that the model is told of, and what its API is to hold its answer to."""
        return self.agent.tools, None

    def _commit(self, turn: Supervisor) -> None:
        """Put the turn, all of which has settled, into history; see whether to go on."""
        turn.finish()
        response, self._response, self._turn = self._response, None, None
        early, self.early = self.early, None
        if response is not None:
            self.turns += 1
            self.history = self.history.grown(messages_of(response, turn.results))
        if turn.fatal is not None:
            self.error = failed((*turn.results, *(early.results if early else ())), turn.fatal)
        elif turn.asked and turn.cause is _outcome.TURN_DEADLINE:
            self.error = out_of_time(self._seconds)
        elif self._spent is not None:
            self.error = self._spent
        elif response is not None and not turn.asked:
            self._judge(turn, response)

    def _judge(self, turn: Supervisor, response: Response) -> None:
        """See whether *turn*, which came to its end by itself, was the last."""
        if not response.calls:
            self.over, self.output, self.reason = True, response.message.text, response.reason

    def finish(self) -> None:
        """Nothing of the run runs any more: say so."""
        if self.done.is_set():
            self.kernel._run_left(self)
            return
        if self._turn is not None:  # it was asked, and has ended with the task group
            self._commit(self._turn)
        if not self.over and self.error is None:
            reason = "the event loop is ending" if self._cause is None else self._cause.reason
            self.error = RunCancelled(reason)
        if isinstance(self.error, TurnscopeError):
            self.error.history = self.history
            if self.error.__cause__ is None:
                self.error.__cause__ = self._beneath
        if self.facts.observed:
            last = self.facts.at(max(0, self.turns - 1)).event()
            self.facts.tell(
                RunFinished(output=self.output, usage=self.ledger.usage, error=self.error, **last)
            )
        if self._feed is not None:
            self._feed.close()
        self.done.set()
        # Last: should Ctrl-C land here, the kernel still knows whom to finish.
        self.kernel._run_left(self)

    # What the face, the kernel and the call above ask of it.

    def ask(self, cause: Cause, end: float = math.inf) -> None:
        """End the run by *end*, a clock value, and at most ``grace`` from now."""
        self.asked, self._cause = True, self._cause or cause
        self._end = min(self._end, end)
        if self._turn is not None:
            self._turn.ask(cause, self._end)
        if has_ended(self.handle):
            self.finish()  # Ctrl-C landed in it, on asyncio: who waits for it asks once more

    def close(self) -> None:
        """Told that the block is left; a run has no calls to wait for that are not its own."""
