"""From a function to a tool: the decorator, and what becomes a tool when it is handed in.

Above: the routes, agents and plans, which take functions too. Below: the tools.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

from ._tools import OnError, Tool

if TYPE_CHECKING:
    from ._keys import Keys
    from ._retry import Retry

P = ParamSpec("P")
R = TypeVar("R")


@overload
def tool(fn: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    backend: str = "auto",
    timeout: float | None = None,
    idle_timeout: float | None = None,
    limit: str | None = None,
    read_only: bool = False,
    idempotent: bool = False,
    destructive: bool = False,
    early: bool | None = None,
    on_error: OnError = "result",
    reads: Keys = (),
    writes: Keys = (),
    exclusive: bool = False,
    retry: Retry | None = None,
    hedge: float | None = None,
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...
def tool(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a tool of a function, bare (``@tool``) or with options (``@tool(timeout=5)``).

    name: what the model calls it; by default the function's name.
    description: what the model reads; by default the docstring, without its parameters, whose
        texts go into the schema (Google, NumPy and reST styles).
    backend: where calls run: "inline" (in the event loop), "thread", "process", or the name of a
        backend of your own; "auto" is inline for ``async def`` and thread for ``def``.
    timeout: seconds from the start of the body until it is interrupted, all attempts included.
    idle_timeout: seconds without ``heartbeat()`` or ``progress()`` until it is interrupted.
    limit: a group of ``Limits(groups=...)`` in which its calls count.
    read_only, idempotent, destructive: what a call does to the world, as MCP hints it.
    early: whether calls start while the model still streams; by default those of read_only tools.
    on_error: "result" tells the model of an exception and lets the turn go on; "raise" ends the
        turn with it; a function of the exception gives the text that the model reads.
    reads, writes: keys of what a call reads and writes: a text, such as ``"file/{path}"``, where a
        parameter stands for its value; a function of the arguments, which returns one or several;
        or several of these. Calls that share a key, or of which one's is an ancestor of the other's
        along ``/``, wait for one another if one of them writes it: in call order, in a turn. All
        forms of one path meet: in a parameter that is a Path, or a text if it or the template
        before it speaks of a file, path, dir, directory or folder; in other values ``/`` is
        escaped. ``{name:path}`` and ``{name:text}`` say which it is.
    exclusive: whether a call runs alone in its turn.
    retry: what to do again when it fails, for a tool that is read_only or idempotent.
    hedge: seconds after which a slow body gets a second one beside it; the first to succeed counts.

    Raises what `Tool` raises.
    """

    def made(fn: Callable[..., Any]) -> Tool[..., Any]:
        return Tool(fn, **options)

    return made if fn is None else made(fn)


@lru_cache(maxsize=512)
def _remembered(fn: Callable[..., Any]) -> Tool[..., Any]:
    return Tool(fn)


def as_tool(fn: Tool[..., Any] | Callable[..., Any]) -> Tool[..., Any]:
    """The Tool that *fn* is, or one made of it.

    Those made of plain functions are remembered, because a schema takes a while. Not those of
    closures, which would be kept alive, nor of objects, which may equal one another.
    """
    if isinstance(fn, Tool):
        return cast("Tool[..., Any]", fn)
    if inspect.isfunction(fn) and fn.__closure__ is None:
        return _remembered(fn)
    return Tool(fn)
