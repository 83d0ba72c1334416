"""The server of llama.cpp, with a small model that the test makes: a real one of what people run.

Run by hand, `nox -s llama`, because what it needs is not for every machine; for the same reason the
file has a name that pytest does not look for.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from tests.adapters.openai.asking import ask, told
from tests.adapters.openai.server import open_sockets
from tests.by_hand import llama_model
from tests.support import Loop
from turnscope import Agent, Kernel, ModelError, tool
from turnscope.testing import nothing_left
from turnscope_adapters._http_model import HTTPModel
from turnscope_adapters.anthropic import AnthropicMessages
from turnscope_adapters.openai import OpenAIChat, OpenAIResponses

SECONDS = 60
# llama.cpp is alone in making one call at a time unless it is told otherwise.
PARALLEL = {"parallel_tool_calls": True}
MODELS: list[tuple[type[HTTPModel], dict[str, Any]]] = [
    (OpenAIChat, PARALLEL),
    (OpenAIResponses, PARALLEL),
    (AnthropicMessages, {}),
]
each_kind = pytest.mark.parametrize(("kind", "settings"), MODELS)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("llama") / "model.gguf"
    llama_model.write(path)
    program = str(Path(llama_model.__file__))
    with subprocess.Popen(
        [sys.executable, program, str(path)],
        stdin=subprocess.PIPE,  # with which it ends, also if this process is killed
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        late = threading.Timer(SECONDS, process.kill)
        late.start()
        try:
            assert process.stdout is not None and process.stdin is not None
            lines = (line for line in process.stdout if line.startswith("listening on "))
            address = next(lines, None)
            assert address is not None, "llama.cpp did not start: see llama_model.py by hand"
            yield address.removeprefix("listening on ").strip() + "/v1"
            process.stdin.close()
            process.wait(SECONDS)
        finally:
            late.cancel()
            process.kill()


@each_kind
def test_text_comes_in_pieces(
    kind: type[HTTPModel], settings: dict[str, Any], url: str, any_loop: Loop
) -> None:
    answer = told(any_loop.run(ask, kind("m", base_url=url, api_key="none")))
    assert answer.text == llama_model.TEXT
    assert answer.finished.reason == "stop"
    assert answer.finished.usage.output_tokens > 0


@each_kind
def test_a_run_has_its_calls_overlap_and_their_results_sent_back(
    kind: type[HTTPModel], settings: dict[str, Any], url: str, any_loop: Loop
) -> None:
    inside: set[str] = set()

    @tool
    async def weather(city: str) -> str:
        """Tell the weather."""
        inside.add(city)
        while len(inside) < 2:
            await anyio.sleep(0.005)
        return f"rain in {city}"

    model = kind("m", base_url=url, api_key="none", settings=settings)
    agent: Agent[Any, Any] = Agent(model=model, tools=[weather])

    async def main() -> None:
        async with nothing_left(), Kernel() as kernel:
            with anyio.fail_after(SECONDS):
                result = await kernel.run(agent, "Weather?")
        assert open_sockets(httpx2.URL(url).port or 0) == 0
        assert result.output == llama_model.TEXT
        assert [each.content for each in result.history.results] == [
            "rain in Paris",
            "rain in Tokyo",
        ]

    any_loop.run(main)


@each_kind
def test_what_it_refuses_is_told_in_its_words(
    kind: type[HTTPModel], settings: dict[str, Any], url: str, any_loop: Loop
) -> None:
    model = kind("m", base_url=url, api_key="none", settings={"temperature": "hot"})
    with pytest.raises(ModelError, match="answered 4") as caught:
        any_loop.run(ask, model)
    assert not caught.value.transient
