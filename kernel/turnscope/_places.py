"""Where calls run: backends found by name, checked before use, opened once, closed with the kernel.

The kernel imports no backend. A name is looked for among the instances handed to the kernel, then
among the entry points of the group ``turnscope.backends``. Above: the routes. Below: the port, and
`_guests`, which opens and closes.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakSet

import attrs

from ._guests import Guest
from ._limits import Limiter
from ._tools import Tool
from .abc import Backend

if TYPE_CHECKING:
    from ._guards import Guard
    from ._schema import Parameters

GROUP: Final = "turnscope.backends"


@lru_cache(maxsize=1)
def _offered() -> dict[str, Callable[[], Callable[[], Backend]]]:
    # Here, because this import takes 25 ms, and once, because it reads every distribution.
    from importlib.metadata import entry_points

    return {point.name: point.load for point in entry_points(group=GROUP)}


class Runs(Protocol):
    """What runs bodies: a backend, or what stands in for one."""

    def call(
        self, fn: Callable[..., Any], kwargs: Mapping[str, Any], call: Any, /
    ) -> Coroutine[Any, Any, Any]:
        """Run ``fn(**kwargs)``, the body of *call*."""
        ...


class Place(Guest):
    """One backend in one kernel, and whether it is open."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend, backend.name)
        self.backend = backend
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


@attrs.frozen(eq=False, repr=False)
class Route:
    """The way of a call in one kernel: what must be open, the limiters to pass in their order."""

    place: Guest
    limiters: tuple[Limiter, ...]


@attrs.frozen(eq=False, repr=False)
class ToolRoute(Route):
    """The way of a tool's calls: also where they run, and the check of their arguments."""

    backend: Runs
    parameters: Parameters
    guard: Guard | None = None
    """What has its calls wait for others: None if nothing does, and they overlap with all."""


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
