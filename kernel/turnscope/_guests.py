"""What the kernel opens on first use and closes with itself: backends and models.

Each is an async context manager, entered and left in one task of its own, because it may hold task
groups. Above: places and models. Below: AnyIO.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from anyio.abc import TaskGroup


class Guest:
    """One context manager in one kernel, and whether it is open; None needs no opening."""

    def __init__(self, guest: AbstractAsyncContextManager[Any, Any] | None, name: str) -> None:
        self._guest = guest
        self.name = name
        self.ready = guest is None
        """Whether it may be used; read on each call, so an attribute."""
        self._error: BaseException | None = None
        self._opening: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None

    def open(self, hosts: TaskGroup, closing: anyio.Event) -> None:
        """Start to open it, if it is not open; it closes when *closing* is set."""
        if not self.ready and self._opening is None:
            self._opening = anyio.Event()
            hosts.start_soon(self._host, self._opening, closing, name=self.name)

    async def _host(self, opening: anyio.Event, closing: anyio.Event) -> None:
        try:
            with anyio.CancelScope() as self._scope:
                assert self._guest is not None  # because it was not ready
                async with self._guest:
                    self.ready = True
                    opening.set()
                    await closing.wait()
        except Exception as exc:
            if self.ready:
                raise
            # The calls that wait for it say so; the next turn tries again.
            self._error = exc
        finally:
            self.ready = False
            self._opening = None
            opening.set()

    def give_up(self) -> None:
        """Told that the kernel closes: stop opening, if that is still under way."""
        if self._scope is not None and not self.ready:
            self._scope.cancel()

    async def opened(self) -> None:
        """Wait until it may be used; raises what the opening raised."""
        if self._opening is not None:
            await self._opening.wait()
        if not self.ready:
            raise self._error or RuntimeError(f"the {self.name} is closed")
