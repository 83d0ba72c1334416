"""Observers: what they are told, in which order, and that they can disturb nothing."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import anyio
import pytest

from tests.kernel.bodies import UNIT, Bodies, a_kernel, call, fine, statuses, submit
from tests.kernel.bodies import anyio_backend as anyio_backend
from turnscope import Limits, Turn, current_call, heartbeat, progress, tool
from turnscope.events import (
    CallEvent,
    CallProgress,
    CallReady,
    CallSettled,
    CallStarted,
    RunEvent,
    TurnFinished,
)

pytestmark = pytest.mark.anyio


class Notebook:
    """Takes note of everything."""

    def __init__(self) -> None:
        self.events: list[RunEvent] = []

    def observe(self, event: RunEvent) -> None:
        self.events.append(event)

    def of(self, index: int) -> list[type[RunEvent]]:
        """What happened to one call, in order."""
        return [
            type(event)
            for event in self.events
            if isinstance(event, CallEvent) and event.index == index
        ]


async def test_the_events_of_a_call_come_in_order() -> None:
    book = Notebook()

    async def works() -> None:
        for n in range(3):
            progress(n)
            await anyio.sleep(0)

    async with a_kernel(observers=[book]) as kernel:
        async with kernel.turn([works]) as turn:
            submit(turn, works, works)
        first = book.events[:]
    expected = [CallReady, CallStarted, *[CallProgress] * 3, CallSettled]
    assert book.of(0)[: len(expected)] == expected
    assert [type(e) for e in first if isinstance(e, CallEvent) and e.index == 1] == expected
    assert isinstance(first[-1], TurnFinished)
    assert first[-1].results == turn.results


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("breaks", [CallReady, CallStarted, CallSettled]),
        ("fine", [CallReady, CallStarted, CallSettled]),
        ("nobody", [CallReady, CallSettled]),
        ("strict", [CallReady, CallSettled]),
    ],
)
async def test_a_call_that_never_begins_has_no_start(name: str, expected: list[type]) -> None:
    book = Notebook()

    async def breaks() -> None:
        raise LookupError

    async def strict(n: int) -> None: ...

    async with a_kernel(observers=[book]) as kernel:
        async with kernel.turn([breaks, strict, fine]) as turn:
            turn.submit(call(name))
        assert book.of(0) == expected
        assert isinstance(book.events[-1], TurnFinished)
        settled = book.events[-2]
        assert isinstance(settled, CallSettled) and settled.result is turn.results[0]


async def test_a_waiting_call_is_ready_but_has_not_started() -> None:
    book = Notebook()
    async with a_kernel(observers=[book], limits=Limits(calls=1)) as kernel:
        bodies = Bodies()
        async with kernel.turn(bodies.tools()) as turn:
            submit(turn, bodies.tidy, fine)
            await bodies.begun.wait()
            assert book.of(0) == [CallReady, CallStarted]
            assert book.of(1) == [CallReady]
            turn.cancel()
        assert book.of(0)[-1] is CallSettled
        assert book.of(1) == [CallReady, CallSettled]


async def test_events_say_whose_they_are_and_when() -> None:
    book = Notebook()
    turns: list[Turn] = []

    @tool
    async def nests() -> None:
        async with kernel.turn([fine]) as turn:
            turns.append(turn)
            submit(turn, fine)

    before = anyio.current_time()
    async with a_kernel(observers=[book]) as kernel:
        async with kernel.turn([nests]) as turn:
            submit(turn, nests)
        events = book.events[:]
        after = anyio.current_time()
    outer = events[0].run_id
    (inner,) = {event.run_id for event in events} - {outer}
    assert {event.parents for event in events if event.run_id == outer} == {()}
    assert {event.parents for event in events if event.run_id == inner} == {(outer,)}
    times = [event.time for event in events]
    assert times == sorted(times)
    assert before <= times[0] and times[-1] <= after
    assert {event.turn for event in events} == {0}
    assert [type(event) for event in events if event.run_id == inner] == [
        CallReady,
        CallStarted,
        CallSettled,
        TurnFinished,
    ]


async def test_every_turn_has_a_run_id_of_its_own() -> None:
    book = Notebook()
    async with a_kernel(observers=[book]) as kernel:
        for _ in range(3):
            async with kernel.turn([fine]) as turn:
                submit(turn, fine)
    assert len({event.run_id for event in book.events}) == 4  # and one of a_kernel's own


async def test_progress_and_heartbeat_from_a_thread_arrive_in_order_in_the_event_loops_thread() -> (
    None
):
    places: list[int] = []

    class Watcher(Notebook):
        def observe(self, event: RunEvent) -> None:
            super().observe(event)
            places.append(threading.get_ident())

    def works() -> int:
        for n in range(20):
            progress(n)
            heartbeat()
        return threading.get_ident()

    book = Watcher()
    async with a_kernel(observers=[book]) as kernel:
        async with kernel.turn([works]) as turn:
            submit(turn, works)
        values = [event.value for event in book.events if isinstance(event, CallProgress)]
        order = book.of(0)
    assert values == list(range(20))
    assert order == [CallReady, CallStarted, *[CallProgress] * 20, CallSettled]
    assert set(places) == {threading.get_ident()}
    assert turn.results[0].value != threading.get_ident()


async def test_every_observer_is_told_the_same_records_in_the_same_order() -> None:
    one, two = Notebook(), Notebook()
    async with a_kernel(observers=[one, two]) as kernel:
        async with kernel.turn([fine]) as turn:
            submit(turn, fine, fine)
    assert len(one.events) == len(two.events) > 4
    assert all(a is b for a, b in zip(one.events, two.events, strict=True))


async def test_an_observer_that_raises_is_logged_once_and_the_others_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        def observe(self, event: RunEvent) -> None:
            raise RuntimeError("observer is broken")

    async def takes(secret: str) -> str:
        await anyio.sleep(0)
        return f"did {secret}"

    book = Notebook()
    with caplog.at_level(logging.DEBUG, logger="turnscope"):
        async with a_kernel(observers=[Broken(), book]) as kernel:
            async with kernel.turn([takes]) as turn:
                turn.submit(call("takes", secret="hunter2"))
            assert statuses(turn) == ["ok"]
            assert book.of(0) == [CallReady, CallStarted, CallSettled]
    (record,) = caplog.records
    assert record.name == "turnscope"
    assert "Broken" in record.getMessage()
    assert "observer is broken" in caplog.text
    assert "hunter2" not in caplog.text


async def test_two_broken_observers_of_one_class_are_logged_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        def observe(self, event: RunEvent) -> None:
            raise RuntimeError

    with caplog.at_level(logging.DEBUG, logger="turnscope"):
        async with a_kernel(observers=[Broken(), Broken()]):
            ...
    assert len(caplog.records) == 2


async def test_neither_arguments_nor_contents_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def breaks(secret: str) -> None:
        raise ValueError(secret)

    with caplog.at_level(logging.DEBUG):
        async with a_kernel() as kernel:
            async with kernel.turn([breaks]) as turn:
                turn.submit(call("breaks", secret="hunter2"))
                turn.submit(call("breaks", secret=["hunter2"]))
    assert statuses(turn) == ["failed", "invalid"]
    assert "hunter2" not in caplog.text


async def test_an_observer_that_ends_what_it_watches_does_no_harm() -> None:
    class Meddler:
        turn: Turn | None = None

        def observe(self, event: RunEvent) -> None:
            if isinstance(event, CallStarted) and self.turn is not None:
                turn, self.turn = self.turn, None
                turn.cancel("the observer saw enough")

    meddler = Meddler()
    async with a_kernel(observers=[meddler]) as kernel:
        bodies = Bodies()
        async with kernel.turn(bodies.tools()) as turn:
            meddler.turn = turn
            submit(turn, bodies.tidy, bodies.tidy)
            await anyio.sleep(3 * UNIT)
        assert set(statuses(turn)) <= {"cancelled", "not_started"}
        assert bodies.notes.count("cleaning") == bodies.notes.count("cleaned")


async def test_an_observer_may_open_no_turn_but_may_submit_a_call() -> None:
    class Follower:
        turn: Turn | None = None

        def observe(self, event: RunEvent) -> None:
            if isinstance(event, CallSettled) and self.turn is not None:
                turn, self.turn = self.turn, None
                turn.submit(call("fine"))

    follower = Follower()
    async with a_kernel(observers=[follower]) as kernel:
        async with kernel.turn([fine]) as turn:
            follower.turn = turn
            submit(turn, fine)
            await anyio.sleep(UNIT)
        assert statuses(turn) == ["ok", "ok"]


async def test_without_observers_no_event_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def note(self: Any, *args: Any, **kwargs: Any) -> None:
        made.append(type(self))

    for kind in (CallReady, CallStarted, CallProgress, CallSettled, TurnFinished):
        monkeypatch.setattr(kind, "__init__", note)

    async def works() -> None:
        progress(1)

    async with a_kernel() as kernel:
        async with kernel.turn([works]) as turn:
            submit(turn, works)
    assert statuses(turn) == ["ok"]
    assert made == []


async def test_progress_of_a_call_that_has_settled_is_dropped() -> None:
    book = Notebook()
    kept: list[Any] = []

    async def works() -> None:
        kept.append(current_call())

    async with a_kernel(observers=[book]) as kernel:
        async with kernel.turn([works]) as turn:
            submit(turn, works)
        kept[0].progress("too late")
        kept[0].heartbeat()
        assert book.of(0) == [CallReady, CallStarted, CallSettled]


async def test_a_slow_observer_delays_but_changes_nothing() -> None:
    class Slow(Notebook):
        def observe(self, event: RunEvent) -> None:
            time.sleep(UNIT / 20)
            super().observe(event)

    slow, book = Slow(), Notebook()
    async with a_kernel(observers=[slow, book]) as kernel:
        async with kernel.turn([tool(timeout=60)(fine)]) as turn:
            submit(turn, fine, fine)
        assert statuses(turn) == ["ok", "ok"]
        assert slow.events == book.events
