"""Plans as data: random graphs of steps, what they must come to, and what they did come to.

`foretold` is a small model: a step begins when the last of what it waits for has ended, and settles
at once when the first of it is not ok. Above: the properties of plans, and the planted bugs.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import anyio
import attrs
from hypothesis import strategies as st

from tests.support import Loop
from turnscope import Kernel, Limits, Tool, ToolCall, ToolResult, plan_tool
from turnscope._plan_results import PlanResults
from turnscope.events import CallSettled, CallStarted, RunEvent
from turnscope.testing import check_results, nothing_left

GRACE = 0.25
TIMEOUT = 4.0
"""Of the step that hangs."""


@attrs.frozen
class Node:
    """A step, by its number."""

    takes: float
    how: str
    """ok, fails, hangs (until its timeout), misses (refers to nothing), unfit (wrong arguments)."""
    refers: tuple[int, ...]
    after: tuple[int, ...]
    cleanup: float = 0.0
    """Seconds, when it is interrupted."""

    @property
    def needs(self) -> set[int]:
        return {*self.refers, *self.after}


@attrs.frozen
class Graph:
    """Nodes, each of which needs those before it only, and the order in which they are written."""

    nodes: tuple[Node, ...]
    written: tuple[int, ...]
    calls: float = math.inf
    cancel: float | None = None


@st.composite
def graphs(
    draw: st.DrawFn,
    *,
    most: int = 8,
    hows: tuple[str, ...] = ("ok", "ok", "ok", "fails", "hangs", "misses", "unfit"),
    calls: st.SearchStrategy[float] | None = None,
    cancels: bool = False,
) -> Graph:
    nodes: list[Node] = []
    for number in range(draw(st.integers(1, most))):
        earlier = st.integers(0, number - 1) if number else st.nothing()
        some = st.lists(earlier, max_size=3, unique=True) if number else st.just([])
        refers = tuple(draw(some))
        how = draw(st.sampled_from(hows))
        if how == "misses" and not refers:
            how = "unfit"
        takes = draw(st.integers(1, 9)) + number / 1024  # no two end at one instant by chance
        cleanup = draw(st.sampled_from((0.0, 0.1, 1.0))) if cancels else 0.0
        nodes.append(Node(takes, how, refers, tuple(draw(some)), cleanup))
    written = tuple(draw(st.permutations(range(len(nodes)))))
    room = math.inf if calls is None else draw(calls)
    cancel = draw(st.integers(0, 40)) + 0.3 if cancels else None
    return Graph(tuple(nodes), written, room, cancel)


def value_of(number: int, given: list[Any]) -> dict[str, Any]:
    """What a step returns: among it, what looks like a reference."""
    return {"number": number, "sum/~": len(given), "like": {"$ref": "0"}, "given": given}


def steps_of(graph: Graph) -> list[dict[str, Any]]:
    """The graph as a model writes it."""
    steps: list[dict[str, Any]] = []
    for number in graph.written:
        node = graph.nodes[number]
        given: list[Any] = [{"$ref": str(each)} for each in node.refers]
        if node.how == "misses":
            given[-1] = {"$ref": f"{node.refers[-1]}/nothing/0"}
        given += [{"$ref": f"{each}/sum~1~0"} for each in node.refers if node.how != "misses"]
        given.append({"$literal": {"$ref": "none"}})
        arguments: dict[str, Any] = {"number": number, "takes": node.takes, "given": given}
        if node.how == "unfit":
            arguments["takes"] = "long"
        step = {"id": str(number), "tool": "hang" if node.how == "hangs" else "work"}
        if node.how == "fails":
            step["tool"] = "fail"
        steps.append({**step, "arguments": arguments, "after": [str(n) for n in node.after]})
    return steps


@attrs.define
class Fate:
    """How a step goes: seconds from the start of the plan, and what it came to."""

    status: str
    began: float | None
    ended: float
    given: list[Any] | None = None
    value: Any = None


def foretold(graph: Graph) -> list[Fate]:
    """What becomes of each step, by its number, where there is room for all."""
    fates: list[Fate] = []
    for number, node in enumerate(graph.nodes):
        needed = [fates[each] for each in node.needs]
        if lost := [fate.ended for fate in needed if fate.status != "ok"]:
            fates.append(Fate("not_started", None, min(lost)))
            continue
        ready = max((fate.ended for fate in needed), default=0.0)
        if node.how in ("misses", "unfit"):
            fates.append(Fate("invalid", None, ready))
            continue
        given: list[Any] = [fates[each].value for each in node.refers]
        given += [fates[each].value["sum/~"] for each in node.refers]
        given.append({"$ref": "none"})
        if node.how == "hangs":
            fates.append(Fate("timed_out", ready, ready + TIMEOUT, given))
        elif node.how == "fails":
            fates.append(Fate("failed", ready, ready + node.takes, given))
        else:
            value = value_of(number, given)
            fates.append(Fate("ok", ready, ready + node.takes, given, value))
    return fates


@attrs.define
class Performance:
    """What happened."""

    result: ToolResult
    fates: dict[int, Fate]
    runs: Counter[int]
    at_work: int
    left: float
    settled: Counter[str]
    started: Counter[str]
    raised: bool = False

    @property
    def results(self) -> PlanResults:
        assert isinstance(self.result.value, PlanResults), self.result
        return self.result.value


def performed(
    graph: Graph, loop: Loop, *, steps: list[dict[str, Any]] | None = None
) -> Performance:
    """Carry the graph out, in a turn of one call, in virtual time; *steps* stand in for its own."""
    return loop.run(_perform, graph, steps_of(graph) if steps is None else steps)


async def _perform(graph: Graph, steps: list[dict[str, Any]]) -> Performance:
    fates: dict[int, Fate] = {}
    runs: Counter[int] = Counter()
    settled: Counter[str] = Counter()
    started: Counter[str] = Counter()
    working = at_work = 0
    start = 0.0

    async def step(number: int, takes: float, given: list[Any], fails: bool) -> Any:
        nonlocal working, at_work
        runs[number] += 1
        working += 1
        at_work = max(at_work, working)
        fates[number] = fate = Fate("", anyio.current_time() - start, math.nan, given)
        try:
            await (anyio.sleep_forever() if math.isinf(takes) else anyio.sleep(takes))
        except anyio.get_cancelled_exc_class():
            await anyio.sleep(graph.nodes[number].cleanup)
            raise
        finally:
            fate.ended = anyio.current_time() - start
            working -= 1
        if fails:
            raise ValueError(f"step {number}")
        return value_of(number, given)

    async def work(number: int, takes: float, given: list[Any]) -> Any:
        return await step(number, takes, given, fails=False)

    async def fail(number: int, takes: float, given: list[Any]) -> Any:
        return await step(number, takes, given, fails=True)

    async def hang(number: int, takes: float, given: list[Any]) -> Any:
        return await step(number, math.inf, given, fails=False)

    class Watching:
        def observe(self, event: RunEvent) -> None:
            if isinstance(event, CallSettled) and event.parents:
                settled[event.call.id] += 1
            elif isinstance(event, CallStarted) and event.parents:
                started[event.call.id] += 1

    plan = plan_tool([work, fail, Tool(hang, timeout=TIMEOUT)])
    limits = Limits(calls=graph.calls)
    call = ToolCall("p", "plan", {"steps": steps})
    async with nothing_left():
        async with Kernel(limits=limits, grace=GRACE, observers=[Watching()]) as kernel:
            start = anyio.current_time()
            with anyio.CancelScope(deadline=start + (graph.cancel or math.inf)) as scope:
                async with kernel.turn([plan], timeout=1000) as turn:
                    turn.submit(call)
            left = anyio.current_time() - start
            look = kernel.statistics()
            assert not look.turns, "a turn is still open"
            assert not any(limit.lent for limit in look.limiters.values()), "a slot is still lent"
    check_results([call], turn.results)
    (result,) = turn.results
    return Performance(result, fates, runs, at_work, left, settled, started, scope.cancelled_caught)
