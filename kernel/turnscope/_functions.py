"""What a function says of itself, of which a tool is made. Above: the tools. Below: nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial


def function_of(fn: Callable[..., object]) -> Callable[..., object]:
    """What `inspect` should look at: under partials, and the ``__call__`` of an object."""
    while isinstance(fn, partial):
        fn = fn.func
    if not inspect.isroutine(fn) and not inspect.isclass(fn):
        call: Callable[..., object] = type(fn).__call__
        return call
    return fn


def name_of(fn: Callable[..., object]) -> str:
    """What *fn* is called, under partials too."""
    while isinstance(fn, partial):
        fn = fn.func
    name: str = getattr(fn, "__name__", type(fn).__name__)
    return name


def place_of(fn: Callable[..., object]) -> str:
    """The backend for *fn* where none is named."""
    function = function_of(fn)
    is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    return "inline" if is_async else "thread"


def in_class_body(fn: Callable[..., object]) -> bool:
    """Whether *fn* may become a method: it stands in a class."""
    outer = getattr(fn, "__qualname__", "").rpartition(".")[0]
    return inspect.isfunction(fn) and bool(outer) and not outer.endswith("<locals>")
