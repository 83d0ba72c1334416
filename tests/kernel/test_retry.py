"""The value: what it refuses, what it covers, and how long it waits."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnscope import (
    Agent,
    BudgetExceeded,
    ModelError,
    NotSerialisable,
    Retry,
    WorkerLost,
    tool,
)
from turnscope._retry import LONGEST_RETRY_AFTER, covers, seconds_before_next


async def later(exc: Exception) -> bool:
    return True


class Later:
    async def __call__(self, exc: Exception) -> bool:
        return True


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"attempts": 0}, ValueError, "attempts=0"),
        ({"attempts": 1.5}, ValueError, "attempts=1.5"),
        ({"attempts": "3"}, ValueError, "attempts='3'"),
        ({"initial": -1}, ValueError, "initial=-1"),
        ({"initial": math.inf}, ValueError, "initial=inf"),
        ({"initial": math.nan}, ValueError, "initial=nan"),
        ({"maximum": math.nan}, ValueError, "maximum=nan"),
        ({"initial": 9}, ValueError, "raise maximum"),
        ({"jitter": -0.1}, ValueError, "jitter=-0.1"),
        ({"total": 0}, ValueError, "total=0"),
        ({"total": math.inf}, ValueError, "total=inf"),
        ({"on": ()}, TypeError, "types of Exception"),
        ({"on": BaseException}, TypeError, "Ctrl-C"),
        ({"on": (OSError, KeyboardInterrupt)}, TypeError, "Ctrl-C"),
        ({"on": (OSError, 5)}, TypeError, "types of Exception"),
        ({"on": 5}, TypeError, "a function of the exception"),
        ({"on": later}, TypeError, "make it a def"),
        ({"on": Later()}, TypeError, "make it a def"),
    ],
)
def test_what_cannot_work_is_refused(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Retry(**options)


def test_a_retry_is_a_frozen_value() -> None:
    assert Retry() == Retry(3)
    assert len({Retry(), Retry(3), Retry(4)}) == 2
    with pytest.raises(AttributeError):
        Retry().attempts = 4  # type: ignore[misc]  # because that is the point


def test_a_tool_that_may_not_run_twice_has_no_retry() -> None:
    with pytest.raises(ValueError, match="'pay': retry= is for tools that may run twice"):

        @tool(retry=Retry())
        def pay() -> None: ...

    with pytest.raises(TypeError, match="retry=3 is no Retry"):

        @tool(idempotent=True, retry=3)  # type: ignore[arg-type]  # because that is the point
        def look() -> None: ...

    for options in ({"read_only": True}, {"idempotent": True}):
        made = tool(name="look", retry=Retry(), **options)(lambda: None)
        assert made.retry == Retry()


def test_an_agent_takes_a_retry_or_none() -> None:
    assert Agent().retry == Retry()
    assert Agent(retry=None).retry is None
    with pytest.raises(TypeError, match=r"Agent\(retry=3\)"):
        Agent(retry=3)  # type: ignore[arg-type]  # because that is the point


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_a_status_that_may_pass_is_tried_again(status: int) -> None:
    error = ModelError("x", status=status)
    assert covers(Retry(), error, of_model=True)
    assert covers(Retry(), error, of_model=False)
    assert not covers(Retry(), ModelError("x", status=status, transient=False), of_model=True)


@pytest.mark.parametrize("status", [None, 200, 301, 400, 401, 403, 404, 413, 422])
def test_a_status_that_stays_is_not(status: int | None) -> None:
    assert not covers(Retry(), ModelError("x", status=status), of_model=True)
    assert covers(Retry(), ModelError("x", status=status, transient=True), of_model=True)


def test_of_a_tool_what_it_raises_is_tried_again_and_of_a_model_only_its_errors() -> None:
    for error in (OSError("x"), TimeoutError("x"), ValueError("x")):
        assert covers(Retry(), error, of_model=False)
        assert not covers(Retry(), error, of_model=True)
        assert covers(Retry(on=type(error)), error, of_model=True)
    assert covers(Retry(), WorkerLost("x"), of_model=False)
    for error in (BudgetExceeded("calls", 3), NotSerialisable("x", "set", "no")):
        assert not covers(Retry(), error, of_model=False)


def test_types_cover_a_group_if_all_of_it_is_of_them() -> None:
    one, two = ConnectionError("x"), TimeoutError("x")
    only = Retry(on=ConnectionError)
    assert covers(only, ExceptionGroup("", [one, one]), of_model=False)
    assert not covers(only, ExceptionGroup("", [one, two]), of_model=False)
    both = Retry(on=(ConnectionError, TimeoutError))
    assert covers(both, ExceptionGroup("", [one, ExceptionGroup("", [two])]), of_model=False)
    assert covers(Retry(on=ExceptionGroup), ExceptionGroup("", [two]), of_model=False)


def test_a_function_decides_and_may_not_be_async_in_disguise() -> None:
    named = Retry(on=lambda exc: "again" in str(exc))
    assert covers(named, ValueError("again"), of_model=True)
    assert not covers(named, ModelError("no", status=503), of_model=True)
    with pytest.raises(TypeError, match="to be awaited"):
        covers(Retry(on=lambda exc: later(exc)), ValueError("x"), of_model=True)  # type: ignore[arg-type, return-value]  # because that is the point


def test_the_waits_double_up_to_the_maximum() -> None:
    exact = Retry(initial=0.5, maximum=3, jitter=0)
    assert [seconds_before_next(exact, n) for n in range(1, 6)] == [0.5, 1, 2, 3, 3]
    assert seconds_before_next(exact, 10_000) == 3
    assert seconds_before_next(Retry(initial=0, jitter=0), 7) == 0


def test_a_server_may_make_a_wait_longer_but_not_shorter_nor_endless() -> None:
    exact = Retry(initial=1, jitter=0)
    assert seconds_before_next(exact, 1, 0) == 1
    assert seconds_before_next(exact, 1, 20) == 20
    assert seconds_before_next(exact, 1, LONGEST_RETRY_AFTER) == LONGEST_RETRY_AFTER
    for seconds in (LONGEST_RETRY_AFTER + 1, math.inf, math.nan):
        assert seconds_before_next(exact, 1, seconds) is None


spans = st.floats(0, 100)


@given(spans, spans, spans, st.integers(1, 2_000))
def test_jitter_only_adds_and_no_more_than_it_may(
    initial: float, more: float, jitter: float, attempt: int
) -> None:
    retry = Retry(initial=initial, maximum=initial + more, jitter=jitter)
    exact = min(initial * 2.0 ** min(attempt - 1, 1_000), retry.maximum)
    seconds = seconds_before_next(retry, attempt)
    assert seconds is not None
    assert exact <= seconds <= (exact + jitter) * (1 + 1e-9)


def test_the_library_behind_it_is_imported_with_the_first_failure() -> None:
    code = (
        "import sys, turnscope; turnscope.Agent(); turnscope.Retry(); "
        "assert 'tenacity' not in sys.modules, 'it costs 10 ms'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
