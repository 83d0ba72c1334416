"""The checkers against drivers that cheat: who does not do the work gets no figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from bench import run as bench_run
from bench import tools
from bench.checks import CheckFailed
from bench.contenders import BEFORE, CONTENDERS, FLOOR, OURS
from bench.measure import check_no_children
from bench.report import Sample, report, summary, verdicts
from bench.scenarios import SCENARIOS, run
from bench.tools import Call, Conversation, Tool
from bench.turns import Effort, Metrics
from tests.support import Loop

SHORT = Effort(rounds=1, seconds=0.001)

Turn = Callable[["Session", Sequence[Call]], Any]


class Session:
    """A bare group with a place for tasks that outlive their turn; `turn` is honest or a cheat."""

    def __init__(self, tools: Sequence[Tool], turn: Turn, group: Any) -> None:
        self.tools = {tool.name: tool for tool in tools}
        self.group = group
        self._turn = turn

    def prepare(self, calls: Sequence[Call]) -> Sequence[Call]:
        return calls

    async def turn(self, prepared: Sequence[Call]) -> Sequence[object]:
        return await self._turn(self, prepared)

    def talk(self, conversation: Conversation) -> Conversation:
        return conversation

    async def run(self, talk: Conversation) -> Sequence[object]:
        values: list[object] = []
        for calls in talk:
            await anyio.sleep(tools.lasts(calls))
            values.extend(await self.turn(calls))
        return values

    async def call(self, call: Call) -> object:
        tool = self.tools[call.name]
        arguments = json.loads(call.arguments)
        if tool.place == "inline":
            return await tool.fn(**arguments)
        if tool.place == "thread":
            return await anyio.to_thread.run_sync(lambda: tool.fn(**arguments))
        return tool.fn(**arguments)

    async def honest(self, calls: Sequence[Call]) -> list[object]:
        values: list[object] = [None] * len(calls)

        async def one(index: int, call: Call) -> None:
            values[index] = await self.call(call)

        async with anyio.create_task_group() as group:
            for index, call in enumerate(calls):
                group.start_soon(one, index, call)
        return values


def measured(loop: Loop, scenario: str, turn: Turn) -> Metrics:
    """Run *scenario* with sessions whose turns are *turn*."""

    @asynccontextmanager
    async def session(tools: Sequence[Tool]) -> AsyncGenerator[Session]:
        async with anyio.create_task_group() as group:
            yield Session(tools, turn, group)
            group.cancel_scope.cancel()

    metrics: Metrics = loop.run(run, SCENARIOS[scenario], SimpleNamespace(session=session), SHORT)
    return metrics


async def honest(session: Session, calls: Sequence[Call]) -> Sequence[object]:
    return await session.honest(calls)


async def skips_all(session: Session, calls: Sequence[Call]) -> Sequence[object]:
    return list(range(len(calls)))


async def skips_one(session: Session, calls: Sequence[Call]) -> Sequence[object]:
    # The value of a call that did not run can be guessed, all but that of one that computes.
    return [*await session.honest(calls[:-1]), len(calls) - 1]


async def runs_one_twice(session: Session, calls: Sequence[Call]) -> Sequence[object]:
    values = await session.honest(calls)
    await session.call(calls[0])
    return values


async def drops_a_result(session: Session, calls: Sequence[Call]) -> Sequence[object]:
    return (await session.honest(calls))[:-1]


async def gives_completion_order(session: Session, calls: Sequence[Call]) -> Sequence[object]:
    return (await session.honest(calls[::-1])) if len(calls) > 1 else await session.honest(calls)


async def gives_floats(session: Session, calls: Sequence[Call]) -> Sequence[object]:
    return [float(str(value)) for value in await session.honest(calls)]


async def leaves_a_task(session: Session, calls: Sequence[Call]) -> Sequence[object]:
    session.group.start_soon(anyio.sleep_forever)
    return await session.honest(calls)


async def works_on_after_the_turn(session: Session, calls: Sequence[Call]) -> Sequence[object]:
    session.group.start_soon(session.honest, calls)
    return list(range(len(calls)))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_honest_contender_gets_every_metric(any_loop: Loop, scenario: str) -> None:
    metrics = measured(any_loop, scenario, honest)
    assert list(metrics) == list(SCENARIOS[scenario].units)
    assert all(value > 0 for name, value in metrics.items() if "stall" not in name)


CHEATS = [
    skips_all,
    skips_one,
    drops_a_result,
    gives_completion_order,
    gives_floats,
    leaves_a_task,
    works_on_after_the_turn,
]


@pytest.mark.parametrize(
    ("scenario", "cheat"),
    [
        *[(scenario, cheat) for scenario in ("noop", "threads", "cpu") for cheat in CHEATS],
        # Who computes twice is slower for it: there is nothing to be gained.
        *[(scenario, runs_one_twice) for scenario in ("noop", "threads")],
    ],
)
def test_a_turn_that_cheats_has_no_figures(any_loop: Loop, scenario: str, cheat: Turn) -> None:
    with pytest.raises(CheckFailed):
        measured(any_loop, scenario, cheat)


async def returns_at_once(session: Session, calls: Sequence[Call]) -> Sequence[object]:
    return list(range(len(calls)))


async def begins_half(session: Session, calls: Sequence[Call]) -> Sequence[object]:
    return await session.honest(calls[::2])


async def swallows_the_cancellation(session: Session, calls: Sequence[Call]) -> Sequence[object]:
    try:
        return await session.honest(calls)
    except anyio.get_cancelled_exc_class():
        return []


async def leaves_the_bodies(session: Session, calls: Sequence[Call]) -> Sequence[object]:
    session.group.start_soon(session.honest, calls)
    await anyio.sleep_forever()
    return []


@pytest.mark.parametrize(
    ("cheat", "words"),
    [
        (returns_at_once, "0 of 64 calls had begun before the cancel"),
        (begins_half, "32 of 64 calls had begun before the cancel"),
        (swallows_the_cancellation, "the turn swallowed the cancellation"),
        (leaves_the_bodies, "64 of 64 calls are alive after the cancelled turn"),
        (leaves_a_task, "1 tasks are alive after the turn"),
    ],
)
def test_a_cancelled_turn_that_cheats_has_no_figures(
    any_loop: Loop, cheat: Turn, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.scenarios.PATIENCE", 0.2)
    with pytest.raises(CheckFailed, match=words):
        measured(any_loop, "cancel", cheat)


def test_a_tool_that_did_not_sleep_has_no_figures(
    any_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools.time, "sleep", lambda seconds: None)
    with pytest.raises(CheckFailed, match=r"tools that sleep for 0\.1 s were done in 0\.0"):
        measured(any_loop, "threads", honest)


def test_a_run_that_does_not_wait_for_the_stream_has_no_figures(
    any_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "LOOK", 0.01)

    async def at_once(session: Session, calls: Sequence[Call]) -> Sequence[object]:
        values = await session.honest(calls)
        await anyio.sleep(tools.STREAM)
        return values

    monkeypatch.setattr(Session, "run", lambda session, talk: session.turn(talk[0]))
    with pytest.raises(CheckFailed, match=r"a stream of 1\.0 s was read in 0\.0"):
        measured(any_loop, "streamed", honest)
    with pytest.raises(CheckFailed, match=r"a call that was whole at 0\.1 s began at 0\.0"):
        measured(any_loop, "streamed", at_once)


def test_a_process_that_outlives_its_event_loop_is_seen() -> None:
    if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        pytest.skip("this system does not tell the children of a process by /proc")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        with pytest.raises(CheckFailed, match="child processes are alive"):
            check_no_children(within=0.05)
        child.communicate(b"\n")


def test_an_import_without_bytecode_is_no_figure(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "file" / "no folder"))
    bench = bench_run.Bench({})
    bench.imported(CONTENDERS[1], 0)
    assert not bench.samples
    assert "no bytecode on disk" in bench.failures[0].sentence


def test_a_failed_check_is_an_exit_code_and_a_missed_figure_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = dict.fromkeys(SCENARIOS["noop"].units, 1.0)

    def came(command: list[str]) -> dict[str, Any]:
        if "bench.measure" not in command:
            return {"python": "3"}
        return {"metrics": dict.fromkeys(slow, 100.0 if OURS in command else 1.0)}

    arguments = ["--scenario", "noop", "--loop", "trio", "--rounds", "1"]
    monkeypatch.setattr(bench_run, "_run", came)
    assert bench_run.main(arguments) == 0
    assert "FAIL" in capsys.readouterr().out
    monkeypatch.setattr(bench_run, "_run", lambda command: {"failed": "it cheats"})
    assert bench_run.main(arguments) == 1
    assert "it cheats" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("times", "word"), [(1.4, "pass"), (1.8, "pass (short of 1.5)"), (2.1, "FAIL")]
)
def test_a_ratio_is_taken_within_its_round(times: float, word: str) -> None:
    samples = []
    for round_, pace in enumerate((1.0, 10.0, 3.0)):  # a machine that changes between rounds
        for name, value in ((FLOOR, pace), (OURS, pace * times)):
            metrics = {"further call, to 512": value}
            samples.append(Sample(name, "noop", "asyncio", round_, metrics))
    (verdict,) = verdicts(summary(samples))
    assert verdict.word == word
    assert verdict.ratio is not None
    assert verdict.ratio.high == pytest.approx(verdict.ratio.low) == pytest.approx(times)


def test_a_change_is_measured_against_before_in_its_round() -> None:
    samples = [
        Sample(name, "noop", "asyncio", round_, {"further call, to 512": pace * times})
        for round_, pace in enumerate((1.0, 10.0))
        for name, times in ((BEFORE, 2.0), (OURS, 3.0))
    ]
    head = {"began": "now", "quick": True, "contenders": {}, "load at the end": 0, "seconds": 1}
    machine = {"processor": "p", "cpus": 2, "system": "s", "load": 0}
    text = report({**head, "machine": machine}, summary(samples), [], [], {})
    assert "| noop: further call, to 512 | asyncio | 1.50 (1.50 to 1.50) |" in text


def test_another_commit_is_measured_only_where_it_is_said_to_be(tmp_path: Any) -> None:
    script = os.path.join(os.path.dirname(bench_run.__file__), "run.py")
    command = [sys.executable, script, "--quick", "--scenario", "noop", "--rounds", "1"]
    command += ["--loop", "asyncio", "--contender", BEFORE, OURS]
    every = len(SCENARIOS["noop"].units)
    for more, rows in ((), 0), (("--python", f"{BEFORE}={sys.executable}"), every):
        done = subprocess.run(
            [*command, *more], capture_output=True, text=True, timeout=120, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr + done.stdout
        assert done.stdout.count("| turnscope, before |") == rows


def test_the_benchmark_runs_end_to_end(tmp_path: Any) -> None:
    file = tmp_path / "out.json"
    script = os.path.join(os.path.dirname(bench_run.__file__), "run.py")
    command = [sys.executable, script, "--quick", "--scenario", "noop", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--json", str(file)], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "noop: further call, to 512 | trio" in done.stdout
    written = json.loads(file.read_text())
    cells = {(sample["contender"], sample["loop"]) for sample in written["samples"]}
    measured = {
        (each.name, loop)
        for each in CONTENDERS
        for loop in each.loops
        if not (each.elsewhere or each.peer)
    }
    assert cells == measured - {(skip["contender"], skip["loop"]) for skip in written["skips"]}
    assert len(written["verdicts"]) == 4 * len({loop for _, loop in cells})
    assert written["contenders"][OURS]["anyio"]
