"""Several runs told as one: rounds of one run stay together, and unlike runs are refused."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from bench import run as bench_run
from bench.contenders import FLOOR, OURS
from bench.join import joined
from bench.panels import heading
from bench.record import NoRecord, Record, read, write
from bench.samples import Failure, Sample, Skip, ratio, summary
from tests.bench.records import record


def ratios(kept: Record, scenario: str, metric: str) -> list[float]:
    """Ours over the floor in each round, in the order of size."""
    of_metric = summary(kept.samples, kept.failures, kept.skips)[scenario]["asyncio"][metric]
    assert ratio(of_metric, OURS) is not None
    mine, floor = of_metric[OURS], of_metric[FLOOR]
    return sorted(mine[round_] / floor[round_] for round_ in mine)


def more(seed: int = 1, rounds: int = 3) -> Record:
    """A later run of two contenders in one scenario."""
    made = record(seed, rounds)
    made.about["command"] = ["python", "bench/run.py", "--scenario", "noop", "--json", "/a/b"]
    made.about["began"] = "2001-02-04T04:05:06Z"
    for part in ("titles", "contenders"):
        made.about[part] = {name: made.about[part][name] for name in (FLOOR, OURS)}
    made.about["scenarios"] = {"noop": made.about["scenarios"]["noop"]}
    made.failures.clear()
    made.samples = [
        each
        for each in made.samples
        if each.scenario == "noop" and each.contender in made.about["titles"]
    ]
    return made


def test_each_ratio_is_of_two_processes_of_one_run() -> None:
    runs = [record(0, 2), more(1, 3), more(2, 1)]
    for each in runs[1].samples:  # a machine that is thrice as slow meanwhile
        each.metrics["further call, to 512"] *= 3
    apart = [ratios(each, "noop", "further call, to 512") for each in runs]
    together = joined(runs)
    assert ratios(together, "noop", "further call, to 512") == sorted(chain(*apart))
    assert ratios(together, "run", "run of one call") == ratios(runs[0], "run", "run of one call")


def test_every_row_is_there_once_in_a_round_of_its_own() -> None:
    runs = [record(0, 2), more(1, 3), record(2, 2)]
    runs[1].failures.append(Failure("gather", "noop", "asyncio", 3, "a value was lost"))
    before = [len(each.samples) for each in runs]
    together = joined(runs)
    assert len(together.samples) == sum(before) == len({*map(cell, together.samples)})
    assert [len(each.samples) for each in runs] == before, "what is told is changed by telling"
    rounds = {each.round for each in together.samples if each.scenario == "noop"}
    assert rounds == {0, 1, 2, 3, 4, 6, 7}  # in 5 there was nothing but the failure
    (failed,) = [each for each in together.failures if each.scenario == "noop"]
    assert failed.round == 5
    found = summary(together.samples, together.failures, together.skips)
    assert "gather" not in found["noop"]["asyncio"]["further call, to 512"]


def cell(each: Sample) -> tuple[str, str, str, int]:
    return each.contender, each.scenario, each.loop, each.round


def test_what_could_not_be_measured_is_told_once() -> None:
    runs = [record(0, 1), more()]
    for each in runs:
        each.skips.append(Skip("bridgic", "hang", "all", "no timeout of a tool"))
    runs[1].skips.append(Skip("gather", "raise", "all", "it does not wait"))
    assert joined(runs).skips == runs[1].skips


def test_one_is_told_as_it_is_and_runs_that_were_joined_are_joined_on() -> None:
    assert joined([record()]) == record()
    runs = [record(0, 1), more(1), more(2)]
    assert joined([joined(runs[:2]), runs[2]]) == joined(runs)
    assert joined([runs[0], joined(runs[1:])]) == joined(runs)


def test_files_are_told_and_kept_as_one_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(record(0, 2), tmp_path / "a.json")
    write(more(), tmp_path / "b.json")
    files = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert bench_run.main(["--from", *files, "--json", str(tmp_path / "c.json")]) == 0
    told = capsys.readouterr().out
    command = "python bench/run.py --scenario noop"
    assert f"And from 2001-02-04T04:05:06Z, `{command}`: load 0.1 before" in told
    assert read(tmp_path / "c.json") == joined([record(0, 2), more()])
    assert bench_run.main(["--from", str(tmp_path / "c.json")]) == 0
    assert capsys.readouterr().out == told
    assert heading(read(tmp_path / "c.json"))[-2:] == [
        "2001-02-03: python bench/run.py",
        f"2001-02-04, more rounds: {command}",
    ]


def test_a_contender_of_a_later_file_has_its_title() -> None:
    first, later = more(), record(1, 2)
    together = joined([first, later])
    assert together.about["titles"] == first.about["titles"] | later.about["titles"]
    assert together.about["scenarios"].keys() == later.about["scenarios"].keys()
    assert list(first.about["titles"]) == [FLOOR, OURS]


def test_modules_are_those_of_the_first_file_that_knows_them() -> None:
    runs = [record(0, 1), more(), more()]
    runs[0].modules = {"known": ["anyio"]}
    runs[1].modules = {OURS: ["turnscope"]}
    runs[2].modules = {OURS: ["other"], "known": ["other"]}
    assert joined(runs).modules == {"known": ["anyio"], OURS: ["turnscope"]}


CONTRADICTIONS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "the commit": (lambda about: about.update(commit="fedcba"), "the commit is 'fedcba' in file 3"),
    "quick": (lambda about: about.update(quick=True), "'quick' is True in file 3, and False"),
    "the machine": (lambda about: about["machine"].update(cpus=64), "cpus is 64"),
    "a version": (lambda about: about["contenders"][OURS].update(anyio="5"), f"contender '{OURS}'"),
    "a title": (lambda about: about["titles"].update({OURS: "us"}), f"title '{OURS}' is 'us'"),
    "a unit": (lambda about: about["scenarios"]["noop"]["units"].update(other="s"), "'noop'"),
    "a base": (lambda about: about.update(compare={"base": "fed"}), "what it is compared with"),
}


@pytest.mark.parametrize("which", CONTRADICTIONS)
def test_runs_that_contradict_each_other_are_refused(
    which: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, words = CONTRADICTIONS[which]
    runs = [record(0, 1), more(1), more(2)]
    change(runs[2].about)
    with pytest.raises(NoRecord, match=words):
        joined(runs)
    files = [tmp_path / f"{place}.json" for place in range(3)]
    for kept, file in zip(runs, files, strict=True):
        write(kept, file)
    assert bench_run.main(["--from", *map(str, files)]) == 2
    out, errors = capsys.readouterr()
    assert out == "" and "cannot be told as one" in errors and errors.count("\n") == 1
