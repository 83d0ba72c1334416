"""An adaptive limit of model requests: it follows its rule, exceeds nothing, and forgets nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import anyio
import attrs
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support import Loop
from turnscope import AdaptiveLimit, Agent, Kernel, LimiterStatistics, Limits, ModelError
from turnscope.abc import ModelRequest
from turnscope.events import ModelEvent, ModelFinished, TextDelta


@attrs.frozen
class Asked:
    """One run of one request: when it comes, how long it takes, and how it ends."""

    at: int
    takes: int
    ends: str
    """"ok", "429", "529", "500", or "cancelled": while it waits or is under way."""


Case: TypeAlias = tuple[int, float, list[Asked]]
"""How many to begin with, how many more it may become, and who asks."""


@attrs.define
class Rule:
    """The rule in its own words: what the limit has to be, told of each end in order."""

    allowed: int
    at_most: float
    cuts: int = 0
    good: int = 0

    def end(self, begun_after: int, how: str, used: int) -> None:
        if begun_after < self.cuts:
            return  # it began when more were allowed
        if how in ("429", "529"):
            self.allowed, self.cuts, self.good = max(1, self.allowed // 2), self.cuts + 1, 0
        elif how == "ok" and used >= self.allowed:
            self.good += 1
            if self.good >= self.allowed and self.allowed < self.at_most:
                self.allowed, self.good = self.allowed + 1, 0


class Server:
    """Answers as it is told, and looks at the limit each time that a request begins or ends."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.kernel: Kernel
        self.working = 0
        self.begun: list[tuple[float, int]] = []
        """When each began, and when it had come."""
        self.problems: list[str] = []
        self._now = -1.0
        self._highest = rule.allowed

    def check(self, holds: bool, otherwise: str) -> None:
        if not holds:  # kept, because an error would end in a group, or be taken for the model's
            self.problems.append(f"{otherwise}, at {anyio.current_time()}")

    def look(self) -> LimiterStatistics:
        return self.kernel.statistics().limiters["model_requests"]

    def _note(self) -> None:
        """Keep the most that was allowed within this instant: a slot may be lent just before a cut."""
        now = anyio.current_time()
        self._highest = max(self.rule.allowed, self._highest if now == self._now else 0)
        self._now = now

    @asynccontextmanager
    async def stream(self, request: ModelRequest, /) -> Any:
        how, takes, came = (request.settings[key] for key in ("ends", "takes", "came"))
        cuts, before = self.rule.cuts, self.rule.allowed
        self._note()
        self.working += 1
        self.begun.append((anyio.current_time(), came))
        self.check(self.look().capacity == before, "the capacity is not what the rule allows")
        self.check(self.working <= self._highest, "more work than are allowed")
        ended = "cancelled"
        try:
            await anyio.sleep(takes)
            ended = how
            if how.isdigit():
                raise ModelError("no", status=int(how))
            yield self._events()
        finally:
            self._note()
            self.working -= 1
            self.rule.end(cuts, ended, self.look().lent)
            self._note()

    async def _events(self) -> AsyncIterator[ModelEvent]:
        yield TextDelta("ok")
        yield ModelFinished()


def the_rule_is_followed(case: Case, loop: Loop) -> None:
    start, above, plan = case
    rule = Rule(start, start + above)
    server = Server(rule)
    agent: Agent[Any, str] = Agent(model=server, retry=None)
    ends: dict[str, str] = {}

    async def run(number: int, asked: Asked) -> None:
        await anyio.sleep(asked.at)
        settings = {"ends": asked.ends, "takes": asked.takes, "came": asked.at}
        try:
            with anyio.move_on_after(
                asked.takes / 2 if asked.ends == "cancelled" else None
            ) as scope:
                await server.kernel.run(agent, "go", settings=settings)
                ends[str(number)] = "ok"
        except ModelError as exc:
            ends[str(number)] = str(exc.status)
        if scope.cancelled_caught:
            ends[str(number)] = "cancelled"

    async def watch() -> None:
        """Between the instants nothing moves, so nobody waits while there is a free slot."""
        await anyio.sleep(0.25)
        while True:
            seen = server.look()
            server.check(seen.capacity == rule.allowed, "the capacity is not that of the rule")
            server.check(seen.lent == server.working, "a slot is held by nobody")
            free = seen.lent < seen.capacity
            server.check(not (free and seen.waiting), "somebody waits, and a slot is free")
            await anyio.sleep(0.5)

    async def main() -> None:
        limits = Limits(model_requests=AdaptiveLimit(start, start + above))
        async with Kernel(limits=limits) as server.kernel:
            async with anyio.create_task_group() as group:
                group.start_soon(watch)
                async with anyio.create_task_group() as runs:
                    for number, asked in enumerate(plan):
                        runs.start_soon(run, number, asked)
                group.cancel_scope.cancel()
            seen = server.look()
            assert (seen.lent, seen.waiting, seen.capacity) == (0, 0, rule.allowed)

    loop.run(main)
    assert not server.problems
    assert ends == {str(number): asked.ends for number, asked in enumerate(plan)}
    # First in, first out; those that begin in one instant do so in any order.
    came = [when for _, when in sorted(server.begun)]
    assert came == sorted(came)


ENDS = st.sampled_from(["ok", "ok", "ok", "ok", "429", "529", "500", "cancelled"])
PLANS = st.lists(
    st.builds(Asked, at=st.integers(0, 6), takes=st.integers(1, 5), ends=ENDS), max_size=30
)


CASES = st.tuples(st.integers(1, 6), st.sampled_from([0, 1, 3, float("inf")]), PLANS)


@given(case=CASES)
@example(case=(1, 3, [Asked(0, 1, "ok")] * 12))
@example(case=(4, 0, [*[Asked(0, 1, "429")] * 4, *[Asked(0, 1, "ok")] * 12]))
@example(case=(2, 9, [Asked(0, 4, "cancelled")] * 5 + [Asked(1, 1, "ok")] * 5))
def test_the_limit_follows_its_rule_exceeds_nothing_and_forgets_nobody(
    case: Case, virtual_loop: Loop
) -> None:
    the_rule_is_followed(case, virtual_loop)
