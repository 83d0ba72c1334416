"""Bodies in worker processes: for work that computes, may crash, or must be stoppable at once.

`ProcessBackend` names the function, packs its arguments, lends the call a worker and kills that
worker when the call is to end. Above: the kernel, which has the capacity and the deadlines. Below:
`_pool`, where the workers come from, and `_parcels`, what crosses over to them.
"""

from __future__ import annotations

import inspect
import os
import sys
import types
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from turnscope import CallContext, WorkerLost

from . import _parcels
from ._child import Broken
from ._pool import GUARD, Pool

T = TypeVar("T")


class ProcessBackend:
    """Runs plain functions in worker processes, each found by its module and qualified name.

    When a call is to end, its worker is killed at once, without grace; one that dies by itself is
    that call's loss alone. A worker starts in about 0.1 s, plus what the program's main script
    imports; *warm* of them are started when the backend opens. Workers belong to the backend and
    end with it: to keep them, keep the kernel open. What a tool prints is dropped: log to a file,
    or return it.

    On POSIX a kill is for the worker's whole process group: programs that were started in it, by
    this call or an earlier one, end too, unless they have left for a session or group of their own.
    For those of a worker that dies by itself nothing is promised. An idle worker is not killed but
    told to end, and leaves its programs alone; if its exit functions take more than a second, it is
    killed. If the parent is gone, a busy worker is killed after a second; on Windows it ends after
    its call.

    Context variables stay in this process. *carry* is for what a call is to have of them there: it
    is called in the call's own context, and the context manager that it returns is pickled, sent
    along, and entered around the function in the worker; None is sent to no one.
    """

    def __init__(
        self,
        warm: int = 0,
        *,
        carry: Callable[[], AbstractContextManager[object] | None] | None = None,
    ) -> None:
        if warm < 0:
            raise ValueError(f"warm is a number of workers, 0 or more, not {warm!r}")
        self._warm = warm
        self._carry = carry
        self._pool: Pool | None = None

    @property
    def name(self) -> str:
        """What tools call it: ``@tool(backend="process")``."""
        return "process"

    async def __aenter__(self) -> ProcessBackend:
        """Begin to start the warm workers, and wait for none.

        Raises RuntimeError if it is open already.
        """
        if self._pool is not None:
            raise RuntimeError("this ProcessBackend is in use; give each kernel one of its own")
        self._pool = await Pool().__aenter__()
        for _ in range(self._warm):
            self._pool.start_soon()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """End the workers and wait until they have ended; a cancellation kills them at once."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.__aexit__(exc_type, exc, traceback)

    def check(self, fn: Callable[..., object], /) -> None:
        """Refuse what no worker can run: TypeError or ValueError that says what to do.

        Raises RuntimeError in a worker that is importing a main script without a guard, where the
        script would otherwise do all its work once more.
        """
        if "__main__" not in sys.modules:  # `_worker` takes it away while it imports the script
            raise RuntimeError(f"the main script is at work again in a worker process; {GUARD}")
        if reason := _not_a_plain_function(fn):
            raise TypeError(f"{_shown(fn)} cannot run in a worker process: {reason}")
        if reason := _not_to_be_found(fn):
            raise ValueError(f"{_shown(fn)} cannot run in a worker process: {reason}")

    async def call(
        self, fn: Callable[..., T], kwargs: Mapping[str, Any], context: CallContext[Any], /
    ) -> T:
        """Run ``fn(**kwargs)`` in a worker; a cancellation kills the worker.

        Raises what *fn* raises, with the worker's traceback as a note; TypeError if an argument,
        the result or what *carry* gives cannot be pickled; `turnscope.WorkerLost` if the worker
        died; RuntimeError if none can be started, or if the backend is not open; what `check` and
        *carry* raise.
        """
        if self._pool is None:
            raise RuntimeError("open a ProcessBackend before its calls: async with backend: ...")
        place = _parcels.path_to(fn)
        if place is None:
            self.check(fn)
            raise ValueError(f"{_shown(fn)} is not to be found where it was defined")
        arguments = _parcels.pack(kwargs)
        around = None if self._carry is None else _parcels.pack_around(self._carry())
        release = context.hold()
        try:
            outcome = await self._pool.run((*place, arguments, around))
        except Broken as exc:
            raise WorkerLost(
                f"the worker process of {_shown(fn)!r} {exc}; its effects are unknown"
            ) from exc
        finally:
            release()
        value: T = _parcels.unpack(outcome)
        return value


def _shown(fn: Callable[..., object]) -> str:
    return getattr(fn, "__qualname__", None) or repr(fn)


def _not_a_plain_function(fn: Callable[..., object]) -> str | None:
    if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        return "it is async, and the event loop is in this process; use the inline backend"
    if inspect.isgeneratorfunction(fn):
        return "it is a generator, which cannot be sent back; return a list"
    if inspect.ismethod(fn):
        return "it is a bound method; move it to module level and pass what it needs as arguments"
    if not isinstance(fn, (types.FunctionType, types.BuiltinFunctionType)):
        return f"it is a {type(fn).__name__}, not a function; call it in a function at module level"
    try:
        annotations = get_type_hints(fn)
    except Exception:  # names that exist for type checkers alone
        annotations = dict(getattr(fn, "__annotations__", {}))
    for name, annotation in annotations.items():
        if name != "return" and _asks_for_context(annotation):
            return (
                f"its parameter {name!r} is a CallContext, which stays in this process; drop the "
                "parameter and pass what it needs as arguments, or use the thread backend"
            )
    return None


def _asks_for_context(annotation: object) -> bool:
    if isinstance(annotation, str):
        return "CallContext" in annotation
    return CallContext in (annotation, get_origin(annotation)) or any(
        map(_asks_for_context, get_args(annotation))
    )


def _not_to_be_found(fn: Callable[..., object]) -> str | None:
    name = getattr(fn, "__qualname__", "")
    if fn.__module__ == "__main__" and not os.path.isfile(
        getattr(sys.modules["__main__"], "__file__", None) or ""
    ):
        return "it was typed in, and a worker has no file to import it from; save it in a module"
    if "<lambda>" in name:
        return "it is a lambda, which has no name to be found by; write a def at module level"
    if "<locals>" in name:
        return "it is defined inside another function; move it to module level"
    if _parcels.path_to(fn) is None:
        return (
            f"{fn.__module__}.{name} does not lead to it, so a worker could not find it; give it "
            "its own name at module level"
        )
    return None
