"""From a tool to the way that its calls go: its place, its limiters in their order, its check.

A kernel has one set of limiters, one of places and one of queues. What a turn or a run may call is
an `Offer`: it takes a call as a model wrote it and makes an attempt of it, or its refusal. Above:
the kernel, the turn and the run. Below: places, limits and guards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import attrs

from ._attempt import Attempt
from ._calls import Status, ToolCall, ToolResult
from ._decorator import as_tool
from ._errors import InvalidArguments, NotStarted, UnknownTool
from ._guests import Guest
from ._limits import Limiter, Limits
from ._places import Places, Route, ToolRoute
from ._tools import Tool
from .abc import Backend

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from ._resources import Queues
    from ._statistics import KernelStatistics
    from ._supervisor import Supervisor

A = TypeVar("A", bound=Attempt)


class Routes:
    """The places, limiters and queues of one kernel."""

    def __init__(self, limits: Limits, backends: Iterable[Backend]) -> None:
        self._places = Places(backends)
        self._calls = Limiter("calls", limits.calls)
        self.model_requests = Limiter("model_requests", limits.model_requests)
        self._of_backend = {
            "thread": Limiter("threads", limits.threads),
            "process": Limiter("processes", limits.processes),
        }
        self._groups = {name: Limiter(name, n) for name, n in limits.groups.items()}
        self._queues: Queues | None = None  # until a tool declares what it reads or writes
        self._last: tuple[object, Offer] = (None, Offer({}, {}, False))

    def offer(
        self,
        tools: Iterable[Tool[..., Any] | Callable[..., Any]],
        hosts: TaskGroup,
        closing: anyio.Event,
        cap: Limiter | None = None,
        alone: bool = False,
    ) -> Offer:
        """What a turn or run with *tools* may call; opens the places that it needs.

        *cap* is a limiter of the run's own, passed before all others. Each call is *alone* in its
        turn if the run wants them one by one. Raises TypeError or
        ValueError for a tool that its backend can never run, two tools of one name, an unknown
        backend or limit group.
        """
        if cap is not None or alone or not isinstance(tools, tuple):  # no tuple: it may change
            offer = self._offer(tools, cap, alone)
        else:
            # A service runs one agent a thousand times: its offer is made once, not 1 KiB for each.
            if tools is not self._last[0]:
                self._last = tools, self._offer(tools, None)
            offer = self._last[1]
        for route in offer.routes.values():
            if not route.place.ready:
                route.place.open(hosts, closing)
        return offer

    def _offer(
        self,
        tools: Iterable[Tool[..., Any] | Callable[..., Any]],
        cap: Limiter | None,
        alone: bool = False,
    ) -> Offer:
        named: dict[str, Tool[..., Any]] = {}
        for tool in map(as_tool, tools):
            if named.setdefault(tool.name, tool) is not tool:
                raise ValueError(f"two tools are named {tool.name!r}: give one of them name=...")
        in_turn = alone or any(tool.exclusive for tool in named.values())
        routes: dict[str, ToolRoute] = {}
        for name, tool in named.items():
            routes[name] = route = self._route(tool, cap)
            if in_turn or tool.keys is not None:
                routes[name] = self._guarded(route, tool, in_turn, alone or tool.exclusive)
        return Offer(named, routes, any(tool.early for tool in named.values()))

    def _route(self, tool: Tool[..., Any], cap: Limiter | None) -> ToolRoute:
        place = self._places.find(tool.backend)
        place.check(tool)
        limiters: list[Limiter] = [] if cap is None else [cap]
        if tool.limit is not None:
            if tool.limit not in self._groups:
                known = ", ".join(self._groups) or "none"
                raise ValueError(
                    f"tool {tool.name!r} counts in the limit group {tool.limit!r}, which this "
                    f"kernel lacks (it has: {known}): add it to Kernel(limits=Limits(groups=...))"
                )
            limiters.append(self._groups[tool.limit])
        if place.name in self._of_backend:
            limiters.append(self._of_backend[place.name])
        limiters.append(self._calls)
        route = ToolRoute(place, tuple(limiters), place.backend, tool.parameters)
        if tool.hedge is None:
            return route
        from ._hedging import Hedging  # here, because few tools have it

        return attrs.evolve(route, backend=Hedging(route))

    def _guarded(
        self, route: ToolRoute, tool: Tool[..., Any], in_turn: bool, alone: bool
    ) -> ToolRoute:
        from ._guards import Guard  # here, because many programs have no such tool
        from ._resources import Queues

        if self._queues is None:
            self._queues = Queues()
        return attrs.evolve(route, guard=Guard(self._queues, tool.keys, in_turn, alone))

    def way_to(self, model: Guest) -> Route:
        """The way of a request to *model*."""
        limiter = self.model_requests
        return Route(model, () if limiter.capacity == math.inf else (limiter,))

    def statistics(self, *, runs: int, turns: int) -> KernelStatistics:
        """A look at each limiter and each key, beside *runs* and *turns*."""
        from ._statistics import KernelStatistics  # here, because few programs look

        limiters = (
            *self._groups.values(),
            *self._of_backend.values(),
            self._calls,
            self.model_requests,
        )
        return KernelStatistics(
            runs=runs,
            turns=turns,
            limiters={limiter.name: limiter.statistics() for limiter in limiters},
            keys={} if self._queues is None else self._queues.statistics(),
        )

    def give_up(self) -> None:
        """Told that the kernel closes: stop opening what nobody will use."""
        self._places.give_up()


@attrs.frozen(eq=False, repr=False)
class Offer:
    """What may be called in a turn, or in all turns of a run, by name."""

    tools: Mapping[str, Tool[..., Any]]
    routes: Mapping[str, ToolRoute]
    early: bool
    """Whether calls of any of the tools start while the model still streams."""

    def submit(self, inside: Supervisor, call: ToolCall) -> int:
        """Make an attempt of *call*, or its refusal; returns its index. Never raises."""
        index = inside.ready(call)
        if inside.is_asked():
            self.refuse(inside, index, call, Status.NOT_STARTED, inside.not_started())
        else:
            try:
                attempt = self.attempt(Attempt, inside, index, call)
            except (InvalidArguments, UnknownTool) as exc:
                # Without its traceback, in which this frame holds what holds the result: a cycle.
                self.refuse(inside, index, call, Status.INVALID, exc.with_traceback(None))
            else:
                inside.take(attempt)
        return index

    def attempt(self, make: Callable[..., A], inside: Supervisor, index: int, call: ToolCall) -> A:
        """*make* an attempt of *call*, to be taken in.

        Raises UnknownTool, and InvalidArguments also for those of which no keys can be made.
        """
        tool = self.tools.get(call.name)
        if tool is None:
            raise UnknownTool(call.name, self.tools)
        route = self.routes[tool.name]
        kwargs = route.parameters.validate(tool.name, call.arguments)
        guard = route.guard
        if guard is None:
            return make(inside, index, call, tool, route, kwargs)
        reads, writes = guard.keys(kwargs)
        attempt = make(inside, index, call, tool, route, kwargs)
        attempt.claim = guard.claim(attempt, inside, reads, writes)
        return attempt

    def refuse(
        self,
        inside: Supervisor,
        index: int,
        call: ToolCall,
        status: Status,
        error: InvalidArguments | UnknownTool | NotStarted,
    ) -> None:
        """Settle a call that does not come as far as a body."""
        route = self.routes.get(call.name)
        result = ToolResult(
            call=call,
            status=status,
            content=str(error),
            error=error,
            ended_at=inside.facts.loop.now(),
            backend=None if route is None else route.place.name,
        )
        inside.commit(index, result)
