"""``turnscope run`` with a model of one's own, offline: what it prints, keeps, and says."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from rich.console import Console

from tests.adapters.command import (
    MODULE,
    SECONDS,
    Running,
    environment,
    events,
    on_a_terminal,
    one_line,
    run,
)
from tests.support import Loop
from turnscope import AssistantMessage, History, ToolCall, Usage, UserMessage
from turnscope.events import ModelAnswered, TextStreamed
from turnscope_adapters._prose import LiveProse
from turnscope_adapters.cli import main

PARTS = '''
import anyio

from turnscope import Agent, ModelError, ToolCall, Usage
from turnscope.events import ModelFinished, TextDelta
from turnscope.testing import ScriptedModel, Stream


def add(a: int, b: int) -> int:
    """Add two numbers."""
    print("adding")
    return a + b


async def wait() -> str:
    """Wait for ever."""
    await anyio.Event().wait()
    return "never"


ADD = ToolCall("c1", "add", {"a": 1, "b": 2})
both = [add, wait]

sums = ScriptedModel(
    [["I add.", ADD], lambda request: f"It is {request.history.results[-1].content}.\\n"],
    usage=Usage(input_tokens=1000, output_tokens=20),
)
echo = ScriptedModel(
    lambda r: f"{len(r.history)} {r.instructions} {[tool.name for tool in r.tools]}"
)
fails_first = ScriptedModel([ModelError("HTTP 401: who are you?", status=401)])
too_much = ModelError("it is too much", status=429, retry_after=7.5, transient=False)
fails_later = ScriptedModel([[ADD], too_much])
fails_within = ScriptedModel([Stream([(0, TextDelta("It i")), (0, OSError("no\\nwire"))])])
hangs = ScriptedModel([[ADD, ToolCall("c2", "wait", {})]])
without_end = ScriptedModel(lambda _: [ADD], usage=Usage(input_tokens=60))
refuses = ScriptedModel([Stream([(0, TextDelta("No.")), (0, ModelFinished("refusal"))])])
harmful = ScriptedModel([["red \\x1b[31m[bold]\\r\\nrow", ADD], "word " * 40])
halves = ScriptedModel(["half \\ud83d", "whole"])
slow = ScriptedModel([Stream([(0, TextDelta("begun")), (60, TextDelta("never"))])])

inner = Agent(model=ScriptedModel([["inner words", ADD], "inner answer"]), tools=[add])
sub = inner.as_tool("sub", "Ask another.")
asks = ScriptedModel([[ToolCall("s", "sub", {"prompt": "?"})], "outer answer"])
number = 7
'''


@attrs.frozen
class Done:
    code: int
    output: str
    errors: str


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module of models and tools."""
    (tmp_path / "parts.py").write_text(PARTS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def typed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Runs the command in this process, as it is faster; each time with fresh models."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(logging.Logger, "setLevel", lambda *_: None)  # it would outlive the test

    def run_here(*arguments: str) -> Done:
        try:
            code = main(["run", *arguments])
        finally:
            sys.modules.pop("parts", None)
        output, errors = capsys.readouterr()
        return Done(code, output, errors)

    return run_here


Typed = Callable[..., Done]


def test_the_answer_is_on_standard_output_and_the_calls_are_on_standard_error(
    typed: Typed, any_loop: Loop
) -> None:
    done = typed("1+2?", "--model", "parts:sums", "--tools", "parts:add", "--loop", any_loop.name)
    assert (done.code, done.output) == (0, "I add.\nIt is 3.\n")
    assert done.errors.startswith("adding\n")
    assert re.search(r"1 +add +thread +✓ ok +\d+\.\d+ +3", done.errors)
    assert re.search(
        rf"2 turns, 1 call in \d+\.\d s on {any_loop.name}: 1 ok; 2,000 tokens in, 40 out\.\n",
        done.errors,
    )


def test_an_answer_without_calls_has_no_table(typed: Typed) -> None:
    done = typed("Hi", "--model", "parts:echo")
    assert (done.code, done.output) == (0, "1 None []\n")
    assert re.fullmatch(r"1 turn, no calls in \d+\.\d s on asyncio\.\n", done.errors)


def test_tools_may_be_given_more_than_once_and_instructions_reach_the_model(typed: Typed) -> None:
    done = typed(
        *("Hi", "--model", "parts:echo", "--instructions", "Be brief."),
        *("--tools", "parts:both", "--tools", "parts:sub"),
    )
    assert done.output == "1 Be brief. ['add', 'wait', 'sub']\n"


def test_json_has_every_event_of_the_run_and_nothing_of_what_tools_print(typed: Typed) -> None:
    done = typed("1+2?", "--model", "parts:sums", "--tools", "parts:add", "--json")
    assert (done.code, done.errors) == (0, "adding\n")
    told = events(done.output)
    calls = ["CallReady", "CallStarted", "CallSettled"]
    turn = ["ModelStarted", "TextStreamed", "ModelAnswered"]
    assert [event["type"] for event in told] == [
        "RunStarted",
        *(*turn, *calls, "TurnFinished"),
        *(*turn, "TurnFinished"),
        "RunFinished",
    ]
    assert [event["turn"] for event in told if event["type"] == "TurnFinished"] == [0, 1]
    answered = next(event for event in told if event["type"] == "ModelAnswered")
    call = {"id": "c1", "name": "add", "arguments": {"a": 1, "b": 2}}
    assert (answered["text"], answered["calls"], answered["reason"]) == ("I add.", [call], "calls")
    assert answered["usage"]["input_tokens"] == 1000
    assert (told[-1]["output"], told[-1]["error"]) == ("It is 3.\n", None)
    assert told[-1]["usage"]["output_tokens"] == 40


def test_what_an_agent_in_a_tool_says_is_for_its_caller_and_its_calls_are_shown(
    typed: Typed,
) -> None:
    arguments = ("Hi", "--model", "parts:asks", "--tools", "parts:sub")
    done = typed(*arguments)
    assert (done.code, done.output) == (0, "outer answer\n")
    assert re.search(r"1 +sub +inline +✓ ok .*\n +add +thread +✓ ok ", done.errors)
    assert "2 turns, 2 calls" in done.errors
    told = events(typed(*arguments, "--json").output)
    outer = told[0]["run_id"]
    assert {tuple(e["parents"]) for e in told if e["run_id"] != outer} == {(outer,)}
    assert "inner words" in [e["text"] for e in told if e["type"] == "TextStreamed"]


def test_an_answer_that_is_no_good_end_is_told(typed: Typed) -> None:
    done = typed("Hi", "--model", "parts:refuses")
    assert (done.code, done.output) == (0, "No.\n")
    assert "the model refused to answer" in done.errors


# The conversation.


def stored(path: Path) -> History:
    return History.from_json(path.read_bytes())


def test_a_conversation_is_made_and_goes_on(typed: Typed, folder: Path) -> None:
    kept = folder / "talk.json"
    more = ("--history", "talk.json")
    done = typed("1+2?", "--model", "parts:sums", "--tools", "parts:add", *more)
    assert done.code == 0
    assert [type(message).__name__ for message in stored(kept)] == [
        "UserMessage",
        "AssistantMessage",
        "ResultMessage",
        "AssistantMessage",
    ]
    assert typed("And?", "--model", "parts:echo", *more).output.startswith("5 ")
    assert len(stored(kept)) == 6
    assert set(os.listdir(folder)) - {"__pycache__"} == {"parts.py", "talk.json"}


def test_a_conversation_keeps_its_permissions_and_a_link_to_it_stays_a_link(
    typed: Typed, folder: Path
) -> None:
    kept, link = folder / "talk.json", folder / "link.json"
    kept.write_text(History([UserMessage("Hi"), AssistantMessage(text="Ho")]).to_json())
    kept.chmod(0o640)
    link.symlink_to("talk.json")
    assert typed("And?", "--model", "parts:echo", "--history", "link.json").code == 0
    assert link.is_symlink() and len(stored(kept)) == 4
    assert kept.stat().st_mode & 0o777 == 0o640


def test_what_no_encoding_has_is_kept_all_the_same(typed: Typed, folder: Path) -> None:
    arguments = ("\udcff", "--model", "parts:halves", "--history", "talk.json")
    done = typed(*arguments)
    assert (done.code, done.output) == (0, "half \\ud83d\n")
    assert stored(folder / "talk.json")[:] == (
        UserMessage("\ufffd"),
        AssistantMessage(text="half \ufffd"),
    )
    assert typed("And?", "--model", "parts:echo", *arguments[3:]).output.startswith("3 ")


def test_a_failed_run_keeps_its_whole_turns_and_goes_on_without_a_prompt(
    typed: Typed, folder: Path
) -> None:
    more = ("--tools", "parts:add", "--history", "talk.json")
    done = typed("1+2?", "--model", "parts:fails_later", *more)
    assert done.code == 1
    line = one_line(done.errors.splitlines(keepends=True)[-1])
    assert line == "turnscope: it is too much (HTTP status 429) (ask again in 7.5 s)"
    assert [message.content for message in stored(folder / "talk.json").results] == ["3"]
    assert typed("--model", "parts:echo", *more).output.startswith("3 ")
    again = typed("--model", "parts:echo", *more)
    assert (again.code, again.output) == (2, "")
    assert "give a prompt" in one_line(again.errors)


@pytest.mark.parametrize(
    ("model", "line", "output"),
    [
        ("fails_first", "turnscope: HTTP 401: who are you?", ""),
        ("fails_within", "turnscope: the model failed: OSError: no wire", "It i\n"),
    ],
)
def test_a_prompt_that_got_no_answer_is_not_kept_so_that_it_can_be_asked_again(
    typed: Typed, folder: Path, model: str, line: str, output: str
) -> None:
    done = typed("Hi", "--model", f"parts:{model}", "--history", "talk.json")
    assert (done.code, done.output, one_line(done.errors)) == (1, output, line)
    assert not (folder / "talk.json").exists()


def test_ctrl_c_keeps_what_is_whole(any_loop: Loop, folder: Path) -> None:
    with Running(
        *("run", "Hi", "--model", "parts:hangs", "--tools", "parts:both", "--json"),
        *("--history", "talk.json", "--loop", any_loop.name),
        cwd=folder,
    ) as running:
        running.read_until(lambda e: e["type"] == "CallSettled")
        running.interrupt(group=True)
        code, output, errors = running.end(SECONDS)
    assert (code, errors) == (130, "adding\nturnscope: interrupted\n")
    assert events(output)[-1]["type"] == "RunFinished"
    results = stored(folder / "talk.json").results
    assert [str(result.status) for result in results] == ["ok", "cancelled"]


def test_ctrl_c_while_the_model_speaks_ends_it(any_loop: Loop, folder: Path) -> None:
    with Running(
        *("run", "Hi", "--model", "parts:slow", "--json", "--history", "talk.json"),
        *("--loop", any_loop.name),
        cwd=folder,
    ) as running:
        running.read_until(lambda e: e["type"] == "TextStreamed")
        running.interrupt(group=True)
        code, _, errors = running.end(SECONDS)
    assert (code, errors) == (130, "turnscope: interrupted\n")
    assert not (folder / "talk.json").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no conversation"),
        (b"{", "holds no conversation"),
        (b"\xff\xfe", "holds no conversation"),
        (b'{"version": 1, "messages": [{"role": "result"}]}', "message 0"),
        (b'{"version": 99, "messages": []}', "version"),
    ],
)
def test_a_file_that_is_no_conversation_is_told_and_not_touched(
    typed: Typed, folder: Path, content: bytes, words: str
) -> None:
    kept = folder / "talk.json"
    kept.write_bytes(content)
    done = typed("Hi", "--model", "parts:echo", "--history", "talk.json")
    assert (done.code, done.output) == (2, "")
    assert "'talk.json'" in one_line(done.errors) and words in done.errors
    assert kept.read_bytes() == content


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (".", "is not a regular file"),
        (os.devnull, "is not a regular file"),
        ("nowhere/talk.json", "make '"),
        ("parts.py/talk.json", "cannot be read: Not a directory"),
        ("", "is not a regular file"),
    ],
)
def test_a_place_where_no_conversation_can_be_kept_is_told_before_any_work(
    typed: Typed, path: str, words: str
) -> None:
    done = typed("Hi", "--model", "parts:echo", "--history", path)
    assert (done.code, done.output) == (2, "")
    assert words in one_line(done.errors)


def test_a_conversation_that_cannot_be_stored_leaves_the_file_as_it_was(
    typed: Typed, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = folder / "talk.json"
    before = History([UserMessage("Hi"), AssistantMessage(text="Ho")])
    kept.write_text(before.to_json())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    done = typed("And?", "--model", "parts:echo", "--history", "talk.json")
    assert (done.code, done.output) == (1, "3 None []\n")
    assert "could not be stored in 'talk.json', which is as it was: No space" in done.errors
    assert stored(kept) == before
    assert not [name for name in os.listdir(folder) if name.startswith(".talk")]


# What ends a run.


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--turns", "2"], "the budget of 2 turns is spent; raise --turns"),
        (["--tokens", "100"], "the budget of 100 tokens is spent; raise --tokens"),
    ],
)
def test_a_budget_that_is_spent_is_told_with_its_option(
    typed: Typed, option: list[str], words: str
) -> None:
    done = typed("Hi", "--model", "parts:without_end", "--tools", "parts:add", *option)
    assert done.code == 1
    assert done.errors.splitlines()[-1] == f"turnscope: {words}"


def test_a_run_that_takes_too_long_is_ended_and_told_with_its_option(
    typed: Typed, folder: Path
) -> None:
    done = typed(
        *("Hi", "--model", "parts:hangs", "--tools", "parts:both", "--timeout", "0.5"),
        *("--history", "talk.json"),
    )
    assert done.code == 1
    assert done.errors.splitlines()[-1] == (
        "turnscope: the run took longer than its 0.5 s; raise --timeout, or go on: the same "
        "without a prompt"
    )
    assert str(stored(folder / "talk.json").results[1].status) == "timed_out"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Hi"], "--model"),
        (["--model", "parts:echo"], "there is no prompt"),
        (["", "--model", "parts:echo"], "the prompt is empty"),
        (["Hi", "--model", "gpt"], "write openai:NAME"),
        (["Hi", "--model", "opnai:gpt"], "there is no module 'opnai'"),
        (["Hi", "--model", "openai:"], "write openai:NAME"),
        (["Hi", "--model", "parts:ecko"], "did you mean 'echo'?"),
        (["Hi", "--model", "parts:number"], "a value of type int"),
        (["Hi", "--model", "parts:ScriptedModel"], "a class"),
        (["Hi", "--model", "parts:echo", "--tools", "parts:number"], "a value of type int"),
        (["Hi", "--model", "parts:echo", "--tools", "parts:nothing"], "has no 'nothing'"),
        (
            ["Hi", "--model", "parts:echo", "--tools", "parts:add", "--tools", "parts:both"],
            "two tools are named 'add'",
        ),
        (["Hi", "--model", "parts:echo", "--timeout", "0"], "--timeout"),
        (["Hi", "--model", "parts:echo", "--timeout", "soon"], "--timeout"),
        (["Hi", "--model", "parts:echo", "--turns", "0"], "--turns"),
        (["Hi", "--model", "parts:echo", "--tokens", "-1"], "--tokens"),
        (["Hi", "there", "--model", "parts:echo"], "too many arguments: there"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_cannot_work_get_one_clear_line_and_exit_code_2(
    typed: Typed, arguments: list[str], words: str
) -> None:
    done = typed(*arguments)
    assert (done.code, done.output) == (2, "")
    assert words in one_line(done.errors)


@pytest.mark.parametrize(
    ("model", "extra"),
    [
        ("openai:gpt-5", "openai"),
        ("openai-responses:gpt-5", "openai"),
        ("http://127.0.0.1:1/v1#m", "openai"),
        ("anthropic:claude", "anthropic"),
    ],
)
def test_a_client_that_is_not_installed_is_named_with_how_to_get_it(model: str, extra: str) -> None:
    program = f"""
        import sys
        sys.modules["httpx2"] = None
        from turnscope_adapters.cli import main
        sys.exit(main(["run", "Hi", "--model", {model!r}]))
    """
    done = run(command=[sys.executable, "-c", textwrap.dedent(program)])
    assert (done.returncode, done.stdout) == (2, "")
    assert f"pip install 'turnscope[{extra}]'" in one_line(done.stderr)


# What a terminal, and a reader who leaves, get.


def test_a_terminal_gets_text_above_a_live_timeline(folder: Path) -> None:
    code, output = on_a_terminal(
        *("run", "Hi", "--model", "parts:harmful", "--tools", "parts:add"),
        env={"TERM": "xterm"},
        cwd=folder,
    )
    assert code == 0
    assert "red �[31m[bold]\r\n" in output and "\x1b[31m" not in output
    assert re.findall("(?:word ){2,}\r\n", output) == ["word " * 20 + "\r\n"] * 2
    assert "━" in output and "2 turns, 1 call" in output and "\x1b[?25h" in output


def test_a_terminal_that_wants_no_colours_gets_text_as_it_comes(folder: Path) -> None:
    code, output = on_a_terminal(
        *("run", "Hi", "--model", "parts:harmful", "--tools", "parts:add"),
        env={"TERM": "dumb"},
        cwd=folder,
    )
    assert code == 0 and "\x1b" not in output
    assert output.startswith("red �[31m[bold]\r\nrow\r\n")


def test_a_reader_that_leaves_ends_the_run_quietly(folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*MODULE, "run", "Hi", "--model", "parts:slow"],
            cwd=folder,
            env=environment(),
            stdout=writing,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            timeout=SECONDS,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_live_rows_are_the_same_however_the_text_is_cut(size: int) -> None:
    text = "A paragraph of some words, and a-word-longer-than-a-row-is.\n\n  set in\n漢字漢字漢字漢字漢字漢字 end"

    def printed(pieces: list[str]) -> list[str]:
        file = io.StringIO()
        prose = LiveProse(Console(file=file, width=20))
        for piece in pieces:
            prose.observe(TextStreamed(run_id="r", parents=(), turn=0, time=0.0, text=piece))
            assert Console().measure(prose.begun).maximum <= 20  # it is drawn above the calls
        prose.observe(answered())
        assert prose.begun.plain == ""
        return file.getvalue().splitlines()

    rows = printed([text[n : n + size] for n in range(0, len(text), size)])
    assert rows == printed([text])
    assert "".join("".join(rows).split()) == "".join(text.split())
    assert all(Console().measure(row).maximum <= 20 for row in rows)


def answered() -> ModelAnswered:
    return ModelAnswered(
        run_id="r",
        parents=(),
        turn=0,
        time=0.0,
        message=AssistantMessage(text="x", calls=(ToolCall("c", "n", "{}"),)),
        reason="calls",
        usage=Usage(),
    )
