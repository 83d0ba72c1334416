"""Every error that turnscope makes, as a tree. An error owns its sentence: callers pass facts.

::

    TurnscopeError
    ├── DeadlineExceeded          (also a TimeoutError) a call, a turn or a run ran out of time
    ├── BudgetExceeded            a run has spent its turns, calls, tokens or seconds
    ├── ModelError                the model, or the way to it, failed
    │   └── ModelsFailed          so did each of those that it fell back on
    ├── OutputInvalid             no answer of the model's fitted Agent(output=...)
    ├── OutputRefused             the model, or its provider, would not give one
    ├── ToolFailed                a tool with on_error="raise" failed in a run
    ├── RunCancelled              a run was cancelled by somebody else than who waits for it
    ├── LimiterLeaked             every slot of a limiter is held by a thread that does not end
    └── CallError                 why a call has no value: the `error` of its result; not raised
        ├── UnknownTool           the model named a tool that was not offered
        ├── InvalidArguments      the model's arguments do not fit the tool's signature
        ├── NotSerialisable       a tool returned what cannot be made text for the model
        ├── NotStarted            the call never began; it had no effects
        ├── CallCancelled         the call was interrupted; its effects are unknown
        └── WorkerLost            the process that worked on the call died; its effects are unknown

Below this file: nothing. It knows the words of the other rooms, but imports none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from ._calls import ToolResult
    from ._history import History


class TurnscopeError(Exception):
    """The root of the tree: catches what turnscope raises and nothing else."""

    history: History | None = None
    """Of an error that a run raises: the conversation up to there, in whole turns."""

    # An exception is copied and unpickled by a call of its class with `args`: here these are the
    # sentence, and a class is called with the facts.
    def __reduce__(self) -> tuple[Any, ...]:
        _, args, *more = cast("tuple[Any, ...]", super().__reduce__())
        facts: dict[str, Any] = dict(*more)
        state = object.__getstate__(self)
        if isinstance(state, tuple):  # of a class that has slots, too
            facts |= cast("tuple[Any, dict[str, Any]]", state)[1]
        return _remade, (type(self), args), facts


def _remade(kind: type[TurnscopeError], args: tuple[Any, ...]) -> TurnscopeError:
    error = kind.__new__(kind, *args)
    if isinstance(error, OSError):  # as TimeoutError; of a class with an __init__, that reads them
        OSError.__init__(error, *args)
    return error


class DeadlineExceeded(TurnscopeError, TimeoutError):
    """Something ran out of time.

    On a result (status ``timed_out``) it is the call's ``error`` and is not raised.
    """


class BudgetExceeded(TurnscopeError):
    """A run, or one of the runs above it, has spent what `Budget` gave it."""

    def __init__(self, what: str, limit: float) -> None:
        self.what: str = what
        """"turns", "calls", "tokens" or "seconds"."""
        self.limit: float = limit
        super().__init__(
            f"the budget of {limit:g} {what} is spent; raise Budget({what}=...), or go on from "
            "the error's history"
        )


class ModelError(TurnscopeError):
    """The model, or the way to it, failed; *status* is the server's, None if none came."""

    failures: tuple[BaseException, ...] = ()
    """Of the error of a request that was tried again: what its attempts before the last raised."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        transient: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.status: int | None = status
        """The HTTP status."""
        self.retry_after: float | None = retry_after
        """Seconds after which the server wants to be asked again, if it said so."""
        if transient is None:
            transient = status is not None and (status in (408, 409, 429) or status >= 500)
        self.transient: bool = transient
        """Whether it may pass by itself: by default told from the status. An adapter says True for
        a connection that failed, and what the server says of it."""


class ModelsFailed(ModelError):
    """Each model that a `fallback` asked has failed; ``status`` is of the last.

    It is transient if one of them may recover by itself, and says when to ask again if all of those
    do: after the shortest of their times.
    """

    def __init__(self, errors: Sequence[tuple[str, Exception]]) -> None:
        self.errors: tuple[Exception, ...] = tuple(error for _, error in errors)
        """What each raised, in the order in which they were asked."""
        known = [error for error in self.errors if isinstance(error, ModelError)]
        passing = [error.retry_after for error in known if error.transient]
        last = self.errors[-1]
        super().__init__(
            "every model that was asked failed:\n"
            + "\n".join(f"- {model}: {type(exc).__name__}: {exc}" for model, exc in errors),
            status=last.status if isinstance(last, ModelError) else None,
            retry_after=min((each for each in passing if each is not None), default=None)
            if None not in passing
            else None,
            transient=bool(passing),
        )


class OutputInvalid(TurnscopeError):
    """An answer does not fit ``Agent(output=...)``; raised when another may not be asked for."""

    def __init__(self, problems: Sequence[str], answer: str, *, attempt: int, at_most: int) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        """What is wrong with the answer, a sentence each, as the model is told."""
        self.answer: str = answer
        """It, as the model gave it: JSON, or whatever it is."""
        self.attempt: int = attempt
        """Which answer of the run it was, from 1."""
        listed = "\n".join(f"- {problem}" for problem in self.problems)
        super().__init__(
            f"answer {attempt} of at most {at_most} does not fit Agent(output=...):\n{listed}"
        )


class OutputRefused(TurnscopeError):
    """The model (*reason* "refusal"), or its provider ("filtered"), would not give an output."""

    def __init__(self, reason: str, text: str) -> None:
        self.reason: str = reason
        self.text: str = text
        """What the model said instead; may be empty."""
        who = "the model" if reason == "refusal" else "the model's provider"
        super().__init__(f"{who} refused to answer{f': {text[:300]}' if text.strip() else ''}")


class ToolFailed(TurnscopeError):
    """A tool with ``on_error="raise"`` failed; raised from the tool's own exception."""

    def __init__(self, result: ToolResult) -> None:
        self.result: ToolResult = result
        super().__init__(f"the tool {result.call.name!r} failed: {result.content}")


class RunCancelled(TurnscopeError):
    """The run was ended by its block, its kernel or `Run.cancel`; the one who waits was not."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the run was cancelled: {reason}")


class LimiterLeaked(TurnscopeError):
    """A call could wait for leaks alone: a nested one, one that comes back from what it nested, or
    one at its run's own ``max_parallel_calls``.

    It is the cause of such a call's ``not_started``, and is raised by the nested turn's block
    in a call that cannot have its slot back.
    """

    def __init__(self, limiter: str, capacity: float) -> None:
        self.limiter: str = limiter
        if limiter == "max_parallel_calls":
            setting = "Agent(max_parallel_calls=...)"
        elif limiter in ("calls", "threads", "processes", "model_requests"):
            setting = f"Limits({limiter}=...)"
        else:
            setting = f"Limits(groups={{{limiter!r}: ...}})"
        super().__init__(
            f"all {capacity:g} slots of the limit {limiter!r} are held by leaked threads, so the "
            f"call could wait for ever; raise {setting}, or have the tools look at "
            "check_cancelled()"
        )


class CallError(TurnscopeError):
    """Why a call came to something else than a value of its tool."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of *known* that *name* may have been meant for, if any is near."""
    import difflib  # here, because it takes 2 ms, and most names are known

    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


class UnknownTool(CallError):
    """The model asked for a tool that the turn does not offer."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name: str = name
        self.known: tuple[str, ...] = tuple(known)
        shown = name if len(name) <= 80 else f"{name[:80]}..."
        near = nearest(shown, self.known)
        if near is not None:
            hint = f"did you mean {near!r}?"
        elif self.known:
            hint = f"the tools are: {', '.join(self.known)}"
        else:
            hint = "no tools are offered"
        super().__init__(f"no tool named {shown!r}; {hint}")


class InvalidArguments(CallError):
    """The arguments do not fit; each of ``problems`` names a field, what was given and expected."""

    def __init__(self, name: str, problems: Sequence[str]) -> None:
        self.name: str = name
        self.problems: tuple[str, ...] = tuple(problems)
        listed = "\n".join(f"- {problem}" for problem in self.problems)
        super().__init__(
            f"the arguments for {name!r} are not valid; correct them and call again:\n{listed}"
        )


class NotSerialisable(CallError):
    """A tool returned a value that cannot be made text; the sentence names the type."""

    def __init__(self, name: str, type_name: str, reason: str) -> None:
        self.type_name: str = type_name
        super().__init__(
            f"{name!r} returned a value of type {type_name}, which cannot be made JSON: {reason}; "
            "return str, JSON-like data, a dataclass, an attrs class, a pydantic model or Content"
        )


class NotStarted(CallError):
    """The call never began, for *reason*."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the call was not started: {reason}")


class CallCancelled(CallError):
    """The call had started and was interrupted, for *reason*."""

    # Its words are made when they are read: one is made for each of thousands of calls.
    def __init__(self, reason: str) -> None:
        CallError.__init__(self, reason)

    def __str__(self) -> str:
        return f"the call was cancelled: {super().__str__()}"


class WorkerLost(CallError):
    """A backend raises this when the worker of a call died under it: the call settles ``lost``."""
