"""Ctrl-C, a real signal to a real process: cleanup runs, KeyboardInterrupt comes out bare."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.kernel.bodies import UVLOOP
from tests.support import Loop

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no SIGINT that can be sent to one process"
)

PROGRAM = Path(__file__).with_name("ctrl_c.py")
AT_EACH_LINE = Path(__file__).with_name("ctrl_c_at_line.py")


@contextmanager
def program(loop: Loop, what: str) -> Iterator[subprocess.Popen[str]]:
    """The program, at the point where its call is under way."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(PROGRAM), loop.name, what],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def rest(process: subprocess.Popen[str]) -> list[str]:
    """What else it says, once it has ended by itself and without a word of complaint."""
    out, err = process.communicate(timeout=50)
    # asyncio's own runner says this of a main task that raises KeyboardInterrupt, as it does when
    # the second signal lands in a body.
    if not err.startswith("Task exception was never retrieved\n") or "main() done" not in err:
        assert err == ""
    assert process.returncode == 0
    return out.splitlines()


def wait_until_asleep(process: subprocess.Popen[str]) -> None:
    """Wait until the main thread of *process* was asleep ten times in a row, for a while each."""
    looked_at = psutil.Process(process.pid)
    asleep = 0
    while asleep < 10:
        time.sleep(0.03)
        assert process.poll() is None
        asleep = asleep + 1 if looked_at.status() == psutil.STATUS_SLEEPING else 0


@pytest.mark.parametrize("what", ["inline", "block", "nested"])
def test_ctrl_c_cleans_up_and_is_raised_bare(any_loop: Loop, what: str) -> None:
    with program(any_loop, what) as process:
        process.send_signal(signal.SIGINT)
        lines = rest(process)
    assert lines.count("cleaning") == lines.count("cleaned") == 1
    assert lines[-1] == "KeyboardInterrupt"
    settled = [line for line in lines if line.startswith("statuses")]
    assert len(settled) == (2 if what == "nested" else 1)
    # Where Ctrl-C lands is trio's choice: in the body itself, it is that call's failure.
    assert set(settled) <= {"statuses cancelled", "statuses failed"}


def test_ctrl_c_ends_a_thread_that_looks_up(any_loop: Loop) -> None:
    with program(any_loop, "thread") as process:
        process.send_signal(signal.SIGINT)
        lines = rest(process)
    assert lines.count("cleaned") == 1
    assert "statuses cancelled" in lines
    assert lines[-1] == "KeyboardInterrupt"


def test_ctrl_c_twice_ends_the_program_and_settles_every_call(any_loop: Loop) -> None:
    with program(any_loop, "cleanup") as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "cleaning\n"
        wait_until_asleep(process)  # its loop, that is: the program says why
        process.send_signal(signal.SIGINT)
        lines = rest(process)
    assert lines[-1] == "KeyboardInterrupt"
    (settled,) = [line for line in lines if line.startswith("statuses")]
    assert settled in ("statuses cancelled", "statuses failed")


@pytest.mark.parametrize("any_loop", ["asyncio", UVLOOP], indirect=True)
def test_a_second_ctrl_c_at_any_line_of_ours_hangs_nothing_and_loses_no_call(
    any_loop: Loop,
) -> None:
    done = subprocess.run(
        [sys.executable, str(AT_EACH_LINE), any_loop.name],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    places = [line.split() for line in done.stdout.splitlines()]
    assert {place.partition(":")[0] for place, *_ in places} >= {
        "Attempt._settle",
        "Supervisor.finish",
        "Asking.ask",
        "Kernel._close",
        "Turn.__aexit__",
    }
    for place, raised, *statuses in places:
        assert len(statuses) == 2 and {*statuses} <= {"cancelled", "failed"}, place
        # CancelledError, the first Ctrl-C, where the second lands in a body that is being cancelled
        # anyway. RuntimeError where it keeps a scope of AnyIO's from being left.
        assert raised in ("KeyboardInterrupt", "CancelledError", "RuntimeError"), place
    others = [place for place, raised, *_ in places if raised != "KeyboardInterrupt"]
    assert len(others) <= len(places) / 10, others
