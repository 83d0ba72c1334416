"""The runner: what it measures, what it makes of that, and that all of it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from bench import installed, processes
from bench import run as bench_run
from bench.checks import CheckFailed
from bench.contenders import BEFORE, CONTENDERS, FLOOR, OURS
from bench.measure import check_no_children
from bench.report import report
from bench.samples import Failure, Sample, Skip, summary, verdicts
from bench.scenarios import EVERY, FOOTPRINT, IMPORT, SCENARIOS, SMALL


def test_a_process_that_outlives_its_event_loop_is_seen() -> None:
    if not os.path.exists("/proc/self/stat"):
        pytest.skip("this system does not tell the parent of a process by /proc")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        with pytest.raises(CheckFailed, match="child processes are alive"):
            check_no_children(within=0.05)
        child.communicate(b"\n")


def test_threads_that_end_while_it_looks_are_no_matter() -> None:
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            few = [threading.Thread(target=int) for _ in range(20)]
            for thread in few:
                thread.start()
            for thread in few:
                thread.join()

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        for _ in range(100):
            check_no_children(within=5)
    finally:
        over.set()
        churning.join()


def test_an_import_without_bytecode_is_no_figure(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "file" / "no folder"))
    bench = processes.Bench({})
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
    monkeypatch.setattr(processes, "run", came)
    assert bench_run.main(arguments) == 0
    assert "FAIL" in capsys.readouterr().out
    monkeypatch.setattr(processes, "run", lambda command: {"failed": "it cheats"})
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


@pytest.mark.parametrize(
    ("rounds", "word"),
    [
        ([1.4, 1.4, 2.5], "pass, not in every round"),
        ([1.4, 2.1, 2.5], "FAIL, not in every round"),
        ([2.0, 2.0, 2.0], "pass (short of 1.5)"),
    ],
)
def test_a_spread_that_straddles_its_bound_is_told(rounds: list[float], word: str) -> None:
    assert [each.word for each in verdicts(summary(noop(rounds)))] == [word]


@pytest.mark.parametrize(
    ("name", "word"),
    [(OURS, "FAIL: a check failed"), (FLOOR, "no floor that passed its check"), (BEFORE, "pass")],
)
def test_a_figure_is_not_kept_by_who_failed_a_check(name: str, word: str) -> None:
    broken = [Failure(name, "noop", "trio", 1, "a value was lost")]
    found = summary(noop([1.0, 1.0]), broken)
    told = [each.word for each in verdicts(found, broken) if each.metric == "further call, to 512"]
    assert told == [word]
    if name == OURS:  # also those of which nothing is known
        assert len(verdicts(found, broken)) == len(SCENARIOS["noop"].figures)


def test_what_was_measured_of_who_was_refused_or_left_out_is_nowhere() -> None:
    samples = [*noop([1.0, 2.0]), Sample(BEFORE, "noop", "trio", 0, {"turn of 1": 1.0})]
    broken = [Failure(FLOOR, "noop", "trio", 1, "a value was lost")]
    late = [Skip(BEFORE, "noop", "trio", "a value was lost there")]
    found = summary(samples, broken, late)["noop"]["trio"]
    assert {name for of_metric in found.values() for name in of_metric} == {OURS}


def noop(times: list[float]) -> list[Sample]:
    """Rounds in which a further call takes so many times as long as that of the floor."""
    return [
        Sample(name, "noop", "trio", round_, {"further call, to 512": value})
        for round_, each in enumerate(times)
        for name, value in ((FLOOR, 1.0), (OURS, each))
    ]


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


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have been run, but for those that ask for versions."""
    commands: list[list[str]] = []

    def came(command: list[str]) -> dict[str, Any]:
        if "-c" in command:
            return {"python": "3"}
        commands.append(command)
        return {"skipped": "this is a test"}

    monkeypatch.setattr(processes, "run", came)
    return commands


def test_another_commit_is_measured_only_where_it_is_said_to_be(asked: list[list[str]]) -> None:
    only = ["--scenario", "noop", "--contender", BEFORE, OURS, "--rounds", "1", "--loop", "trio"]
    bench_run.main(only)
    assert [command[0] for command in asked] == [sys.executable]
    asked.clear()
    bench_run.main([*only, "--python", f"{BEFORE}=/elsewhere/python"])
    assert {command[0] for command in asked} == {sys.executable, "/elsewhere/python"}


def test_a_scenario_is_measured_on_the_loops_that_it_makes_sense_on(asked: list[list[str]]) -> None:
    bench_run.main(["--scenario", "cancel_timeout", "--contender", FLOOR, "--rounds", "1"])
    assert [command[5] for command in asked] == ["asyncio", "uvloop"]


def test_what_takes_long_is_left_out_of_a_quick_run(
    asked: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    only = ["--scenario", "agents_10000", "--contender", FLOOR]
    bench_run.main([*only, "--quick"])
    assert not asked
    assert "agents_10000: not in a quick run" in capsys.readouterr().err
    bench_run.main(only)
    assert asked


def test_a_cell_that_cannot_be_measured_is_asked_once(asked: list[list[str]]) -> None:
    bench_run.main(["--scenario", "noop", "--contender", FLOOR, "--loop", "trio", "--rounds", "5"])
    assert len(asked) == 1


def test_small_scenarios_are_those_that_are_measured() -> None:
    assert list(SMALL) == list(SCENARIOS)
    assert [*SCENARIOS, IMPORT.name, FOOTPRINT.name] == list(EVERY)
    assert {name for each in CONTENDERS for name in each.scenarios} == set(EVERY)
    for scenario in EVERY.values():
        assert {figure.metric for figure in scenario.figures} <= set(scenario.units)


def test_what_is_installed_for_a_module_is_all_that_it_requires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(name: str, *requires: str) -> None:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        lines = [f"Requires-Dist: {each}" for each in requires]
        head = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0"]
        (info / "METADATA").write_text("\n".join([*head, *lines]))
        files = [f"{name}/__init__.py", f"{name}/__pycache__/__init__.pyc"]
        for file in files:
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_bytes(b"x" * 100)
        (info / "RECORD").write_text("\n".join(f"{file},," for file in files))

    install("zebra_top", "Zebra.Left[fast]>=1", "zebra-right ; extra == 'more'", "zebra-none")
    install("zebra_left", "zebra_extra (>1.0) ; extra == 'fast'", "zebra-top")
    install("zebra_right")
    install("zebra_extra", "zebra-mark; python_version >= '3'")
    install("zebra_mark")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = installed.with_all_required(installed.distributions_of("import zebra_top.below, json"))
    assert sorted(found) == ["zebra-extra", "zebra-left", "zebra-mark", "zebra-top"]
    assert installed.size_of(found) == 400
    assert not installed.distributions_of("import asyncio")
    with pytest.raises(LookupError, match="zebra_gone is not of an installed distribution"):
        installed.distributions_of("from zebra_gone import stripes")
    (tmp_path / "zebra_mark-1.0.dist-info" / "direct_url.json").write_text(
        '{"dir_info": {"editable": true}}'
    )
    with pytest.raises(LookupError, match="zebra-mark is installed from a source tree"):
        installed.size_of(found)


def test_the_benchmark_runs_end_to_end(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    script = os.path.join(os.path.dirname(bench_run.__file__), "run.py")
    contenders = ["gather", "task_group", FLOOR, OURS]
    command = [sys.executable, script, "--smoke", "--loop", "asyncio", "--contender", *contenders]
    done = subprocess.run(
        [*command, "--json", str(file)], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "no figure holds" in done.stdout
    written = json.loads(file.read_text())
    cells = {(sample["contender"], sample["scenario"]) for sample in written["samples"]}
    due = {(each.name, name) for each in CONTENDERS for name in each.scenarios if each.takes(name)}
    due = {cell for cell in due if cell[0] in contenders}
    lacking = {(each.name, name) for each in CONTENDERS for name in each.lacks}
    skipped = {(skip["contender"], skip["scenario"]) for skip in written["skips"]} - lacking
    assert skipped <= {(OURS, "footprint")}, "only what runs from a source tree is not measured"
    assert cells == due - skipped
    assert written["contenders"][OURS]["anyio"]
