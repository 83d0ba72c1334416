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
from .retries import Trials, performed, trials


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


# What is tried again.


def tried_again_settles_once(plan: Trials, loop: Loop) -> None:
    did = performed(plan, loop)
    assert len(did.results) == len(plan.calls)
    began = Counter(index for index, _, _ in did.attempts)
    for index, (call, result) in enumerate(zip(plan.calls, did.results, strict=True)):
        assert result.call.id == f"c{index}"
        assert did.retried[index] == len(result.failures), "an event for each failure"
        most = len(call.spans) if call.safe else 1
        assert began[index] <= most, f"{began[index]} attempts of {most}"
        assert began[index] <= call.fails + 1, "tried again though it had succeeded"
        assert began[index] in (len(result.failures), len(result.failures) + 1)
        if result.ok:
            assert result.value == began[index] == call.fails + 1
        if began[index] == 0:
            assert result.status == "not_started"
        assert "interrupt" not in str(result.failures), "what an interrupt caused is no failure"


@given(plan=trials(ends=True))
def test_a_call_that_is_tried_again_settles_once(plan: Trials, virtual_loop: Loop) -> None:
    tried_again_settles_once(plan, virtual_loop)
