"""What a turn of a run leaves: messages for its history, or the error that the run raises. Pure.

Above: the conductor. Below: the values and the errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from . import _outcome, _raised
from ._assemble import Response
from ._calls import Status, ToolResult
from ._errors import (
    BudgetExceeded,
    CallError,
    DeadlineExceeded,
    ModelError,
    NotStarted,
    ToolFailed,
    TurnscopeError,
)
from ._messages import Message, ResultMessage, UnfrozenMessage, is_blank
from ._record import frozen
from ._stored import storable

_UNTOLD: Final = _outcome.Cause(Status.CANCELLED, "Ctrl-C came before it was taken in, or settled")
"""For a call that has no result, though its turn has ended."""


def messages_of(response: Response, results: Sequence[ToolResult | None]) -> list[Message]:
    """The messages of a whole turn: the answer, and the one result of each of its calls, in order.

    None for an answer with neither calls nor more than white space: providers refuse to be sent
    one.
    """
    answer = response.message
    messages: list[Message] = [answer] if answer.calls or not is_blank(answer.text) else []
    for index, call in enumerate(answer.calls):
        result = results[index] if index < len(results) else None
        came = _UNTOLD.made(call.name) if result is None else result
        content = storable(came.content)
        message = UnfrozenMessage(call.id, call.name, came.status, content)
        messages.append(frozen(message, ResultMessage))
    return messages


def failed(results: Sequence[ToolResult | None], fatal: BaseException) -> BaseException:
    """What a run raises for *fatal*, which has ended its turn: Ctrl-C, or a tool's exception."""
    if isinstance(fatal, KeyboardInterrupt):
        return fatal
    for result in results:
        if result is not None and result.error is fatal:
            error = ToolFailed(result)
            error.__cause__ = fatal
            return error
    return fatal


def model_error(error: BaseException | None) -> BaseException:
    """What a run raises for the *error* of its request."""
    if isinstance(error, NotStarted) and error.__cause__ is not None:
        error = error.__cause__  # its client could not be opened
    if error is None:
        return ModelError("the model gave no response")
    if isinstance(error, (ModelError, KeyboardInterrupt)):
        return error  # and no other of ours: it may be of a run that the model asked for
    failed = ModelError(f"the model failed: {_raised.described(error)}")
    failed.__cause__ = error
    return failed


def beneath(error: BaseException) -> BaseException | None:
    """What was raised in a request that was interrupted, or not begun: not what only says so."""
    return error.__cause__ if isinstance(error, (CallError, DeadlineExceeded)) else error


def out_of_time(seconds: float) -> TurnscopeError:
    """What a run raises at its deadline, if a budget of *seconds* has set it; else they are inf."""
    if seconds != math.inf:
        return BudgetExceeded("seconds", seconds)
    return DeadlineExceeded("the run was ended by its deadline")
