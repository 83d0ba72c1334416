"""A tool by which a model submits a plan: a graph of calls, carried out in a turn inside its call.

A step starts when those that it waits for have settled, whatever the others do. Each is a call of a
nested turn like any other, so limits, keys, deadlines and cancellation are the kernel's affair; the
body of the plan's call only waits for what settles, and submits what comes next. Above: the user.
Below: `_plan` and `_plan_results`, which are pure, and `_plan_turn`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from ._attempt import Attempt
from ._block import kernel_here
from ._calls import Status, ToolCall, ToolResult
from ._context import current_call
from ._decorator import as_tool
from ._errors import InvalidArguments, NotStarted
from ._limits import is_capacity
from ._plan import LITERAL, REFERENCE, Missing, NotAPlan, Order, Plan, Step, filled, planned
from ._plan_results import CAME_TO, PlanResults, data_of
from ._plan_turn import PlanTurn
from ._tools import Tool

DESCRIPTION: Final = (
    "Make several calls of tools at once, of which some need the results of others. Each step "
    "starts as soon as the steps that it needs are done; steps that need nothing of each other run "
    "at the same time, in no promised order. If a step fails, those that need it are not started, "
    "and the others go on. The result lists every step, with its status and content."
)


def plan_tool(
    tools: Iterable[Tool[..., Any] | Callable[..., Any]],
    *,
    name: str = "plan",
    description: str = DESCRIPTION,
    max_steps: int = 50,
    timeout: float | None = None,
) -> Tool[..., Any]:
    """A tool whose one call makes many: its parameter ``steps`` is a graph of calls of *tools*.

    ::

        agent = Agent(model=..., tools=[search, read, plan_tool([search, read])])

    A step is ``{"id", "tool", "arguments", "after"}``. Anywhere in its arguments the result of
    another may stand, by ``{"$ref": "step/path"}``: the id of that step, and a JSON pointer into
    what it returned, as JSON data; without a path all of it. It keeps its type. An object that
    looks like that, and is none, is written ``{"$literal": {...}}``. A step waits for those that it
    refers to and for those in ``after``, and for no others.

    What cannot be carried out, as a circle, is told to the model before anything starts. The
    ``value`` of the plan's result is a mapping, from the id of each step to its `ToolResult`.

    tools: Tools, or plain functions, which become Tools with the default options.
    max_steps: how many steps a plan may have.
    timeout: seconds from the start of the plan until it is interrupted, with all of its steps.

    Steps that conflict, by what their tools read and write, run in the order in which they have all
    that they need. Steps count in the budget of the run, and in the ``max_parallel_calls`` of its
    agent. A tool of ``on_error="raise"`` that fails ends the plan, and the turn that the plan was
    called in.

    Raises ValueError for two tools of one name, none, one that has the plan's own name, and a
    *max_steps* below 1; and what `Tool` raises.
    """
    known: dict[str, Tool[..., Any]] = {}
    for tool in map(as_tool, tools):
        if known.setdefault(tool.name, tool) is not tool:
            raise ValueError(f"two tools are named {tool.name!r}: give one of them name=...")
    if not known:
        raise ValueError("plan_tool([]): a plan needs tools to call; give at least one")
    if name in known:
        raise ValueError(
            f"a plan cannot call itself, and one of its tools is named {name!r} too: give the plan "
            "another name=..."
        )
    if not is_capacity(max_steps) or max_steps == math.inf:
        raise ValueError(f"plan_tool(max_steps={max_steps!r}): a whole number from 1 up")

    async def plan(steps: Any) -> PlanResults:
        return await _carried_out(_read(steps, max_steps), known)

    made = Tool(
        plan,
        name=name,
        description=description,
        schema=_schema(known, max_steps),
        backend="inline",
        timeout=timeout,
        # Not idempotent if all tools are: to read, add one and write is three such steps.
        read_only=all(tool.read_only for tool in known.values()),
        destructive=any(tool.destructive for tool in known.values()),
        # A response that is discarded could not give back what the steps have spent of a budget.
        early=False,
        on_error="raise" if any(t.on_error == "raise" for t in known.values()) else "result",
        exclusive=any(tool.exclusive for tool in known.values()),
    )

    def read(given: dict[str, Any]) -> dict[str, Any]:
        return {"steps": _read(given["steps"], max_steps)}

    made._parameters, made._to_text = made.parameters.then(read), _text
    return made


def _text(name: str, value: object) -> str:
    """What a plan came to, for the model; instead of the JSON of any value."""
    assert isinstance(value, PlanResults), name  # because the body returns nothing else
    return value.text()


def _read(steps: Any, most: int) -> Plan:
    """The plan of *steps*, as the schema has them; raises NotValid if it cannot be carried out."""
    from ._schema._problems import NotValid, bounded  # loaded with the first tool, not before

    if isinstance(steps, Plan):
        return steps
    try:
        return planned(steps, most=most)
    except NotAPlan as exc:
        raise NotValid(bounded(exc.problems)) from None


def _schema(tools: Mapping[str, Tool[..., Any]], most: int) -> dict[str, Any]:
    """The arguments of a plan. Those of a step depend on its tool, and may all be references: so
    they are described in words, and checked when the step is submitted."""
    described = "\n".join(
        f"- {tool.name}: {tool.description}\n  arguments: {json.dumps(tool.schema)}"
        for tool in tools.values()
    )
    step = {
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "A name for the step, without '/'."},
            "tool": {"type": "string", "enum": list(tools)},
            "arguments": {
                "type": "object",
                "description": (
                    "The arguments of the tool. In place of any value in them, "
                    f'{{"{REFERENCE}": "id"}} stands for the result of the step with that id, and '
                    f'{{"{REFERENCE}": "id/path"}} for a part of it: the path is a JSON pointer, '
                    "such as users/0/name. To give an object with such a key as it is, write "
                    f'{{"{LITERAL}": ...}} around it. The tools are:\n{described}'
                ),
            },
            "after": {
                "type": "array",
                "items": {"type": "string"},
                "description": (
                    "The ids of steps that must be done before this one starts; those that its "
                    "arguments refer to need not be named."
                ),
            },
        },
        "required": ["id", "tool"],
        "additionalProperties": False,
    }
    steps = {"type": "array", "items": step, "description": f"From 1 to {most:,} steps."}
    return {
        "type": "object",
        "properties": {"steps": steps},
        "required": ["steps"],
        "additionalProperties": False,
    }


# Carrying out.


async def _carried_out(plan: Plan, tools: Mapping[str, Tool[..., Any]]) -> PlanResults:
    kernel, above = kernel_here("a plan", "submit its steps to a kernel.turn"), current_call()
    assert isinstance(above, Attempt)  # because there is a kernel
    # What caps the calls of the run caps the steps too: the plan's own slot is theirs to borrow.
    cap = next((limiter for limiter in above.route.limiters if limiter.own), None)
    offer = kernel._offer(tools.values(), cap)
    turn = PlanTurn(kernel, offer, deps=above.deps, timeout=None, deadline=math.inf)
    try:
        async with turn:
            return PlanResults(*await _settled(plan, turn, tools), above.facts.result_characters)
    finally:
        del turn  # this frame is in the traceback of what is raised here: a cycle


async def _settled(
    plan: Plan, turn: PlanTurn, tools: Mapping[str, Tool[..., Any]]
) -> tuple[dict[str, ToolResult], dict[str, Any]]:
    """Submit each step when it may start; returns the results, and the data of those that are ok.

    It makes no difference whether the turn was asked to end: what is submitted then settles.
    """
    order = Order(plan.steps)
    steps: dict[int, Step] = {}
    results: dict[str, ToolResult] = {}
    data: dict[str, Any] = {}
    for step in order.first:
        steps[_start(turn, step, data)] = step
    while len(results) < len(plan.steps):
        for index, result in await turn.settled():
            done = steps[index]
            results[done.id] = result
            if result.ok:
                data[done.id] = data_of(tools[done.tool], result)
            for step in order.next(done.id, ok=result.ok):
                if result.ok:
                    steps[_start(turn, step, data)] = step
                else:
                    came_to = CAME_TO[result.status]
                    why = NotStarted(f"it needs step {done.id!r}, which {came_to}")
                    steps[turn.refuse(step, Status.NOT_STARTED, why)] = step
    return {step.id: results[step.id] for step in plan.steps}, data


def _start(turn: PlanTurn, step: Step, data: Mapping[str, Any]) -> int:
    """Submit *step*, with the *data* of those before it; returns the index of its call."""
    try:
        arguments = filled(step.arguments, data)
    except Missing as exc:
        return turn.refuse(step, Status.INVALID, InvalidArguments(step.tool, [str(exc)]))
    except RecursionError:
        problem = "what its references give is nested too deep; refer to a part of it"
        return turn.refuse(step, Status.INVALID, InvalidArguments(step.tool, [problem]))
    if not isinstance(arguments, dict):
        given = type(arguments).__name__
        problem = f"the arguments are an object, and {step.arguments} gives a {given}"
        return turn.refuse(step, Status.INVALID, InvalidArguments(step.tool, [problem]))
    return turn.begin(step, ToolCall(step.id, step.tool, cast("dict[str, Any]", arguments)))
