"""What runs a test again, and what does not: in a pytest of its own, which is really stopped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.stalls import TOO_LATE

ROOT = Path(__file__).resolve().parent.parent

# Fails the first time, and passes when it is run again; stops its own process in between.
STOPPED = f"""
import os, signal, subprocess, sys

STOP = "import os, signal, sys, time; os.kill(int(sys.argv[1]), signal.SIGSTOP); "
STOP += "time.sleep({6 * TOO_LATE}); os.kill(int(sys.argv[1]), signal.SIGCONT)"
runs = []

def stand_still():
    subprocess.run([sys.executable, "-c", STOP, str(os.getpid())], check=True)
"""

IN_REAL_TIME = f"""{STOPPED}
def test_of_a_machine():
    runs.append(1)
    if STOPS:
        stand_still()
    assert len(runs) > FAILURES
"""

IN_VIRTUAL_TIME = f"""{STOPPED}
def test_of_a_machine(virtual_loop):
    runs.append(1)
    stand_still()
    assert len(runs) > 1
"""


def outcome(tmp_path: Path, code: str, *, too_late: float = TOO_LATE) -> str:
    """The closing line of a pytest that runs *code* with this suite's Watch.

    too_late: as in `tests.stalls`; so long that no machine is meant, where none is to stand still.
    """
    (tmp_path / "test_machine.py").write_text(code, encoding="utf-8")
    (tmp_path / "conftest.py").write_text(
        "import pytest\n"
        "from tests import stalls\n"
        "from tests.stalls import Watch\n"
        f"stalls.TOO_LATE = {too_late}\n"
        "def pytest_configure(config):\n"
        "    config.pluginmanager.register(Watch())\n"
        "@pytest.fixture(params=['asyncio'])\n"
        "def virtual_loop(request):\n"
        "    return request.param\n",
        encoding="utf-8",
    )
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ran.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("stops", "failures", "expected"),
    [
        (True, 1, "1 passed, 1 rerun"),
        (True, 9, "1 failed, 2 rerun"),
        (False, 1, "1 failed in"),
    ],
    ids=["stopped", "stopped each time", "undisturbed"],
)
def test_a_test_in_real_time_is_run_again_only_if_the_machine_stood_still(
    tmp_path: Path, stops: bool, failures: int, expected: str
) -> None:
    code = IN_REAL_TIME.replace("STOPS", str(stops)).replace("FAILURES", str(failures))
    assert expected in outcome(tmp_path, code, too_late=TOO_LATE if stops else 600)


def test_a_test_in_virtual_time_has_failed_whatever_the_machine_did(tmp_path: Path) -> None:
    assert "1 failed in" in outcome(tmp_path, IN_VIRTUAL_TIME)
