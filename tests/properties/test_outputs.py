"""Answers that have a type: read, sent back and counted as one by one in call order, whatever comes.

A script of answers, good and bad, as text and as calls, whole and cut, among calls that work, is run
by the kernel and read by a small sequential model.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal, TypeAlias

import anyio
import attrs
from hypothesis import example, given
from hypothesis import strategies as st

from tests.properties.provider import accepted
from tests.support import Loop
from turnscope import (
    Agent,
    Budget,
    BudgetExceeded,
    Kernel,
    OutputInvalid,
    OutputRefused,
    RunResult,
    Tool,
    TurnscopeError,
    UserMessage,
)
from turnscope.events import (
    CallDelta,
    CallSealed,
    CallStarted,
    ModelFinished,
    OutputRetried,
    RunEvent,
    TextDelta,
)
from turnscope.testing import ScriptedModel, Stream

Part: TypeAlias = Literal["good", "bad", "cut", "work", "fails", "early", "unknown"]
"""A call: of the answer's tool, that fits, does not, or is cut; or of another."""
TEXTS = ("fits", "wrong", "blank", "cut", "refusal")

NAMES = {"good": "final_answer", "bad": "final_answer", "cut": "final_answer"}
WORK = ("work", "fails", "early")


@attrs.frozen
class Case:
    script: tuple[str | tuple[Part, ...], ...]
    """What the model answers, one after the other: a text or calls; then an answer that fits."""
    by_tool: bool
    retries: int
    turns: int
    """The budget."""

    @property
    def answers(self) -> tuple[str | tuple[Part, ...], ...]:
        return (*self.script, ("good",) if self.by_tool else "fits")


@attrs.frozen
class Told:
    """What a run comes to."""

    end: object
    """Its output, or the name of its error."""
    requests: int
    statuses: list[str]
    retried: int
    """How many answers were sent back, and another asked for."""
    prompts: int
    """How many of them were text, and so are answered by a prompt."""
    worked: Counter[str]


def foretold(case: Case) -> Told:
    """The model: one turn after the other, and in each one call after the other."""
    told = Told(None, 0, [], 0, 0, Counter())
    bad = 0

    def end(how: object, number: int) -> Told:
        sent_back = bad - (how == "OutputInvalid")
        return attrs.evolve(told, end=how, requests=number, retried=sent_back)

    for number, answer in enumerate(case.answers, 1):
        if number > case.turns:
            return end("BudgetExceeded", number - 1)
        fits: int | None = None
        wrong = True
        if answer == "refusal":
            return end("OutputRefused", number)
        if isinstance(answer, str):
            if answer == "fits" and not case.by_tool:
                return end(100 * number, number)
            told = attrs.evolve(told, prompts=told.prompts + 1)
        else:
            wrong = False
            for place, part in enumerate(answer):
                status = {"work": "ok", "early": "ok", "fails": "failed"}.get(part, "invalid")
                told.worked[part] += part in WORK
                if case.by_tool and part in NAMES:
                    if fits is not None:
                        status = "not_started"
                    elif part == "good":
                        status, fits = "ok", 100 * number + place
                    else:
                        wrong = True
                told.statuses.append(status)
        if fits is not None:
            return end(fits, number)
        bad += wrong
        if bad > case.retries:
            return end("OutputInvalid", number)
    raise AssertionError("the last answer fits")


def streamed(number: int, answer: str | tuple[Part, ...]) -> Stream:
    """What the model streams for its *number*th answer, a call a second."""
    events: list[tuple[float, Any]] = []
    if isinstance(answer, str):
        value = f'{{"value": {100 * number}}}'
        texts = {"fits": value, "wrong": '{"value": "x"}', "blank": " ", "cut": value[:-3]}
        reasons: dict[str, Any] = {"cut": "length", "refusal": "refusal"}
        events.append((0.0, TextDelta(texts.get(answer, "No."))))
        return Stream([*events, (1.0, ModelFinished(reasons.get(answer, "stop")))])
    for place, part in enumerate(answer):
        arguments = {
            "good": f'{{"value": {100 * number + place}}}',
            "bad": '{"value": null}',
            "cut": '{"value": 1',
        }.get(part, "{}")
        events.append((place, CallDelta(place, f"c{place}", NAMES.get(part, part), arguments)))
        if part != "cut":
            events.append((place, CallSealed(place)))
    reason = "length" if "cut" in answer else "calls"
    return Stream([*events, (len(answer), ModelFinished(reason))])


def answers_are_read_as_foretold(case: Case, loop: Loop) -> None:
    worked: Counter[str] = Counter()

    def tool(name: str) -> Tool[..., Any]:
        async def body() -> str:
            worked[name] += 1
            await anyio.sleep(1.5)
            if name == "fails":
                raise ValueError
            return name

        return Tool(body, name=name, description="", read_only=name == "early")

    script = [streamed(number, answer) for number, answer in enumerate(case.answers, 1)]
    model = ScriptedModel(script, takes_output=not case.by_tool)
    agent = Agent(
        model=model,
        output=int,
        output_retries=case.retries,
        tools=[tool(name) for name in WORK],
        budget=Budget(turns=case.turns),
    )
    events: list[RunEvent] = []

    class Notes:
        def observe(self, event: RunEvent) -> None:
            events.append(event)

    async def main() -> RunResult[int] | TurnscopeError:
        async with Kernel(observers=[Notes()]) as kernel:
            try:
                return await kernel.run(agent, "go")
            except (OutputInvalid, OutputRefused, BudgetExceeded) as exc:
                return exc

    ended = loop.run(main)
    history = ended.history
    assert history is not None
    got = Told(
        end=ended.output if isinstance(ended, RunResult) else type(ended).__name__,
        requests=len(model.requests),
        statuses=[str(result.status) for result in history.results],
        retried=sum(isinstance(event, OutputRetried) for event in events),
        prompts=sum(isinstance(each, UserMessage) for each in history) - 1,
        worked=worked,
    )
    assert got == foretold(case)
    accepted(history.to_json())
    for request in model.requests:
        accepted(request.history.to_json())
    started = {event.call.name for event in events if isinstance(event, CallStarted)}
    assert "final_answer" not in started
    for message in list(history)[1:]:
        if isinstance(message, UserMessage):
            assert str(message.content).startswith("Your answer does not fit")


PARTS = st.sampled_from(["good", "bad", "work", "fails", "early", "unknown"])
CALLS = st.builds(
    lambda parts, cut: (*parts, "cut") if cut else tuple(parts),
    st.lists(PARTS, min_size=1, max_size=4),
    st.booleans(),
)
SCRIPTS = st.lists(st.one_of(st.sampled_from(TEXTS[:-1]), CALLS, CALLS), max_size=5).flatmap(
    lambda script: st.sampled_from([(*script,), (*script,), (*script, "refusal")])
)
CASES = st.builds(
    Case,
    script=SCRIPTS,
    by_tool=st.booleans(),
    retries=st.integers(0, 3),
    turns=st.sampled_from([3, 50, 50]),
)


@given(case=CASES)
@example(case=Case((("bad", "good", "work"),), by_tool=True, retries=0, turns=50))
@example(case=Case((("early", "bad"), ("early",), "wrong"), by_tool=True, retries=2, turns=50))
@example(case=Case(("wrong", ("good",), "cut"), by_tool=False, retries=1, turns=50))
def test_answers_are_read_sent_back_and_counted_as_foretold(case: Case, virtual_loop: Loop) -> None:
    answers_are_read_as_foretold(case, virtual_loop)
