"""Other frameworks in the benchmark: their environments, and what becomes of those that fail."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import environments, processes
from bench import run as bench_run
from bench.contenders import ASYNCIO, CONTENDERS, FLOOR, OURS, Contender
from bench.environments import STAMP, NotMade, interpreter, python_of
from bench.report import report
from bench.samples import Failure, Sample, summary
from bench.scenarios import EVERY, SCENARIOS

PEERS = [each for each in CONTENDERS if each.peer]
PEER = PEERS[0].name


class Installer:
    """Stands for ``venv`` and pip: writes the file that each would write, and remembers."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.broken = ""
        self.cut_off = False

    def __call__(self, command: list[str]) -> None:
        self.commands.append(command)
        if "venv" in command:
            folder = Path(command[-1])
            for stale in [*folder.glob("*.json"), *folder.glob("installed")]:
                stale.unlink()
            python_of(folder).parent.mkdir(parents=True, exist_ok=True)
            python_of(folder).touch()
            return
        if self.cut_off:
            raise KeyboardInterrupt
        if self.broken:
            raise subprocess.CalledProcessError(1, command, "", self.broken)
        Path(command[0]).parent.with_name("installed").touch()

    @property
    def installations(self) -> int:
        return sum("pip" in command for command in self.commands)


@pytest.fixture
def installer(monkeypatch: pytest.MonkeyPatch) -> Installer:
    fake = Installer()
    monkeypatch.setattr(environments, "install", fake)
    return fake


def test_an_environment_is_made_once(installer: Installer, tmp_path: Path) -> None:
    first = interpreter("peer", ["frame>=1"], tmp_path / "cache")
    assert first == str(python_of(tmp_path / "cache" / "peer"))
    assert interpreter("peer", ["frame>=1"], tmp_path / "cache") == first
    assert installer.installations == 1
    assert "frame>=1" in installer.commands[-1]
    assert set(environments.HARNESS) <= set(installer.commands[-1])


def test_other_requirements_make_it_anew(installer: Installer, tmp_path: Path) -> None:
    interpreter("peer", ["frame>=1"], tmp_path)
    interpreter("peer", ["frame>=2"], tmp_path)
    assert installer.installations == 2
    assert "--clear" in installer.commands[-2]


def test_another_python_makes_it_anew(
    installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter("peer", ["frame>=1"], tmp_path)
    monkeypatch.setattr(sys, "version", "4.0")
    interpreter("peer", ["frame>=1"], tmp_path)
    assert installer.installations == 2


def test_an_installation_that_was_cut_off_is_made_anew(
    installer: Installer, tmp_path: Path
) -> None:
    installer.cut_off = True
    with pytest.raises(KeyboardInterrupt):
        interpreter("peer", ["frame>=1"], tmp_path)
    assert python_of(tmp_path / "peer").exists()
    assert not (tmp_path / "peer" / "installed").exists()
    installer.cut_off = False
    interpreter("peer", ["frame>=1"], tmp_path)
    assert (tmp_path / "peer" / "installed").exists()


def test_a_remake_that_was_cut_off_leaves_no_stamp(installer: Installer, tmp_path: Path) -> None:
    interpreter("peer", ["frame>=1"], tmp_path)
    installer.cut_off = True
    with pytest.raises(KeyboardInterrupt):
        interpreter("peer", ["frame>=2"], tmp_path)
    assert not (tmp_path / "peer" / STAMP).exists()


@pytest.mark.parametrize("stamp", ["", "{", "null", '{"python": "3"}'])
def test_a_stamp_that_says_something_else_makes_it_anew(
    installer: Installer, tmp_path: Path, stamp: str
) -> None:
    interpreter("peer", ["frame>=1"], tmp_path)
    (tmp_path / "peer" / STAMP).write_text(stamp)
    interpreter("peer", ["frame>=1"], tmp_path)
    assert installer.installations == 2


def test_a_failed_installation_tells_its_last_lines(installer: Installer, tmp_path: Path) -> None:
    installer.broken = "\n".join(f"line {n}" for n in range(9))
    words = r"installing frame>=1, more failed: line 4 / .* / line 8$"
    with pytest.raises(NotMade, match=words):
        interpreter("peer", ["frame>=1", "more"], tmp_path)


def test_an_installer_that_cannot_start_tells_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    with pytest.raises(NotMade, match=r"making .*peer failed: .*no python"):
        interpreter("peer", ["frame>=1"], tmp_path)


def test_an_environment_has_a_python_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = environments.install

    def without_network(command: list[str]) -> None:
        if "venv" in command:
            honest([*command[:3], "--without-pip", *command[3:]])

    monkeypatch.setattr(environments, "install", without_network)
    python = interpreter("peer", ["frame>=1"], tmp_path)
    command = [python, "-c", "import sys; print(sys.prefix)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).resolve() == (tmp_path / "peer").resolve()


def comes(failing: str = "") -> Callable[[list[str]], dict[str, Any]]:
    """What each process gives: 1 for every metric, but a failure for *failing*."""

    def came(command: list[str]) -> dict[str, Any]:
        if "bench.measure" not in command:
            return {"python": "3"}
        if failing in command:
            return {"failed": "64 of 64 calls are alive after the cancelled turn"}
        return {"metrics": {"until quiet": 1.0}}

    return came


CANCEL = ["--scenario", "cancel", "--loop", "asyncio", "--rounds", "1"]


def test_nothing_is_installed_unless_asked_for(
    installer: Installer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(processes, "run", comes())
    more = ["--environments", str(tmp_path)]
    assert bench_run.main([*CANCEL, *more]) == 0
    assert bench_run.main([*CANCEL, *more, "--contender", OURS, FLOOR]) == 0
    assert not installer.commands
    assert bench_run.main([*CANCEL, *more, "--contender", PEER]) == 0
    assert installer.installations == 1
    assert bench_run.main([*CANCEL, *more, "--peers"]) == 0
    assert installer.installations == len(PEERS)


def test_who_is_somewhere_already_is_not_installed(
    installer: Installer, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr(
        processes, "run", lambda command: started.append(command) or comes()(command)
    )
    named = [f"{each.name}=/its/own/python" for each in PEERS]
    assert bench_run.main([*CANCEL, "--peers", "--python", *named]) == 0
    assert not installer.commands
    assert sum("/its/own/python" in command for command in started) == 2 * len(PEERS)


def test_a_peer_without_an_environment_is_not_measured_and_says_why(
    installer: Installer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    installer.broken = "no such distribution"
    monkeypatch.setattr(processes, "run", comes())
    file = tmp_path / "out.json"
    more = ["--environments", str(tmp_path), "--json", str(file)]
    assert bench_run.main([*CANCEL, *more, "--contender", PEER, FLOOR]) == 0
    text = capsys.readouterr().out
    reason = f"* {PEER}, all, all: installing {', '.join(PEERS[0].requirements)} failed: "
    assert f"{reason}no such distribution" in text.partition("## Not measured")[2]
    written = json.loads(file.read_text())
    assert [sample["contender"] for sample in written["samples"]] == [FLOOR]


def test_what_a_peer_lacks_is_not_measured_and_says_why(
    installer: Installer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    poor = Contender(
        *("poor", "poor", "import poor", ()),
        loops=ASYNCIO,
        peer=True,
        requirements=("poor>=1",),
        lacks={"cancel": "it cannot stop", "cpu": "not asked about here"},
    )
    monkeypatch.setattr(bench_run, "CONTENDERS", (*CONTENDERS, poor))
    monkeypatch.setattr(processes, "run", comes())
    more = ["--environments", str(tmp_path), "--contender", "poor", FLOOR]
    assert bench_run.main([*CANCEL, *more]) == 0
    text = capsys.readouterr().out
    assert "* poor, cancel, all: it cannot stop" in text.partition("## Not measured")[2]
    assert "not asked about here" not in text
    assert "| poor" not in text


@pytest.mark.parametrize(("name", "code"), [(PEER, 0), (FLOOR, 1), (OURS, 1)])
def test_only_a_peer_may_fail_its_check(
    name: str,
    code: int,
    installer: Installer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(processes, "run", comes(failing=name))
    more = ["--environments", str(tmp_path), "--contender", PEER, FLOOR, OURS]
    assert bench_run.main([*CANCEL, *more]) == code
    assert ("CHECKS FAILED" in capsys.readouterr().out) is bool(code)


def test_a_peer_that_has_failed_is_not_asked_again(
    installer: Installer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    def came(command: list[str]) -> dict[str, Any]:
        asked.extend(command[3:4])
        return comes(failing=PEER)(command)

    monkeypatch.setattr(processes, "run", came)
    more = ["--environments", str(tmp_path), "--contender", PEER, FLOOR]
    assert bench_run.main([*CANCEL[:-1], "3", *more]) == 0
    assert asked.count(PEER) == 1
    assert asked.count(FLOOR) == 3


ABOUT: dict[str, Any] = {
    "began": "now",
    "quick": True,
    "contenders": {},
    "load at the end": 0,
    "seconds": 1,
    "machine": {"processor": "p", "cpus": 2, "system": "s", "load": 0},
}


def rows(samples: list[Sample], failures: list[Failure]) -> list[list[str]]:
    """The cells of each line of the table about 64 cancelled calls."""
    text = report(ABOUT, summary(samples), failures, [], {})
    section = text.partition(f"## {SCENARIOS['cancel'].title}\n\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines()[2:]]


def cancelled(name: str, microseconds: float, round_: int = 0) -> Sample:
    return Sample(name, "cancel", "asyncio", round_, {"until quiet": microseconds})


def test_a_table_stands_in_the_order_of_its_first_metric() -> None:
    them = [
        *(cancelled(OURS, each, n) for n, each in enumerate((2.0, 2.0, 90.0))),
        *(cancelled(PEER, each, n) for n, each in enumerate((1.0, 4.0, 4.0))),
        *(cancelled(FLOOR, each, n) for n, each in enumerate((3.0, 3.0, 3.0))),
    ]
    assert [row[2] for row in rows(them, [])] == [
        "turnscope",
        "bare AnyIO task group (floor)",
        PEERS[0].title,
    ]


@pytest.mark.parametrize(("name", "title"), [(PEER, PEERS[0].title), (OURS, "turnscope")])
def test_who_failed_once_has_no_figures_there(name: str, title: str) -> None:
    sentence = "the turn swallowed the cancellation"
    broken = Failure(name, "cancel", "asyncio", 1, sentence)
    elsewhere = Sample(name, "cancel", "uvloop", 0, {"until quiet": 5.0})
    them = rows([cancelled(name, 1.0), cancelled(FLOOR, 3.0), elsewhere], [broken])
    assert [row[1:4] for row in them] == [
        ["asyncio", "bare AnyIO task group (floor)", "3 us"],
        ["asyncio", title, f"failed: {sentence}"],
        ["uvloop", title, "5 us"],
    ]
    assert set(them[1][4:]) == {""}


def test_a_scenario_that_only_peers_failed_is_told_too() -> None:
    broken = Failure(PEER, "cancel", "asyncio", 0, "it broke")
    assert [row[2:4] for row in rows([], [broken])] == [[PEERS[0].title, "failed: it broke"]]


@pytest.mark.parametrize("script", ["imported", "footprint"])
def test_an_import_that_is_measured_does_not_find_the_modules_of_the_benchmark(script: str) -> None:
    # Of which one has the name under which a peer is imported.
    file = Path(bench_run.__file__).with_name(f"{script}.py")
    command = [sys.executable, str(file), "import contenders"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "No module named 'contenders'" in done.stderr


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda each: each.name)
def test_every_contender_has_a_driver(contender: Contender) -> None:
    file = Path(bench_run.__file__).parent / "drivers" / f"{contender.name}.py"
    tree = ast.parse(file.read_text())
    imported = {
        name.name for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names
    }
    made = {node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef)}
    assert "session" in made | imported


@pytest.mark.parametrize("contender", PEERS, ids=lambda each: each.name)
def test_a_peer_says_where_it_comes_from_and_what_it_lacks(contender: Contender) -> None:
    assert contender.requirements
    assert all(">=" in requirement for requirement in contender.requirements)
    assert contender.distributions
    assert set(contender.lacks) <= set(EVERY)
    assert all(contender.lacks.values())
    assert not any(contender.takes(name) for name in contender.lacks)
    assert contender.takes("noop")
