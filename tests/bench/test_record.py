"""A run as a file: what is read back is what was measured, and nothing else is taken for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import processes
from bench import run as bench_run
from bench.contenders import FLOOR, OURS
from bench.record import NoRecord, read, write
from bench.samples import Failure, Sample, Skip
from bench.scenarios import SCENARIOS, SMALL
from tests.bench.records import record


def test_a_record_that_was_written_is_read_back_as_it_was(tmp_path: Path) -> None:
    before = record()
    before.skips.append(Skip("bridgic", "hang", "asyncio", "no timeout per tool"))
    before.failures.append(Failure("gather", "hang", "uvloop", 3, "it said: “no”"))
    write(before, tmp_path / "run.json")
    after = read(tmp_path / "run.json")
    assert after == before
    assert all(type(sample) is Sample for sample in after.samples)
    write(after, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "run.json").read_bytes()


def measure(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the benchmark with processes that answer at once; a gather's fail, others' are odd."""
    values = iter(range(1, 10**6))

    def came(command: list[str]) -> dict[str, Any]:
        if "bench.measure" not in command:
            return {"python": "3.0", "anyio": "4.0"}
        if "gather" in command:
            return {"failed": "a value was lost"}
        if "trio" in command:
            return {"skipped": "No module named 'trio'"}
        scenario = command[command.index("bench.measure") + 2]
        return {"metrics": {name: 1 / next(values) for name in SCENARIOS[scenario].units}}

    monkeypatch.setattr(processes, "run", came)
    return bench_run.main([*arguments])


def test_from_a_file_the_tables_are_told_anew_and_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "run.json")
    code = measure(monkeypatch, "--scenario", "noop", "run", "--quick", "--json", file)
    told = capsys.readouterr().out
    assert code == 1
    assert "a value was lost" in told and "No module named 'trio'" in told

    monkeypatch.setattr(processes, "run", lambda command: pytest.fail(f"it ran {command}"))
    assert bench_run.main(["--from", file]) == code
    assert capsys.readouterr().out == told


def test_a_file_keeps_no_figure_of_who_failed_a_check(tmp_path: Path) -> None:
    kept = record()
    kept.failures = [Failure(OURS, "noop", "trio", 1, "a value was lost")]
    write(kept, tmp_path / "run.json")
    told = {
        (each["word"], each["ours"], each["ratio"])
        for each in json.loads((tmp_path / "run.json").read_text())["verdicts"]
        if (each["scenario"], each["loop"]) == ("noop", "trio")
    }
    assert told == {("FAIL: a check failed", None, None)}


def test_a_file_says_what_was_measured_how_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.json"
    arguments = ["--scenario", "noop", "--loop", "asyncio", "--json", str(file)]
    measure(monkeypatch, *arguments)
    about = read(file).about
    assert about["command"] == ["python", "bench/run.py", *arguments]
    assert about["contenders"][OURS] == {"python": "3.0", "anyio": "4.0"}
    assert about["titles"][FLOOR] == "bare AnyIO task group"
    assert list(about["scenarios"]) == ["noop"]
    assert about["scenarios"]["noop"]["title"] == SCENARIOS["noop"].title
    assert about["scenarios"]["noop"]["units"] == SCENARIOS["noop"].units
    assert about["scenarios"]["noop"]["headline"] == "further call, to 512"
    assert set(about["machine"]) == {"system", "processor", "cpus", "load"}


def test_who_and_what_this_checkout_does_not_know_is_told_as_the_file_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = record()
    kept.about["titles"]["of_old"] = "a contender of old"
    kept.about["scenarios"]["juggle"] = {
        "title": "Jugglers, at night",
        "units": {"height": "m"},
        "headline": "height",
    }
    kept.samples.append(Sample("of_old", "juggle", "asyncio", 0, {"height": 3.5}))
    write(kept, tmp_path / "run.json")
    bench_run.main(["--from", str(tmp_path / "run.json")])
    told = capsys.readouterr().out
    assert "## Jugglers, at night" in told
    line = next(line for line in told.splitlines() if "a contender of old" in line)
    assert "height" in line and "3.5 m" in line


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another program's": (dict.clear, "bench/run.py --json FILE writes one"),
    "a newer version": (lambda data: data.update(version=2), "a record of version 2"),
    "no machine": (lambda data: data.pop("machine"), "'machine' is missing"),
    "half a machine": (lambda data: data["machine"].pop("cpus"), "'machine' lacks 'cpus'"),
    "no samples": (lambda data: data.pop("samples"), "'samples' is missing"),
    "samples by name": (lambda data: data.update(samples={}), "'samples' is missing, or is not"),
    "a sample short": (
        lambda data: data["samples"][3].pop("loop"),
        r"samples\[3\] needs contender",
    ),
    "a sample with more": (lambda data: data["samples"][0].update(x=1), r"samples\[0\] needs"),
    "a round in words": (
        lambda data: data["samples"][1].update(round="first"),
        r"samples\[1\]: round is 'first'",
    ),
    "a truth for a round": (
        lambda data: data["samples"][1].update(round=True),
        r"samples\[1\]: round is True",
    ),
    "a time in words": (
        lambda data: data["samples"][2].update(metrics={"other": "1 ms"}),
        r"samples\[2\]: metrics is",
    ),
    "no number": (
        lambda data: data["samples"][2].update(metrics={"other": float("nan")}),
        r"samples\[2\]: metrics is",
    ),
    "a metric without a unit": (
        lambda data: data["samples"][0]["metrics"].update(width=1.0),
        "nobody says what 'width' of 'noop' is",
    ),
    "a contender without a title": (
        lambda data: data["titles"].pop(FLOOR),
        r"samples\[\d+\]: nobody says who 'anyio_group' is",
    ),
    "a failure without a title": (
        lambda data: data["failures"][2].update(contender="somebody"),
        r"failures\[2\]: nobody says who 'somebody' is",
    ),
    "a scenario without units": (
        lambda data: data["scenarios"]["noop"].pop("units"),
        "scenario 'noop' needs a title, units",
    ),
    "a headline of nothing": (
        lambda data: data["scenarios"]["noop"].update(headline="width"),
        "scenario 'noop' needs a title, units, and one of them as headline",
    ),
    "modules as a text": (lambda data: data["modules"].update(x="anyio"), "'modules' is not"),
    "more of nothing": (lambda data: data.update(more=[{"began": "now"}]), "'more' is not"),
    "a failure short": (lambda data: data["failures"][0].pop("sentence"), r"failures\[0\] needs"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_with_what_is_wrong_and_where(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.json"
    write(record(rounds=1), file)
    data = json.loads(file.read_text())
    change, words = DAMAGES[damage]
    change(data)
    file.write_text(json.dumps(data))
    with pytest.raises(NoRecord, match=words) as raised:
        read(file)
    assert str(file) in str(raised.value)
    assert bench_run.main(["--from", str(file)]) == 2
    out, errors = capsys.readouterr()
    assert out == "" and errors.count("\n") == 1


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    write(record(rounds=1), file)
    whole = file.read_bytes()
    for content, words in (
        (whole[: len(whole) // 2], "is not JSON"),
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "not a record"),
    ):
        file.write_bytes(content)
        with pytest.raises(NoRecord, match=words):
            read(file)
    with pytest.raises(NoRecord, match="No such file"):
        read(tmp_path / "nowhere.json")


def test_a_file_that_could_not_be_written_is_refused_before_the_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "run", lambda command: pytest.fail("it measured"))
    with pytest.raises(SystemExit) as raised:
        bench_run.main(["--json", str(tmp_path / "nowhere" / "run.json")])
    assert raised.value.code == 2
    assert "there is no folder" in capsys.readouterr().err


def test_the_file_of_a_smoke_run_is_read_back_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def came(command: list[str]) -> dict[str, Any]:
        if "bench.smoke" not in command:
            return {"python": "3.0"}
        names = command[command.index("bench.smoke") + 3 :]
        return {name: {"metrics": dict.fromkeys(SMALL[name].units, 1.0)} for name in names}

    monkeypatch.setattr(processes, "run", came)
    file = str(tmp_path / "run.json")
    arguments = ["--smoke", "--scenario", "noop", "agents", "--loop", "trio", "--json", file]
    assert bench_run.main(arguments) == 0
    capsys.readouterr()
    assert bench_run.main(["--from", file]) == 0
    assert "5: wall" in capsys.readouterr().out
    assert read(Path(file)).about["quick"]
