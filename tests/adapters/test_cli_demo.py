"""``turnscope demo``, run as it is: what it does with every sort of folder, and what it shows."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.command import (
    MODULE,
    SCRIPT,
    SECONDS,
    Running,
    environment,
    events,
    on_a_terminal,
    one_line,
    run,
)
from tests.support import Loop
from turnscope import Kernel, ToolCall
from turnscope.events import TurnFinished
from turnscope_adapters import _demo_tools, _files
from turnscope_adapters._json_lines import JsonLines

TEXT = "one two\nthree\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A few files, of text and not, and what must not be read."""
    (tmp_path / "a.txt").write_text(TEXT * 1000)
    (tmp_path / "b.txt").write_text(TEXT)
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "deep" / "deeper" / "c.txt").write_text(TEXT * 10)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "huge").write_text(TEXT * 5000)
    return tmp_path


def settled(output: str, turn: int) -> list[dict[str, Any]]:
    """The settled calls of one turn, in call order."""
    found = [e for e in events(output) if e["type"] == "CallSettled" and e["turn"] == turn]
    return sorted(found, key=lambda event: event["index"])


def test_three_turns_do_real_work_on_each_event_loop(any_loop: Loop, folder: Path) -> None:
    done = run("demo", str(folder), "--json", "--loop", any_loop.name)
    assert (done.returncode, done.stderr) == (0, "")

    (listed,) = settled(done.stdout, 0)
    assert '"files":5' in listed["content"] and '"left_out":1' in listed["content"]

    second = settled(done.stdout, 1)
    status = {(e["call"]["name"], e["status"], e["backend"], e["leaked"]) for e in second}
    assert status == {
        ("count_words", "ok", "thread", False),
        ("sha256", "ok", "process", False),
        ("count_words", "failed", "thread", False),
        ("wait_for_answer", "timed_out", "inline", False),
        ("never_looks_up", "timed_out", "thread", True),
    }
    content = {
        (e["call"]["name"], Path(e["call"]["arguments"].get("path", "")).name): e["content"]
        for e in second
    }
    assert '"lines":2000,"words":3000,"bytes":14000' in content["count_words", "a.txt"]
    assert hashlib.sha256(bytes(range(256)) * 100).hexdigest() in content["sha256", "binary"]
    assert "FileNotFoundError" in content["count_words", "no-such-file"]

    (summed,) = settled(done.stdout, 2)
    lines = sum(
        path.read_bytes().count(b"\n")
        for path in folder.rglob("*")
        if path.is_file() and ".hidden" not in path.parts
    )
    assert f'"files":5,"lines":{lines}' in summed["content"]
    assert '"never_looks_up":"timed_out"' in summed["content"]


def test_the_calls_of_the_second_turn_overlap(folder: Path) -> None:
    second = settled(run("demo", str(folder), "--json").stdout, 1)
    last_start = max(event["started_at"] for event in second if event["backend"] != "process")
    at_work = [e["call"]["name"] for e in second if e["started_at"] <= last_start < e["ended_at"]]
    assert {"wait_for_answer", "never_looks_up", "sha256"} <= set(at_work)


def test_every_line_of_json_has_the_same_keys_and_order_within_a_call(folder: Path) -> None:
    done = run("demo", str(folder), "--json")
    told: dict[tuple[int, int], list[str]] = {}
    for event in events(done.stdout):
        first = ["type", "run_id", "turn", "index", "time", "call", "parents"]
        assert list(event)[:7] == first
        if not event["type"].startswith("Call"):
            assert event["index"] is event["call"] is None
            continue
        assert set(event["call"]) == {"id", "name", "arguments"}
        told.setdefault((event["turn"], event["index"]), []).append(event["type"])
        if event["type"] == "CallSettled":
            wanted = {"status", "content", "started_at", "ended_at", "backend", "leaked"}
            assert wanted <= set(event) and len(event["content"]) <= 503
    for types in told.values():
        assert types[:2] == ["CallReady", "CallStarted"] and types[-1] == "CallSettled"
        assert set(types[2:-1]) <= {"CallProgress"}


@pytest.mark.parametrize("command", [SCRIPT, MODULE], ids=["script", "module"])
def test_without_a_terminal_there_is_one_plain_table(command: list[str], folder: Path) -> None:
    done = run("demo", str(folder), command=command)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout and "\r" not in done.stdout
    assert done.stdout.count("never_looks_up ") == 1
    assert re.search(
        r"never_looks_up +thread +◷ timed_out, leaked +[1-4]\.\d+ +'never_looks_up'", done.stdout
    )
    assert re.search(r"count_words +thread +✗ failed .*FileNotFoundError", done.stdout)
    assert re.search(r"sha256 +process +✓ ok", done.stdout)
    assert re.search(
        r"4 turns, 14 calls in \d+\.\d s on asyncio: 11 ok, 2 timed_out, 1 failed", done.stdout
    )
    assert (
        "read 5 and hashed 4, the largest (at most 6 and 4, of at most 16 MB each)"
        in done.stdout.replace("\n", " ")
    )


def test_a_terminal_that_has_only_ascii_gets_ascii(folder: Path) -> None:
    done = run("demo", str(folder), env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and done.stdout.isascii()
    assert re.search(r"sum_up +thread +\+ ok", done.stdout)


@pytest.mark.parametrize(
    ("env", "live"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
    ids=["colours", "NO_COLOR", "dumb"],
)
def test_a_terminal_gets_a_live_timeline_unless_it_wants_no_colours(
    folder: Path, env: dict[str, str], live: bool
) -> None:
    code, output = on_a_terminal("demo", str(folder), env=env)
    assert code == 0
    assert ("\x1b[" in output) == live
    assert "4 turns, 14 calls" in output
    drawn = output.count("never_looks_up ")
    assert drawn > 5 if live else drawn == 1
    if live:
        assert "\x1b[?25h" in output  # the cursor is shown again
        assert "▸ working" in output and "━━━" in output


def test_an_empty_folder_has_nothing_to_read_and_the_turns_run(tmp_path: Path) -> None:
    done = run("demo", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "Found 0 files; read 0 and hashed 0" in done.stdout
    assert "4 turns, 5 calls" in done.stdout


def test_the_current_folder_is_the_default(folder: Path) -> None:
    done = run("demo", cwd=folder)
    assert done.returncode == 0
    assert '"largest":["binary","a.txt","deep/deeper/c.txt"' in run(
        "demo", "--json", cwd=folder
    ).stdout.replace("\\", "")
    assert "Found 5 files" in done.stdout


def test_links_are_not_followed_even_in_a_circle(folder: Path) -> None:
    (folder / "deep" / "up").symlink_to(folder)
    (folder / "self").symlink_to("self")
    done = run("demo", str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert "Found 5 files" in done.stdout and "2 links not followed" in done.stdout
    assert "Too many levels" in one_line(run("demo", str(folder / "self")).stderr)


def test_pipes_and_sockets_are_not_read(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    done = run("demo", str(folder))
    assert done.returncode == 0 and "Found 5 files" in done.stdout
    with pytest.raises(ValueError, match="not a regular file"):
        _files.sha256(os.devnull)


NAMES = [b"odd-\xff\xfe", b"new\nline", b"esc\x1b[31m", b"100%41", "grün 日本".encode(), b"[bold]"]


def test_a_name_of_any_bytes_is_read_hashed_and_shown_safely(tmp_path: Path) -> None:
    inside = os.fsencode(tmp_path) + b"/" + b" ".join(NAMES)
    os.mkdir(inside)
    text = {b"/".join((inside, name)): TEXT * (size + 1) for size, name in enumerate(NAMES)}
    for path, words in text.items():
        with open(path, "wb") as file:
            file.write(words.encode())
    for more in ([], ["--json"]):
        done = run("demo", inside, *more)
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout
    read = {}
    hashed = {}
    for event in settled(done.stdout, 1):
        if event["status"] != "ok":
            continue
        path = event["call"]["arguments"]["path"]
        assert path.isprintable()
        of = read if event["call"]["name"] == "count_words" else hashed
        of[os.fsencode(_files.real(path))] = event["content"]
    assert read.keys() == text.keys()
    assert all(f'"bytes":{len(text[path])}' in content for path, content in read.items())
    assert hashed.keys() == {*list(text)[-_demo_tools.MOST_HASHED :]}  # the largest
    for path, content in hashed.items():
        assert hashlib.sha256(text[path].encode()).hexdigest() in content


def test_a_large_tree_is_counted_and_few_of_it_are_read(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"d{number}").mkdir()
        for file in range(500):
            (tmp_path / f"d{number}" / f"f{file}").touch()
    done = run("demo", str(tmp_path), "--json")
    assert done.returncode == 0
    (listed,) = settled(done.stdout, 0)
    assert '"files":10000' in listed["content"]
    values = [event["value"] for event in events(done.stdout) if event["type"] == "CallProgress"]
    assert "1,000 files" in values and "10,000 files" in values
    assert len(settled(done.stdout, 1)) == 6 + 4 + 3


def test_a_line_of_json_is_there_as_soon_as_its_event(folder: Path) -> None:
    def settles(name: str) -> Callable[[dict[str, Any]], bool]:
        return lambda event: event["type"] == "CallSettled" and event["call"]["name"] == name

    read: dict[str, float] = {}
    with Running("demo", str(folder), "--json") as running:
        for name in ("list_files", "wait_for_answer", "never_looks_up"):
            running.read_until(settles(name))
            read[name] = time.monotonic()
        code, output, _ = running.end(SECONDS)
    assert code == 0
    # All by one clock. The second settles after 1 s, the third half a second later: a line that was
    # kept back until the next one comes would be that late.
    for event in events(output):
        if event["type"] == "CallSettled" and event["call"]["name"] in read:
            assert read[event["call"]["name"]] - event["time"] < 0.4


def test_a_reader_that_leaves_is_noticed_once_and_told_no_more() -> None:
    written: list[str] = []
    unread: list[bool] = []

    class Unread(io.StringIO):
        def write(self, text: str, /) -> int:
            written.append(text)
            raise BrokenPipeError

    lines = JsonLines(Unread(), lambda: unread.append(True))
    for _ in range(2):
        lines.observe(TurnFinished(run_id="r", parents=(), turn=0, time=0.0, results=()))
    assert (lines.broken, len(unread), len(written)) == (True, 1, 1)


def test_a_reader_that_leaves_ends_the_demo_quietly(folder: Path) -> None:
    with subprocess.Popen(
        [*MODULE, "demo", str(folder), "--json"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert (process.wait(SECONDS), errors) == (1, "")


# The tools by themselves, for what no folder shows everywhere.


@pytest.mark.anyio
async def test_what_cannot_be_looked_at_is_counted_and_the_rest_listed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def forbidden(path: str) -> Any:
        if path.endswith("deeper"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    listing = await listing_of(folder)
    assert (listing.files, listing.unreadable, listing.complete) == (4, 1, True)


@pytest.mark.anyio
async def test_a_listing_that_reaches_its_limit_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_demo_tools, "MOST_LISTED", 2)
    listing = await listing_of(folder)
    assert (listing.files, listing.complete) == (2, False)


async def listing_of(folder: Path) -> _demo_tools.Listing:
    async with Kernel() as kernel, kernel.turn(_demo_tools.TOOLS) as turn:
        turn.submit(ToolCall("c1", "list_files", {"folder": str(folder)}))
    (result,) = turn.results
    assert result.ok, result.content
    return result.value


@pytest.mark.anyio
async def test_words_that_cross_a_chunk_are_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_files, "_CHUNK", 3)
    (tmp_path / "text").write_text("one three\n fifteen  x\n\ny")
    async with Kernel() as kernel, kernel.turn(_demo_tools.TOOLS) as turn:
        turn.submit(ToolCall("c1", "count_words", {"path": str(tmp_path / "text")}))
    count = turn.results[0].value
    assert (count.lines, count.words, count.bytes) == (3, 5, 24)


def test_a_file_that_has_grown_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_files, "MOST_BYTES", 10)
    (tmp_path / "log").write_bytes(b"x" * 11)
    with pytest.raises(ValueError, match="more than 10 bytes"):
        _files.sha256(str(tmp_path / "log"))
