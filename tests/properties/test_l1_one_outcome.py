"""Every call settles exactly once, whatever happens to it."""

from __future__ import annotations

from collections import Counter

from hypothesis import given

from tests.support import Loop
from turnscope.events import CallSettled
from turnscope.testing import check_results

from .generate import foretold, plans, share
from .machine import Machine, run
from .plans import Plan


def settles_once(plan: Plan, loop: Loop) -> Machine:
    machine = run(plan, loop)
    for prefix, calls in machine.submitted.items():
        check_results([submitted.call for submitted in calls], machine.turns[prefix].results)
    settled = Counter((e.run_id, e.index) for e in machine.events if isinstance(e, CallSettled))
    assert len(settled) == sum(map(len, machine.submitted.values()))
    assert set(settled.values()) <= {1}
    return machine


def one_outcome(plan: Plan, loop: Loop) -> None:
    expected = foretold(plan)
    machine = settles_once(plan, loop)
    statuses = {place: str(result.status) for place, _, result in machine.results()}
    assert statuses == {place: story.status for place, story in expected.calls.items()}


@share(0.6)
@given(plan=plans())
def test_every_call_settles_exactly_once(virtual_loop: Loop, plan: Plan) -> None:
    one_outcome(plan, virtual_loop)


@share(0.4)
@given(plan=plans(caller=("native", "asyncio.timeout")))
def test_every_call_settles_exactly_once_under_native_cancels(plan: Plan) -> None:
    one_outcome(plan, Loop("asyncio", virtual=True))


@share(0.4)
@given(plan=plans(limits=(None, "db", "web"), calls=6, patient=0))
def test_calls_that_wait_for_a_limiter_settle_exactly_once(virtual_loop: Loop, plan: Plan) -> None:
    settles_once(plan, virtual_loop)
