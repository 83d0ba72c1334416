"""The checkers of turns that are ended against contenders that cheat, or that come too late."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from bench.checks import CheckFailed, reaches
from bench.drivers import gather, turnscope_kernel
from bench.drivers.anyio_group import Prepared
from bench.scenarios import SMALL, run
from bench.turns import SMOKE
from tests.bench.cheating import Session, Turn, leaves_a_task, measured
from tests.support import Loop

CANCELS = ["cancel", "cancel_scope", "cancel_timeout"]


async def returns_at_once(session: Session, calls: Prepared) -> Sequence[object]:
    return list(range(len(calls)))


async def begins_half(session: Session, calls: Prepared) -> Sequence[object]:
    return await session.honest(calls[::2])


async def begins_none_that_raises(session: Session, calls: Prepared) -> Sequence[object]:
    return await session.honest(calls[:2])


@pytest.fixture(autouse=True)
def short_patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """For calls that never begin. Others have as long as the machine takes."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if parameters.get("cheat") in (begins_half, begins_none_that_raises):
        monkeypatch.setattr("bench.endings.PATIENCE", 0.5)


async def swallows_the_cancellation(session: Session, calls: Prepared) -> Sequence[object]:
    try:
        return await session.honest(calls)
    except anyio.get_cancelled_exc_class():
        return []


async def leaves_the_bodies(session: Session, calls: Prepared) -> Sequence[object]:
    session.group.start_soon(session.honest, calls)
    await anyio.sleep_forever()
    return []


@pytest.mark.parametrize(
    ("cheat", "words"),
    [
        (returns_at_once, "0 of 4 calls had begun before the (cancel|deadline)"),
        (begins_half, "2 of 4 calls had begun before the (cancel|deadline)"),
        (swallows_the_cancellation, "the turn swallowed the cancellation"),
        (leaves_the_bodies, "4 of 4 calls are alive after the (cancel|deadline)"),
        (leaves_a_task, "1 tasks are alive after the turn"),
    ],
)
@pytest.mark.parametrize("scenario", CANCELS)
def test_a_cancelled_turn_that_cheats_has_no_figures(
    any_loop: Loop, scenario: str, cheat: Turn, words: str
) -> None:
    with pytest.raises(CheckFailed, match=words):
        measured(any_loop, scenario, cheat)


async def swallows_the_exception(session: Session, calls: Prepared) -> Sequence[object]:
    try:
        return await session.honest(calls)
    except Exception:
        return []


async def raises_another(session: Session, calls: Prepared) -> Sequence[object]:
    try:
        return await session.honest(calls)
    except Exception:
        raise RuntimeError("a tool failed") from None


async def leaves_the_others(session: Session, calls: Prepared) -> Sequence[object]:
    session.group.start_soon(session.honest, [*calls[:2], *calls[3:]])
    return await session.honest(calls[2:3])


@pytest.mark.parametrize(
    ("cheat", "words"),
    [
        (returns_at_once, "0 of 4 calls had begun before the raise"),
        (begins_half, "2 of 4 calls had begun before the raise"),
        (begins_none_that_raises, "2 of 4 calls had begun before the raise"),
        (swallows_the_exception, "the turn swallowed the exception of a tool"),
        (raises_another, r"the turn raised RuntimeError\(.*\), and the tool's exception is lost"),
        (leaves_the_others, "3 of 4 calls are alive after the raise"),
        (leaves_a_task, "1 tasks are alive after the turn"),
    ],
)
def test_a_turn_with_a_call_that_raises_that_cheats_has_no_figures(
    any_loop: Loop, cheat: Turn, words: str
) -> None:
    with pytest.raises(CheckFailed, match=words):
        measured(any_loop, "raise", cheat)


def test_a_bare_gather_leaves_the_calls_beside_one_that_raises() -> None:
    with pytest.raises(CheckFailed, match="3 of 4 calls are alive after the raise"):
        anyio.run(run, SMALL["raise"], gather, SMOKE)


async def waits_for_the_others(session: Session, calls: Prepared) -> Sequence[object]:
    caught: list[Exception] = []

    async def one(index: int) -> None:
        try:
            await session.honest(calls[index : index + 1])
        except* Exception as group:
            caught.append(group)

    async with anyio.create_task_group() as group:
        for index in range(len(calls)):
            group.start_soon(one, index)
    raise caught[0]


def test_a_turn_that_raises_when_the_others_have_slept_has_no_figures(
    any_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.failing.WAIT", 0.05)
    with pytest.raises(CheckFailed, match=r"the turn has not raised within 0\.05 s of the tool"):
        measured(any_loop, "raise", waits_for_the_others)


async def raises_it_bare(session: Session, calls: Prepared) -> Sequence[object]:
    try:
        return await session.honest(calls)
    except* Exception as group:
        (error,) = group.exceptions
    raise error


async def raises_from_it(session: Session, calls: Prepared) -> Sequence[object]:
    try:
        return await session.honest(calls)
    except* Exception as group:
        error = group
    raise RuntimeError("a tool failed") from error


@pytest.mark.parametrize("way", [raises_it_bare, raises_from_it])
def test_an_exception_may_come_out_in_more_than_one_way(any_loop: Loop, way: Turn) -> None:
    assert measured(any_loop, "raise", way)["until raised"] > 0


def test_an_exception_with_the_same_words_is_another_one() -> None:
    thrown, other = ValueError("3"), ValueError("3")
    assert reaches(thrown, thrown)
    assert reaches(ExceptionGroup("", [other, ExceptionGroup("", [thrown])]), thrown)
    assert not reaches(ExceptionGroup("", [other]), thrown)


@pytest.mark.parametrize("scenario", [*CANCELS, "raise"])
def test_cleanups_count_if_they_ran_to_their_end(any_loop: Loop, scenario: str) -> None:
    # AnyIO's cancellation comes again at each await; turnscope's comes once, and then grace.
    assert measured(any_loop, scenario)["cleanups run"] == 0
    ours = any_loop.run(run, SMALL[scenario], turnscope_kernel, SMOKE)
    assert ours["cleanups run"] == (3 if scenario == "raise" else 4)
