"""Limits: who works, who waits, who is next; slots lent to nested turns, and held by leaks."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from tests.kernel.bodies import (
    UNIT,
    a_kernel,
    call,
    fine,
    idle,
    is_real,
    move_on_after,
    statuses,
    submit,
)
from tests.kernel.bodies import anyio_backend as anyio_backend
from tests.support import Loop
from turnscope import Kernel, LimiterLeaked, LimiterStatistics, Limits, NotStarted, Turn, tool

in_a_loop = pytest.mark.anyio


def look(kernel: Kernel, name: str = "calls") -> tuple[int, int, int]:
    """What a limiter has lent, how many wait for it, how much of it has leaked."""
    seen = kernel.statistics().limiters[name]
    return seen.lent, seen.waiting, seen.leaked


class Gate:
    """A tool whose calls work until the gate opens; it knows how many, and in which order."""

    def __init__(self, **options: Any) -> None:
        self.begun: list[int] = []
        self.working = self.peak = 0
        self._open = anyio.Event()
        self._news = anyio.Event()
        self.tool = tool(name="work", **options)(self._work)

    async def _work(self, n: int = 0) -> int:
        self.begun.append(n)
        self.working += 1
        self.peak = max(self.peak, self.working)
        self._news.set()
        try:
            await self._open.wait()
            await anyio.sleep(0)
            return n
        finally:
            self.working -= 1

    async def until_begun(self, count: int) -> None:
        """Wait for so many calls to have begun."""
        while len(self.begun) < count:
            self._news = anyio.Event()
            await self._news.wait()

    def open(self) -> None:
        """Let all calls finish, those to come too."""
        self._open.set()


# One limiter


@in_a_loop
@pytest.mark.parametrize("capacity", [1, 2, 5])
async def test_no_more_calls_work_at_once_than_the_limit_allows(capacity: int) -> None:
    gate = Gate()
    async with a_kernel(limits=Limits(calls=capacity)) as kernel:
        async with kernel.turn([gate.tool]) as turn:
            for n in range(12):
                turn.submit(call("work", n=n))
            await gate.until_begun(capacity)
            await anyio.sleep(UNIT)
            assert gate.working == capacity
            gate.open()
    assert gate.peak == capacity
    assert statuses(turn) == ["ok"] * 12


@in_a_loop
async def test_calls_wait_first_in_first_out() -> None:
    gate = Gate()
    async with a_kernel(limits=Limits(calls=1)) as kernel:
        async with kernel.turn([gate.tool]) as turn:
            for n in range(10):
                turn.submit(call("work", n=n))
            gate.open()
    assert gate.begun == list(range(10))


@in_a_loop
async def test_the_queue_is_the_kernels_and_not_a_turns() -> None:
    gate = Gate()
    async with a_kernel(limits=Limits(calls=1)) as kernel:
        async with kernel.turn([gate.tool]) as one, kernel.turn([gate.tool]) as two:
            for n in range(6):
                (one, two)[n % 2].submit(call("work", n=n))
            gate.open()
    assert gate.begun == list(range(6))


@in_a_loop
async def test_statistics_tell_what_is_lent_and_who_waits() -> None:
    gate = Gate()
    async with a_kernel(limits=Limits(calls=2)) as kernel:
        assert kernel.statistics().turns == 0
        async with kernel.turn([gate.tool]) as turn:
            assert kernel.statistics().turns == 1
            for n in range(5):
                turn.submit(call("work", n=n))
            assert look(kernel) == (2, 3, 0)
            gate.open()
        assert idle(kernel)
        assert kernel.statistics().limiters["calls"] == LimiterStatistics(
            capacity=2, lent=0, waiting=0, leaked=0
        )


@in_a_loop
async def test_statistics_name_every_limiter_with_its_capacity() -> None:
    limits = Limits(calls=7, threads=6, processes=5, model_requests=3, groups={"db": 4})
    async with a_kernel(limits=limits) as kernel:
        seen = {name: each.capacity for name, each in kernel.statistics().limiters.items()}
    assert seen == {"db": 4, "threads": 6, "processes": 5, "calls": 7, "model_requests": 3}


# Groups, and the order in which limiters are passed


@in_a_loop
async def test_a_group_limits_its_own_tools_over_all_turns() -> None:
    gate, other = Gate(limit="db"), Gate()
    other.tool = tool(name="other")(other._work)
    async with a_kernel(limits=Limits(groups={"db": 2})) as kernel:
        async with kernel.turn([gate.tool, other.tool]) as one, kernel.turn([gate.tool]) as two:
            for n in range(4):
                one.submit(call("work", n=n))
                two.submit(call("work", n=n))
                one.submit(call("other", n=n))
            await other.until_begun(4)
            assert look(kernel, "db") == (2, 6, 0)
            assert look(kernel, "calls") == (6, 0, 0)
            gate.open()
            other.open()
    assert gate.peak == 2 and other.peak == 4


@in_a_loop
async def test_a_call_that_waits_for_its_group_holds_no_slot_of_calls() -> None:
    gate = Gate(limit="db")
    async with a_kernel(limits=Limits(calls=2, groups={"db": 1})) as kernel:
        async with kernel.turn([gate.tool, fine]) as turn:
            for n in range(9):
                turn.submit(call("work", n=n))
            assert look(kernel, "calls") == (1, 0, 0)
            assert look(kernel, "db") == (1, 8, 0)
            turn.submit(call("fine"))
            assert look(kernel, "calls") == (2, 0, 0)
            gate.open()
    assert statuses(turn) == ["ok"] * 10


@in_a_loop
async def test_an_unknown_group_is_refused_before_any_work() -> None:
    async with a_kernel(limits=Limits(groups={"db": 1})) as kernel:
        with pytest.raises(ValueError, match=r"'web'.*it has: db.*groups"):
            kernel.turn([tool(limit="web")(fine)])
    async with a_kernel() as kernel:
        with pytest.raises(ValueError, match="it has: none"):
            kernel.turn([tool(limit="web")(fine)])


@pytest.mark.parametrize(
    "options",
    [
        {"calls": 0},
        {"threads": -1},
        {"processes": 1.5},
        {"calls": math.nan},
        {"groups": {"db": 0}},
        {"groups": {"db": 2.5}},
        {"groups": {"calls": 2}},
        {"groups": {"threads": 2}},
        {"result_characters": 0},
    ],
    ids=str,
)
def test_limits_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Limits(**options)


def test_groups_are_a_mapping() -> None:
    with pytest.raises(TypeError, match="mapping"):
        Limits(groups=["db"])  # type: ignore[arg-type]  # because that is tested


def test_a_limit_may_be_infinite() -> None:
    limits = Limits(calls=math.inf, threads=math.inf, groups={"db": math.inf})
    assert limits.calls == limits.threads == limits.groups["db"] == math.inf


# Leaving a queue


@in_a_loop
async def test_a_waiter_whose_turn_is_cancelled_leaves_the_queue_to_the_rest() -> None:
    gate = Gate()
    async with a_kernel(limits=Limits(calls=1)) as kernel:
        async with kernel.turn([gate.tool]) as first, kernel.turn([gate.tool]) as last:
            first.submit(call("work", n=0))
            async with kernel.turn([gate.tool]) as between:
                between.submit(call("work", n=1))
                last.submit(call("work", n=2))
                between.submit(call("work", n=3))
                assert look(kernel) == (1, 3, 0)
                between.cancel()
                assert look(kernel) == (1, 1, 0)
            gate.open()
        assert gate.begun == [0, 2]
        assert statuses(between) == ["not_started"] * 2
        assert statuses(first) == statuses(last) == ["ok"]


@in_a_loop
async def test_a_cancelled_turn_with_calls_at_work_and_waiting_gives_everything_back() -> None:
    gate = Gate(limit="db")
    async with a_kernel(limits=Limits(calls=3, groups={"db": 2})) as kernel:
        with move_on_after(UNIT):
            async with kernel.turn([gate.tool]) as turn:
                for n in range(6):
                    turn.submit(call("work", n=n))
        assert statuses(turn) == ["cancelled"] * 2 + ["not_started"] * 4
        assert idle(kernel)


@in_a_loop
async def test_a_turns_deadline_takes_its_waiters_out_of_the_queue() -> None:
    gate = Gate()
    async with a_kernel(limits=Limits(calls=1)) as kernel:
        async with kernel.turn([gate.tool]) as first:
            first.submit(call("work", n=0))
            async with kernel.turn([gate.tool], timeout=UNIT) as turn:
                turn.submit(call("work", n=1))
                assert look(kernel) == (1, 1, 0)
            assert look(kernel) == (1, 0, 0)
            gate.open()
    assert statuses(turn) == ["not_started"]
    assert "deadline" in str(turn.results[0].content)


@in_a_loop
async def test_a_calls_timeout_does_not_run_while_it_waits() -> None:
    unit = 2 * UNIT if is_real() else UNIT

    async def works() -> str:
        await anyio.sleep(2 * unit)
        return "done"

    timed = tool(timeout=5 * unit)(works)
    async with a_kernel(limits=Limits(calls=1)) as kernel:
        async with kernel.turn([timed]) as turn:
            submit(turn, timed, timed, timed)
    assert statuses(turn) == ["ok"] * 3


# Nested turns


@in_a_loop
@pytest.mark.parametrize("depth", [1, 2, 5])
async def test_nested_turns_cannot_deadlock_with_one_slot(depth: int) -> None:
    async def nests(depth: int) -> int:
        if depth == 0:
            return 0
        async with kernel.turn([nests]) as turn:
            turn.submit(call("nests", depth=depth - 1))
            turn.submit(call("nests", depth=depth - 1))
        return 1 + sum(result.value for result in turn.results)

    async with a_kernel(limits=Limits(calls=1)) as kernel:
        with anyio.fail_after(60):
            async with kernel.turn([nests]) as turn:
                turn.submit(call("nests", depth=depth))
        assert turn.results[0].value == 2**depth - 1


@in_a_loop
async def test_a_call_that_waits_for_its_nested_turn_lends_its_slot() -> None:
    gate = Gate()

    @tool
    async def nests() -> None:
        assert look(kernel) == (1, 0, 0)
        async with kernel.turn([gate.tool]) as turn:
            assert look(kernel) == (0, 0, 0)
            turn.submit(call("work"))
            assert look(kernel) == (1, 0, 0)
        assert look(kernel) == (1, 0, 0)

    async with a_kernel(limits=Limits(calls=1)) as kernel:
        gate.open()
        async with kernel.turn([nests]) as turn:
            submit(turn, nests)
        assert statuses(turn) == ["ok"], turn.results[0].error


@in_a_loop
async def test_a_call_takes_its_slot_again_ahead_of_those_who_never_had_one() -> None:
    order: list[str] = []

    async def leaf() -> None:
        order.append("leaf")

    @tool
    async def nests() -> None:
        async with kernel.turn([leaf]) as turn:
            submit(turn, leaf)
        order.append("back")

    async def waits() -> None:
        order.append("waits")

    async with a_kernel(limits=Limits(calls=1)) as kernel:
        async with kernel.turn([nests, waits]) as turn:
            submit(turn, nests, waits, waits)
        assert statuses(turn) == ["ok"] * 3
    assert order.index("back") < order.index("waits") or order[0] == "waits"
    # One of the waiters may have the slot while the call is parked, but not two.
    assert order.index("back") <= 3


@in_a_loop
async def test_a_call_holds_no_slot_from_its_first_nested_turn_to_the_end_of_its_last() -> None:
    @tool
    async def nests() -> None:
        async with kernel.turn([fine]) as one:
            async with kernel.turn([fine]) as two:
                submit(one, fine)
                submit(two, fine)
            assert look(kernel)[0] == 0 or not one_settled(one)
        assert look(kernel) == (1, 0, 0)

    def one_settled(turn: Turn) -> bool:
        try:
            return bool(turn.results)
        except RuntimeError:
            return False

    async with a_kernel(limits=Limits(calls=2)) as kernel:
        async with kernel.turn([nests]) as turn:
            submit(turn, nests)
        assert statuses(turn) == ["ok"], turn.results[0].error


@in_a_loop
async def test_a_call_that_is_asked_while_it_waits_for_its_slot_resumes_without() -> None:
    notes: list[str] = []
    gate = Gate()

    @tool
    async def nests() -> None:
        try:
            async with kernel.turn([fine]) as turn:
                submit(turn, fine)
                other.submit(call("work"))
            notes.append("resumed")
            await anyio.sleep_forever()
        finally:
            notes.append("ended")

    async with a_kernel(limits=Limits(calls=1)) as kernel:
        async with kernel.turn([gate.tool]) as other:
            with move_on_after(UNIT):
                async with kernel.turn([nests]) as turn:
                    submit(turn, nests)
            assert statuses(turn) == ["cancelled"]
            assert notes[-1] == "ended"
            gate.open()
        assert statuses(other) == ["ok"]


@in_a_loop
async def test_a_nested_turn_counts_against_its_groups_too() -> None:
    gate = Gate(limit="db")

    @tool(limit="db")
    async def nests() -> None:
        async with kernel.turn([gate.tool]) as turn:
            turn.submit(call("work"))

    async with a_kernel(limits=Limits(groups={"db": 1})) as kernel:
        gate.open()
        with anyio.fail_after(30):
            async with kernel.turn([nests]) as turn:
                submit(turn, nests, nests)
    assert statuses(turn) == ["ok", "ok"]
    assert gate.peak == 1


# Threads


def leaf_in_a_thread() -> str:
    """Work in a thread."""
    return threading.current_thread().name


@in_a_loop
async def test_threads_have_a_limit_of_their_own_and_count_as_calls() -> None:
    lock = threading.Lock()
    seen = [0, 0]

    def works() -> None:
        with lock:
            seen[0] += 1
            seen[1] = max(seen)
        barrier.wait(5)
        with lock:
            seen[0] -= 1

    barrier = threading.Barrier(2)
    async with a_kernel(limits=Limits(threads=2)) as kernel:
        async with kernel.turn([works, fine]) as turn:
            submit(turn, works, works, works, works, fine)
            assert look(kernel, "threads") == (2, 2, 0)
            assert look(kernel, "calls") == (3, 0, 0)
        assert statuses(turn) == ["ok"] * 5
    assert seen[1] == 2


@in_a_loop
@pytest.mark.parametrize("depth", [1, 3])
async def test_thread_tools_that_nest_through_from_thread_cannot_deadlock(depth: int) -> None:
    def nests(depth: int) -> int:
        if depth == 0:
            return 1
        return anyio.from_thread.run(nested, depth - 1)

    async def nested(depth: int) -> int:
        async with kernel.turn([nests]) as turn:
            turn.submit(call("nests", depth=depth))
            turn.submit(call("nests", depth=depth))
        return sum(result.value for result in turn.results)

    async with a_kernel(limits=Limits(threads=1, calls=1)) as kernel:
        with anyio.fail_after(60):
            async with kernel.turn([nests]) as turn:
                turn.submit(call("nests", depth=depth))
        assert statuses(turn) == ["ok"], turn.results[0].error
        assert turn.results[0].value == 2**depth


def in_real_time(
    any_loop: Loop, main: Callable[[Kernel, threading.Event], Any], **options: Any
) -> None:
    """Run *main* with a kernel of no grace, and an event that its threads wait for in the end."""
    done = threading.Event()

    async def run() -> None:
        async with a_kernel(grace=0, **options) as kernel:
            try:
                with anyio.fail_after(10):
                    await main(kernel, done)
            finally:
                done.set()
            with anyio.fail_after(5):
                while not idle(kernel):
                    await anyio.sleep(0.001)

    any_loop.run(run)


class Holder:
    """Its thread tool, `holds`, looks at nothing but *done*; `begun` tells how often it began."""

    def __init__(self, done: threading.Event) -> None:
        self._done = done
        self._lock = threading.Lock()
        self.begun = self.working = self.peak = 0

    def holds(self) -> None:
        """Hold the thread."""
        with self._lock:
            self.begun += 1
            self.working += 1
            self.peak = max(self.peak, self.working)
        self._done.wait(15)
        with self._lock:
            self.working -= 1


async def leak(kernel: Kernel, holder: Holder, count: int = 1, *, begin: int = 1) -> Turn:
    """Submit so many calls, and cancel them when *begin* threads are at work."""
    begin += holder.begun
    with anyio.CancelScope() as scope:
        async with kernel.turn([holder.holds]) as turn:
            submit(turn, *[holder.holds] * count)
            while holder.begun < begin:
                await anyio.sleep(0.001)
            scope.cancel()
    return turn


def test_a_leaked_thread_holds_its_slots_until_it_really_ends(any_loop: Loop) -> None:
    async def main(kernel: Kernel, done: threading.Event) -> None:
        await leak(kernel, Holder(done))
        assert look(kernel, "threads") == (1, 0, 1)
        assert look(kernel, "calls") == (1, 0, 1)
        async with kernel.turn([leaf_in_a_thread, fine]) as turn:
            submit(turn, leaf_in_a_thread, fine)
            await anyio.sleep(UNIT)
            assert look(kernel, "threads") == (2, 0, 1) or look(kernel, "threads") == (1, 0, 1)
        assert statuses(turn) == ["ok", "ok"]

    in_real_time(any_loop, main, limits=Limits(threads=2, calls=3))


def test_a_call_outside_of_any_other_waits_for_a_leak_to_end(any_loop: Loop) -> None:
    async def main(kernel: Kernel, done: threading.Event) -> None:
        await leak(kernel, Holder(done))
        async with kernel.turn([leaf_in_a_thread]) as turn:
            submit(turn, leaf_in_a_thread)
            await anyio.sleep(UNIT)
            assert look(kernel, "threads") == (1, 1, 1)
            done.set()
        assert statuses(turn) == ["ok"]
        assert look(kernel, "threads") == (0, 0, 0)

    in_real_time(any_loop, main, limits=Limits(threads=1))


def test_a_nested_call_that_could_wait_for_leaks_alone_is_refused_at_once(any_loop: Loop) -> None:
    async def main(kernel: Kernel, done: threading.Event) -> None:
        turn = await leak(kernel, Holder(done), 2, begin=2)
        assert [result.leaked for result in turn.results] == [True, True]

        @tool
        async def nests() -> Turn:
            async with kernel.turn([leaf_in_a_thread]) as nested:
                submit(nested, leaf_in_a_thread)
            kept.append(nested)
            return nested

        kept: list[Turn] = []
        async with kernel.turn([nests]) as turn:
            submit(turn, nests)
        (refused,) = kept[0].results
        assert statuses(kept[0]) == ["not_started"]
        assert isinstance(refused.error, NotStarted)
        assert isinstance(refused.error.__cause__, LimiterLeaked)
        assert "threads" in str(refused.content) and "check_cancelled" in str(refused.content)

    in_real_time(any_loop, main, limits=Limits(threads=2))


def test_a_nested_call_in_the_queue_is_refused_when_the_last_slot_leaks(any_loop: Loop) -> None:
    async def main(kernel: Kernel, done: threading.Event) -> None:
        kept: list[Turn] = []
        holder = Holder(done)

        @tool
        async def nests() -> None:
            async with kernel.turn([leaf_in_a_thread]) as nested:
                kept.append(nested)
                submit(nested, leaf_in_a_thread)

        async with kernel.turn([nests]) as turn:
            async with kernel.turn([holder.holds]) as leaky:
                submit(leaky, holder.holds)
                while not holder.begun:
                    await anyio.sleep(0.001)
                submit(turn, nests)
                while not kept:
                    await anyio.sleep(0)
                assert look(kernel, "threads") == (1, 1, 0)
                leaky.cancel()
        assert statuses(leaky) == ["cancelled"]
        assert statuses(kept[0]) == ["not_started"]
        assert isinstance(kept[0].results[0].error, NotStarted)

    in_real_time(any_loop, main, limits=Limits(threads=1))


def test_a_call_that_can_never_have_its_slot_back_is_told_so(any_loop: Loop) -> None:
    async def main(kernel: Kernel, done: threading.Event) -> None:
        raised: list[LimiterLeaked] = []
        holder = Holder(done)

        def nests() -> None:
            try:
                anyio.from_thread.run(leak, kernel, holder)
            except LimiterLeaked as exc:
                raised.append(exc)
                raise

        async with kernel.turn([nests]) as turn:
            submit(turn, nests)
        assert [exc.limiter for exc in raised] == ["threads"]
        assert statuses(turn) == ["failed"]

    in_real_time(any_loop, main, limits=Limits(threads=1))


def test_many_leaks_never_let_more_threads_work_than_the_limit(any_loop: Loop) -> None:
    async def main(kernel: Kernel, done: threading.Event) -> None:
        holder = Holder(done)
        turn = await leak(kernel, holder, 6, begin=4)
        assert sorted(statuses(turn)) == ["cancelled"] * 4 + ["not_started"] * 2
        for _ in range(2):
            turn = await leak(kernel, holder, 4, begin=0)
            assert statuses(turn) == ["not_started"] * 4
        assert look(kernel, "threads") == (4, 0, 4)
        assert (holder.begun, holder.working, holder.peak) == (4, 4, 4)

    in_real_time(any_loop, main, limits=Limits(threads=4))
