"""Where calls run: backends found by name, checked before use, opened once, closed with the kernel.

The kernel imports no backend. A name is looked for among the instances handed to the kernel, then
among the entry points of the group ``turnscope.backends``. Each backend that is used is entered and
left in one task of its own, because it may hold task groups. Above: the kernel. Below: the port.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import attrs
from anyio import CancelScope, Event
from anyio.abc import TaskGroup

from ._limits import Limiter
from ._tools import Tool
from .abc import Backend

if TYPE_CHECKING:
    from ._schema import Parameters

GROUP: Final = "turnscope.backends"


@lru_cache(maxsize=1)
def _offered() -> dict[str, Callable[[], Callable[[], Backend]]]:
    # Here, because this import takes 25 ms, and once, because it reads every distribution.
    from importlib.metadata import entry_points

    return {point.name: point.load for point in entry_points(group=GROUP)}


class Place:
    """One backend in one kernel, and whether it is open."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.name = backend.name
        self.ready = False
        """Whether calls may go ahead; read on each call, so an attribute."""
        self._error: BaseException | None = None
        self._opening: Event | None = None
        self._scope: CancelScope | None = None
        self._checked: WeakSet[Tool[..., Any]] = WeakSet()

    def check(self, tool: Tool[..., Any]) -> None:
        """Have the backend refuse *tool* if it can never run it; once for each tool."""
        if tool not in self._checked:
            try:
                self.backend.check(tool.fn)
            except (TypeError, ValueError) as exc:
                exc.add_note(f"while checking the tool {tool.name!r} for the backend {self.name!r}")
                raise
            self._checked.add(tool)

    def open(self, hosts: TaskGroup, closing: Event) -> None:
        """Start to open the backend, if it is not open; it closes when *closing* is set."""
        if not self.ready and self._opening is None:
            self._opening = Event()
            hosts.start_soon(self._host, self._opening, closing, name=f"backend {self.name}")

    async def _host(self, opening: Event, closing: Event) -> None:
        try:
            with CancelScope() as self._scope:
                async with self.backend:
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
        """Wait until calls may go ahead; raises what the opening raised."""
        if self._opening is not None:
            await self._opening.wait()
        if not self.ready:
            raise self._error or RuntimeError(f"the backend {self.name!r} is closed")


@attrs.frozen(eq=False)
class Route:
    """A tool's way in one kernel: its backend, the limiters to pass in their order, its check."""

    place: Place
    limiters: tuple[Limiter, ...]
    parameters: Parameters


class Places:
    """The backends of one kernel, by name."""

    def __init__(self, backends: Iterable[Backend]) -> None:
        self._places: dict[str, Place] = {}
        for backend in backends:
            if not isinstance(backend, Backend):
                raise TypeError(
                    f"Kernel(backends=[...]) takes backends as in turnscope.abc.Backend, not "
                    f"{backend!r}: pass an instance with name, check and call"
                )
            if backend.name in self._places:
                raise ValueError(f"two backends are named {backend.name!r}")
            self._places[backend.name] = Place(backend)

    def give_up(self) -> None:
        """Told that the kernel closes: stop opening what nobody will use."""
        for place in self._places.values():
            place.give_up()

    def find(self, name: str) -> Place:
        """The place named *name*; raises ValueError that names those there are."""
        place = self._places.get(name)
        if place is None:
            load = _offered().get(name)
            if load is None:
                known = ", ".join(sorted({*self._places, *_offered()})) or "none"
                raise ValueError(
                    f"no backend is named {name!r} (there are: {known}): hand an instance to "
                    "Kernel(backends=[...]), or install the package that offers it"
                )
            place = self._places[name] = Place(load()())
        return place
