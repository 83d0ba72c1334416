"""Conversations as data: what the model answers, what its calls do, and what happens to the run.

A `Chat` is performed by the kernel, in `talker`, and told in advance by a small sequential model,
in `foretell`. It holds no function and no clock. Spans are in seconds. Above: `generate_talks`,
which draws them; the laws. Below: nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, TypeAlias

import attrs


@attrs.frozen(kw_only=True)
class Ask:
    """One call, as the model writes it, and what its body does if it runs."""

    id: str = ""
    tool: str = "work"
    """"work"; "fatal", which may not fail; "agent", which runs a `Talk`; others do not exist."""
    arguments: str | None = None
    """None: those that fit."""
    span: float = 0.0
    """How long the body works."""
    fails: bool = False
    swallows: float = 0
    """How many cancellations the body swallows after its interrupt."""
    cleanup: float = 0.0
    """How long it cleans up after its interrupt."""
    talk: Talk | None = None
    """What the agent is to answer: for the tool "agent"."""

    @property
    def fits(self) -> bool:
        """Whether the arguments fit the tool."""
        return self.arguments is None


@attrs.frozen(kw_only=True)
class Answer:
    """One response of the model, as a stream."""

    text: str = ""
    asks: tuple[Ask, ...] = ()
    reason: Literal["stop", "calls", "length", "refusal", "filtered"] = "stop"
    tokens: int = 0
    span: float = 0.0
    """How long the stream takes."""
    cut: int = 0
    """How it is cut into pieces: a seed."""
    fails_at: int | None = None
    """Before which event an exception is raised; -1: before the stream is open."""
    unfinished: bool = False
    """The stream ends before `ModelFinished`."""
    cleanup: float = 0.0
    """How long the adapter cleans up when it is interrupted."""
    swallows: bool = False
    """The adapter swallows each cancellation, and streams on."""

    @property
    def fails(self) -> bool:
        return self.unfinished or self.fails_at is not None


@attrs.frozen(kw_only=True)
class Level:
    """What all agents of one depth have in common."""

    turns: float = 50
    calls: float = math.inf
    tokens: float = math.inf
    cap: float = math.inf
    """``max_parallel_calls``."""

    @property
    def limited(self) -> bool:
        return (self.turns, self.calls, self.tokens) != (50, math.inf, math.inf)


@attrs.frozen
class Talk:
    """What the model answers to one prompt, request after request."""

    answers: tuple[Answer, ...]


How: TypeAlias = Literal[
    "nothing",
    "move_on_after",
    "fail_after",
    "native",  # Task.cancel(), on asyncio
    "asyncio.timeout",  # on asyncio
    "run.cancel",
    "timeout",
    "deadline",
    "seconds",  # of the budget
    "break",  # out of `async for`
    "raise",  # the block raises
    "kernel",  # the kernel is closed
    "Ctrl-C",  # on trio, where it may come at any await of the main task
]


@attrs.frozen(kw_only=True)
class Hit:
    """What happens to the first run of a chat, and when."""

    how: How = "nothing"
    after: float = math.inf
    """Seconds; for "break", the number of events."""
    event: int | None = None
    """In place of the time: the number of the event whose observer cancels, in that very step."""
    again: float | None = None
    """The span to another native cancel."""


@attrs.frozen(kw_only=True)
class Chat:
    """A conversation, and ways to go on from it."""

    first: Talk
    then: tuple[Talk, ...] = ()
    """Runs that all go on, side by side, from the history that the first left."""
    stored: bool = False
    """They go on from it as it comes back from JSON."""
    levels: tuple[Level, ...] = (Level(), Level(), Level())
    """By the depth of the agent."""
    hit: Hit = Hit()
    reader: Literal["wait", "events", "text"] = "wait"
    pause: float = 0.0
    """How long the reader takes over each event."""
    grace: float = 0.25
    calls: float = math.inf
    requests: float = math.inf


def every_ask(talk: Talk, where: str) -> Iterator[tuple[str, Ask]]:
    """All calls of *talk*, those of nested agents too, by the places that name them."""
    for turn, answer in enumerate(talk.answers):
        for index, ask in enumerate(answer.asks):
            place = f"{where}.{turn}.{index}"
            yield place, ask
            if ask.talk is not None:
                yield from every_ask(ask.talk, place)


def every_talk(chat: Chat) -> Iterator[tuple[str, Talk]]:
    """All talks of *chat*, by the prompts that name them."""
    for number, talk in enumerate((chat.first, *chat.then)):
        yield f"t{number}", talk
        for place, ask in every_ask(talk, f"t{number}"):
            if ask.talk is not None:
                yield place, ask.talk
