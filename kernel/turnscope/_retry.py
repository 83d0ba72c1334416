"""Retry: a frozen value that says what is tried again, how often, and after how long. Pure.

The arithmetic of the back-off is tenacity's; its clocks and its loops are not used, since the
kernel's time may be virtual and its waits must be ended by an ask. Above: tools and agents, which
have one; `_retrying`, which does as it says. Below: the errors.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import attrs

from ._errors import ModelError, TurnscopeError, WorkerLost
from ._limits import is_capacity
from ._record import Record

if TYPE_CHECKING:
    from tenacity import RetryCallState

On: TypeAlias = "type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]"

LONGEST_RETRY_AFTER: Final = 120.0
"""Seconds: a server that asks for more is not asked again. The same in OpenAI's client of 2026."""


def _attempts(_retry: Retry, _attribute: object, value: object) -> None:
    if not is_capacity(value):
        raise ValueError(
            f"Retry(attempts={value!r}): a whole number from 1 up, the first attempt included, or "
            "math.inf"
        )


def _on(retry: Retry, _attribute: object, on: Any) -> None:
    check_on(on, type(retry).__name__)


def check_on(on: Any, owner: str) -> None:
    """Refuse what names no failures; raises TypeError that calls it *owner*'s."""
    if on is None:
        return
    if isinstance(on, (type, tuple)):
        types = cast("tuple[object, ...]", on) if isinstance(on, tuple) else (on,)
        if not (types and all(isinstance(t, type) and issubclass(t, Exception) for t in types)):
            raise TypeError(
                f"{owner}(on={on!r}): types of Exception; what is beyond those, as a cancellation "
                "or Ctrl-C, is never tried again"
            )
    elif not callable(on):
        raise TypeError(
            f"{owner}(on={on!r}): a type of exception, a tuple of types, or a function of the "
            "exception that gives True or False"
        )
    elif inspect.iscoroutinefunction(on) or inspect.iscoroutinefunction(type(on).__call__):
        raise TypeError(f"{owner}(on=...) says True or False at once; make it a def, not async def")


def _span(_retry: Retry, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"Retry({attribute.name}={value!r}): a span in seconds, 0 or more")


def _maximum(retry: Retry, attribute: attrs.Attribute[Any], value: float) -> None:
    _span(retry, attribute, value)
    if value < retry.initial:
        raise ValueError(
            f"Retry(initial={retry.initial!r}, maximum={value!r}): no wait could be as long as the "
            "first; raise maximum"
        )


def _total(_retry: Retry, _attribute: object, value: Any) -> None:
    if value is not None and (not isinstance(value, (int, float)) or not 0 < value < math.inf):
        raise ValueError(f"Retry(total={value!r}): a span in seconds above 0, or None")


@attrs.frozen(eq=False, repr=False)
class Retry(Record):
    """What is tried again when it fails, how often, and after how long.

    ::

        Agent(model=..., retry=Retry(attempts=5, total=60))         # requests to the model
        @tool(idempotent=True, retry=Retry(on=ConnectionError))     # calls of a tool

    The waits double from *initial* to *maximum*. A server's ``Retry-After`` makes one longer. While
    it waits, a request or a call holds no slot of any limit, and an ask or a deadline ends it at
    once; if its time would be up before the wait is, it fails at once, with what it failed of.
    A call that was cancelled, or was ended by its own timeout, is not tried again.

    Raises ValueError or TypeError for what cannot work.
    """

    attempts: float = attrs.field(default=3, validator=_attempts)
    """How often at most, the first included; ``math.inf`` for as long as time allows. 3 as in the
    clients of OpenAI and Anthropic, whose ``max_retries`` is 2."""
    on: On | None = attrs.field(default=None, validator=_on, hash=False)
    """Of which failures: a type of exception, a tuple of types, or a function of the exception that
    says so. Of a group, all must be of these types.

    None: of a model request, what may pass by itself: a connection that failed, and the statuses
    that the clients of OpenAI and Anthropic try again, 408, 409, 429 and those from 500 up. Of a
    tool, whatever it raises, and `WorkerLost`; but no other error of turnscope's, such as a spent
    budget, nor a `ModelError` that will not pass."""
    initial: float = attrs.field(default=0.5, validator=_span)
    """Seconds to wait after the first failure. 0.5 as in the clients of OpenAI and Anthropic."""
    maximum: float = attrs.field(default=8.0, validator=_maximum)
    """Seconds after which the waits grow no longer. 8 as there."""
    jitter: float = attrs.field(default=0.5, validator=_span)
    """Up to how many seconds, at random, are added to each wait, so that what failed together does
    not come back together: by default as much again as the first wait. 0 for exact times."""
    total: float | None = attrs.field(default=None, validator=_total)
    """Seconds for all attempts and waits together, from the start of the first."""

    def __hash__(self) -> int:
        # Asked for in each run, by `tool_of`: a record's loop over its fields took 10,000 of the
        # 560,000 instructions of a run without calls (callgrind, Python 3.11).
        return hash((self.attempts, self.initial, self.maximum, self.jitter, self.total))


def seconds_before_next(
    retry: Retry, attempt: int, retry_after: float | None = None
) -> float | None:
    """Seconds to wait after the failure of *attempt*, from 1; None if it would be too long."""
    if retry_after is not None and not retry_after <= LONGEST_RETRY_AFTER:
        return None
    seconds = _back_off(retry.initial, retry.maximum, retry.jitter)(attempt)
    return seconds if retry_after is None else max(seconds, retry_after)


def covers(retry: Retry, failure: Exception, *, of_model: bool) -> bool:
    """Whether *failure*, of a model request or of a tool, is to be tried again.

    Raises what ``on`` raises, and TypeError if that gives something to be awaited.
    """
    if retry.on is None:
        return _passes(failure, of_model=of_model)
    return named_by(retry.on, failure)


def named_by(on: On, failure: Exception) -> bool:
    """Whether *failure* is one of those that *on* names; raises as `covers`."""
    if isinstance(on, (type, tuple)):
        return _all_of(failure, cast("type[Exception] | tuple[type[Exception], ...]", on))
    said: object = on(failure)
    if inspect.isawaitable(said):
        if inspect.iscoroutine(said):
            said.close()
        raise TypeError("on= gave something to be awaited, not True or False")
    return bool(said)


def _passes(failure: Exception, *, of_model: bool) -> bool:
    if isinstance(failure, ModelError):
        return failure.transient
    if isinstance(failure, TurnscopeError):
        return isinstance(failure, WorkerLost)
    return not of_model  # what is no ModelError is a mistake in the adapter


def _all_of(failure: BaseException, types: type[Exception] | tuple[type[Exception], ...]) -> bool:
    if isinstance(failure, BaseExceptionGroup) and not isinstance(failure, types):
        group = cast("BaseExceptionGroup[BaseException]", failure)
        return all(_all_of(member, types) for member in group.exceptions)
    return isinstance(failure, types)


@lru_cache(maxsize=64)
def _back_off(initial: float, maximum: float, jitter: float) -> Callable[[int], float]:
    # Late: it takes 10 ms to import, and most programs see no failure before they serve.
    from tenacity import RetryCallState, Retrying
    from tenacity.wait import wait_exponential, wait_random

    strategy = wait_exponential(multiplier=initial, max=maximum) + wait_random(0, jitter)
    retrying = Retrying()

    def seconds(attempt: int) -> float:
        # All that the strategies read of it is the number.
        state: RetryCallState = RetryCallState(retrying, None, (), {})
        # Beyond it the powers of 2 overflow, which is taken for the maximum, also of a wait of 0.
        state.attempt_number = min(attempt, 1_001)
        return float(strategy(state))

    return seconds
