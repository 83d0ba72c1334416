"""Ctrl-C in ``turnscope demo``: it ends within grace, tells all, and leaves nothing behind."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.command import Running, events
from tests.support import Loop
from turnscope_adapters._stage import GRACE

SMALL = 3
"""Seconds on top of grace: Python's own end, and a busy machine. The leaked thread sleeps for 5."""

SECONDS = 30

Event = dict[str, Any]


def at_once(event: Event) -> bool:
    """The run has begun, and nothing of it is there yet."""
    return True


def while_the_model_speaks(event: Event) -> bool:
    """A part of its answer is there, and no call of it."""
    return event["type"] == "TextStreamed" and event["turn"] == 1


def in_the_second_turn(event: Event) -> bool:
    """Threads work, and worker processes are starting."""
    return event["type"] == "CallStarted" and event["call"]["name"] == "sha256"


def with_idle_workers(event: Event) -> bool:
    """The hashes are done; what will time out goes on."""
    return event["type"] == "CallSettled" and event["call"]["id"] == "c6"


def while_a_leak_is_waited_for(event: Event) -> bool:
    """One call has timed out, and the sleeping thread is in its grace."""
    return event["type"] == "CallSettled" and event["call"]["name"] == "wait_for_answer"


INSTANTS = [
    at_once,
    while_the_model_speaks,
    in_the_second_turn,
    with_idle_workers,
    while_a_leak_is_waited_for,
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files enough for four threads and two processes."""
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text("some words\n" * 1000)
    return tmp_path


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
@pytest.mark.parametrize("instant", INSTANTS, ids=lambda instant: instant.__name__)
def test_ctrl_c_ends_the_demo_within_grace_and_every_call_has_its_event(
    any_loop: Loop, folder: Path, instant: Callable[[Event], bool], times: int
) -> None:
    with Running("demo", str(folder), "--json", "--loop", any_loop.name) as running:
        running.read_until(instant)
        start = time.monotonic()
        for number in range(times):
            time.sleep(0.15 * number)
            running.interrupt(group=True)
        code, output, errors = running.end(SECONDS)
        took = time.monotonic() - start
        assert running.survivors() == []
    assert (code, errors) == (130, "turnscope: interrupted\n")
    assert took < GRACE + SMALL
    told = events(output)
    calls = {
        kind: [(e["run_id"], e["index"]) for e in told if e["type"] == kind]
        for kind in ("CallReady", "CallSettled")
    }
    assert sorted(calls["CallReady"]) == sorted(calls["CallSettled"])
    assert told[-1]["type"] == "RunFinished" and told[-1]["error"]["type"] == "RunCancelled"
    assert max(event["turn"] for event in told) < 2  # it did not just run to its end
    if instant is in_the_second_turn:  # then two hashes still wait for a process
        assert "not_started" in [event.get("status") for event in told]


def test_ctrl_c_shows_what_each_call_had_come_to(any_loop: Loop, folder: Path) -> None:
    with Running("demo", str(folder), "--loop", any_loop.name) as running:
        running.wait_for_workers()
        running.interrupt(group=True)
        code, output, errors = running.end(SECONDS)
        assert running.survivors() == []
    assert (code, errors) == (130, "turnscope: interrupted\n")
    rows = re.findall(r"^ +[12]? +(\w+) +(?:thread|process|inline) +(. \w+)", output, re.MULTILINE)
    assert len(rows) == 1 + 13
    assert rows[0] == ("list_files", "✓ ok")
    came_to = dict(rows)
    # On a busy machine a worker may take longer to start than these two may take: 1 s and 0.5 s.
    assert came_to["wait_for_answer"] in ("■ cancelled", "◷ timed_out")
    assert came_to["never_looks_up"] in ("■ cancelled", "○ not_started", "◷ timed_out")
    # A hash is in a worker that was just starting, so it was not done.
    assert ("sha256", "■ cancelled") in rows
    assert "2 turns, 14 calls" in output


def test_ctrl_c_ends_a_module_that_takes_its_time_to_import(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import sys, time\nprint('{}', file=sys.__stdout__, flush=True)\ntime.sleep(60)\n"
    )
    with Running("tools", "slow", cwd=tmp_path) as running:
        running.read_until(lambda line: line == {})
        running.interrupt(group=True)
        code, _, errors = running.end(SECONDS)
    assert (code, errors) == (130, "turnscope: interrupted\n")


def test_ctrl_c_for_the_command_alone_ends_its_workers_too(any_loop: Loop, folder: Path) -> None:
    with Running("demo", str(folder), "--json", "--loop", any_loop.name) as running:
        running.read_until(while_a_leak_is_waited_for)
        running.interrupt(group=False)
        code, _, _ = running.end(SECONDS)
        assert running.survivors() == []
    assert code == 130
