"""Whether the options of a tool can work, and fit together. Above: the tools. Below: `Retry`."""

from __future__ import annotations

import inspect

from ._retry import Retry


def check_times(name: str, **spans: float | None) -> None:
    """Raise ValueError unless each of *spans*, options of the tool *name*, is one in seconds."""
    for option, seconds in spans.items():
        if seconds is not None and not seconds > 0:
            raise ValueError(
                f"tool {name!r}: {option} is a span in seconds above 0, not {seconds!r}"
            )


def check_on_error(name: str, on_error: object) -> None:
    """Raise ValueError or TypeError unless *on_error* says what becomes of an exception."""
    if on_error not in ("result", "raise") and not callable(on_error):
        raise ValueError(
            f"tool {name!r}: on_error is 'result', 'raise' or a function of the exception"
        )
    if inspect.iscoroutinefunction(on_error):
        raise TypeError(f"tool {name!r}: on_error gives a text at once; make it a def")


def check_twice(
    name: str, early: object, retry: object, hedge: float | None, *, safe: bool
) -> None:
    """Raise unless what may run the tool *name* once more than it counts is *safe*, and can work.

    TypeError if *retry* is no Retry, ValueError for all else.
    """
    check_early(name, early, safe=safe)
    check_retry(name, retry, safe=safe)
    check_hedge(name, hedge, safe=safe)


def check_early(name: str, early: object, *, safe: bool) -> None:
    """Raise ValueError if calls of the tool *name* may start *early*, and that is not *safe*."""
    if early and not safe:
        raise ValueError(
            f"tool {name!r}: early=True starts calls that may come to count for nothing; say that "
            "this does no harm, by read_only=True or idempotent=True, or drop it"
        )


def check_hedge(name: str, hedge: float | None, *, safe: bool) -> None:
    """Raise ValueError if calls of the tool *name* may have two bodies, and that is not *safe*."""
    check_times(name, hedge=hedge)
    if hedge is not None and not safe:
        raise ValueError(
            f"tool {name!r}: hedge= runs a second body beside one that is slow: what the tool does "
            "may be done twice. Say idempotent=True, or read_only=True, if that does no harm"
        )


def check_retry(name: str, retry: object, *, safe: bool) -> None:
    """Raise unless *retry* may be that of the tool *name*, which is *safe* to be run twice or not.

    TypeError if it is no Retry, ValueError if a second run could do a second time what the first
    has done.
    """
    if retry is None:
        return
    if not isinstance(retry, Retry):
        raise TypeError(f"tool {name!r}: retry={retry!r} is no Retry, as Retry(attempts=3)")
    if not safe:
        raise ValueError(
            f"tool {name!r}: retry= is for tools that may run twice: an attempt that failed may "
            "have done its work. Say idempotent=True, or read_only=True, if that is so"
        )
