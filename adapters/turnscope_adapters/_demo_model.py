"""What the model of ``turnscope demo`` says: a script in place of a model, offline.

It asks for what a model could ask for, reads the results as a model does, out of the conversation,
and streams its words at the pace of one. Above: `_demo`. Below: `turnscope`'s public names and
`_demo_tools`, for what these hold to.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import attrs

from turnscope import History, ResultMessage, Status
from turnscope.abc import ModelRequest
from turnscope.events import CallDelta, CallSealed, ModelEvent, ModelFinished, TextDelta

from . import _files
from ._demo_tools import MOST_COUNTED, MOST_HASHED, MOST_LISTED

_WORD_SECONDS: Final = 0.008
"""Between two words: as fast as the quick models of today."""
_ESSENTIAL: Final = ("list_files", "sum_up")

_Call = tuple[str, dict[str, Any]]


def trouble(history: History) -> str | None:
    """Why the demo broke off; None if it did not."""
    for result in history.results:
        if result.name in _ESSENTIAL and result.status is not Status.OK:
            return f"{result.name} {result.status}: {result.content}"
    return None


@attrs.frozen
class DemoModel:
    """Asks about *folder*, as `_files.shown` writes it, in three turns; then it answers."""

    folder: str

    @asynccontextmanager
    async def stream(self, request: ModelRequest, /) -> AsyncGenerator[AsyncGenerator[ModelEvent]]:
        """Say what comes next after the results so far."""
        text, calls = self._next(request.history)
        events = _streamed(text, calls, len(request.history.results) + 1)
        try:
            yield events
        finally:
            await events.aclose()

    def _next(self, history: History) -> tuple[str, list[_Call]]:
        results = history.results
        if trouble(history) is not None:
            return "That did not work.", []
        if not results:
            return "First, a look at the folder.", [("list_files", {"folder": self.folder})]
        listing = _value(results[0])
        if len(results) == 1:
            words = "Now the largest files, all at once, and three calls that cannot succeed."
            return words, self._second(listing["largest"])
        if results[-1].name != "sum_up":
            return "And the sum of it.", [("sum_up", _values(results[1:]))]
        return _answer(listing, _value(results[-1])), []

    def _second(self, files: list[str]) -> list[_Call]:
        """The second turn's calls: what can be done, and three that cannot."""
        missing = os.path.join(self.folder, "no-such-file")
        while os.path.lexists(_files.real(missing)):
            missing += "-either"
        return [
            *(("count_words", {"path": path}) for path in files[:MOST_COUNTED]),
            *(("sha256", {"path": path}) for path in files[:MOST_HASHED]),
            ("count_words", {"path": os.path.normpath(missing)}),
            ("wait_for_answer", {"question": "Is anybody there?"}),
            ("never_looks_up", {"seconds": 5}),
        ]


async def _streamed(text: str, calls: Iterable[_Call], first: int) -> AsyncGenerator[ModelEvent]:
    """*text* word by word, then *calls*, whose ids count from *first*."""
    for number, word in enumerate(text.split(" ")):
        await anyio.sleep(_WORD_SECONDS)
        yield TextDelta(f" {word}" if number else word)
    asked = 0
    for asked, (name, arguments) in enumerate(calls, 1):
        yield CallDelta(asked, f"c{first + asked - 1}", name, json.dumps(arguments))
        yield CallSealed(asked)
    yield ModelFinished("calls" if asked else "stop")


def _value(result: ResultMessage) -> Any:
    return json.loads(str(result.content))


def _values(results: Iterable[ResultMessage]) -> dict[str, Any]:
    """What the second turn's results are as arguments of sum_up."""
    values: dict[str, list[Any]] = {"count_words": [], "sha256": []}
    troubles: list[dict[str, str]] = []
    for result in results:
        if result.status is Status.OK:
            values[result.name].append(_value(result))
        else:
            troubles.append({"tool": result.name, "status": str(result.status)})
    return {"counts": values["count_words"], "digests": values["sha256"], "troubles": troubles}


def _answer(listing: dict[str, Any], summary: dict[str, Any]) -> str:
    read = len(listing["largest"])
    hashed = min(read, MOST_HASHED)
    more = "" if listing["complete"] else f", and stopped there: a listing ends at {MOST_LISTED:,}"
    besides = [
        f"{listing[name]:,} {words}"
        for name, words in (
            ("left_out", "hidden or generated names left out"),
            ("links", "links not followed"),
            ("unreadable", "names unreadable"),
        )
        if listing[name]
    ]
    megabytes = _files.MOST_BYTES / 1e6
    return (
        f"Found {listing['files']:,} files{more}; read {read} and hashed {hashed}, the largest "
        f"(at most {MOST_COUNTED} and {MOST_HASHED}, of at most {megabytes:g} MB each): "
        f"{summary['lines']:,} lines, {summary['words']:,} words."
        + (f" Besides: {', '.join(besides)}." if besides else "")
    )
