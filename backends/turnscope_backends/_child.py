"""One worker process, as its parent holds it: started, asked, ended, killed.

A signal goes to the worker's whole group, by `os.killpg`, and never by a method of the process
object: those poll first, and so may reap a dead child before asyncio's child watcher does, which
then complains on standard error (CPython's gh-127049). For the same reason the object is closed
only when its process has ended. Above: `_pool`. Below: `anyio.open_process`, and `_worker`, the
program that is run. It knows nothing of tools.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any, Final

import anyio
from anyio.abc import Process

from . import _worker

NAME: Final = "turnscope-worker"
"""An argument that does nothing but show in lists of processes what this one is."""

if sys.platform == "win32":  # there Ctrl-C goes to each process of the console, but for these
    _FLAGS = subprocess.CREATE_NEW_PROCESS_GROUP
else:
    _FLAGS = 0

_LOST: Final = (
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    OSError,
    RuntimeError,  # uvloop's, of a pipe that nobody reads any more
)


class Broken(Exception):
    """A worker that gave no answer; the text says in what way. It has ended."""


class Child:
    """A worker process, at the head of a session and process group of its own (POSIX)."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process = process
        self._requests = process.stdin
        self._answers = process.stdout
        self._ahead = bytearray()

    @classmethod
    async def start(cls) -> Child:
        """Start a worker, which then waits for its first request. Raises OSError."""
        # -P: the folder of the file holds nothing that a worker is to find by itself.
        command = [sys.executable, "-P", _worker.__file__, NAME]
        process: Process | None = None
        # A moment; a cancellation in the middle of it would leave a process that nobody knows of.
        with anyio.CancelScope(shield=True):
            process = await anyio.open_process(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                creationflags=_FLAGS,
            )
        assert process is not None
        return cls(process)

    @property
    def usable(self) -> bool:
        """Whether it lives, as far as is known, and has sent nothing but answers."""
        return self._process.returncode is None and not self._ahead

    async def ask(self, request: tuple[Any, ...]) -> Any:
        """Send *request* and wait for the answer. Whatever else happens, the worker is killed.

        Raises `Broken` if the worker dies or sends what is no answer.
        """
        answered = False
        try:
            await self._requests.send(
                _worker.framed(pickle.dumps(request, pickle.HIGHEST_PROTOCOL))
            )
            length = _worker.length(await self._exactly(_worker.HEAD))
            answer = pickle.loads(await self._exactly(length))
            answered = True
            return answer
        except _LOST as exc:
            raise Broken("died (killed, crashed, out of memory, or by os._exit)") from exc
        except Exception as exc:  # unpickling may raise anything
            raise Broken(f"sent what is no answer, and was killed ({exc})") from exc
        finally:
            if not answered:
                await self.kill()

    async def _exactly(self, size: int) -> bytearray:
        while len(self._ahead) < size:
            self._ahead += await self._answers.receive()
        taken = self._ahead[:size]
        del self._ahead[:size]
        return taken

    async def end(self) -> None:
        """Let an idle worker end, with its exit functions; kill it if that takes over a second.

        It has ended when this returns or raises. A cancellation kills it at once.
        """
        try:
            with anyio.move_on_after(_worker.LAST):
                await self._requests.aclose()
                await self._process.wait()
        finally:
            await self.kill()

    async def kill(self) -> None:
        """Kill it and its group, unless it has ended, and wait until it has; no cancellation helps.

        What it has started belongs to its group, unless it has left that by itself.
        """
        with anyio.CancelScope(shield=True):
            if self._process.returncode is None:
                if sys.platform == "win32":
                    with suppress(ProcessLookupError):
                        self._process.kill()
                else:
                    # macOS says "not permitted" of a group in which all are dead.
                    with suppress(ProcessLookupError, PermissionError):
                        os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
            await self._process.aclose()
