"""``turnscope bench``: finds the checkout's own benchmark, and hands everything on to it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.adapters.command import MODULE, Running, one_line, run
from turnscope_adapters import _bench_command

# Stands for bench/run.py: it says what it was given, and ends as its last argument asks.
SCRIPT = """
import json, os, signal, sys, time
print(json.dumps({"arguments": sys.argv[1:], "folder": os.getcwd()}), flush=True)
match sys.argv[-1]:
    case "--killed":
        os.kill(os.getpid(), signal.SIGKILL)
    case "--deaf":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        open("deaf", "w").close()
        time.sleep(600)
    case "--long":
        time.sleep(600)
    case code:
        sys.exit(int(code))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like a checkout."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "turnscope"\n')
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "run.py").write_text(SCRIPT)
    return tmp_path


def test_the_checkouts_benchmark_is_run_short_from_any_folder_in_it(checkout: Path) -> None:
    deep = checkout / "tests" / "deep"
    deep.mkdir(parents=True)
    for folder in (checkout, deep):
        done = run("bench", "--json", "out.json", "--scenario", "noop", "7", cwd=folder)
        assert (done.returncode, done.stderr) == (7, "")
        came = json.loads(done.stdout)
        assert came["arguments"] == ["--quick", "--json", "out.json", "--scenario", "noop", "7"]
        # So that out.json is where the one who typed it looks for it.
        assert Path(came["folder"]) == folder.resolve()


def test_what_follows_two_dashes_is_the_benchmarks_own(checkout: Path) -> None:
    done = run("bench", "--", "--help", "0", cwd=checkout)
    assert done.returncode == 0
    assert json.loads(done.stdout)["arguments"] == ["--quick", "--help", "0"]


def test_a_benchmark_that_was_killed_is_no_success(checkout: Path) -> None:
    done = run("bench", "--killed", cwd=checkout)
    assert done.returncode == 128 + 9


@pytest.mark.parametrize("pyproject", [None, "[project]\nname = 'other'\n", "[project", "x = 1"])
def test_outside_of_a_checkout_it_says_what_to_do(checkout: Path, pyproject: str | None) -> None:
    (checkout / "pyproject.toml").unlink()
    if pyproject is not None:
        (checkout / "pyproject.toml").write_text(pyproject)
    done = run("bench", "0", cwd=checkout)
    assert (done.returncode, done.stdout) == (2, "")
    assert "clone the repository" in one_line(done.stderr)


def test_another_projects_benchmark_in_between_is_passed_by(checkout: Path) -> None:
    inner = checkout / "examples" / "other"
    (inner / "bench").mkdir(parents=True)
    (inner / "bench" / "run.py").write_text("raise SystemExit(99)")
    (inner / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    assert run("bench", "0", cwd=inner).returncode == 0


@pytest.mark.parametrize("group", [True, False], ids=["from a terminal", "to the command alone"])
def test_ctrl_c_ends_the_benchmark_too(checkout: Path, group: bool) -> None:
    with Running("bench", "--long", cwd=checkout) as running:
        running.read_until(lambda came: "arguments" in came)
        running.interrupt(group=group)
        code, _, errors = running.end(30)
        assert code == 130
        assert errors.endswith("turnscope: interrupted\n")
        assert running.survivors() == []


def test_a_benchmark_that_is_deaf_to_ctrl_c_is_killed(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(_bench_command, "PATIENCE", 0.1)
    started: list[subprocess.Popen[bytes]] = []

    class Popen(subprocess.Popen[bytes]):
        def wait(self, timeout: float | None = None) -> int:
            if self not in started:  # Ctrl-C, as soon as the benchmark has begun to be deaf
                started.append(self)
                while not (checkout / "deaf").exists():
                    time.sleep(0.01)
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    with pytest.raises(KeyboardInterrupt):
        _bench_command.bench(["--deaf"])
    assert started[0].returncode == -signal.SIGKILL


def test_this_checkout_is_one() -> None:
    root = Path(__file__).parents[2]
    assert _bench_command._is_checkout(root)
    done = run("bench", "--", "--help", cwd=root, command=MODULE)
    assert done.returncode == 0
    assert "--scenario" in done.stdout
