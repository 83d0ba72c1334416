"""What a run may spend, and a tree of who has spent what.

A run inside a tool spends its own budget and that of every run above it, so that no nesting can
spend more than the outermost was given. Pure. Above: the conductor of a run. Below: the values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import attrs

from ._errors import BudgetExceeded
from ._messages import Usage


def _above_zero(_budget: Budget, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(
            f"Budget({attribute.name}={value!r}): a budget is a number above 0, or math.inf"
        )


@attrs.frozen(kw_only=True)
class Budget:
    """How much one run, with the runs in its tools, may spend before `BudgetExceeded` ends it.

    Raises ValueError for a number that is not above 0.
    """

    turns: float = attrs.field(default=50, validator=_above_zero)
    """Responses of the model. 50 by default: a model that never comes to an end shall not cost
    without end."""
    calls: float = attrs.field(default=math.inf, validator=_above_zero)
    """Tool calls; those beyond it are ``not_started``."""
    tokens: float = attrs.field(default=math.inf, validator=_above_zero)
    """Input and output of all requests, as the server reports them. Known only after a response:
    the calls of the one that goes beyond it are ``not_started``."""
    seconds: float = attrs.field(default=math.inf, validator=_above_zero)
    """From the start of the run, on the event loop's clock."""


_Account: TypeAlias = "Callable[[Ledger], tuple[float, float]]"


class Ledger:
    """What one run has spent, and the ledger of the run above it."""

    __slots__ = ("_budget", "_calls", "_parent", "_turns", "usage")

    def __init__(self, budget: Budget, parent: Ledger | None) -> None:
        self._budget = budget
        self._parent = parent
        self._turns = 0
        self._calls = 0
        self.usage = Usage()
        """Of the run and the runs below it."""

    def spend_turn(self) -> BudgetExceeded | None:
        """Take one turn from here to the root; says what is spent, and takes nothing then."""
        spent = self._spent("turns", lambda each: (each._turns, each._budget.turns))
        if spent is None:
            spent = self.overspent()
        if spent is None:
            each: Ledger | None = self
            while each is not None:
                each._turns += 1
                each = each._parent
        return spent

    def spend_call(self) -> BudgetExceeded | None:
        """Take one call from here to the root; says what is spent, and takes nothing then."""
        spent = self._spent("calls", lambda each: (each._calls, each._budget.calls))
        if spent is None:
            each: Ledger | None = self
            while each is not None:
                each._calls += 1
                each = each._parent
        return spent

    def add(self, usage: Usage) -> None:
        """Note what a request has used, from here to the root."""
        each: Ledger | None = self
        while each is not None:
            each.usage += usage
            each = each._parent

    def overspent(self) -> BudgetExceeded | None:
        """Whether the tokens are spent, here or above."""
        return self._spent("tokens", lambda each: (each.usage.tokens, each._budget.tokens))

    def _spent(self, what: str, of: _Account) -> BudgetExceeded | None:
        each: Ledger | None = self
        while each is not None:
            spent, limit = of(each)
            if spent >= limit:
                return BudgetExceeded(what, limit)
            each = each._parent
        return None
