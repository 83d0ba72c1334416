"""Work that goes on outside the event loop: who counts it, and when it has really ended.

A thread that cannot be stopped outlives the await that waited for it. Its slots may be lent again
only when it has really ended, and the worker alone knows when that is: on asyncio AnyIO's limiter
gives the token back as soon as the await is abandoned (a limiter of 2 was seen with ten live
threads). So a backend takes a *hold* on the call, and the worker lets it go. Above: the attempt,
which asks whether anything is held when a call settles. The virtual clocks of `turnscope.testing`
read `outstanding`: time must not jump while real work goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anyio.lowlevel import EventLoopToken

# One lock for the process: it is held for two additions, and never while anything else is called.
_lock = threading.Lock()
_outstanding = 0


def outstanding() -> int:
    """How many holds there are of unsettled calls, in this process.

    What has leaked is written off: time does not wait for what nobody waits for any more, and
    whose event loop may not live to hear of its end.
    """
    return _outstanding


def post(token: EventLoopToken, fn: Callable[..., object], *args: object) -> bool:
    """Have *token*'s event loop call *fn* soon, from any thread; False if that loop has ended."""
    try:
        token.backend_class.run_sync_soon(fn, args, token=token.native_token)
    except RuntimeError:  # asyncio's closed loop, and the RunFinishedError of trio and AnyIO
        return False
    return True


class Holds:
    """The holds of one call: taken and settled in the event loop, let go in any thread."""

    __slots__ = ("_count", "_on_end", "_token", "_written_off")

    def __init__(self, token: EventLoopToken) -> None:
        self._token = token
        self._count = 0
        self._written_off = False
        self._on_end: Callable[[BaseException | None], object] | None = None

    def take(self) -> Release:
        """Take one hold; what is returned lets it go."""
        global _outstanding
        with _lock:
            self._count += 1
            _outstanding += 1
        return Release(self)

    @property
    def held(self) -> bool:
        """Whether there are holds that were not let go."""
        with _lock:
            return self._count > 0

    def settle(self, on_end: Callable[[BaseException | None], object]) -> bool:
        """Say that the call has settled; True if something is still held, that is, leaked.

        The event loop then calls *on_end* when the last hold has been let go, with the error that
        was given there, if any.
        """
        global _outstanding
        with _lock:
            if self._count:
                self._on_end = on_end
                self._written_off = True
                _outstanding -= self._count
            return bool(self._count)

    def _let_go(self, then: Callable[[], object] | None, error: BaseException | None) -> None:
        with _lock:
            self._count -= 1
            counted = not self._written_off
            on_end = None
            if not self._count:
                on_end, self._on_end = self._on_end, None

        def in_the_loop() -> None:
            # One step of the loop: a virtual clock never sees the work gone and its end untold.
            if counted:
                _seen()
            if then is not None:
                then()
            if on_end is not None:
                on_end(error)

        if not post(self._token, in_the_loop) and counted:
            _seen()


class Release:
    """Lets one hold go, from any thread; only the first call counts.

    The event loop then calls *then*, if given. *error* is what the work raised, for a call that
    was abandoned and cannot raise it any more: it becomes the cause of the error of its result.
    """

    __slots__ = ("_holds",)

    def __init__(self, holds: Holds) -> None:
        self._holds: Holds | None = holds

    def __call__(
        self, then: Callable[[], object] | None = None, error: BaseException | None = None
    ) -> None:
        with _lock:
            holds, self._holds = self._holds, None
        if holds is not None:
            holds._let_go(then, error)


def _seen() -> None:
    global _outstanding
    with _lock:
        _outstanding -= 1
