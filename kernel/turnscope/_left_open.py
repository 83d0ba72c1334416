"""Cancel scopes and task groups that a body leaves open: found when it ends, and closed for it.

A generator that is not read to its end keeps its ``with`` blocks open in the task that read it.
AnyIO then refuses to leave the scopes around them, on asyncio for good: so one tool would break its
turn, and by the task groups above it the kernel, with every run. Neither AnyIO nor trio can be
asked what is open; so this reads private attributes of theirs, and finds nothing where it does not
know them. Not found are asyncio's own timeouts and task groups, which are in no scope.

What runs in a group is cancelled, and not waited for; what it raises is the group's, which is lost.
And on trio a body that is interrupted while it has left a nursery open cleans up unshielded, as one
that is in a nursery of its own. Above: the attempt. Below: AnyIO and trio.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import anyio


class Body(Protocol):
    """What of a call its body is in."""

    @property
    def inner(self) -> anyio.CancelScope | None:
        """The innermost scope that is not the body's own."""
        ...

    @property
    def nurseries(self) -> int:
        """How many nurseries of its task are not."""
        ...


class Blocks(Protocol):
    """What finds and closes them, on one event loop."""

    def inside(self, body: Body, /) -> Sequence[Any]:
        """Those that the running task, which is the body's, has open in it."""
        ...

    def close(self, found: Sequence[Any], /) -> None:
        """Cancel what runs in them, without waiting for it, and have the running task leave."""
        ...


def mend(blocks: Blocks, body: Body, name: str) -> None:
    """Close what the *body* of the call *name* has left open, if anything, and say so."""
    if not (found := blocks.inside(body)):
        return
    import logging  # here, because it is 3 % of the import of turnscope

    blocks.close(found)
    logging.getLogger("turnscope").warning(
        "%r ended with cancel scopes or task groups open (%d): they have been closed, and what ran "
        "in them cancelled. Whoever stops to read a generator that yields inside of such a block "
        "is to close it, as by contextlib.aclosing",
        name,
        len(found),
    )


class _Unknown:
    """For versions of AnyIO or trio that are made otherwise."""

    def inside(self, body: Body, /) -> Sequence[Any]:
        return ()

    def close(self, found: Sequence[Any], /) -> None:
        """Nothing is ever found."""


class _OnAsyncio:
    """By the children that AnyIO's scopes know."""

    def __init__(self, running: Callable[[], object]) -> None:
        self._running = running

    def inside(self, body: Body, /) -> Sequence[Any]:
        scope: Any = body.inner
        if not scope._child_scopes:
            return ()
        running, found = self._running(), list[Any]()
        while scope is not None:
            # Others are of tasks that are started, by `TaskGroup.start`, or run in a group.
            ours = (child for child in scope._child_scopes if child._host_task is running)
            if (scope := next(ours, None)) is not None:
                found.insert(0, scope)
        return found

    def close(self, found: Sequence[Any], /) -> None:
        for scope in found:
            scope.cancel()
            scope.__exit__(None, None, None)


class _OnTrio:
    """By the scopes and the nurseries that trio's task is in."""

    def __init__(self, running: Callable[[], Any]) -> None:
        self._running = running

    def inside(self, body: Body, /) -> Sequence[Any]:
        task, outer = self._running(), body.nurseries
        inner: Any = body.inner
        status, end = task._cancel_status, inner._CancelScope__original._cancel_status
        if status is end and len(task._child_nurseries) == outer:
            return ()
        found: list[Any] = []
        while status is not end and status is not None:
            found.append(status._scope)
            status = status.parent
        nurseries = {each.cancel_scope: each for each in task._child_nurseries[outer:]}
        # One whose scope is not among them: the end of a block around it has left that already.
        abandoned = [each for scope, each in nurseries.items() if scope not in found]
        return [*abandoned, *(nurseries.get(scope, scope) for scope in found)]

    def close(self, found: Sequence[Any], /) -> None:
        task = self._running()
        for each in found:
            scope = each
            if each in task._child_nurseries:
                scope = each.cancel_scope
                task._child_nurseries.remove(each)
                each._nested_child_finished = _adopted(each, self._running)
            scope.cancel()
            if scope._cancel_status is task._cancel_status:
                scope.__exit__(None, None, None)


def _adopted(nursery: Any, running: Callable[[], Any]) -> Callable[[Any], Awaitable[Any]]:
    """The end of *nursery* in the task that closes its generator, which may be much later.

    That task becomes its parent. Else it would take one of ours off the list of the task that it
    was opened in, and when its last child has ended wake that one up.
    """
    end: Callable[[Any], Awaitable[Any]] = nursery._nested_child_finished

    async def ends(exc: Any) -> Any:
        nursery._parent_task = task = running()
        task._child_nurseries.append(nursery)
        return await end(exc)

    return ends


def blocks_on_asyncio(running: Callable[[], object]) -> Blocks:
    """Those of the running asyncio loop; *running* finds its task."""
    known = _has(anyio.CancelScope(), "_child_scopes", "_host_task")
    return _OnAsyncio(running) if known else _Unknown()


def blocks_on_trio(running: Callable[[], Any]) -> Blocks:
    """Those of the running trio loop; *running* finds its task."""
    task = running()
    status = getattr(task, "_cancel_status", None)
    original = getattr(anyio.CancelScope(), "_CancelScope__original", None)
    nursery = getattr(task, "parent_nursery", None)  # it has one, or it could run nothing of ours
    known = (
        _has(original, "_cancel_status")
        and _has(status, "_scope", "parent")
        and _has(task, "_child_nurseries")
        and _has(nursery, "_parent_task", "cancel_scope", "_nested_child_finished", "__dict__")
    )
    return _OnTrio(running) if known else _Unknown()


def _has(thing: object, *names: str) -> bool:
    return all(hasattr(thing, name) for name in names)
