"""LiteLLM's proxy in front of aimock: what it makes of three protocols is read as it is meant.

Run by hand, `nox -s litellm`, because the proxy takes 700 MB to install; for the same reason the
file has a name that pytest does not look for.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import anyio
import attrs
import httpx2
import pytest

from tests.adapters.aimock.serving import MODELS, AIMock
from tests.support import Loop
from turnscope import Agent, Kernel, ModelError, tool
from turnscope.testing import nothing_left
from turnscope_adapters._http_model import HTTPModel

SECONDS = 60
START_SECONDS = 300
TEXT = "Rain in Paris, and the sun shines in Tokyo."
CITIES = ["Paris", "Tokyo", "Lima"]


@attrs.frozen
class Proxy:
    """LiteLLM in front of an aimock, whose scenarios are its models."""

    aimock: AIMock
    base_url: str


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("litellm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with closing(AIMock(folder)) as aimock:
        behind = {"model": "openai/*", "api_base": f"{aimock.url}/v1", "api_key": "none"}
        config = {
            "model_list": [{"model_name": "*", "litellm_params": behind}],
            "router_settings": {"num_retries": 0},
            "litellm_settings": {"num_retries": 0, "telemetry": False},
        }
        (folder / "config.yaml").write_text(json.dumps(config))  # which is YAML too
        command = shutil.which("litellm")
        assert command is not None, "litellm is not on PATH: nox -s litellm installs it"
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [command, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)],
                cwd=folder,
                env={
                    **os.environ,
                    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches prices
                    # It listens on loopback, and what is behind it is no secret.
                    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            end = time.monotonic() + START_SECONDS
            while not _answers(url):
                said = (folder / "log").read_text()[-2_000:]
                assert process.poll() is None and time.monotonic() < end, said
                time.sleep(0.5)
            yield Proxy(aimock, f"{url}/v1")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health/liveliness", trust_env=False, timeout=5).is_success
    except httpx2.HTTPError:
        return False


@pytest.mark.parametrize("kind", MODELS)
def test_a_run_has_its_calls_overlap_and_their_results_sent_back(
    kind: type[HTTPModel], proxy: Proxy, any_loop: Loop
) -> None:
    calls = [{"name": "weather", "arguments": {"city": city}} for city in CITIES]
    name = proxy.aimock.scenario(
        {"match": {"hasToolResult": False}, "response": {"toolCalls": calls}, "chunkSize": 3},
        {"match": {"hasToolResult": True}, "response": {"content": TEXT}, "chunkSize": 5},
    )
    inside: set[str] = set()

    @tool
    async def weather(city: str) -> str:
        """Tell the weather."""
        inside.add(city)
        while len(inside) < len(CITIES):
            await anyio.sleep(0.005)
        return f"rain in {city}"

    agent: Agent[Any, Any] = Agent(
        model=kind(name, base_url=proxy.base_url, api_key="none"), tools=[weather], retry=None
    )

    async def main() -> None:
        async with nothing_left(), Kernel() as kernel:
            with anyio.fail_after(SECONDS):
                result = await kernel.run(agent, "Weather?")
        assert result.output == TEXT
        results = [each.content for each in result.history.results]
        assert results == [f"rain in {city}" for city in CITIES]

    any_loop.run(main)


@pytest.mark.parametrize("kind", MODELS)
def test_a_refusal_has_its_status(kind: type[HTTPModel], proxy: Proxy, any_loop: Loop) -> None:
    refusal = {"error": {"message": "slow down", "type": "rate_limit_error"}, "status": 429}
    name = proxy.aimock.scenario({"response": refusal})
    agent: Agent[Any, Any] = Agent(
        model=kind(name, base_url=proxy.base_url, api_key="none"), retry=None
    )

    async def main() -> None:
        async with nothing_left(), Kernel() as kernel:
            with anyio.fail_after(SECONDS), pytest.raises(ModelError, match="slow down") as caught:
                await kernel.run(agent, "Weather?")
        assert (caught.value.status, caught.value.transient) == (429, True)

    any_loop.run(main)
