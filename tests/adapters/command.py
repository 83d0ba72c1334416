"""Runs the real command in a process of its own, as a terminal or another program would."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

SCRIPT = [str(Path(sysconfig.get_path("scripts")) / "turnscope")]
MODULE = [sys.executable, "-m", "turnscope_adapters.cli"]
SECONDS = 60
"""After which a command is taken to hang: far more than any takes."""
MOMENT = 10
"""Seconds that a child of a command which has ended may take to end as well."""


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what steers output, and *more*."""
    steering = (
        "PYTHONUNBUFFERED",
        "NO_COLOR",
        "FORCE_COLOR",
        "COLUMNS",
        "LINES",
        "TERM",
        "PYTHONIOENCODING",
    )
    kept = {name: value for name, value in os.environ.items() if name not in steering}
    return kept | {"PYTHONIOENCODING": "utf-8"} | more


def run(
    *arguments: str | bytes,
    command: Sequence[str] = MODULE,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run *command* with *arguments* to its end."""
    return subprocess.run(
        [*command, *arguments],
        cwd=cwd,
        env=environment(**(env or {})),
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
        stdin=subprocess.DEVNULL,
    )


def events(output: str) -> list[dict[str, Any]]:
    """Each line of *output* as an event; a line that is no JSON fails."""
    return [json.loads(line) for line in output.splitlines()]


def one_line(text: str) -> str:
    """*text*, which is one line of the command's own and nothing else."""
    assert text.startswith("turnscope: ") and text.endswith("\n") and text.count("\n") == 1, text
    return text.strip()


def on_a_terminal(
    *arguments: str, env: Mapping[str, str], cwd: Path | None = None
) -> tuple[int, str]:
    """Run the command on a terminal of 100 columns; its exit code and all that it wrote."""
    ours, theirs = pty.openpty()
    chunks: list[bytes] = []

    def read() -> None:
        try:
            while chunk := os.read(ours, 65536):
                chunks.append(chunk)
        except OSError:  # how Linux says that nobody holds the other end any more
            return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        done = subprocess.run(
            [*MODULE, *arguments],
            cwd=cwd,
            env=environment(COLUMNS="100", LINES="40", **env),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            timeout=SECONDS,
        )
    finally:
        os.close(theirs)
        reader.join(SECONDS)
        os.close(ours)
    return done.returncode, b"".join(chunks).decode()


class Running:
    """A command under way, at the head of a process group of its own."""

    def __init__(self, *arguments: str, cwd: Path | None = None) -> None:
        self._process = subprocess.Popen(
            [*MODULE, *arguments],
            cwd=cwd,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
            # Where this suite runs in the background, Ctrl-C is ignored, and that is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self._seen: list[str] = []
        self._children: set[psutil.Process] = set()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(SECONDS)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def read_until(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Read events until one is *wanted*; what was read is kept for `end`."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._seen.append(line)
            if wanted(json.loads(line)):
                return
        raise AssertionError(f"it ended before: {''.join(self._seen)}")

    def wait_for_workers(self) -> None:
        """Wait until a worker process is starting; works without reading a line."""
        until = time.monotonic() + SECONDS
        while not any("turnscope-worker" in _command_line(child) for child in self._children):
            assert time.monotonic() < until and self._process.poll() is None
            self._note_children()
            time.sleep(0.01)

    def interrupt(self, *, group: bool) -> None:
        """Press Ctrl-C: as a terminal does, for its whole *group*, or for the command alone."""
        self._note_children()
        (os.killpg if group else os.kill)(self._process.pid, signal.SIGINT)

    def _note_children(self) -> None:
        self._children |= set(psutil.Process(self._process.pid).children(recursive=True))

    def end(self, seconds: float) -> tuple[int, str, str]:
        """Its exit code, standard output and error; fails if it takes longer than *seconds*."""
        assert self._process.stdout is not None and self._process.stderr is not None
        killer = threading.Timer(seconds, self._process.kill)
        killer.start()
        try:
            # Not `communicate`, which does not know of lines that were read ahead.
            rest, errors = self._process.stdout.read(), self._process.stderr.read()
            code = self._process.wait()
        finally:
            killer.cancel()
        assert code != -signal.SIGKILL, f"it had not ended after {seconds} seconds"
        return code, "".join(self._seen) + rest, errors

    def survivors(self) -> list[psutil.Process]:
        """Its children that still run a moment after its end."""
        until = time.monotonic() + MOMENT
        while (alive := [each for each in self._children if not gone(each)]) and (
            time.monotonic() < until
        ):
            time.sleep(0.01)
        return alive


def gone(process: psutil.Process) -> bool:
    """Whether *process* has ended, reaped or not."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it was reaped between the two looks
        return True


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended meanwhile
        return ""
