"""aimock, which nobody here wrote, as a process on loopback: three protocols, and faults on demand.

A scenario is a name of a model that only one test asks for, so that tests share the process and
nothing else. Above: the tests of this folder. Below: `llmock`, the program of the npm package.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import IO, Any

import httpx2
import pytest

from turnscope_adapters._http_model import HTTPModel
from turnscope_adapters.anthropic import AnthropicMessages
from turnscope_adapters.openai import OpenAIChat, OpenAIResponses

SECONDS = 20
"""After which a wait is taken to hang: far more than any takes."""

MODELS: list[type[HTTPModel]] = [OpenAIChat, OpenAIResponses, AnthropicMessages]

NEEDS_AIMOCK = pytest.mark.skipif(
    shutil.which("llmock") is None,
    reason="llmock is not on PATH: npm install --global @copilotkit/aimock",
)


class AIMock:
    """The process, and what tests ask of it: scenarios, models that play them, its journal."""

    def __init__(self, folder: Path) -> None:
        self._numbers = itertools.count()
        # Closes each connection: those that are open when a test ends are to be the adapter's.
        self._client = httpx2.Client(
            headers={"connection": "close"}, verify=False, trust_env=False, timeout=SECONDS
        )
        some = folder / "some.json"  # strict, it wants one
        some.write_text('{"fixtures": [{"match": {"model": "-"}, "response": {"content": "-"}}]}')
        command = ["llmock", "--strict", "--port", "0", "--fixtures", str(some)]
        # In a group of its own: `llmock` may be a shim that starts node.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            self.url = self._listening()
        except BaseException:
            self.close()
            raise
        self.port = int(self.url.rpartition(":")[2])

    def _listening(self) -> str:
        """Where it listens; it writes that as soon as it does."""
        # One that hangs before it does so must not hold up the tests for ever.
        late = threading.Timer(SECONDS, self._kill)
        late.start()
        try:
            said = ""
            assert self._process.stdout is not None
            for line in self._process.stdout:
                said += line
                if found := re.search(r"listening on (http://127\.0\.0\.1:\d+)", line):
                    threading.Thread(target=_drain, args=[self._process.stdout]).start()
                    return found[1]
            raise RuntimeError(f"llmock did not start: {said or '(it said nothing)'}")
        finally:
            late.cancel()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it, and all that it has started."""
        self._client.close()
        self._kill()
        self._process.wait()

    def scenario(self, *fixtures: dict[str, Any]) -> str:
        """The name of a model that answers with *fixtures*, in aimock's own words.

        What a fixture has under "match" is matched beside the name; the first that fits answers.
        """
        name = f"scenario-{next(self._numbers)}-"  # the end keeps 1 from being the beginning of 11
        made = [{**each, "match": {"model": name, **each.get("match", {})}} for each in fixtures]
        assert self._ask("/__aimock/fixtures", {"fixtures": made}) == {"added": len(made)}
        return name

    def model(self, kind: type[HTTPModel], name: str, **options: Any) -> HTTPModel:
        """A model of *kind* that is asked for as *name*."""
        return kind(name, base_url=f"{self.url}/v1", **options)

    def requests(self, name: str) -> list[dict[str, Any]]:
        """What aimock has understood of the requests to *name*: all protocols read as Chat's."""
        journal = self._ask("/__aimock/journal")
        return [each["body"] for each in journal if (each["body"] or {}).get("model") == name]

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        method = "GET" if body is None else "POST"
        answer = self._client.request(method, f"{self.url}{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()


def _drain(output: IO[str]) -> None:
    """Read its log to the end: a pipe that is full would stop it."""
    with output:
        for _ in output:
            continue
