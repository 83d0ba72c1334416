"""What a chat comes to, told turn by turn, as if one thing happened after the other.

A small sequential model that knows neither tasks nor time: so it tells a run that nothing from
outside befalls exactly, up to the turn that a fatal tool cuts, and the others up to a prefix.
Above: the laws. Below: `talks`.
"""

from __future__ import annotations

import attrs

from .provider import is_object
from .talks import Answer, Ask, Chat, Level, Talk


@attrs.define
class Told:
    """One run."""

    turns: list[tuple[Answer, list[tuple[Ask, str]]]] = attrs.Factory(list)
    """Each response with its calls and their statuses."""
    end: str = ""
    """The class of what it raises; "" if it has an output."""
    cut: bool = False
    """A fatal tool cuts the last turn: which of its calls still complete is a matter of time."""
    output: str = ""


@attrs.define
class Spent:
    """What a run and those in its tools have spent, of how much."""

    level: Level
    above: Spent | None
    turns: int = 0
    calls: int = 0
    tokens: int = 0

    def take(self, what: str, number: int, *, even_if_spent: bool = False) -> bool:
        """Spend *number* from here to the root, or nothing if there is none left."""
        each: Spent | None = self
        line: list[Spent] = []
        while each is not None:
            line.append(each)
            each = each.above
        left = all(getattr(one, what) < getattr(one.level, what) for one in line)
        if left or even_if_spent:
            for one in line:
                setattr(one, what, getattr(one, what) + number)
        return left


def foretell(chat: Chat, talk: Talk, depth: int = 0, above: Spent | None = None) -> Told:
    """What *talk* comes to, in an agent at *depth*."""
    told = Told()
    spent = Spent(chat.levels[depth], above)
    for answer in talk.answers:
        if not (spent.take("tokens", 0) and spent.take("turns", 1)):
            told.end = "BudgetExceeded"
            return told
        if answer.fails:
            told.end = "ModelError"
            return told
        spent.take("tokens", answer.tokens, even_if_spent=True)
        asks = () if answer.reason in ("refusal", "filtered") else answer.asks
        rich = not asks or spent.take("tokens", 0)
        started = [rich and spent.take("calls", 1) for _ in asks]
        statuses = [
            _status(chat, answer, ask, depth, spent) if start else "not_started"
            for ask, start in zip(asks, started, strict=True)
        ]
        calls = list(zip(asks, statuses, strict=True))
        told.turns.append((answer, calls))
        if any(ask.tool == "fatal" and status == "failed" for ask, status in calls):
            told.end, told.cut = "ToolFailed", True
        elif not all(started):
            told.end = "BudgetExceeded"
        elif not asks:
            told.output = answer.text
        else:
            continue
        return told
    told.end = "ModelError"  # there is no answer to the next request
    return told


def _status(chat: Chat, answer: Answer, ask: Ask, depth: int, spent: Spent) -> str:
    cut = answer.reason == "length" and ask.arguments is not None
    if (cut and not is_object(ask.arguments or "")) or not ask.fits:
        return "invalid"
    if ask.tool == "agent" and ask.talk is not None:
        return "failed" if foretell(chat, ask.talk, depth + 1, spent).end else "ok"
    if ask.tool not in ("work", "fatal"):
        return "invalid"
    return "failed" if ask.fails else "ok"
