"""What goes to a worker process and what comes back from it, seen from the parent.

Functions go by name and arguments by value; values and exceptions come back as they are, or, if
they do not survive the journey, as words. Above: `_process` and `_pool`. Below: `_worker`, which
runs at the other end.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from ._worker import follow, load, type_name


class Outcome(NamedTuple):
    """What a call came to. Nothing in it can fail to be pickled or rebuilt."""

    ok: bool
    """Whether the function returned; the rest then speaks of its value, else of its exception."""
    pickled: bytes | None
    """The value or exception; None if it does not survive the journey."""
    type_name: str
    text: str
    """Why the value cannot be pickled; what the exception says."""
    traceback: str = ""


def path_to(fn: Callable[..., object]) -> tuple[str, str] | None:
    """Module and dotted path that lead to *fn*, or None; under a decorator it is ``name.fn``."""
    module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    if isinstance(module, str) and isinstance(name, str):
        for path in (name, f"{name}.fn"):
            try:
                if follow(module, path) is fn:
                    return module, path
            except (ImportError, AttributeError):
                continue
    return None


def first() -> tuple[list[str], str | None]:
    """What a new worker is told first: where modules are, and the file of the main script."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    return list(sys.path), script if script and os.path.isfile(script) else None


def pack(kwargs: Mapping[str, Any]) -> bytes:
    """Pickle the arguments. Raises TypeError that names the parameter which cannot be."""
    try:
        return pickle.dumps(dict(kwargs), pickle.HIGHEST_PROTOCOL)
    except Exception as whole:
        for name, value in kwargs.items():
            try:
                pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
            except Exception as exc:
                raise TypeError(
                    f"the argument {name!r}, of type {type_name(value)}, cannot be sent to a "
                    f"worker process ({exc}); pass plain data, or use the thread backend"
                ) from exc
        raise TypeError(f"the arguments cannot be sent to a worker process ({whole})") from whole


def pack_around(carried: AbstractContextManager[object] | None) -> bytes | None:
    """Pickle what a call is to be in, if anything. Raises TypeError if that cannot be."""
    if carried is None:
        return None
    try:
        return pickle.dumps(carried, pickle.HIGHEST_PROTOCOL)
    except Exception as exc:
        raise TypeError(
            f"what carry= gave, of type {type_name(carried)}, cannot be sent to a worker process "
            f"({exc}); return an object of a class at module level, with plain data"
        ) from exc


def unpack(outcome: Outcome) -> Any:
    """Return the value that came back, or raise the exception, noting the worker's traceback.

    An exception that does not survive pickling is told of by a RuntimeError; a value that does not,
    by a TypeError that names its type.
    """
    if outcome.ok:
        reason = outcome.text
        if outcome.pickled is not None:
            try:
                return load(outcome.pickled)
            except Exception as exc:
                reason = f"{type(exc).__name__}: {exc}"
        raise TypeError(
            f"the result, of type {outcome.type_name}, cannot be sent back from a worker process "
            f"({reason}); return plain data, or use the thread backend"
        )
    error = exception(outcome)
    try:
        raise error
    finally:
        del error  # an exception held by a frame of its own traceback is a cycle


def exception(outcome: Outcome) -> BaseException:
    """What was raised in the worker, with the traceback from there as a note."""
    error: BaseException | None = None
    if outcome.pickled is not None:
        try:
            error = load(outcome.pickled)
        except Exception:
            error = None  # an import that only the worker can do: its words will have to serve
    if error is None:
        error = RuntimeError(f"{outcome.type_name}: {outcome.text}")
    error.add_note(f"in a worker process:\n\n{outcome.traceback}")
    return error
