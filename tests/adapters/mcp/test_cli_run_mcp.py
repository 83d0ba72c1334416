"""``turnscope run --mcp``: the command with tool servers, in processes of their own."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.command import SECONDS, Running, one_line, run
from tests.adapters.mcp.serving import HERE, Odd, left_of
from tests.support import Loop

MODEL = """
from turnscope import ToolCall
from turnscope.testing import ScriptedModel

def last(request):
    return str(request.history.results[-1].content)

echo = ScriptedModel([[ToolCall("c1", "odd_echo", {"text": "hi"})], last])
hang = ScriptedModel([[ToolCall("c1", "hang", {})], "never"])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models.py").write_text(MODEL)
    return tmp_path


@pytest.fixture(autouse=True)
def _the_server_is_gone(odd: Odd) -> Iterator[None]:
    yield
    if odd.log.exists():
        assert left_of(odd.pid) == []


def command(odd: Odd, *habits: str) -> str:
    script = str(HERE / "odd_server.py")
    return shlex.join([sys.executable, "-S", "-E", script, str(odd.log), *habits])


def test_a_command_is_a_server_whose_tools_the_model_may_call(
    any_loop: Loop, folder: Path, odd: Odd
) -> None:
    some = ("--model", "models:echo", "--mcp", f"odd={command(odd)}", "--loop", any_loop.name)
    done = run("run", "Say hi", *some, cwd=folder)
    assert (done.returncode, done.stdout) == (0, "hi\n"), done.stderr
    assert len(odd.received("tools/call")) == 1


def test_a_server_that_does_not_start_is_told_in_one_line(folder: Path, odd: Odd) -> None:
    server = command(odd, "dies-at-start")
    done = run("run", "?", "--model", "models:echo", "--mcp", server, cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "ended with exit code 3; it wrote last: no configuration" in one_line(done.stderr)


@pytest.mark.parametrize(
    ("servers", "says"),
    [
        (["'"], "--mcp: No closing quotation"),
        ([""], "has none"),
        (["http://a:secret@127.0.0.1/"], "password"),
    ],
)
def test_what_is_no_server_is_refused(folder: Path, servers: list[str], says: str) -> None:
    options = [word for each in servers for word in ("--mcp", each)]
    done = run("run", "?", "--model", "models:echo", *options, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in one_line(done.stderr) and "secret" not in done.stderr


def test_two_servers_with_tools_of_one_name_need_a_prefix(folder: Path, odd: Odd) -> None:
    twice = ("--mcp", command(odd), "--mcp", command(odd))
    done = run("run", "?", "--model", "models:echo", *twice, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "two tools are named 'echo'" in one_line(done.stderr)
    assert "PREFIX=COMMAND" in done.stderr


def test_ctrl_c_in_a_call_ends_the_server_as_well(any_loop: Loop, folder: Path, odd: Odd) -> None:
    some = ("--model", "models:hang", "--mcp", command(odd, "stubborn"), "--json")
    with Running("run", "?", *some, "--loop", any_loop.name, cwd=folder) as running:
        running.read_until(lambda event: event["type"] == "CallStarted")
        running.interrupt(group=True)
        code, _, errors = running.end(SECONDS)
    assert (code, errors) == (130, "turnscope: interrupted\n")


def test_ctrl_c_while_a_server_starts_ends_both(any_loop: Loop, folder: Path, odd: Odd) -> None:
    some = ("--model", "models:hang", "--mcp", command(odd, "hangs-at-start"))
    with Running("run", "?", *some, "--loop", any_loop.name, cwd=folder) as running:
        until = time.monotonic() + SECONDS
        while not odd.log.exists() or not odd.log.read_text():
            assert time.monotonic() < until
            time.sleep(0.01)
        running.interrupt(group=True)
        code, output, errors = running.end(SECONDS)
    assert (code, output, errors) == (130, "", "turnscope: interrupted\n")
