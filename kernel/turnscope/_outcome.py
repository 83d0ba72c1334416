"""What a body came to, in the words of a result: status, content, error. Pure.

Decided by what was delivered and by the clock, never by the class of an exception alone: a tool's
own TimeoutError is a failure, and a cancellation that nobody asked for is one too. Above: the
attempt. Below: values and errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import attrs

from ._calls import OK, Content, Status, UnfrozenResult
from ._errors import (
    CallCancelled,
    CallError,
    DeadlineExceeded,
    NotSerialisable,
    NotStarted,
    WorkerLost,
)
from ._interrupt import Expelled
from ._loop import cancelled_by_stranger
from ._raised import beneath, described, keyboard_interrupt, unwrapped

if TYPE_CHECKING:
    from ._attempt import Attempt
    from ._supervisor import Supervisor
    from ._view import View

_UNKNOWN: Final = "It had started, so its effects may or may not have happened."


def _same_of_all(cause: Cause) -> str | None:
    if cause.status is Status.TIMED_OUT:
        return None  # it names the tool
    return f"{CallCancelled(cause.reason)}. {_UNKNOWN}"


@attrs.frozen(eq=False, repr=False)
class Cause:
    """Why calls are to end: the status of those that had started, and a reason in words."""

    status: Status
    reason: str
    _content: str | None = attrs.field(
        init=False, default=attrs.Factory(_same_of_all, takes_self=True)
    )
    """What results say, if they say the same of every tool: made once for all calls of a turn.

    With the words of the errors, which are made when they are read, that is 4 % of the instructions
    in which a call is cancelled (callgrind, Python 3.11).
    """

    def error(self, name: str) -> CallError | DeadlineExceeded:
        """The error of a call of tool *name* that was interrupted."""
        if self._content is None:
            return DeadlineExceeded(f"{name!r} was interrupted by {self.reason}")
        return CallCancelled(self.reason)

    def made(self, name: str) -> UnfrozenResult:
        """What is made of a call of tool *name* that was interrupted and did nothing more."""
        content = self._content
        if content is not None:
            # Not by its __init__, which is 1,200 of the 104,000 instructions in which each of 64
            # calls is cancelled (callgrind, Python 3.11), and only passes the reason on.
            error = CallCancelled.__new__(CallCancelled, self.reason)
            return UnfrozenResult(self.status, content, None, error)
        own = self.error(name)
        return UnfrozenResult(self.status, f"{own}. {_UNKNOWN}", None, own)


LEFT: Final = Cause(Status.CANCELLED, "its turn was left by an exception or a cancellation")
RUN_LEFT: Final = Cause(Status.CANCELLED, "its run was left before it had come to its end")
LOOP_ENDS: Final = Cause(Status.CANCELLED, "the event loop is ending")
PARENT_ENDS: Final = Cause(Status.CANCELLED, "the call that it belongs to was interrupted")
KERNEL_CLOSED: Final = Cause(Status.CANCELLED, "the kernel was closed")
TURN_DEADLINE: Final = Cause(Status.TIMED_OUT, "the deadline of its turn")
SIBLING_FAILED: Final = Cause(Status.CANCELLED, "another call of the turn failed and may not")
_STRANGER: Final = Cause(Status.CANCELLED, "its task was cancelled from outside")


def timeout_of(call: View, deadline: float) -> Cause:
    """The cause when a call's own deadline came: timeout, retries, silence, or a withdrawal."""
    if call.withdrawn is not None:
        return call.withdrawn
    tool, idle = call.tool, call.tool.idle_timeout
    if idle is None or deadline >= call.timeout_deadline():
        if tool.timeout == tool.longest:
            return Cause(Status.TIMED_OUT, f"its timeout of {tool.timeout:g} s")
        return Cause(Status.TIMED_OUT, f"the end of all attempts, after {tool.longest:g} s")
    return Cause(Status.TIMED_OUT, f"its idle timeout: {idle:g} s without a heartbeat")


Outcome: TypeAlias = tuple[UnfrozenResult, BaseException | None]
"""What a result is made from, and what the turn is to raise in its caller, if anything."""


def of_body(
    call: Attempt, turn: Supervisor, value: Any, error: BaseException | None, now: float
) -> Outcome:
    """Name what the body of *call* returned or raised, *now*."""
    if error is None and not call.told and call.own is None and now < turn.deadline:
        return _returned(call, value)
    cancelled = call.facts.loop.cancelled
    bare = error is not None and not (error.__cause__ or error.__context__)
    if bare and type(error) is cancelled and call.cause is not None:
        # What nearly every interrupted body raises. To look for more in it costs a microsecond.
        return call.cause.made(call.tool.name), None
    raised = None if error is None else unwrapped(error, cancelled)
    cause = _cause(call, turn, raised, now)
    if raised is None:
        return _returned(call, value) if cause is None else _late(call, value, cause)
    interrupt = isinstance(raised, (cancelled, Expelled))
    if cause is not None:
        own = cause.error(call.tool.name)
        if interrupt or isinstance(raised, WorkerLost):
            own.__cause__ = beneath(raised, cancelled)
            return UnfrozenResult(cause.status, f"{own}. {_UNKNOWN}", error=own), None
        content = cut(call, f"{own}; then its cleanup failed: {described(raised)}. {_UNKNOWN}")
        return UnfrozenResult(cause.status, content, error=raised), keyboard_interrupt(raised)
    if isinstance(raised, WorkerLost):
        fatal = raised if call.tool.on_error == "raise" else None
        return UnfrozenResult(Status.LOST, f"{raised}. {_UNKNOWN}", error=raised), fatal
    return _failed(call, raised)


def without_body(call: Attempt, turn: Supervisor, raised: BaseException) -> Outcome:
    """Name what kept a call from its body, or from settling after it."""
    if isinstance(raised, call.facts.loop.cancelled):
        cause = turn.cause if turn.is_asked() else call.withdrawn or _STRANGER
        if call.started_at is not None:
            own = cause.error(call.tool.name)
            return UnfrozenResult(cause.status, f"{own}. {_UNKNOWN}", error=own), None
        reason = NotStarted(cause.reason)
    elif isinstance(raised, Exception) and call.started_at is None:
        reason = NotStarted(f"its backend could not be opened: {described(raised)}")
        reason.__cause__ = raised
    else:
        made = UnfrozenResult(Status.FAILED, described(raised), error=raised)
        return made, keyboard_interrupt(raised)
    return UnfrozenResult(Status.NOT_STARTED, str(reason), error=reason), None


def _cause(
    call: Attempt, turn: Supervisor, raised: BaseException | None, now: float
) -> Cause | None:
    """Why the call was interrupted, or None if it was not."""
    if raised is None and call.tries is not None and call.tries.won:
        return None
    if call.told:
        return call.cause
    own = call.own
    if raised is None:
        # A value that nobody interrupted is late by the clock alone.
        if now >= (end := call.own_deadline()):
            return timeout_of(call, end)
        return TURN_DEADLINE if now >= turn.deadline else None
    if isinstance(raised, call.facts.loop.cancelled):
        if own is not None and own.cancel_called:
            return timeout_of(call, own.deadline)
        if turn.is_asked():  # raised by check_cancelled() before the interrupt came
            return turn.cause
        if cancelled_by_stranger(call.facts.loop.task()):
            return _STRANGER
    return None


def _returned(call: Attempt, value: Any) -> Outcome:
    try:
        content = content_of(call, value)
    except NotSerialisable as exc:
        return _failed(call, exc, value)  # no name for it: a cycle, with this frame
    return UnfrozenResult(OK, content, value), None


def _late(call: Attempt, value: Any, cause: Cause) -> Outcome:
    own = cause.error(call.tool.name)
    try:
        content = content_of(call, value)
    except NotSerialisable:
        content = "(a value that cannot be shown)"
    shown = content if isinstance(content, str) else "(content that is not text)"
    text = f"{own}. The call did finish, too late to count, and returned: {shown}"
    return UnfrozenResult(cause.status, cut(call, text), value, own), None


def _failed(call: Attempt, raised: BaseException, value: Any = None) -> Outcome:
    on_error = call.tool.on_error
    fatal = keyboard_interrupt(raised)
    if on_error == "raise":
        fatal = fatal or raised
    elif on_error != "result" and isinstance(raised, Exception):
        try:
            content = str(on_error(raised))
        except BaseException as exc:
            exc.__cause__ = raised
            raised, fatal = exc, keyboard_interrupt(exc)
        else:
            return UnfrozenResult(Status.FAILED, cut(call, content), value, raised), None
    content = described(raised)
    if call.tries is not None and call.tries.said:
        content = f"{content} ({call.tries.said})"
    return UnfrozenResult(Status.FAILED, cut(call, content), value, raised), fatal


def content_of(call: Attempt, value: Any) -> str | tuple[Content, ...]:
    """*value* as the model reads it: text as it is, Content as it is, anything else as JSON.

    Raises NotSerialisable for what is none of these.
    """
    shown: object = value  # not by `cast`, which is a call
    if isinstance(value, Content):
        return _cut_parts(call, [value])
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], Content):
        parts = cast("Sequence[object]", value)
        if all(isinstance(part, Content) for part in parts):
            return _cut_parts(call, cast("Sequence[Content]", parts))
    text = call.tool.text_of(shown)
    return text if len(text) <= call.facts.result_characters else cut(call, text)


def cut(call: Attempt, text: str) -> str:
    """*text*, or as much of it as the limit allows, and a word that it was cut."""
    limit = call.facts.result_characters
    if len(text) <= limit:
        return text
    return f"{text[: int(limit)]}\n[cut: {int(limit):,} of {len(text):,} characters are shown]"


def _cut_parts(call: Attempt, parts: Sequence[Content]) -> tuple[Content, ...]:
    """The limit is for the text of all parts together."""
    left = call.facts.result_characters
    made: list[Content] = []
    for part in parts:
        text = part.text or ""
        if len(text) > left:
            kept = text[: int(left)]
            word = f"[cut: {len(kept):,} of {len(text):,} characters are shown]"
            made.append(attrs.evolve(part, text=f"{kept}\n{word}"))
        else:
            made.append(part)
        left = max(0, left - len(text))
    return tuple(made)


def with_leak(content: str | tuple[Content, ...]) -> str | tuple[Content, ...]:
    """*content* with the word that the call's thread still runs."""
    word = "Its thread could not be stopped and is still at work."
    if isinstance(content, str):
        return f"{content} {word}"
    return (*content, Content(text=word))
