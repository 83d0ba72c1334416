"""The faults that aimock makes: each is one ModelError in time, or a run that goes on; no remains."""

from __future__ import annotations

import gc
from typing import Any

import anyio
import pytest

from tests.adapters.aimock.serving import MODELS, NEEDS_AIMOCK, SECONDS, AIMock
from tests.adapters.openai.asking import ask, told
from tests.adapters.openai.server import open_sockets
from tests.support import Loop
from turnscope import Agent, Kernel, ModelError, Retry, tool
from turnscope.events import ModelRetried, TextStreamed
from turnscope.testing import nothing_left
from turnscope_adapters._http_model import HTTPModel
from turnscope_adapters.anthropic import AnthropicMessages
from turnscope_adapters.openai import OpenAIChat, OpenAIResponses

pytestmark = [NEEDS_AIMOCK, pytest.mark.parametrize("kind", MODELS)]

TEXT = "Rain in Paris, and the sun shines in Tokyo."
KEY = "sk-hush-0123456789"
SLOWLY = {"chunkSize": 5, "latency": 20}  # ms before each piece, which then comes by itself
# The piece with which the second of two calls begins: then the first is known to be whole.
IN_2ND_CALL: dict[Any, int] = {OpenAIChat: 4, OpenAIResponses: 7, AnthropicMessages: 5}
FOREVER = {"chunkSize": 5, "streamingProfile": {"ttft": 0, "tps": 0.001}}  # the first piece at once


def failure(loop: Loop, aimock: AIMock, kind: type[HTTPModel], name: str, **options: Any) -> Any:
    """The error of one request; asserts that it leaves no task and no connection, and no key."""

    async def main() -> ModelError:
        async with nothing_left():
            async with aimock.model(kind, name, api_key=KEY, **options) as model:
                with pytest.raises(ModelError) as caught, anyio.fail_after(SECONDS):
                    await ask(model)
        return caught.value

    error = loop.run(main)
    gc.collect(1)  # the young: to look at all takes longer than the test
    assert open_sockets(aimock.port) == 0
    assert KEY not in f"{error!r} {error} {error.__cause__!r}"
    return error


@pytest.mark.parametrize(
    ("status", "transient"),
    [(400, False), (401, False), (404, False), (429, True), (500, True), (503, True), (529, True)],
)
def test_a_refusal_has_its_status_and_words(
    status: int, transient: bool, kind: type[HTTPModel], aimock: AIMock, any_loop: Loop
) -> None:
    refusal = {"error": {"message": "not today", "type": "some_error"}, "status": status}
    error = failure(any_loop, aimock, kind, aimock.scenario({"response": refusal}))
    assert error.status == status
    assert error.transient is transient
    assert "not today" in str(error)


def test_a_limit_says_when_to_ask_again(
    kind: type[HTTPModel], aimock: AIMock, any_loop: Loop
) -> None:
    refusal = {"error": {"message": "slow down"}, "status": 429, "retryAfter": 7}
    error = failure(any_loop, aimock, kind, aimock.scenario({"response": refusal}))
    assert (error.status, error.retry_after) == (429, 7)


@pytest.mark.parametrize(
    ("chaos", "status", "words", "transient"),
    [
        ("dropRate", 500, "Chaos: request dropped", True),
        ("rateLimitRate", 429, "Chaos: rate limit exceeded", True),
        ("malformedRate", 200, "application/json where a stream of events.*malformed json", False),
        ("disconnectRate", None, "connection to 127.0.0.1:.* broke", True),
    ],
)
def test_chaos_is_an_error_that_says_which(
    chaos: str,
    status: int | None,
    words: str,
    transient: bool,
    kind: type[HTTPModel],
    aimock: AIMock,
    any_loop: Loop,
) -> None:
    name = aimock.scenario({"response": {"content": TEXT}, "chaos": {chaos: 1}})
    with pytest.raises(ModelError, match=words) as caught:
        raise failure(any_loop, aimock, kind, name)
    assert (caught.value.status, caught.value.transient) == (status, transient)


def test_latency_is_waited_for(kind: type[HTTPModel], aimock: AIMock, any_loop: Loop) -> None:
    name = aimock.scenario({"response": {"content": TEXT}, "chaos": {"latencyMs": 300}})
    answer = told(any_loop.run(ask, aimock.model(kind, name, timeout=SECONDS)))
    assert answer.text == TEXT


@pytest.mark.parametrize("silent", ["before its answer", "within its answer"])
def test_a_server_that_falls_silent_is_not_waited_for(
    silent: str, kind: type[HTTPModel], aimock: AIMock, any_loop: Loop
) -> None:
    late = {"chaos": {"latencyMs": 30_000}} if silent.startswith("before") else FOREVER
    name = aimock.scenario({"response": {"content": TEXT}, **late})
    with pytest.raises(ModelError, match="silent for too long; raise timeout="):
        raise failure(any_loop, aimock, kind, name, timeout=0.3)


@pytest.mark.parametrize("cut", [{"truncateAfterChunks": 4}, {"disconnectAfterMs": 90}])
def test_an_answer_that_is_cut_is_an_error(
    cut: dict[str, int], kind: type[HTTPModel], aimock: AIMock, any_loop: Loop
) -> None:
    name = aimock.scenario({"response": {"content": TEXT * 3}, **SLOWLY, **cut})
    error = failure(any_loop, aimock, kind, name)
    assert error.status is None and error.transient
    assert "broke" in str(error)


def test_a_run_asks_again_after_a_refusal_and_after_a_cut(
    kind: type[HTTPModel], aimock: AIMock, any_loop: Loop
) -> None:
    limited = {"error": {"message": "slow down"}, "status": 429, "retryAfter": 0}
    calls = [{"name": "look", "arguments": {"place": place}} for place in ("here", "there")]
    answers: list[dict[str, Any]] = [
        {"response": limited},
        {"response": {"toolCalls": calls}, "latency": 20, "truncateAfterChunks": IN_2ND_CALL[kind]},
        {"response": {"toolCalls": calls}},
        {"response": {"content": TEXT}},
    ]
    name = aimock.scenario(
        *({"match": {"sequenceIndex": place}, **each} for place, each in enumerate(answers))
    )
    looked: list[str] = []

    @tool
    async def look(place: str) -> str:
        looked.append(place)
        return f"seen {place}"

    agent: Agent[Any, Any] = Agent(
        model=aimock.model(kind, name), tools=[look], retry=Retry(initial=0.01, jitter=0)
    )

    async def main() -> None:
        async with nothing_left(), Kernel() as kernel:
            with anyio.fail_after(SECONDS):
                async with kernel.start(agent, "Look!") as run:
                    events = [event async for event in run]
                    result = await run.wait()
        assert len([event for event in events if isinstance(event, ModelRetried)]) == 2
        assert result.output == TEXT
        assert [each.content for each in result.history.results] == ["seen here", "seen there"]

    any_loop.run(main)
    assert sorted(looked) == ["here", "there"], "calls of the answer that was cut are not run"


def test_a_run_that_is_cancelled_within_an_answer_leaves_nothing(
    kind: type[HTTPModel], aimock: AIMock, any_loop: Loop
) -> None:
    name = aimock.scenario({"response": {"content": TEXT * 100}, **SLOWLY})  # of 17 s
    agent: Agent[Any, Any] = Agent(model=aimock.model(kind, name))

    async def main() -> None:
        async with nothing_left(), Kernel() as kernel:
            with anyio.fail_after(SECONDS):
                async with kernel.start(agent, "Weather?") as run:
                    async for event in run:
                        if isinstance(event, TextStreamed):
                            break
            assert open_sockets(aimock.port) == 0

    any_loop.run(main)
    gc.collect(1)
