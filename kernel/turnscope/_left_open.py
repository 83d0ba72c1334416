"""Cancel scopes and task groups that a body leaves open: found when it ends, and closed for it.

A generator that is not read to its end keeps its ``with`` blocks open in the task that read it.
AnyIO then refuses to leave the scopes around them, on asyncio for good: so one tool would break its
turn, and by the task groups above it the kernel, with every run. Neither AnyIO nor trio can be
asked what is open; so this reads attributes of theirs that are private, and finds nothing where
they are gone. Above: the attempt, by way of the loop. Below: AnyIO and trio.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import anyio


class Blocks(Protocol):
    """What finds and closes them, on one event loop."""

    def inside(self, scope: Any, /) -> Sequence[Any]:
        """Those that the running task has open inside of *scope*, the innermost first."""
        ...

    def close(self, found: Sequence[Any], /) -> None:
        """Cancel what runs in them, and have the running task leave them."""
        ...


def close(blocks: Blocks, found: Sequence[Any], name: str) -> None:
    """Close what the body of the call *name* has left open, and say so: it is a mistake there."""
    import logging  # here, because it is 3 % of the import of turnscope

    blocks.close(found)
    logging.getLogger("turnscope").warning(
        "%r ended inside of %d cancel scopes or task groups, which have been closed: a generator "
        "that has one around a yield is to be closed by who stops to read it, as by "
        "contextlib.aclosing",
        name,
        len(found),
    )


class _Unknown:
    """For versions of AnyIO or trio that are made otherwise."""

    def inside(self, scope: Any, /) -> Sequence[Any]:
        return ()

    def close(self, found: Sequence[Any], /) -> None:
        """Nothing is ever found."""


class _OnAsyncio:
    """By the children that AnyIO's scopes know."""

    def __init__(self, running: Callable[[], object]) -> None:
        self._running = running

    def inside(self, scope: Any, /) -> Sequence[Any]:
        if not scope._child_scopes:
            return ()
        running, found = self._running(), list[Any]()
        while scope is not None:
            # A child may be another task's, which was started here by ``start``.
            ours = [child for child in scope._child_scopes if child._host_task is running]
            scope = ours[0] if ours else None
            found[:0] = ours
        return found

    def close(self, found: Sequence[Any], /) -> None:
        for scope in found:
            scope.cancel()
            scope.__exit__(None, None, None)


class _OnTrio:
    """By the scopes, and the nurseries, that trio's task is in."""

    def __init__(self, running: Callable[[], Any]) -> None:
        self._running = running

    def inside(self, scope: Any, /) -> Sequence[Any]:
        status = self._running()._cancel_status
        end = scope._CancelScope__original._cancel_status
        if status is end:
            return ()
        found: list[Any] = []
        while status is not end and status is not None:
            found.append(status._scope)
            status = status.parent
        return found

    def close(self, found: Sequence[Any], /) -> None:
        nurseries = self._running()._child_nurseries
        for scope in found:
            scope.cancel()
            scope.__exit__(None, None, None)
            nurseries[:] = [each for each in nurseries if each.cancel_scope is not scope]


def blocks_on_asyncio(running: Callable[[], object]) -> Blocks:
    """Those of the running asyncio loop; *running* finds its task."""
    scope = anyio.CancelScope()
    known = hasattr(scope, "_child_scopes") and hasattr(scope, "_host_task")
    return _OnAsyncio(running) if known else _Unknown()


def blocks_on_trio(running: Callable[[], Any]) -> Blocks:
    """Those of the running trio loop; *running* finds its task."""
    task = running()
    original = getattr(anyio.CancelScope(), "_CancelScope__original", None)
    known = (
        hasattr(original, "_cancel_status")
        and hasattr(task, "_child_nurseries")
        and hasattr(getattr(task, "_cancel_status", None), "_scope")
    )
    return _OnTrio(running) if known else _Unknown()
