"""``turnscope bench``: finds the benchmark of the checkout that it is called in, and runs it.

The benchmark is no part of the package: what is measured belongs beside the code that it measures.
Above: `_commands`. Below: ``bench/run.py``, in a process of its own.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from ._errors import BadUsage

PATIENCE = 5.0
"""Seconds that the benchmark has to end after Ctrl-C, before it is killed."""


def bench(arguments: Sequence[str]) -> int:
    """Run a short benchmark with *arguments* on top; returns its exit code.

    Raises BadUsage outside of a checkout.
    """
    here = Path.cwd()
    root = next((each for each in (here, *here.parents) if _is_checkout(each)), None)
    if root is None:
        raise BadUsage(
            f"there is no checkout of turnscope in or above {str(here)!r}, and the benchmark is "
            "not in the package: clone the repository, and call this in there"
        )
    command = [sys.executable, str(root / "bench" / "run.py"), "--quick", *arguments]
    with subprocess.Popen(command) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            _end(process)
            raise
    return code if code >= 0 else 128 - code  # as a shell says that a signal has ended it


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let *process* end: a terminal has told it too, anybody else has told us alone."""
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()


def _is_checkout(folder: Path) -> bool:
    """Whether *folder* is turnscope's own: many projects have a ``bench/run.py``."""
    if not (folder / "bench" / "run.py").is_file():
        return False
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(project.get("project", {}).get("name") == "turnscope")
