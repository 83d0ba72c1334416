"""Tools that are tried again: one call, one result, and no slot while it waits."""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import pytest

from tests.kernel.bodies import (
    a_kernel,
    call,
    is_real,
    slack,
    statuses,
    took,
)
from tests.kernel.bodies import anyio_backend as anyio_backend
from turnscope import (
    CallContext,
    Kernel,
    Limits,
    ModelError,
    Retry,
    ToolCall,
    ToolFailed,
    Turn,
    WorkerLost,
    heartbeat,
    tool,
)
from turnscope.events import CallEvent, CallRetried, CallSettled, CallStarted, RunEvent

from .agents import an_agent, asks

pytestmark = pytest.mark.anyio

EXACT = Retry(attempts=3, initial=0.2, jitter=0)


def submit(turn: Turn, *names: str) -> None:
    """Submit a call without arguments of each."""
    for name in names:
        turn.submit(call(name))


class Watch:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[RunEvent] = []

    def observe(self, event: RunEvent, /) -> None:
        self.events.append(event)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class Flaky:
    """A body that fails the first *times*, of new errors each time; each takes *span* seconds."""

    def __init__(self, times: float, span: float = 0.0, error: type[Exception] = OSError) -> None:
        self.times, self.span, self.error = times, span, error
        self.began: list[float] = []
        self.raised: list[Exception] = []

    async def __call__(self) -> str:
        self.began.append(anyio.current_time())
        await anyio.sleep(self.span)
        if len(self.began) <= self.times:
            self.raised.append(self.error(f"no. {len(self.began)}"))
            raise self.raised[-1]
        return "well"


def a_tool(body: Any, **options: Any) -> Any:
    return tool(name="body", **{"idempotent": True, "retry": EXACT, **options})(body)


async def result_of(kernel: Kernel, body: Any, **options: Any) -> Any:
    async with kernel.turn([body], **options) as turn:
        turn.submit(call("body"))
    return turn.results[0]


async def test_a_call_is_tried_again_after_exact_waits_and_settles_once() -> None:
    watch, body = Watch(), Flaky(2, span=0.1)
    async with a_kernel(observers=[watch]) as kernel:
        start = anyio.current_time()
        result = await result_of(kernel, a_tool(body))
        took(start, 0.1 + 0.2 + 0.1 + 0.4 + 0.1)
        assert (result.status, result.value, result.error) == ("ok", "well", None)
        assert result.failures == tuple(body.raised)
        assert result.started_at == pytest.approx(body.began[0], abs=slack(0))
        watched = [event for event in watch.of(CallEvent) if event.call.name == "body"]
        told = [type(event).__name__ for event in watched]
        assert told == ["CallReady", "CallStarted", "CallRetried", "CallRetried", "CallSettled"]
        first, second = watch.of(CallRetried)
        assert [(each.attempt, each.delay) for each in (first, second)] == [(1, 0.2), (2, 0.4)]
        assert [first.error, second.error] == body.raised


async def test_a_call_that_never_succeeds_has_its_last_error_and_the_others() -> None:
    body = Flaky(math.inf)
    async with a_kernel() as kernel:
        result = await result_of(kernel, a_tool(body))
    assert (result.status, result.error) == ("failed", body.raised[2])
    assert result.failures == tuple(body.raised[:2])
    assert result.content == "OSError: no. 3 (tried 3 times)"


async def test_a_call_with_one_attempt_says_nothing_of_others() -> None:
    async with a_kernel() as kernel:
        result = await result_of(kernel, a_tool(Flaky(9), retry=Retry(attempts=1)))
    assert (result.content, result.failures) == ("OSError: no. 1", ())


async def test_what_the_retry_does_not_cover_fails_at_once() -> None:
    body = Flaky(9, error=KeyError)
    async with a_kernel() as kernel:
        result = await result_of(kernel, a_tool(body, retry=Retry(on=OSError)))
    assert (result.status, len(body.began)) == ("failed", 1)


async def test_a_tool_without_a_retry_is_tried_once() -> None:
    body = Flaky(9)
    async with a_kernel() as kernel:
        result = await result_of(kernel, a_tool(body, retry=None))
    assert (result.status, len(body.began)) == ("failed", 1)


async def test_a_group_of_one_is_what_it_holds() -> None:
    class Grouped(Flaky):
        async def __call__(self) -> str:
            async with anyio.create_task_group() as group:
                group.start_soon(super().__call__)
            return "well"

    body = Grouped(1)
    async with a_kernel() as kernel:
        result = await result_of(kernel, a_tool(body, retry=Retry(on=OSError, jitter=0)))
    assert (result.status, result.failures) == ("ok", (body.raised[0],))


async def test_a_bodys_own_timeout_is_a_failure_to_be_tried_again() -> None:
    tries = 0

    async def body() -> int:
        nonlocal tries
        tries += 1
        with anyio.fail_after(0.1):
            await anyio.sleep(1 if tries < 3 else 0)
        return tries

    async with a_kernel() as kernel:
        result = await result_of(kernel, a_tool(body))
    assert (result.status, result.value) == ("ok", 3)
    assert [type(each) for each in result.failures] == [TimeoutError, TimeoutError]


async def test_a_cancellation_that_a_body_raises_by_itself_is_not_tried_again() -> None:
    tries = 0

    async def body() -> None:
        nonlocal tries
        tries += 1
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await anyio.sleep(1)
            except anyio.get_cancelled_exc_class() as exc:
                stolen = exc
        raise stolen

    async with a_kernel() as kernel:
        result = await result_of(kernel, a_tool(body))
    assert (result.status, tries) == ("failed", 1)


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt])
async def test_what_is_no_exception_is_not_tried_again(raised: type[BaseException]) -> None:
    tries = 0

    async def body() -> None:
        nonlocal tries
        tries += 1
        raise raised

    async with Kernel() as kernel:
        try:
            await result_of(kernel, a_tool(body))
        except KeyboardInterrupt:
            assert raised is KeyboardInterrupt
    assert tries == 1


async def test_the_function_that_decides_may_fail_and_loses_nothing() -> None:
    def on(exc: Exception) -> bool:
        raise LookupError("in on")

    body = Flaky(9)
    async with a_kernel() as kernel:
        result = await result_of(kernel, a_tool(body, retry=Retry(on=on)))
    assert (result.status, str(result.error)) == ("failed", "in on")
    assert result.error.__context__ is body.raised[0]


async def test_each_attempt_has_fresh_arguments_and_knows_its_number() -> None:
    seen: list[tuple[list[int], int]] = []

    async def body(items: list[int], context: CallContext[Any]) -> None:
        seen.append(([*items], context.attempt))
        items.append(0)
        raise OSError

    async with a_kernel() as kernel:
        async with kernel.turn([a_tool(body)]) as turn:
            turn.submit(ToolCall("c", "body", '{"items": [1]}'))
    assert seen == [([1], 1), ([1], 2), ([1], 3)]


async def test_on_error_hears_of_the_last_failure_only() -> None:
    heard: list[Exception] = []
    body = Flaky(9)

    def on_error(exc: Exception) -> str:
        heard.append(exc)
        return "sorry"

    async with a_kernel() as kernel:
        result = await result_of(kernel, a_tool(body, on_error=on_error))
        assert result.content == "sorry"
        agent = an_agent(asks("body"), tools=[a_tool(Flaky(9), on_error="raise")])
        with pytest.raises(ToolFailed) as caught:
            await kernel.run(agent, "go")
    assert heard == [body.raised[2]]
    assert str(caught.value.__cause__) == "no. 3"
    assert [str(each) for each in caught.value.result.failures] == ["no. 1", "no. 2"]


async def test_a_lost_worker_is_tried_again_and_lost_at_last() -> None:
    class Lossy:
        name = "lossy"
        calls = 0

        async def __aenter__(self) -> Any:
            return self

        async def __aexit__(self, *_: object) -> None: ...

        def check(self, fn: Callable[..., object], /) -> None: ...

        async def call(
            self, fn: Callable[..., Any], kwargs: Mapping[str, Any], context: Any, /
        ) -> Any:
            self.calls += 1
            raise WorkerLost(f"the worker died {self.calls}")

    backend = Lossy()
    async with Kernel(backends=[backend]) as kernel:
        result = await result_of(kernel, a_tool(lambda: None, backend="lossy"))
    assert (result.status, str(result.error), backend.calls) == ("lost", "the worker died 3", 3)
    assert len(result.failures) == 2


# Time.


async def test_the_timeout_covers_all_attempts_and_waits() -> None:
    body = Flaky(9, span=0.3)
    async with a_kernel() as kernel:
        start = anyio.current_time()
        result = await result_of(kernel, a_tool(body, timeout=0.7))  # 0.3 + 0.2, and 0.2 of 0.3
        took(start, 0.7)
    assert result.status == "timed_out"
    assert "its timeout of 0.7 s" in result.content
    assert result.failures == (body.raised[0],)


async def test_a_wait_that_would_pass_the_timeout_is_not_begun() -> None:
    body, wait = Flaky(9), 0.8 if is_real() else 0.2
    retry = Retry(attempts=3, initial=wait, jitter=0)
    async with a_kernel() as kernel:
        start = anyio.current_time()
        tried = a_tool(body, retry=retry, timeout=2.5 * wait)  # one wait, and then two more
        result = await result_of(kernel, tried)
        took(start, wait)
    assert (result.status, result.error) == ("failed", body.raised[1])
    assert "tried 2 times, and not again: its time would be up" in result.content


async def test_a_wait_that_would_pass_the_turns_deadline_is_not_begun() -> None:
    body = Flaky(9)
    async with a_kernel() as kernel:
        start = anyio.current_time()
        result = await result_of(kernel, a_tool(body), timeout=0.1)
        took(start, 0)
    assert (result.status, result.error) == ("failed", body.raised[0])
    assert "not tried again: the deadline would come" in result.content


async def test_total_bounds_a_call_without_a_timeout_and_one_with_a_longer_one() -> None:
    for timeout in (None, 5):
        body = Flaky(9, span=0.3)
        async with a_kernel() as kernel:
            start = anyio.current_time()
            retry = Retry(initial=0.2, jitter=0, total=0.7)
            result = await result_of(kernel, a_tool(body, retry=retry, timeout=timeout))
            took(start, 0.7)
        assert result.status == "timed_out"
        assert "the end of all attempts, after 0.7 s" in result.content


async def test_a_body_that_total_ends_has_its_grace_to_clean_up() -> None:
    cleaned = False

    async def body() -> None:
        nonlocal cleaned
        try:
            await anyio.sleep(9)
        finally:
            await anyio.sleep(0.2)
            cleaned = True

    async with a_kernel() as kernel:
        result = await result_of(kernel, a_tool(body, retry=Retry(total=0.1)))
    assert (result.status, cleaned) == ("timed_out", True)


async def test_silence_while_it_waits_is_not_counted() -> None:
    tries = 0

    async def body() -> str:
        nonlocal tries
        tries += 1
        await anyio.sleep(0.2)
        heartbeat()
        await anyio.sleep(0.2)
        if tries < 3:
            raise OSError
        return "well"

    retry = Retry(initial=1, jitter=0)
    async with a_kernel() as kernel:
        result = await result_of(kernel, a_tool(body, retry=retry, idle_timeout=0.3))
    assert (result.status, tries) == ("ok", 3)


async def test_a_later_attempt_may_be_silent_for_its_idle_timeout_and_no_longer() -> None:
    tries = 0

    async def body() -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OSError
        await anyio.sleep(9)

    retry = Retry(initial=1, jitter=0)
    async with a_kernel() as kernel:
        start = anyio.current_time()
        result = await result_of(kernel, a_tool(body, retry=retry, idle_timeout=0.3))
        took(start, 1.3)
    assert (result.status, tries) == ("timed_out", 2)
    assert "idle timeout: 0.3 s" in result.content


async def test_a_cancel_ends_a_wait_at_once_and_says_that_it_had_started() -> None:
    body = Flaky(9)
    async with a_kernel() as kernel:
        start = anyio.current_time()
        async with kernel.turn([a_tool(body)]) as turn:
            turn.submit(call("body"))
            await anyio.sleep(0.1)
            turn.cancel()
        took(start, 0.1)
    (result,) = turn.results
    assert (result.status, len(body.began)) == ("cancelled", 1)
    assert "its effects may or may not have happened" in result.content
    assert result.error.__cause__ is body.raised[0]
    assert result.failures == (body.raised[0],)


async def test_a_timeout_ends_the_wait_for_slots() -> None:
    body = Flaky(9)

    async def other() -> None:
        await anyio.sleep(2)

    async with a_kernel(limits=Limits(calls=1)) as kernel:
        start = anyio.current_time()
        async with kernel.turn([a_tool(body, timeout=0.5), other]) as turn:
            submit(turn, "body", "other")
            await anyio.sleep(0.6)
            assert kernel.statistics().limiters["calls"].waiting == 0
        took(start, 2)
    first, second = turn.results
    assert (first.status, second.status) == ("timed_out", "ok")
    assert first.ended_at - start == pytest.approx(0.5, abs=slack(0.1))
    assert first.error.__cause__ is body.raised[0]


async def test_a_body_that_makes_a_failure_of_its_interrupt_is_not_tried_again() -> None:
    tries = 0

    async def body() -> None:
        nonlocal tries
        tries += 1
        try:
            await anyio.sleep(9)
        except BaseException as exc:
            raise OSError("broke") from exc

    async with a_kernel() as kernel:
        async with kernel.turn([a_tool(body)]) as turn:
            submit(turn, "body")
            await anyio.sleep(0.1)
            turn.cancel()
    assert (turn.results[0].status, tries) == ("cancelled", 1)


# Slots.


async def test_who_waits_for_another_attempt_holds_no_slot_and_comes_back_last() -> None:
    body, order = Flaky(1, span=0.1), list[tuple[str, float]]()
    start = anyio.current_time()

    def other(name: str) -> Any:
        async def fn() -> None:
            order.append((name, anyio.current_time() - start))
            await anyio.sleep(0.5)

        return tool(name=name)(fn)

    async with a_kernel(limits=Limits(calls=1, groups={"g": 1})) as kernel:
        start = anyio.current_time()
        others = [other("a"), other("b")]
        async with kernel.turn([a_tool(body, limit="g"), *others]) as turn:
            submit(turn, "body", "a", "b")
            await anyio.sleep(0.15)
            assert kernel.statistics().limiters["g"].lent == 0
            assert kernel.statistics().limiters["calls"].lent == 1
        assert statuses(turn) == ["ok", "ok", "ok"]
    assert order == [
        ("a", pytest.approx(0.1, abs=slack(0.05))),
        ("b", pytest.approx(0.6, abs=slack(0.05))),
    ]
    assert body.began[1] - start == pytest.approx(1.1, abs=slack(0.2))


async def test_a_body_that_ran_a_turn_of_its_own_is_tried_again_with_its_slot() -> None:
    tries = 0

    async def inner() -> str:
        return "inner"

    async with a_kernel(limits=Limits(calls=1)) as kernel:

        async def body() -> str:
            nonlocal tries
            tries += 1
            async with kernel.turn([inner]) as turn:
                submit(turn, "inner")
            assert kernel.statistics().limiters["calls"].lent == 1
            if tries < 3:
                raise OSError
            return str(turn.results[0].content)

        result = await result_of(kernel, a_tool(body))
    assert (result.status, result.value, tries) == ("ok", "inner", 3)


async def test_what_is_still_at_work_is_not_tried_again_beside_itself() -> None:
    class Leaky:
        name = "leaky"
        calls = 0
        release: Any = None

        async def __aenter__(self) -> Any:
            return self

        async def __aexit__(self, *_: object) -> None: ...

        def check(self, fn: Callable[..., object], /) -> None: ...

        async def call(
            self, fn: Callable[..., Any], kwargs: Mapping[str, Any], context: Any, /
        ) -> Any:
            self.calls += 1
            self.release = context.hold()
            raise WorkerLost("cut off from the machine that works on it")

    backend = Leaky()
    async with Kernel(backends=[backend], limits=Limits(calls=1)) as kernel:
        result = await result_of(kernel, a_tool(lambda: None, backend="leaky"))
        assert (result.status, result.leaked, backend.calls) == ("lost", True, 1)
        assert kernel.statistics().limiters["calls"].leaked == 1
        backend.release()
        await anyio.sleep(0.01)
        assert kernel.statistics().limiters["calls"].leaked == 0


async def test_a_nested_call_that_could_wait_for_leaks_alone_is_not_tried_again() -> None:
    body = Flaky(9)
    released: list[Any] = []

    async def leaks(context: CallContext[Any]) -> None:
        released.append(context.hold())

    async with Kernel(limits=Limits(groups={"g": 1})) as kernel:

        async def outer() -> Any:
            async with kernel.turn([a_tool(body, limit="g"), tool(limit="g")(leaks)]) as turn:
                submit(turn, "body", "leaks")
            return turn.results

        async with kernel.turn([outer]) as turn:
            submit(turn, "outer")
        (first, second) = turn.results[0].value
        assert second.leaked
        assert (first.status, first.error) == ("failed", body.raised[0])
        assert "not tried again: all 1 slots of the limit 'g' are held" in first.content
        released[0]()
        await anyio.sleep(0.01)


async def test_threads_are_tried_again(anyio_backend: Any) -> None:
    tries: list[int] = []

    def body() -> str:
        tries.append(0)
        if len(tries) < 3:
            raise OSError("no")
        return "well"

    retry = Retry(initial=0.01, jitter=0)
    async with a_kernel() as kernel:
        result = await result_of(kernel, a_tool(body, retry=retry))
    assert (result.status, result.value, len(result.failures)) == ("ok", "well", 2)


async def test_an_agent_as_a_tool_is_tried_again_for_what_may_pass() -> None:
    inner = an_agent(ModelError("busy", status=503), "well", retry=None)
    made = inner.as_tool("inner", "", read_only=True, retry=EXACT)
    agent = an_agent(
        asks("inner", prompt="x"), lambda r: r.history.results[-1].content, tools=[made]
    )
    async with a_kernel() as kernel:
        assert (await kernel.run(agent, "go")).output == "well"
    inner = an_agent(ModelError("who?", status=401), "well")
    made = inner.as_tool("inner", "", read_only=True, retry=EXACT)
    agent = an_agent(
        asks("inner", prompt="x"), lambda r: r.history.results[-1].content, tools=[made]
    )
    async with a_kernel() as kernel:
        assert (await kernel.run(agent, "go")).output == "ModelError: who?"


async def test_a_call_that_was_tried_again_leaves_no_more_cycles_than_one_that_was_not() -> None:
    async def left_by(kernel: Kernel, **options: Any) -> set[str]:
        body = Flaky(9)
        tools = a_tool(body, **options)
        await result_of(kernel, tools)
        gc.collect()
        gc.disable()
        try:
            body.began.clear()
            await result_of(kernel, tools)
            body.raised.clear()
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            kinds = {type(each) for each in gc.garbage}
            return {kind.__name__ for kind in kinds if kind.__module__.startswith("turnscope")}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    async with Kernel() as kernel:
        once = await left_by(kernel, retry=None)
        again = await left_by(kernel)
    # From Python 3.12 on a frame in a traceback keeps those that called it, ours among them.
    # It alone has tries, and a ticket: the other has passed its limiters without.
    assert again in (set(), once | {"Tries"}, once | {"Tries", "Ticket"})
    assert again == once == set() or sys.version_info >= (3, 12)


async def test_a_settled_call_is_told_once_however_often_it_was_tried() -> None:
    watch = Watch()
    async with a_kernel(observers=[watch]) as kernel:
        await result_of(kernel, a_tool(Flaky(9)))
    for kind in (CallStarted, CallSettled):
        assert len([event for event in watch.of(kind) if event.call.name == "body"]) == 1
