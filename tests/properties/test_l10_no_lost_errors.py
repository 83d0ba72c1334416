"""Every exception of a tool or its cleanup is reachable; one cause is in no group of one."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given

from tests.support import Loop

from .generate import foretold, plans, share
from .machine import run
from .plans import Body, Plan


def no_lost_errors(plan: Plan, loop: Loop) -> None:
    expected = foretold(plan)
    machine = run(plan, loop)
    errors = {place: result.error for place, _, result in machine.results()}
    for place, error in {**errors, "": machine.outcome}.items():
        alone = isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1
        assert not alone, f"{place!r}: {error!r} is a group of one"
    last = dict(machine.raised)
    for place, raised in machine.raised:
        hidden = place and loop.name == "trio" and hidden_by_trio(machine.plan_of(place).body)
        if hidden and raised is not last[place]:
            continue
        reachable = set(map(id, everything_in(errors[place] if place else machine.outcome)))
        for leaf in leaves(raised):
            assert id(leaf) in reachable, (
                f"{place!r}: {leaf!r} is lost; there is {errors.get(place)!r}"
            )
    # A body that failed by itself has not timed out, nor was it cancelled.
    statuses = {place: str(result.status) for place, _, result in machine.results()}
    assert statuses == {place: story.status for place, story in expected.calls.items()}


def hidden_by_trio(body: Body) -> bool:
    """Whether trio itself loses all but the last failure: the errors of a nursery get no context.

    So what was on its way out before a nursery in the cleanup failed is reachable from nowhere.
    """
    return body.cleanup_raises and body.cleanup_in_group


def leaves(exc: BaseException) -> Iterator[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        for member in exc.exceptions:
            yield from leaves(member)
    else:
        yield exc


def everything_in(exc: BaseException | None) -> Iterator[BaseException]:
    """*exc*, its causes and contexts, and those of the members of groups."""
    seen: set[int] = set()
    waiting = [exc]
    while waiting:
        exc = waiting.pop()
        if exc is not None and id(exc) not in seen:
            seen.add(id(exc))
            yield exc
            waiting += [exc.__cause__, exc.__context__]
            if isinstance(exc, BaseExceptionGroup):
                waiting += exc.exceptions


ERRORS = {"fail": 5, "cleanup_raises": 4, "fatal": 2}


@share(0.6)
@given(plan=plans(**ERRORS))
def test_every_exception_is_reachable(virtual_loop: Loop, plan: Plan) -> None:
    no_lost_errors(plan, virtual_loop)


@share(0.4)
@given(plan=plans(**ERRORS, caller=("native", "asyncio.timeout")))
def test_every_exception_is_reachable_under_native_cancels(plan: Plan) -> None:
    no_lost_errors(plan, Loop("asyncio", virtual=True))
