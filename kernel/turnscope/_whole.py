"""Where Ctrl-C may land on trio: in bodies and in the caller's own code, not in a step of ours.

Trio raises KeyboardInterrupt wherever Python is just then, unless a function on the stack is
marked: then it keeps it for the main task, which gets it where it waits. What is marked here is
whole on trio. On asyncio a second Ctrl-C goes through all of it: there each step is such that the
ask that follows makes up for one that is half done. Above: all that is marked. Below: nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_WHOLE: Final[list[Callable[..., Any]]] = []


def whole(function: F) -> F:
    """Have no Ctrl-C land in *function*, nor in what it calls but for bodies, on trio."""
    _WHOLE.append(function)
    return function


def step(resume: Callable[[Any], Any], value: object) -> Any:
    """Have a body take a step, by *resume* with *value*: in here Ctrl-C may land."""
    return resume(value)


def keep_whole() -> None:
    """Tell trio what is marked: to be called before anything of it runs. As often as one likes."""
    import trio

    for function in _WHOLE:
        trio.lowlevel.enable_ki_protection(function)
    trio.lowlevel.disable_ki_protection(step)
