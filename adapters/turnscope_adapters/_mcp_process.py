"""A server's process: in a session of its own, and gone, with all that it started, when it is left.

Signals go to the process group, by `os.killpg`: what a server started ends with it, and asyncio's
own `Process.kill` looks for the end of the process while another thread does, and may then signal
a stranger (CPython's issue 127049). Above: `_mcp_stdio`. Below: AnyIO.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Final

import anyio
import attrs
from anyio.abc import AsyncResource, Process

from ._mcp_errors import ServerUnavailable

TERM_SECONDS: Final = 1.0
"""From the polite signal to the last one."""
_REAP_SECONDS: Final = 2.0
_POLL: Final = 0.01
_CLOSE_SECONDS: Final = 0.5
_INHERITED: Final = ("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LANG", "LC_ALL", "TMPDIR")


@attrs.frozen(kw_only=True)
class Command:
    """What to start: the program and its arguments, where, and with what environment."""

    words: tuple[str, ...]
    env: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    cwd: str | os.PathLike[str] | None = None
    stderr: IO[bytes] | IO[str] | int | None = None
    """Where its standard error goes; None to keep the end of it."""

    async def start(self, name: str) -> ServerProcess:
        """Start it. Raises ServerUnavailable if there is no such program, or it cannot be run."""
        inherited = {key: os.environ[key] for key in _INHERITED if key in os.environ}
        process: Process | None = None
        try:
            # Shielded, because a process that is started but not returned would be nobody's.
            with anyio.CancelScope(shield=True):
                process = await anyio.open_process(
                    self.words,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE if self.stderr is None else self.stderr,
                    cwd=self.cwd,
                    env=inherited | dict(self.env),
                    start_new_session=True,
                )
        except (OSError, ValueError) as exc:
            said = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
            raise ServerUnavailable(
                f"the server {name!r} could not be started: {self.words[0]}: {said}", server=name
            ) from exc
        assert process is not None
        return ServerProcess(process)


@attrs.define(eq=False)
class ServerProcess:
    """A process that leads a group of its own."""

    process: Process

    @property
    def exit_words(self) -> str | None:
        """How it ended, after "it": None while it runs."""
        code = self.process.returncode
        if code is None:
            return None
        if code >= 0:
            return f"ended with exit code {code}"
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"

    async def end(self, patience: float) -> None:
        """End it, and all of its group: its input is closed, and it has *patience* seconds.

        Then come SIGTERM and, `TERM_SECONDS` later, SIGKILL. To be called in a shielded scope.
        """
        if self.process.stdin is not None:
            await _close(self.process.stdin)
        await self.ended(patience)
        if self._signal(signal.SIGTERM):
            await _until(self._gone, TERM_SECONDS)
        self.kill()
        await self.ended(_REAP_SECONDS)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                await _close(stream)
        # A pipe's other end may be held by what has left the group; asyncio would keep this one
        # open with it, and no public name leads to it.
        transport = getattr(getattr(self.process, "_process", None), "_transport", None)
        close = getattr(transport, "close", None)
        if self.process.returncode is not None and callable(close):
            close()

    def kill(self) -> None:
        """SIGKILL to what is left of the group, at once."""
        self._signal(signal.SIGKILL)

    async def ended(self, seconds: float) -> None:
        """Wait for the process, as long as *seconds*.

        Not by `wait`, which on asyncio also waits for whoever holds the other ends of its pipes.
        """
        await _until(lambda: self.process.returncode is not None, seconds)

    def _gone(self) -> bool:
        _ = self.process.returncode  # on trio, to look is to take leave of a process that has ended
        return not self._signal(0)

    def _signal(self, number: int) -> bool:
        """Whether there is a group to get the signal."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return False
        except PermissionError:  # macOS says so of one that has ended and is not yet reaped
            return True
        return True


async def _until(ended: Callable[[], bool], seconds: float) -> None:
    with anyio.move_on_after(seconds):
        while not ended():  # noqa: ASYNC110  # because the end of a group sets no event
            await anyio.sleep(_POLL)


async def _close(stream: AsyncResource) -> None:
    with anyio.move_on_after(_CLOSE_SECONDS):
        with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await stream.aclose()
