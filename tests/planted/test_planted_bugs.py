"""The properties are worth what they catch: each planted bug must be found by its law."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from . import (  # noqa: F401 because importing them registers their bugs
    bugs_of_adaptive_limits,
    bugs_of_awaited_tasks,
    bugs_of_early_start,
    bugs_of_hedging,
    bugs_of_open_scopes,
    bugs_of_order,
    bugs_of_outputs,
    bugs_of_plans,
    bugs_of_retries,
    bugs_of_runs,
)
from .bugs import BUGS, Bug


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found_by_its_law(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    @settings(
        max_examples=bug.examples,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(example=bug.drawn)
    def law(example: Any) -> None:
        bug.law(example, bug.loop)

    bug.patch(monkeypatch)
    with pytest.raises(bug.seen_as):
        law()
