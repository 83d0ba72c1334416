"""An environment for a contender, made when it is first measured, and used again after that.

Above: `run`, which asks for an interpreter and gets one, or the reason why there is none. Below:
the standard library's ``venv``, and pip. It refuses to know what a contender does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

HARNESS: Final = ("anyio>=4.16", "uvloop>=0.21 ; sys_platform != 'win32'")
"""What the process under test needs beside its contender."""
STAMP: Final = "made-for.json"
TIMEOUT: Final = 1800
"""Seconds that one installation may take: the largest contender has about a hundred packages."""
LINES: Final = 5
"""How many of an installer's last lines are worth telling."""


class NotMade(Exception):
    """No environment for a contender: what failed, and the last lines of what it said."""


def interpreter(name: str, requirements: Sequence[str], cache: Path) -> str:
    """The path of a Python that has *requirements*: of ``cache/NAME``, made anew if it has others.

    The stamp that says what it was made for is written last, so an installation that was cut off
    is not taken for a whole one. Raises NotMade.
    """
    folder = cache / name
    python = python_of(folder)
    stamp = folder / STAMP
    wanted = made_for(requirements)
    if _read(stamp) == wanted and python.exists():
        return str(python)
    cache.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    # --clear: what pip finds of an older installation it would keep.
    _step(f"making {folder}", [sys.executable, "-m", "venv", "--clear", str(folder)])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _step(f"installing {', '.join(requirements)}", [*pip, *HARNESS, *requirements])
    stamp.write_text(json.dumps(wanted, indent=1) + "\n")
    return str(python)


def python_of(folder: Path) -> Path:
    """Where ``venv`` puts the interpreter."""
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"


def made_for(requirements: Sequence[str]) -> dict[str, object]:
    """What an environment must have been made for, to serve again: JSON values alone."""
    return {
        "python": sys.version,
        "prefix": sys.base_prefix,
        "requirements": [*HARNESS, *requirements],
    }


def _read(stamp: Path) -> object:
    try:
        return json.loads(stamp.read_text())
    except (OSError, ValueError):
        return None


def _step(what: str, command: list[str]) -> None:
    try:
        install(command)
    except subprocess.CalledProcessError as exc:
        said = f"{exc.stdout or ''}\n{exc.stderr or ''}".strip().splitlines()[-LINES:]
        words = " / ".join(line.strip() for line in said) or f"exit code {exc.returncode}"
        raise NotMade(f"{what} failed: {words}") from None
    except subprocess.TimeoutExpired:
        raise NotMade(f"{what} failed: no end within {TIMEOUT} s") from None
    except OSError as exc:
        raise NotMade(f"{what} failed: {exc}") from None


def install(command: list[str]) -> None:
    """Run one step of an installation to its end. Raises what `subprocess.run` raises."""
    # A PYTHONPATH would hide from pip that a package is missing in the environment.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, env=kept, check=True, capture_output=True, text=True, timeout=TIMEOUT)
