"""Agent: a frozen value that says how to answer a prompt. It runs nothing.

Above: the run. Below: tools, budgets, and the port of a model.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Generic, TypeAlias, cast, overload

import attrs
from typing_extensions import TypeForm, TypeVar  # defaults of type variables came with 3.13

from ._block import kernel_here
from ._budget import Budget
from ._context import CallContext, Deps
from ._decorator import as_tool
from ._history import History
from ._limits import is_capacity
from ._output import Answer, answer_of
from ._retry import Retry
from ._tools import Tool
from .abc import Model

Output = TypeVar("Output", default=str)
NewOutput = TypeVar("NewOutput")


@attrs.frozen(kw_only=True)
class RunContext(Generic[Deps]):
    """What instructions may depend on: one turn of one run, before its request."""

    deps: Deps
    """What was given to ``kernel.run(agent, prompt, deps=...)``."""
    run_id: str
    turn: int
    """Which turn of the run, from 0."""
    history: History
    """What will be sent."""
    deadline: float
    """When the run will be ended: seconds on the event loop's clock, or ``math.inf``."""


Instructions: TypeAlias = (
    "str | Callable[[RunContext[Any]], str | Awaitable[str | None] | None] | None"
)


def _tools(tools: Iterable[Tool[..., Any] | Callable[..., Any]]) -> tuple[Tool[..., Any], ...]:
    if isinstance(tools, (str, Tool)) or not isinstance(tools, Iterable):
        raise TypeError(f"Agent(tools={tools!r}): a list of tools, also of one: tools=[...]")
    made = tuple(as_tool(fn) for fn in tools)
    names = [tool.name for tool in made]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two tools are named {name!r}: give one of them name=...")
    return made


def _model(_agent: Agent[Any, Any], _attribute: object, model: object) -> None:
    # A class has stream() too, and is what somebody hands in who forgot to call it.
    if model is not None and (not isinstance(model, (str, Model)) or isinstance(model, type)):
        raise TypeError(
            f"Agent(model={model!r}): a model is an object with stream(request), as in "
            'turnscope.abc.Model, or a text like "openai:NAME"'
        )


def _said(_agent: Agent[Any, Any], _attribute: object, value: object) -> None:
    if not (value is None or isinstance(value, str) or callable(value)):
        raise TypeError(
            f"Agent(instructions={value!r}): text, a function of the RunContext that gives it, or "
            "None"
        )


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(settings, Mapping):
        raise TypeError(
            f"Agent(settings={settings!r}): a mapping of the provider's options, as "
            '{"temperature": 0}'
        )
    return dict(settings)  # a copy, so that nobody changes an agent from outside


def _cap(_agent: Agent[Any, Any], _attribute: object, value: float) -> None:
    if not is_capacity(value):
        raise ValueError(
            f"Agent(max_parallel_calls={value!r}): a whole number from 1 up, or math.inf"
        )


def _yes_or_no(_agent: Agent[Any, Any], attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"Agent({attribute.name}={value!r}): True or False")


def _budget(_agent: Agent[Any, Any], _attribute: object, value: object) -> None:
    if not isinstance(value, Budget):
        raise TypeError(f"Agent(budget={value!r}): a Budget, as Budget(turns=10)")


def _retries(_agent: Agent[Any, Any], _attribute: object, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"Agent(output_retries={value!r}): a whole number from 0 up")


def _answer_of(agent: Agent[Any, Any]) -> Answer | None:
    return answer_of(agent.output, [tool.name for tool in agent.tools])


def _retry(_agent: Agent[Any, Any], _attribute: object, value: object) -> None:
    if not (value is None or isinstance(value, Retry)):
        raise TypeError(f"Agent(retry={value!r}): a Retry, as Retry(attempts=3), or None")


@attrs.frozen(kw_only=True)
class Agent(Generic[Deps, Output]):
    """A model, its tools and its policies: what ``kernel.run(agent, prompt)`` runs.

    ::

        agent = Agent(model=OpenAIChat("gpt-5"), tools=[weather], instructions="Be brief.")

    A frozen value, to be made once and used by any number of runs, kernels and threads. Raises
    TypeError or ValueError for what cannot work.
    """

    model: Model | str | None = attrs.field(default=None, validator=_model)
    """The object, or "API:NAME", such as "openai:gpt-5", by the entry points of
    ``turnscope.models``; None if every run or kernel brings its own."""
    tools: tuple[Tool[..., Any], ...] = attrs.field(default=(), converter=_tools)
    """Tools, or plain functions, which become Tools with the default options."""
    instructions: Instructions = attrs.field(default=None, validator=_said)
    """Text, or a function, async or not, of the `RunContext`, asked before each request."""
    output: TypeForm[Output] = attrs.field(default=cast("TypeForm[Output]", str), hash=False)
    """The type of `RunResult.output`: text by default, else what pydantic, dataclasses, attrs or
    TypedDict describe, or plain types, containers and unions of them. The model answers by its
    API's own mode for that, if it has one (`turnscope.abc.TakesOutput`), else by the call of a tool
    that is added, "final_answer", which ends the run when the other calls of its turn have
    settled."""
    output_retries: int = attrs.field(default=2, validator=_retries)
    """How many answers of one run that do not fit ``output`` are sent back with what is wrong; the
    one after them raises `OutputInvalid`. Each takes a turn of the budget."""
    settings: Mapping[str, Any] = attrs.field(
        factory=dict[str, Any], converter=_settings, hash=False
    )
    """The provider's own options, passed through."""
    max_parallel_calls: float = attrs.field(default=math.inf, validator=_cap)
    """How many calls of one run may work at once; the others wait, first in, first out."""
    parallel_tool_calls: bool = attrs.field(default=True, validator=_yes_or_no)
    """False tells the model to ask for one call at a time; if it asks for more all the same, they
    run one after the other, in call order."""
    budget: Budget = attrs.field(factory=Budget, validator=_budget)
    """What one run may spend, unless the run is given another."""
    retry: Retry | None = attrs.field(factory=Retry, validator=_retry)
    """How requests that fail are sent again; None for not at all. By default what may pass by
    itself is tried three times, as the providers' own clients do: if your model's client retries
    too, turn one of the two off."""
    _answer: Answer | None = attrs.field(
        init=False, eq=False, repr=False, default=attrs.Factory(_answer_of, takes_self=True)
    )
    """What ``output`` comes to; None for text."""

    @overload
    def replace(self, *, output: TypeForm[NewOutput], **changes: Any) -> Agent[Deps, NewOutput]: ...
    @overload
    def replace(self, **changes: Any) -> Agent[Deps, Output]: ...
    def replace(self, **changes: Any) -> Agent[Deps, Any]:
        """A copy with *changes*, by the names of the fields."""
        return attrs.evolve(self, **changes)

    def as_tool(self, name: str, description: str, **options: Any) -> Tool[..., Any]:
        """A tool whose calls run this agent: its one parameter is ``prompt``.

        Its run is nested in the call: it gets the call's ``deps``, ends with it, shares its grace,
        and spends the budget of the run that called. *options* are those of `tool`.
        """

        async def ask(prompt: str, context: CallContext[Any]) -> Any:
            kernel = kernel_here("an agent's tool", "use kernel.run(agent, prompt)")
            result = await kernel.run(self, prompt, deps=context.deps)
            return result.output

        return Tool(ask, name=name, description=description, **options)
