"""When a turn is left, nothing of it runs any more; a thread that does is reported."""

from __future__ import annotations

from hypothesis import given, settings

from tests.support import Loop

from .generate import plans, share
from .machine import run
from .plans import Plan
from .threads import Batch, batches, run_batch


def nothing_survives(plan: Plan, loop: Loop) -> None:
    # That no task is left, no turn open and no slot lent, once the caller has left its turn, and
    # that no body takes another step, is what `machine` asserts in every run.
    machine = run(plan, loop)
    for place, calls in machine.submitted.items():
        left = machine.story.left[place]
        for submitted in calls:
            story = machine.story.call(f"{place}{submitted.place}")
            assert story.at("start") is None or story.at("end") is not None
            assert all(when <= left for _, when in story.notes), f"a body outlived turn {place!r}"


def leaks_are_reported(batch: Batch, loop: Loop) -> None:
    run = run_batch(batch, loop)
    for body, result in zip(run.bodies, run.results, strict=True):
        outlived = body.started is not None and (body.ended is None or body.ended > run.left)
        assert result.leaked == outlived, (body, result)
    assert run.leaked == sum(result.leaked for result in run.results)
    assert run.lent_after == run.leaked, "a leaked thread holds its slot, and nothing else does"
    assert run.lent_at_last == run.leaked_at_last == 0, "a slot was not returned by its thread"


@share(0.5)
@given(plan=plans())
def test_nothing_runs_after_a_turn(virtual_loop: Loop, plan: Plan) -> None:
    nothing_survives(plan, virtual_loop)


@share(0.5)
@given(plan=plans(caller=("native", "asyncio.timeout")))
def test_nothing_runs_after_a_turn_that_was_cancelled_natively(plan: Plan) -> None:
    nothing_survives(plan, Loop("asyncio", virtual=True))


@share(0.4)
@given(plan=plans(limits=(None, "db", "web"), calls=6, patient=0))
def test_nothing_is_lent_after_a_turn_whose_calls_had_to_wait(
    virtual_loop: Loop, plan: Plan
) -> None:
    nothing_survives(plan, virtual_loop)


@settings(max_examples=5)
@given(batch=batches())
def test_a_thread_that_outlives_its_turn_is_reported_and_counts(
    any_loop: Loop, batch: Batch
) -> None:
    leaks_are_reported(batch, any_loop)
