"""Errors as values: a copy, or what comes out of another process, says what the first one said."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import turnscope
from tests.kernel.bodies import call
from turnscope import (
    BudgetExceeded,
    CallCancelled,
    CallError,
    DeadlineExceeded,
    History,
    InvalidArguments,
    LimiterLeaked,
    ModelError,
    ModelsFailed,
    NotSerialisable,
    NotStarted,
    OutputInvalid,
    OutputRefused,
    RunCancelled,
    Status,
    ToolFailed,
    ToolResult,
    TurnscopeError,
    UnknownTool,
    WorkerLost,
)

ERRORS: list[TurnscopeError] = [
    TurnscopeError("said"),
    DeadlineExceeded("late"),
    BudgetExceeded("turns", 3),
    ModelError("busy", status=503, retry_after=2.5),
    ModelsFailed([("one", ModelError("busy", status=503)), ("two", ValueError("what?"))]),
    OutputInvalid(["`x` is missing"], "{}", attempt=1, at_most=2),
    OutputRefused("refusal", "I had rather not."),
    ToolFailed(ToolResult(call=call("fine"), status=Status.FAILED, content="no", started_at=0.0)),
    RunCancelled("its block was left"),
    LimiterLeaked("threads", 4),
    CallError("so"),
    UnknownTool("wether", ["weather", "time"]),
    InvalidArguments("weather", ["`city` is missing"]),
    NotSerialisable("weather", "Generator", "it can be read once"),
    NotStarted("its turn was left"),
    CallCancelled("its turn was left"),
    WorkerLost("killed"),
]


AGAIN = [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))]


def test_every_error_is_in_one_tree() -> None:
    for kind in (UnknownTool, InvalidArguments, NotSerialisable, NotStarted, CallCancelled):
        assert issubclass(kind, CallError)
    assert issubclass(CallError, TurnscopeError)
    assert issubclass(DeadlineExceeded, TurnscopeError)


def test_every_error_is_looked_at() -> None:
    public = [getattr(turnscope, name) for name in turnscope.__all__]
    errors = {each for each in public if isinstance(each, type) and issubclass(each, Exception)}
    assert {type(error) for error in ERRORS} == errors


@pytest.mark.parametrize("again", AGAIN)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_that_was_copied_says_the_same(
    error: TurnscopeError, again: Callable[[TurnscopeError], TurnscopeError]
) -> None:
    error.__notes__ = ["noted"]
    error.history = History()
    other = again(error)
    assert type(other) is type(error)
    assert (str(other), other.args) == (str(error), error.args)
    assert repr(vars(other)) == repr(vars(error))
    assert other.history == error.history


class Slotted(ModelError):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__(f"refused: {code}", status=400)
        self.code = code


class OfSystem(TurnscopeError, OSError):
    def __init__(self, errno: int) -> None:
        super().__init__(errno, "words of the system")


class OfImport(TurnscopeError, ImportError): ...


@pytest.mark.parametrize("again", AGAIN)
def test_an_error_of_ones_own_keeps_what_its_bases_and_slots_hold(
    again: Callable[[TurnscopeError], Any],
) -> None:
    slotted = again(Slotted(7))
    assert (str(slotted), slotted.code, slotted.status) == ("refused: 7", 7, 400)
    system = again(OfSystem(5))
    assert (system.errno, str(system)) == (5, "[Errno 5] words of the system")
    late = again(DeadlineExceeded(110, "late", "file"))
    assert (late.errno, late.filename, str(late)) == (110, "file", "[Errno 110] late: 'file'")
    missing = again(OfImport("no module", name="where"))
    assert (str(missing), missing.name) == ("no module", "where")


def test_the_words_of_a_cancelled_call_are_its_reason() -> None:
    assert str(CallCancelled(reason="its turn was left")) == (
        "the call was cancelled: its turn was left"
    )
    with pytest.raises(TypeError, match="reason"):
        CallCancelled()  # type: ignore[call-arg]  # because that is what is asked
