"""A limit that finds itself: one more while it does well, half when a server pushes back. Pure.

Servers do not say how many requests at once they take, and what they take changes; they say when it
is too many. This is how TCP shares a line of unknown width: additive increase, multiplicative
decrease. Above: the limiter, which has a `Window`. Below: the errors.
"""

from __future__ import annotations

import math
from typing import Any, Final

import attrs

from ._errors import ModelError, ModelsFailed
from ._record import Record

PUSHED_BACK: Final = (429, 529)
"""Too many requests; and Anthropic's, for a server that is overloaded."""


def _start(_limit: AdaptiveLimit, _attribute: object, value: Any) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"AdaptiveLimit(start={value!r}): a whole number from 1 up")


def _at_most(limit: AdaptiveLimit, _attribute: object, value: Any) -> None:
    if not isinstance(value, (int, float)) or not value >= limit.start:
        raise ValueError(
            f"AdaptiveLimit(start={limit.start!r}, at_most={value!r}): at_most is a number that is "
            "not below start, or math.inf"
        )


@attrs.frozen(eq=False, repr=False)
class AdaptiveLimit(Record):
    """How many requests at once, found out by asking: ``Limits(model_requests=AdaptiveLimit(8))``.

    It begins at *start*. It is halved, and never below 1, when a server answers 429 or 529, once
    for all requests that were under way then. It grows by one after as many answers as it allows at
    once, counting those that came while it was used in full, up to *at_most*. All runs of a kernel
    share it; requests that are refused are for the agent's `Retry` to send again.

    Raises ValueError for a *start* that is no whole number from 1 up, or an *at_most* below it.
    """

    start: int = attrs.field(default=8, validator=_start)
    """How many to begin with."""
    at_most: float = attrs.field(default=math.inf, validator=_at_most)
    """How many it may become."""


class Window:
    """What an `AdaptiveLimit` has come to."""

    __slots__ = ("_at_most", "_good", "capacity", "epoch")

    def __init__(self, limit: AdaptiveLimit) -> None:
        self.capacity: int = limit.start
        self.epoch = 0
        """How often it was halved: who began in an earlier one says nothing of this one."""
        self._at_most = limit.at_most
        self._good = 0

    def answered(self, epoch: int, *, in_full: bool) -> None:
        """Take note of an answer to a request of *epoch*, that came while it was used *in_full*."""
        if epoch != self.epoch or not in_full:
            return
        self._good += 1
        if self._good >= self.capacity and self.capacity + 1 <= self._at_most:
            self.capacity += 1
            self._good = 0

    def refused(self, epoch: int) -> None:
        """Take note that a server pushed back at a request of *epoch*."""
        if epoch == self.epoch:
            self.capacity = max(1, self.capacity // 2)
            self.epoch += 1
            self._good = 0


def pushes_back(failure: BaseException) -> bool:
    """Whether *failure* says that there were too many requests."""
    if isinstance(failure, ModelsFailed):
        return any(pushes_back(error) for error in failure.errors)
    return isinstance(failure, ModelError) and failure.status in PUSHED_BACK
