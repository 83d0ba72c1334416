"""Calls that conflict see and leave what they would one by one in call order; the others overlap."""

from __future__ import annotations

import math
import threading

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import Loop
from turnscope import Kernel, Limits, Tool, ToolCall

from .generate import share
from .orders import (
    Performance,
    Scene,
    Story,
    conflict,
    foretold,
    one_by_one,
    performed,
    scenes,
)

NESTED = {"depth": 2, "jobs": 3, "alone": 0, "one_by_one": 0}


def serializable(scene: Scene, loop: Loop) -> None:
    """The state, and what each call saw, are those of calls one by one: of a turn, in call order."""
    performance = performed(scene, loop)
    stories = sorted(performance.stories.values(), key=lambda story: story.order)
    ran = [story for story in stories if story.began is not None]
    for position, story in enumerate(stories):
        for other in stories[:position]:
            together = story.began is not None and other.began is not None
            siblings = other.batch == story.batch and other.above is story.above
            if together and siblings and conflict(story, other):
                assert other.ended <= (story.began or 0), f"{story.place} overtook {other.place}"
    outermost = [story for story in ran if story.above is None]
    if len(scene.batches) > 1:  # among turns, each call is atomic
        outermost.sort(key=lambda story: story.began or 0)
    serial = one_by_one(performance, outermost)
    assert serial.state == performance.state
    for story in ran:
        assert story.seen == serial.stories[story.place].seen, story.place


def as_early_as_can_be(scene: Scene, loop: Loop) -> None:
    """With room for all, a call waits for those it conflicts with, and for nothing else."""
    performance = performed(scene, loop)
    told = foretold(performance)
    did = {place: (story.began, story.ended) for place, story in performance.stories.items()}
    for place, (begin, end) in told.items():
        began, ended = did[place]
        assert (began is None) == (begin is None), f"{place}: {did[place]}, not {told[place]}"
        assert abs((began or 0) - (begin or 0)) < 1e-6, f"{place}: {did[place]}, not {told[place]}"
        assert abs(ended - end) < 1e-6, f"{place} ended at {ended}, not {end}"


def nesting_is_at_the_parents_place(scene: Scene, loop: Loop) -> None:
    """A call in a call goes ahead of all that came after the parent, and had not begun."""
    performance = performed(scene, loop)
    for story in performance.stories.values():
        ancestors = list(story.ancestors())
        if not ancestors:
            continue
        # The place of those above it begins with the nearest that has one.
        declared = [above for above in ancestors if above.job.reads or above.job.writes]
        if scene_is_covered(performance):
            assert "circle" not in story.content, f"{story.place}: {story.content}"
        for other in performance.stories.values():
            if story.related(other) or not conflict(story, other) or other.began is None:
                continue
            if not declared or other.order < declared[-1].order or other.above is not None:
                continue
            if story.began is not None and other.began > story.submitted:
                assert story.ended <= other.began, f"{other.place} went ahead of {story.place}"


def scene_is_covered(performance: Performance) -> bool:
    """Whether every nested call wants no more than each call above it has."""

    def within(story: Story, above: Story) -> bool:
        mine, its = story.job, above.job
        held = (*its.reads, *its.writes)
        return all(any(_in(key, each) for each in its.writes) for key in mine.writes) and all(
            any(_in(key, each) for each in held) for key in mine.reads
        )

    stories = performance.stories.values()
    return all(within(story, above) for story in stories for above in story.ancestors())


def _in(key: str, above: str) -> bool:
    return above == "/" or key == above or key.startswith(above + "/")


def nothing_hangs(scene: Scene, loop: Loop) -> None:
    """Whatever is nested in what, and wants what: each call settles, and no two work at once that
    conflict."""
    performance = performed(scene, loop)
    for story in performance.stories.values():
        assert story.status, f"{story.place} has no result"
        if story.status == "not_started" and math.isinf(_end(performance, story)):
            assert "circle of waiting" in story.content, story.content


def _end(performance: Performance, story: Story) -> float:
    return performance.scene.batches[story.batch].within


def readers_overlap(count: int, loop: Loop) -> None:
    """Held at a barrier: that many readers of one key, and writers of others, are all at work."""

    async def main() -> None:
        all_here, here = anyio.Event(), 0

        async def meet(reads: list[str], writes: list[str]) -> None:
            nonlocal here
            here += 1
            if here == 2 * count:
                all_here.set()
            await all_here.wait()

        tool = Tool(meet, reads=lambda reads: reads, writes=lambda writes: writes)
        async with Kernel(limits=Limits(calls=math.inf)) as kernel:
            async with kernel.turn([tool], timeout=60) as turn:
                for number in range(count):
                    for keys in ([["a", "b/x"], []], [["a/y"], [f"c/{number}"]]):
                        call = {"reads": keys[0], "writes": keys[1]}
                        turn.submit(ToolCall("", "meet", call))
        assert [result.status for result in turn.results] == ["ok"] * 2 * count

    loop.run(main)


def waiting_costs_no_slot(waiting: int, loop: Loop) -> None:
    """Calls that wait for a key leave the last slot to one that needs none."""

    async def main() -> None:
        async def work(reads: list[str], writes: list[str]) -> None:
            await anyio.sleep(10)

        async def stranger() -> None: ...

        tool = Tool(work, reads=lambda reads: reads, writes=lambda writes: writes)
        async with Kernel(limits=Limits(calls=2)) as kernel:
            start = anyio.current_time()
            async with kernel.turn([tool, stranger]) as turn:
                for _ in range(1 + waiting):
                    turn.submit(ToolCall("", "work", {"reads": [], "writes": ["a"]}))
                assert kernel.statistics().limiters["calls"].lent == 1
                turn.submit(ToolCall("", "stranger"))
            began = turn.results[-1].started_at
        assert began is not None and began - start < 5, "who waits for a key holds a slot"

    loop.run(main)


def leaks_keep_their_keys(holders: int, loop: Loop) -> None:
    """What wants the key of threads that were given up waits until they have really ended."""
    free = threading.Event()
    began: list[bool] = []
    deaf_ones: list[int] = []

    def deaf() -> None:
        deaf_ones.append(threading.get_ident())
        free.wait(20)

    async def wants() -> None:
        began.append(free.is_set())

    async def main() -> None:
        tools = [Tool(deaf, reads="a/x"), Tool(wants, writes="a")]
        async with Kernel(grace=0.02) as kernel:
            with anyio.fail_after(20):
                async with kernel.turn(tools) as turn:
                    for _ in range(holders):
                        turn.submit(ToolCall("held", "deaf"))
                    while len(deaf_ones) < holders:  # a busy machine is slow to start threads
                        await anyio.sleep(0.005)
                    turn.cancel()
                while kernel.statistics().limiters["threads"].leaked < holders:
                    await anyio.sleep(0.005)
                async with kernel.turn(tools) as turn:
                    turn.submit(ToolCall("wants", "wants"))
                    await anyio.sleep(0.05)
                    assert began == [], "the key of a leak was lent again"
                    look = kernel.statistics().keys
                    assert [claim.leaked for claim in look["a/x"].holders] == [True] * holders
                    (waiter,) = look["a"].waiters
                    assert [name.id for name in waiter.waits_for] == ["held"] * holders
                    free.set()
                assert began == [True]
                while kernel.statistics().keys:
                    await anyio.sleep(0.005)

    try:
        loop.run(main)
    finally:
        free.set()


@given(scene=scenes())
def test_calls_leave_what_they_would_one_by_one(virtual_loop: Loop, scene: Scene) -> None:
    serializable(scene, virtual_loop)


@share(0.5)
@given(scene=scenes(batches=1, limited=8, ends=0))
def test_calls_of_one_turn_are_serial_in_call_order_under_limits(
    virtual_loop: Loop, scene: Scene
) -> None:
    serializable(scene, virtual_loop)


@given(scene=scenes())
def test_a_call_begins_when_the_last_that_it_conflicts_with_has_ended(
    virtual_loop: Loop, scene: Scene
) -> None:
    as_early_as_can_be(scene, virtual_loop)


@share(0.5)
@given(scene=scenes(**NESTED))
def test_what_calls_nest_is_a_part_of_them(virtual_loop: Loop, scene: Scene) -> None:
    serializable(scene, virtual_loop)


@share(0.5)
@given(scene=scenes(**NESTED))
def test_a_nested_call_stands_at_its_parents_place(virtual_loop: Loop, scene: Scene) -> None:
    nesting_is_at_the_parents_place(scene, virtual_loop)


@given(scene=scenes(**NESTED, covered=False, undeclared=0, limited=4))
def test_nothing_hangs_and_nothing_conflicts(virtual_loop: Loop, scene: Scene) -> None:
    nothing_hangs(scene, virtual_loop)


@settings(max_examples=5)
@given(count=st.integers(1, 40))
def test_readers_and_strangers_are_at_work_together(any_loop: Loop, count: int) -> None:
    readers_overlap(count, any_loop)


def test_a_leaked_thread_keeps_its_keys_until_it_has_really_ended(any_loop: Loop) -> None:
    leaks_keep_their_keys(2, any_loop)


def test_who_waits_for_a_key_holds_no_slot(virtual_loop: Loop) -> None:
    waiting_costs_no_slot(3, virtual_loop)
