"""The event loops that the suite runs on, for tests that open one themselves.

Above it: conftest.py, which makes fixtures of it, and every test that calls `anyio.run`. Below it:
`turnscope.testing`, for virtual time. It refuses to know what is tested.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeVarTuple

import anyio
import attrs
import pytest

Ts = TypeVarTuple("Ts")

# What each loop is to AnyIO, by the id that it has in test names and in --loop.
LOOPS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}

NEEDS_UVLOOP = pytest.mark.skipif(
    importlib.util.find_spec("uvloop") is None,
    reason="uvloop is not installed: it has no build for this platform or this Python",
)
UVLOOP = pytest.param("uvloop", id="uvloop", marks=NEEDS_UVLOOP)

# The loops that have virtual time: uvloop's clock is in C, out of reach.
VIRTUAL = ("asyncio", "trio")


@attrs.frozen
class Loop(Mapping[str, Any]):
    """Ready keyword arguments for `anyio.run`: `anyio.run(main, **loop)`, or `loop.run(main)`.

    A virtual clock serves one run and remembers it, so each reading makes a new one: a property
    test runs hundreds of examples through one fixture.
    """

    name: str
    virtual: bool

    def run(self, main: Callable[[*Ts], Awaitable[Any]], *arguments: *Ts) -> Any:
        """Run `main(*arguments)` on a fresh loop, and return what it returns."""
        return anyio.run(main, *arguments, **self)

    def _arguments(self) -> Mapping[str, Any]:
        if self.virtual:
            # Imported late: only tests that want virtual time depend on it.
            from turnscope.testing import virtual_time

            return virtual_time(self.name)
        backend, options = LOOPS[self.name]
        return {"backend": backend, "backend_options": dict(options)}

    def __getitem__(self, key: str) -> Any:
        return self._arguments()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arguments())

    def __len__(self) -> int:
        return len(self._arguments())

    def __str__(self) -> str:
        return f"{self.name}, {'virtual' if self.virtual else 'real'} time"
