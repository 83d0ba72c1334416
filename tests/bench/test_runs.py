"""The checkers of whole runs, alone, nested, many and listened to, against contenders that cheat."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import anyio
import pytest

from bench import tools
from bench.checks import CheckFailed
from bench.conversations import Streamed
from bench.drivers.anyio_group import Prepared
from bench.drivers.bare import Stub
from bench.drivers.by_hand import Player
from bench.tools import Conversation
from tests.bench.cheating import (
    Session,
    Turn,
    drops_a_result,
    gives_completion_order,
    gives_floats,
    honest,
    leaves_a_task,
    measured,
    runs_one_twice,
    skips_all,
    skips_one,
    works_on_after_the_turn,
)
from tests.support import Loop

RUNS = ("run", "long", "nested", "agents", "agents_10000", "consumer")
# A turn of one call has no order; and its only value is that of the place of the call.
CHEATS = (
    skips_all,
    skips_one,
    runs_one_twice,
    drops_a_result,
    gives_floats,
    leaves_a_task,
    works_on_after_the_turn,
)


@pytest.mark.parametrize(
    ("scenario", "cheat"),
    [
        # What the innermost of three leaves behind is done before the outermost returns.
        *[
            (scenario, cheat)
            for scenario in RUNS
            for cheat in CHEATS
            if (scenario, cheat) != ("nested", works_on_after_the_turn)
        ],
        *[(scenario, gives_completion_order) for scenario in ("agents", "consumer")],
    ],
)
def test_a_run_that_cheats_has_no_figures(any_loop: Loop, scenario: str, cheat: Turn) -> None:
    with pytest.raises(CheckFailed):
        measured(any_loop, scenario, cheat)


class ForgetsTheInnermost(Session):
    async def run(self, talk: Conversation | Player) -> Sequence[object]:
        return [0]


def test_agents_that_do_not_ask_the_innermost_have_no_figures(any_loop: Loop) -> None:
    with pytest.raises(CheckFailed, match="0 bodies ended, for 1 calls"):
        measured(any_loop, "nested", kind=ForgetsTheInnermost)


def test_agents_that_do_not_wait_have_no_figures(
    any_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def does_not_wait(n: int) -> int:
        tools.ended.append(n)
        return n

    monkeypatch.setattr(tools, "PAUSE", 60)  # for which nobody waits here

    async def at_once(session: Session, calls: Prepared) -> Sequence[object]:
        return [await does_not_wait(**kwargs) for _, kwargs, _ in calls]

    with pytest.raises(CheckFailed, match=r"3 turns of 60 s were done in \d+\."):
        measured(any_loop, "agents", at_once)


class ReadsAtOnce(Session):
    """Starts the calls, and does not wait for the stream."""

    async def run(self, talk: Conversation | Player) -> Sequence[object]:
        assert not callable(talk)
        return await self.turn(self.prepare(talk[0]))


class StartsAtOnce(ReadsAtOnce):
    """Starts the calls before they are whole."""

    async def run(self, talk: Conversation | Player) -> Sequence[object]:
        values = await super().run(talk)
        await anyio.sleep(tools.STREAM)
        return values


def test_a_run_that_does_not_wait_for_the_stream_has_no_figures(
    any_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "STREAM", 60)  # for which nobody waits here
    with pytest.raises(CheckFailed, match=r"a stream of 60 s was read in \d+\."):
        measured(any_loop, "streamed", kind=ReadsAtOnce)
    monkeypatch.setattr(tools, "STREAM", 0.01)
    monkeypatch.setattr(Streamed, "AT", (60, 61, 62, 63))
    with pytest.raises(CheckFailed, match=r"a call that was whole at 60 s began at \d+\."):
        measured(any_loop, "streamed", kind=StartsAtOnce)


Each = Callable[[], Awaitable[None]]


class TellsNothing(Session):
    async def listen(self, talk: Conversation, each: Each) -> Sequence[object]:
        return await self.run(talk)


class TellsAllAtOnce(Session):
    async def listen(self, talk: Conversation, each: Each) -> Sequence[object]:
        async with anyio.create_task_group() as group:
            for _ in range(2000):  # one after the other, they would take 20 s
                group.start_soon(each)
        return await self.run(talk)


class TellsAndForgets(Session):
    async def listen(self, talk: Conversation, each: Each) -> Sequence[object]:
        values = await self.run(talk)
        for _ in talk:
            await each()
        self.group.start_soon(anyio.sleep_forever)
        return values


class RunsTurnsAtOnce(Session):
    async def run(self, talk: Conversation | Player) -> Sequence[object]:
        assert not callable(talk)
        return await self.turn(self.prepare([call for calls in talk for call in calls]))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (TellsNothing, "0 events were told, in 2 turns"),
        (TellsAllAtOnce, r"2000 events were told in .* s: not one after the other"),
        (TellsAndForgets, "tasks are alive after the turn"),
    ],
)
def test_a_run_with_a_slow_consumer_that_cheats_has_no_figures(
    any_loop: Loop, kind: type[Session], words: str
) -> None:
    with pytest.raises(CheckFailed, match=words):
        measured(any_loop, "consumer", kind=kind)


def test_turns_that_run_at_once_have_no_figures(
    any_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "PAUSE", 0.3)
    with pytest.raises(
        CheckFailed, match=r"the tools ended 0\..* s before their turns can be over"
    ):
        measured(any_loop, "consumer", kind=RunsTurnsAtOnce)


@pytest.mark.parametrize("scenario", ["run", "long"])
def test_turns_that_do_not_ask_the_model_have_no_figures(any_loop: Loop, scenario: str) -> None:
    with pytest.raises(CheckFailed, match=r"the model was asked 0 times, for \d+ turns"):
        measured(any_loop, scenario, kind=RunsTurnsAtOnce)


class AsksAtOnce(RunsTurnsAtOnce):
    async def run(self, talk: Conversation | Player) -> Sequence[object]:
        assert not callable(talk)
        model = Stub(talk)
        for _ in range(len(talk) + 1):
            await model.whole()
        return await super().run(talk)


@pytest.mark.parametrize("scenario", ["run", "long"])
def test_a_model_that_is_asked_too_early_gives_no_figures(any_loop: Loop, scenario: str) -> None:
    with pytest.raises(CheckFailed, match="asked before the call that it had asked for had ended"):
        measured(any_loop, scenario, kind=AsksAtOnce)


class ToolsWaitForTheConsumer(Session):
    async def listen(self, talk: Conversation, each: Each) -> Sequence[object]:
        async def told(session: Session, calls: Prepared) -> Sequence[object]:
            for _ in calls:
                await each()
            return await honest(session, calls)

        return await Session(self._tools, told, self.group).run(talk)


def test_tools_that_wait_for_the_consumer_are_late(any_loop: Loop) -> None:
    late = measured(any_loop, "consumer", kind=ToolsWaitForTheConsumer)["tools late"]
    assert late >= 4 * 8, "ms: it took 10 for each of four events, or 8 by a coarse clock"
