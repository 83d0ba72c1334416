"""What a run does whose answer has a type: it reads it, and sends back one that does not fit.

An answer is text that is JSON, where the model's API holds it to a schema, else the call of a tool.
That call is no work: it has its place in its turn and its one result, but no body, no slot, no part
of the budget of calls. Above: `_prepare`. Below: the conductor, which does all the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from ._assemble import REFUSED, Response
from ._calls import Status, ToolCall, ToolResult
from ._conductor import Conductor
from ._errors import InvalidArguments, NotStarted, OutputInvalid, OutputRefused, UnknownTool
from ._messages import UserMessage
from ._stored import is_object, storable
from .events import OutputRetried

if TYPE_CHECKING:
    from ._output import Answer
    from ._supervisor import Supervisor
    from ._tools import Tool
    from .abc import OutputSchema

_TAKEN: Final = "This was taken as the final answer."
_SECOND: Final = "an answer before it, in the same turn, was taken"
_CUT: Final = "it was cut at the limit of tokens before it was complete: give a shorter one"


class Answering(Conductor):
    """The inside of a run of an agent with ``output=Type``."""

    __slots__ = ("_answer", "_attempts", "_by_tool", "_invalid", "_taken", "_tools", "_value")

    def __init__(self, answer: Answer, by_tool: bool, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._answer = answer
        self._by_tool = by_tool
        self._tools = (*self.agent.tools, answer.tool) if by_tool else self.agent.tools
        self._attempts = 0
        """How many answers did not fit."""
        self._taken = False
        """Whether a call of the turn gave an answer that fits: `_value`."""
        self._value: Any = None
        self._invalid: tuple[ToolCall, InvalidArguments] | None = None
        """The last call of the turn whose answer does not fit."""

    def asks(self) -> tuple[tuple[Tool[..., Any], ...], OutputSchema | None]:
        return self._tools, None if self._by_tool else self._answer.schema

    # The calls of a response.

    def _submit(self, turn: Supervisor, response: Response) -> None:
        self._invalid = None
        if not self._by_tool:
            super()._submit(turn, response)
            return
        name, cut = self._answer.tool.name, response.reason == "length"
        for call in response.calls:
            if turn.is_asked() or call.name in self._offer.tools:
                super()._submit(turn, attrs.evolve(response, calls=(call,)))
            elif call.name == name:
                self._settle(turn, turn.ready(call), call, cut=cut)
            else:  # here, because this tool is among those that it may have meant
                unknown = UnknownTool(call.name, (*self._offer.tools, name))
                self._offer.refuse(turn, turn.ready(call), call, Status.INVALID, unknown)

    def _settle(self, turn: Supervisor, index: int, call: ToolCall, *, cut: bool) -> None:
        """Give a call of the answer's tool its result, at once."""
        if self._taken:
            self._offer.refuse(turn, index, call, Status.NOT_STARTED, NotStarted(_SECOND))
            return
        try:
            if cut and not is_object(call.arguments):
                raise InvalidArguments(call.name, [_CUT])
            self._value = self._answer.read(call.arguments)
        except InvalidArguments as exc:
            # Without its traceback, in which this frame holds what holds the result: a cycle.
            self._invalid = call, exc.with_traceback(None)
            self._offer.refuse(turn, index, call, Status.INVALID, exc)
            return
        self._taken = True
        result = ToolResult(
            call=call,
            status=Status.OK,
            content=_TAKEN,
            value=self._value,
            ended_at=turn.facts.loop.now(),
        )
        turn.commit(index, result)

    # The end of a turn.

    def _judge(self, turn: Supervisor, response: Response) -> None:
        text = response.message.text
        if response.reason in REFUSED:
            self.error = OutputRefused(response.reason, text)
        elif self._taken:
            self.over, self.output = True, self._value
        elif response.calls:
            if self._invalid is not None:  # else this was a turn like any other
                call, error = self._invalid
                self._send_back(turn, str(call.arguments), error)
        else:
            self._read(turn, text, response)

    def _read(self, turn: Supervisor, text: str, response: Response) -> None:
        """Take *text* as the answer, if it is one."""
        name = self._answer.tool.name
        try:
            if not text.strip():
                raise InvalidArguments(name, ["it is empty"])
            if self._by_tool:
                raise InvalidArguments(name, [f"it is text, and no call of {name!r}"])
            output = self._answer.read(text)
        except InvalidArguments as exc:
            error = exc.with_traceback(None)
            if response.reason == "length":
                error = InvalidArguments(name, [_CUT])
            how = f"call {name!r} with one that" if self._by_tool else "give JSON alone, which"
            listed = "\n".join(f"- {problem}" for problem in error.problems)
            asked = f"Your answer does not fit what was asked for; {how} does:\n{listed}"
            self.history = self.history.grown([UserMessage(storable(asked))])
            self._send_back(turn, text, error)
        else:
            self.over, self.output, self.reason = True, output, response.reason

    def _send_back(self, turn: Supervisor, given: str, cause: InvalidArguments) -> None:
        """Ask for another answer than *given*, if that may be; the model has been told why."""
        self._attempts += 1
        at_most = self.agent.output_retries + 1
        error = OutputInvalid(cause.problems, given, attempt=self._attempts, at_most=at_most)
        error.__cause__ = cause
        if self._attempts == at_most:
            error.add_note("raise Agent(output_retries=...), or go on from the error's history")
            self.error = error
        elif turn.facts.observed:
            event = turn.facts.event()
            turn.facts.tell(OutputRetried(attempt=self._attempts, error=error, **event))
