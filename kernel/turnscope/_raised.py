"""Exceptions as they came out of a body: what is in them, and how a model reads them.

Task groups wrap what one task raised, cancellations travel beside errors, and a failure may lie
under the cancellation that overtook it. Pure. Above: whoever names an outcome, or decides whether
to try again. Below: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from ._interrupt import Expelled


def described(exc: BaseException) -> str:
    """An exception as a model reads it: its type and text; of a group, those of its members."""
    if members := _members(exc):
        shown = "; ".join(described(member) for member in members[:10])
        return f"{len(members)} errors: {shown}"
    try:
        text = str(exc)
    except Exception:  # a __str__ of the tool's own that fails
        text = ""
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def unwrapped(exc: BaseException, cancelled: type[BaseException]) -> BaseException:
    """*exc* without groups of one, and without the cancellations that travel beside errors.

    A cancellation, if *exc* is nothing else. What a group that is dropped was raised over is
    reachable from what it held.
    """
    while members := _members(exc):
        errors = [member for member in members if not isinstance(member, cancelled)]
        if len(errors) > 1:
            rest = cast("BaseExceptionGroup[BaseException]", exc).split(cancelled)[1]
            if rest is None or len(rest.exceptions) > 1:
                return rest or next(_leaves(exc))
            inner: BaseException = rest
        else:
            inner = (errors or members)[0]
        below = exc.__cause__ or exc.__context__
        chain = list(_chain(inner))
        if below is not None and not {id(e) for e in chain} & {id(e) for e in _chain(below)}:
            chain[-1].__context__ = below
        exc = inner
    return exc


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """*exc*, and what it was raised from or over, to the bottom."""
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        yield exc
        exc = exc.__cause__ or exc.__context__


def beneath(exc: BaseException, cancelled: type[BaseException]) -> BaseException | None:
    """The failure that was on its way out of the body when the interrupt came, if one was."""
    chain = _chain(exc) if exc.__cause__ or exc.__context__ else (exc,)
    return next((each for each in chain if not isinstance(each, (cancelled, Expelled))), None)


def _members(exc: BaseException) -> Sequence[BaseException]:
    """The members of a group; none of anything else (a group is never empty)."""
    if isinstance(exc, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", exc).exceptions
    return ()


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    members = _members(exc)
    if not members:
        yield exc
    for member in members:
        yield from _leaves(member)


def keyboard_interrupt(exc: BaseException) -> BaseException | None:
    """The Ctrl-C in *exc*, which may be a group, if there is one."""
    return next((leaf for leaf in _leaves(exc) if isinstance(leaf, KeyboardInterrupt)), None)
