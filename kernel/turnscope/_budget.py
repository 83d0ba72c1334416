"""What a run may spend, and a tree of who has spent what.

A run inside a tool spends its own budget and that of every run above it, so that no nesting can
spend more than the outermost was given. Pure. Above: the conductor of a run. Below: the values.
"""

from __future__ import annotations

import math
from typing import Any

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


class Ledger:
    """What one run has spent, and the ledger of the run above it."""

    __slots__ = (
        "_budget",
        "_cached",
        "_calls",
        "_input",
        "_output",
        "_parent",
        "_reasoned",
        "_turns",
    )

    def __init__(self, budget: Budget, parent: Ledger | None) -> None:
        self._budget = budget
        self._parent = parent
        self._turns = 0
        self._calls = 0
        # As numbers: a Usage is asked for once for a run, and added to in each turn.
        self._input = self._output = self._cached = self._reasoned = 0

    @property
    def usage(self) -> Usage:
        """Of the run and the runs below it."""
        return Usage(
            input_tokens=self._input,
            output_tokens=self._output,
            cached_tokens=self._cached,
            reasoning_tokens=self._reasoned,
        )

    def spend_turn(self) -> BudgetExceeded | None:
        """Take one turn from here to the root; says what is spent, and takes nothing then."""
        each: Ledger | None = self
        while each is not None:
            if each._turns >= each._budget.turns:
                return BudgetExceeded("turns", each._budget.turns)
            each = each._parent
        if (spent := self.overspent()) is not None:
            return spent
        each = self
        while each is not None:
            each._turns += 1
            each = each._parent
        return None

    def spend_call(self) -> BudgetExceeded | None:
        """Take one call from here to the root; says what is spent, and takes nothing then."""
        each: Ledger | None = self
        while each is not None:
            if each._calls >= each._budget.calls:
                return BudgetExceeded("calls", each._budget.calls)
            each = each._parent
        each = self
        while each is not None:
            each._calls += 1
            each = each._parent
        return None

    def has_calls(self, number: int) -> bool:
        """Whether *number* calls could be taken, from here to the root."""
        each: Ledger | None = self
        while each is not None:
            if each._calls + number > each._budget.calls:
                return False
            each = each._parent
        return True

    def add(self, usage: Usage) -> None:
        """Note what a request has used, from here to the root."""
        each: Ledger | None = self
        while each is not None:
            each._input += usage.input_tokens
            each._output += usage.output_tokens
            each._cached += usage.cached_tokens
            each._reasoned += usage.reasoning_tokens
            each = each._parent

    def overspent(self) -> BudgetExceeded | None:
        """What is spent of the tokens, here or above; None if there are some left."""
        each: Ledger | None = self
        while each is not None:
            if each._input + each._output >= each._budget.tokens:
                return BudgetExceeded("tokens", each._budget.tokens)
            each = each._parent
        return None
