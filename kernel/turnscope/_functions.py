"""What `inspect` says of a tool's function: its name, whether it blocks, what its body is.

Above: the tools. Below: the context, through which a generator reports.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

from ._context import current_call


def body_of(fn: Callable[..., Any], *, yields: bool) -> Callable[..., Any]:
    return partial(_drain, fn) if yields else fn


async def _drain(fn: Callable[..., AsyncGenerator[Any, None]], /, **kwargs: Any) -> Any:
    """The body of an async generator: each value is progress, the last is the result."""
    context = current_call()
    value = None
    async with aclosing(fn(**kwargs)) as values:
        async for value in values:
            context.progress(value)
    return value


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
