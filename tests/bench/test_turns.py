"""The checkers of plain turns against contenders that cheat: who does not do the work gets no figures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from bench import memory, places, tools
from bench.checks import CheckFailed, Unseen
from bench.drivers import anyio_group, turnscope_kernel, turnscope_observed
from bench.drivers.anyio_group import Prepared
from bench.failing import Hang
from bench.order import together
from bench.scenarios import SMALL, run
from bench.turns import SMOKE
from tests.bench.cheating import (
    ANY_TURN,
    Session,
    Turn,
    drops_a_result,
    leaves_a_task,
    measured,
    runs_one_twice,
)
from tests.support import Loop
from turnscope.events import CallStarted, RunEvent

# What may be nothing, or less, in small sizes and on a busy machine.
NOTHING = ("further call", "stall", "cleanups run", "resident", "beyond ideal", "late")


@pytest.mark.parametrize("driver", [anyio_group, turnscope_kernel])
@pytest.mark.parametrize("scenario", SMALL)
def test_an_honest_contender_gets_every_metric(any_loop: Loop, driver: Any, scenario: str) -> None:
    chosen = SMALL[scenario]
    if any_loop.name not in chosen.loops:
        # `asyncio.timeout` on trio: the scenario itself names the loops that it is of.
        pytest.skip(f"{scenario} makes no sense on {any_loop.name}")
    metrics = any_loop.run(run, chosen, driver, SMOKE)
    told = memory.peak() is not None
    assert list(metrics) == [each for each in chosen.units if told or "resident" not in each]
    assert all(
        value > 0 for name, value in metrics.items() if not any(word in name for word in NOTHING)
    )


@pytest.mark.parametrize("scenario", ["noop", "run", "long", "nested", "agents"])
def test_an_observer_hears_of_all_that_is_measured(any_loop: Loop, scenario: str) -> None:
    chosen = SMALL[scenario]
    assert list(any_loop.run(run, chosen, turnscope_observed, SMOKE)) == list(chosen.units)


@pytest.mark.parametrize("scenario", ["noop", "run"])
def test_an_observer_that_is_not_told_of_all_has_no_figures(
    any_loop: Loop, scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear = turnscope_observed.Listener.observe

    def half_deaf(self: turnscope_observed.Listener, event: RunEvent) -> None:
        if not isinstance(event, CallStarted):
            hear(self, event)

    monkeypatch.setattr(turnscope_observed.Listener, "observe", half_deaf)
    with pytest.raises(CheckFailed, match="three for each call were due"):
        any_loop.run(run, SMALL[scenario], turnscope_observed, SMOKE)


@pytest.mark.parametrize(
    ("scenario", "cheat"),
    [
        *[
            (scenario, cheat)
            for scenario in ("noop", "sleep", "threads", "cpu", "conflict", "limits")
            for cheat in ANY_TURN
        ],
        *[(scenario, runs_one_twice) for scenario in ("noop", "sleep", "threads", "cpu", "limits")],
    ],
)
def test_a_turn_that_cheats_has_no_figures(any_loop: Loop, scenario: str, cheat: Turn) -> None:
    with pytest.raises(CheckFailed):
        measured(any_loop, scenario, cheat)


async def keeps_values_as_they_come(session: Session, calls: Prepared) -> Sequence[object]:
    values: list[object] = []

    async def one(index: int) -> None:
        values.extend(await session.honest(calls[index : index + 1]))

    async with anyio.create_task_group() as group:
        for index in range(len(calls)):
            group.start_soon(one, index)
    return values


def test_values_in_the_order_of_completion_have_no_figures(
    any_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "REST", 0.05)
    with pytest.raises(CheckFailed, match=r"call 0 gave [1-9]"):
        measured(any_loop, "sleep", keeps_values_as_they_come)


def test_a_blocking_tool_that_did_not_sleep_has_no_figures(
    any_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "BLOCK", 60)
    # The module's own name alone: other threads sleep, too.
    monkeypatch.setattr(tools, "time", SimpleNamespace(sleep=lambda seconds: None))
    with pytest.raises(CheckFailed, match=r"tools that sleep for 60 s were done in \d+\."):
        measured(any_loop, "threads")


async def remembers(session: Session, calls: Prepared) -> Sequence[object]:
    session.known = session.known or await session.honest(calls)
    return session.known


def test_values_that_are_remembered_and_not_computed_have_no_figures(any_loop: Loop) -> None:
    with pytest.raises(CheckFailed, match=r"call 0 gave \d+, not \d+"):
        measured(any_loop, "cpu", remembers)


async def reckons(session: Session, calls: Prepared) -> Sequence[object]:
    """Know the value without the work, as one can by mathematics, and leave no line."""
    with TemporaryDirectory() as elsewhere:
        return [tools.burn(kwargs["seed"], kwargs["rounds"], elsewhere) for _, kwargs, _ in calls]


async def runs_one_later(session: Session, calls: Prepared) -> Sequence[object]:
    """Run the last body of the turn before once more; all of that turn has been looked at."""
    if session.known:
        await session.honest([session.known[-1]])
    session.known = calls
    return await session.honest(calls)


async def says_too_much(session: Session, calls: Prepared) -> Sequence[object]:
    values = await reckons(session, calls)
    for _, kwargs, _ in calls:
        Path(kwargs["ledger"], str(kwargs["seed"])).write_text("1.0 60.0\n")
    return values


@pytest.mark.parametrize(
    ("cheat", "sentence"),
    [
        (reckons, "0 bodies ended, for 4 calls"),
        (says_too_much, r"240\.000 s of work on 2 cores were done in \d"),
        (runs_one_later, "19 bodies ended, for 16 calls"),
    ],
)
def test_bodies_that_did_not_work_have_no_figures(
    any_loop: Loop, monkeypatch: pytest.MonkeyPatch, cheat: Turn, sentence: str
) -> None:
    monkeypatch.setattr(places, "cpus", lambda: 2)
    with pytest.raises(CheckFailed, match=sentence):
        measured(any_loop, "cpu", cheat)


def test_where_cpu_time_is_too_coarse_nothing_is_measured(
    any_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = SimpleNamespace(perf_counter=time.perf_counter, thread_time=lambda: 1.0)
    monkeypatch.setattr(tools, "time", clocks)
    with pytest.raises(Unseen, match="the clock of CPU time is too coarse"):
        measured(any_loop, "cpu")


def test_to_compute_one_by_one_is_right_and_shows_in_its_figure(
    any_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "cpus", lambda: 2)
    # Twice the ideal if all bodies take as long; a worst one of them moves the ideal, too.
    assert measured(any_loop, "cpu", one_by_one)["wall over ideal"] > 1.2


@pytest.mark.parametrize(
    ("works", "cores", "ideal"),
    [
        ([0.1, 0.1, 0.1, 0.1], 2, 0.2),
        ([0.1, 0.2, 0.1, 0.2], 2, 0.4),  # the second core is the slower one, and has the last
        ([0.3, 0.1, 0.1, 0.1], 2, 0.3),
        ([0.1, 0.1], 4, 0.1),
        ([0.1, 0.1, 0.1], 1, 0.3),
    ],
)
def test_the_ideal_of_computing_is_that_no_core_waits(
    works: list[float], cores: int, ideal: float
) -> None:
    assert places.shared(works, cores) == pytest.approx(ideal)


def test_a_tool_that_did_not_sleep_has_no_figures(
    any_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "REST", 60)

    async def does_not_wait(n: int, seconds: float) -> int:
        await checkpoint()
        tools.ended.append(n)
        return n

    monkeypatch.setattr(tools, "_asleep", does_not_wait)
    with pytest.raises(CheckFailed, match=r"tools that sleep for 60 s were done in \d+\."):
        measured(any_loop, "sleep")


async def reorders(session: Session, calls: Prepared) -> Sequence[object]:
    return (await session.honest(calls[::-1]))[::-1]


async def one_by_one(session: Session, calls: Prepared) -> Sequence[object]:
    return [value for call in calls for value in await session.honest([call])]


def test_calls_on_one_key_that_overlap_have_no_figures(any_loop: Loop) -> None:
    with pytest.raises(CheckFailed, match="calls on one key overlap"):
        measured(any_loop, "conflict", key=None)


def test_calls_on_one_key_in_another_order_have_no_figures(any_loop: Loop) -> None:
    with pytest.raises(CheckFailed, match=r"calls on one key began in the order \[6, 4, 2, 0\]"):
        measured(any_loop, "conflict", reorders)


def test_a_barrier_for_all_calls_is_right_and_shows_in_its_figure(any_loop: Loop) -> None:
    # Twice as many calls in a row as need be; uvloop's timers may be a part of a millisecond early.
    assert measured(any_loop, "conflict", one_by_one)["wall over ideal"] > 1.5


def test_more_calls_at_once_than_may_have_no_figures(any_loop: Loop) -> None:
    with pytest.raises(CheckFailed, match="32 calls worked at once, where 8 may"):
        measured(any_loop, "limits", at_most=None)


def test_what_ends_as_another_begins_is_not_at_once() -> None:
    assert together([(0, 1.0, 2.0), (1, 2.0, 3.0), (2, 3.0, 4.0)]) == 1
    assert together([(0, 1.0, 2.0), (1, 1.5, 3.0), (2, 1.75, 2.0)]) == 3
    assert together([]) == 0


async def answers_for_it(session: Session, calls: Prepared) -> Sequence[object]:
    values = await session.honest(calls)
    values[2] = 2
    return values


async def leaves_it_out(session: Session, calls: Prepared) -> Sequence[object]:
    values = await session.honest([*calls[:2], *calls[3:]])
    return [*values[:2], None, *values[2:]]


async def leaves_it_alive(session: Session, calls: Prepared) -> Sequence[object]:
    session.group.start_soon(tools.hang, 2)
    await anyio.sleep(0.05)
    return await leaves_it_out(session, calls)


async def is_impatient(session: Session, calls: Prepared) -> Sequence[object]:
    with anyio.move_on_after(0.001):
        await session.honest(calls[2:3])
    return await leaves_it_out(session, calls)


async def lets_it_take_all_along(session: Session, calls: Prepared) -> Sequence[object]:
    return [None if value in (0, 1, 3) else value for value in await session.honest(calls)]


@pytest.mark.parametrize(
    ("cheat", "words"),
    [
        (answers_for_it, "call 2, which hangs, gave a value"),
        (leaves_it_out, "the call that hangs has not begun"),
        (leaves_it_alive, "3 bodies ended, for 4 calls"),
        (lets_it_take_all_along, "call 0 gave None, not 0"),
        (drops_a_result, "3 values for 4 calls"),
        (leaves_a_task, "1 tasks are alive after the turn"),
    ],
)
def test_a_turn_with_a_hanging_call_that_cheats_has_no_figures(
    any_loop: Loop, cheat: Turn, words: str
) -> None:
    with pytest.raises(CheckFailed, match=words):
        measured(any_loop, "hang", cheat)


def test_a_timeout_that_comes_too_soon_has_no_figures(
    any_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SMALL, "hang", Hang(4, timeout=60))
    with pytest.raises(CheckFailed, match=r"a timeout of 60 s was over in \d+\."):
        measured(any_loop, "hang", is_impatient)
