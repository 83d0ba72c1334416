"""``turnscope run`` against a real server on loopback that speaks Chat Completions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

from tests.adapters.command import SECONDS, Running, events, one_line, run
from tests.adapters.openai.server import (
    DONE,
    GOOD,
    HELLO,
    LAST_USAGE,
    ChatServer,
    Site,
    chunk,
    piece,
)
from tests.adapters.responses.wire import HELLO as RESPONSES_HELLO
from tests.support import Loop
from turnscope import History

KEY = "sk-test-0123456789abcdef"
NO_PROXY = {"NO_PROXY": "127.0.0.1", "OPENAI_API_KEY": KEY}


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parts.py").write_text(
        "def add(a: int, b: int) -> int:\n    '''Add.'''\n    return a + b\n"
    )
    return tmp_path


def conversing(server: ChatServer) -> Site:
    """A site that asks for a sum, and then tells it."""

    async def handler(request: Request, site: Site) -> Response:
        messages = site.received[-1].body["messages"]
        if messages[-1]["role"] == "tool":
            told = [chunk({"content": f"It is {messages[-1]['content']}."}), chunk(finish="stop")]
        else:
            asked = [piece(0, "call_1", "add", '{"a": 1, '), piece(0, arguments='"b": 2}')]
            told = [*(chunk(each) for each in asked), chunk(finish="tool_calls")]
        return Response("".join([*told, LAST_USAGE, DONE]), media_type="text/event-stream")

    return server.site(handler)


def test_a_url_is_a_server_whose_model_calls_tools_and_answers(
    server: ChatServer, any_loop: Loop, folder: Path
) -> None:
    site = conversing(server)
    done = run(
        *("run", "1+2?", "--model", f"{site.base_url}#small%2Fone", "--tools", "parts:add"),
        *("--instructions", "Add.", "--history", "talk.json", "--loop", any_loop.name),
        cwd=folder,
        env=NO_PROXY,
    )
    assert (done.returncode, done.stdout) == (0, "It is 3.\n")
    assert re.search(r"add +thread +✓ ok", done.stderr)
    assert "22 tokens in, 14 out" in done.stderr
    assert site.received[0].body["model"] == "small/one"
    assert site.received[0].headers["authorization"] == f"Bearer {KEY}"
    assert site.received[0].body["messages"][0]["content"] == "Add."
    assert len(History.from_json((folder / "talk.json").read_bytes())) == 4
    assert KEY not in (folder / "talk.json").read_text()


def test_a_url_without_a_name_asks_for_the_default_model(server: ChatServer) -> None:
    site = server.streaming(GOOD)
    done = run("run", "Hi", "--model", site.base_url, env=NO_PROXY)
    assert (done.returncode, done.stdout) == (0, "Hello\n")
    assert site.received[0].body["model"] == "default"


def test_a_name_asks_the_server_of_the_environment(server: ChatServer) -> None:
    site = server.streaming(GOOD)
    done = run(
        "run", "Hi", "--model", "openai:m", env={**NO_PROXY, "OPENAI_BASE_URL": site.base_url}
    )
    assert (done.returncode, done.stdout) == (0, "Hello\n")
    assert site.received[0].body["model"] == "m"


def test_a_name_may_say_which_protocol_the_server_is_asked_in(server: ChatServer) -> None:
    site = server.streaming(RESPONSES_HELLO)
    env = {**NO_PROXY, "OPENAI_BASE_URL": site.base_url}
    done = run("run", "Hi", "--model", "openai-responses:m", env=env)
    assert (done.returncode, done.stdout) == (0, "Hello\n")
    assert site.received[0].body["input"] == [{"role": "user", "content": "Hi"}]


def test_a_refusal_is_told_with_its_status_and_words_and_without_the_key(
    server: ChatServer,
) -> None:
    site = server.refusing(401, f'{{"error": {{"message": "Wrong key: {KEY}"}}}}')
    done = run("run", "Hi", "--model", f"{site.base_url}#m", env=NO_PROXY)
    assert (done.returncode, done.stdout) == (1, "")
    line = one_line(done.stderr)
    assert "401" in line and "Wrong key" in line and KEY not in line
    done = run("run", "Hi", "--model", f"{site.base_url}#m", "--json", env=NO_PROXY)
    error = events(done.stdout)[-1]["error"]
    assert (error["type"], error["status"]) == ("ModelError", 401)
    assert KEY not in done.stdout + done.stderr


@pytest.mark.parametrize("url", ["http://", "http://a:secret@127.0.0.1/v1#m"])
def test_a_url_that_is_none_gets_one_line_without_its_password(url: str) -> None:
    done = run("run", "Hi", "--model", url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--model" in one_line(done.stderr) and "secret" not in done.stderr


def test_ctrl_c_in_the_middle_of_an_answer_closes_the_connection(
    server: ChatServer, any_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    site = server.streaming([*HELLO, 60])
    with Running(
        *("run", "Hi", "--model", f"{site.base_url}#m", "--json", "--loop", any_loop.name)
    ) as running:
        running.read_until(lambda event: event["type"] == "TextStreamed")
        running.interrupt(group=True)
        code, _, errors = running.end(SECONDS)
    assert (code, errors) == (130, "turnscope: interrupted\n")
    assert site.ended.wait(SECONDS)
