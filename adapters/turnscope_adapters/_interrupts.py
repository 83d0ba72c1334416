"""Ctrl-C as an event that a task can wait for, so that it lands in one known place.

Left to the event loops, Ctrl-C is a cancelled main task on asyncio, a KeyboardInterrupt at any
point of the main task on trio, and a second one a KeyboardInterrupt anywhere. Here it rings a bell,
and whoever waits for the bell ends the run: the same on every event loop. Above: `_stage`. Below:
AnyIO.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from types import FrameType, TracebackType

import anyio


class Interrupts:
    """While this block is open, Ctrl-C sets `asked` and raises nothing.

    patience: seconds after the first Ctrl-C from which on one more raises KeyboardInterrupt, in
    case that the orderly end hangs.

    Where Ctrl-C is ignored already (``nohup``), and outside of the main thread, where Python takes
    no signals, nothing changes.
    """

    def __init__(self, patience: float) -> None:
        self.asked = False
        """Whether Ctrl-C was pressed."""
        self._stopped = False
        self._patience = patience
        self._asked_at = 0.0
        self._ear, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        self._previous: object = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            previous = signal.getsignal(signal.SIGINT)
            if previous not in (signal.SIG_IGN, None):
                self._previous = previous
                signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._previous is not None:
            # Who has asked once gets an orderly end: one more would only cut the last words short.
            after = signal.SIG_IGN if self.asked else self._previous
            signal.signal(signal.SIGINT, after)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # because it is what getsignal gave
        self._ear.close()
        self._bell.close()

    def _note(self, _signum: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.asked:
            self.asked, self._asked_at = True, now
        elif now > self._asked_at + self._patience:
            raise KeyboardInterrupt
        self._ring()

    def stop(self) -> None:
        """End the wait as Ctrl-C does, for another reason: `asked` stays as it is."""
        self._stopped = True
        self._ring()

    def _ring(self) -> None:
        try:
            self._bell.send(b"!")
        except BlockingIOError:
            return  # it has been rung thousands of times, and rings still

    async def wait(self) -> None:
        """Wait for Ctrl-C or `stop`; returns at once if there was one before."""
        while not (self.asked or self._stopped):
            await anyio.wait_readable(self._ear)
