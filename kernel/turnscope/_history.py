"""History: an immutable conversation that a provider accepts as it stands.

It is checked when it comes in from outside, and grows by whole turns only, so nothing ever repairs
it. Growing copies nothing: a history and those that it grew from share one list, of which each
sees its own length. Above: the run. Below: the messages, and `_stored`, which makes them JSON.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, overload

from ._messages import AssistantMessage, Message, ResultMessage, UserMessage, is_blank
from ._stored import decoded, encoded, is_object


class History(Sequence[Message]):
    """What is sent to the model, and what a conversation is stored and continued as::

        result = await kernel.run(agent, "Weather in Beijing?")
        text = result.history.to_json()                     # keep it anywhere
        again = History.from_json(text)                     # in another process, another day
        await kernel.run(agent, "And in Shanghai?", history=again)

    Raises ValueError for messages that a provider would refuse, saying which and why: a call
    without its result directly after it and in call order, an id that is empty or repeated,
    arguments that are no JSON object, an empty message.
    """

    __slots__ = ("_ids", "_length", "_messages")

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self._messages: list[Message] = list(messages)
        self._length = len(self._messages)
        self._ids: dict[str, None] = _checked(self._messages)
        """Of the calls in the shared list, and so perhaps of a few that are in longer ones. A set
        would take twice as much memory."""

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Message, ...]: ...
    def __getitem__(self, index: int | slice) -> Message | tuple[Message, ...]:
        if isinstance(index, slice):
            return tuple(self._messages[i] for i in range(*index.indices(self._length)))
        place = index + self._length if index < 0 else index
        if not 0 <= place < self._length:
            raise IndexError(f"message {index} of a history of {self._length}")
        return self._messages[place]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Message]:
        for place in range(self._length):
            yield self._messages[place]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, History):
            return NotImplemented
        return self._length == other._length and self[:] == other[:]

    def __hash__(self) -> int:
        return hash(self._length)  # not of the messages, which may hold JSON data

    def __repr__(self) -> str:
        return f"<History of {self._length} messages>"

    @property
    def results(self) -> tuple[ResultMessage, ...]:
        """The results of all calls, in the order of the calls."""
        return tuple(message for message in self if isinstance(message, ResultMessage))

    def to_json(self) -> str:
        """This conversation as one line of JSON."""
        return encoded(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> History:
        """The conversation that `to_json` wrote.

        Raises ValueError for anything else, saying what is wrong and in which message.
        """
        return cls(decoded(text))

    # What a run asks of it.

    def knows(self, call_id: str) -> bool:
        """Whether *call_id* is taken."""
        return call_id in self._ids

    def grown(self, messages: Sequence[Message]) -> History:
        """This history and *messages*, which the run has made whole; in one step."""
        history = object.__new__(History)
        with _growing:
            if len(self._messages) == self._length:
                history._messages, history._ids = self._messages, self._ids
            else:  # another has grown from this one: a conversation that was taken two ways
                history._messages = self._messages[: self._length]
                history._ids = {}
                _note_ids(history._ids, history._messages)
            _note_ids(history._ids, messages)
            history._messages.extend(messages)
        history._length = self._length + len(messages)
        return history


# Kernels in two threads may go on from one conversation at once.
_growing: Final = threading.Lock()


def _note_ids(ids: dict[str, None], messages: Iterable[Message]) -> None:
    for message in messages:
        if isinstance(message, AssistantMessage):
            for call in message.calls:
                ids[call.id] = None


def _checked(messages: Sequence[Message]) -> dict[str, None]:
    """The ids of the calls in *messages*; raises ValueError if a provider would refuse them."""
    taken: dict[str, None] = {}
    awaited: list[str] = []
    for number, message in enumerate(messages):
        where = f"message {number} of the history"
        if awaited:
            if not isinstance(message, ResultMessage) or message.id != awaited[0]:
                raise ValueError(
                    f"{where} is not the result of the call {awaited[0]!r}: the results of an "
                    "answer's calls come directly after it, one for each, in call order"
                )
            awaited.pop(0)
        elif isinstance(message, ResultMessage):
            raise ValueError(f"{where} is a result, {message.id!r}, of no call before it")
        elif isinstance(message, AssistantMessage):
            if not message.calls and is_blank(message.text):
                raise ValueError(f"{where} is an answer with neither text nor calls")
            for call in message.calls:
                if not call.id or call.id in taken:
                    raise ValueError(f"{where} has a call whose id is empty or taken: {call.id!r}")
                if not is_object(call.arguments):
                    raise ValueError(
                        f"{where} has a call, {call.id!r}, whose arguments are not the JSON text "
                        "of an object"
                    )
                taken[call.id] = None
            awaited = [call.id for call in message.calls]
        elif not isinstance(message, UserMessage):
            raise TypeError(
                f"{where} is a {type(message).__name__}, not a UserMessage, AssistantMessage or "
                "ResultMessage"
            )
        elif is_blank(message.content):
            raise ValueError(f"{where} is an empty prompt")
    if awaited:
        raise ValueError(f"the history ends without the result of the call {awaited[0]!r}")
    return taken
