"""What `import turnscope` brings: the kernel; other names, and rooms, when they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import turnscope
from turnscope import _later

PACKAGE = Path(turnscope.__file__).parent
# What only runs need, of the rooms that are the longest to load.
OF_RUNS = {"_agent", "_conductor", "_early", "_history", "_messages", "_later", "_run", "events"}

# What a turn needs only if it is observed, looked at, or has tools that wait for one another.
OF_SOME_TURNS = {"_turn_events", "_statistics", "_guards", "_resources"}


def fresh(code: str) -> str:
    """What *code* prints in an interpreter of its own."""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def loaded_by(code: str) -> set[str]:
    """The rooms of the kernel that *code* loads."""
    told = "\nimport sys\nprint(*(name for name in sys.modules if name.startswith('turnscope.')))"
    return {name.removeprefix("turnscope.") for name in fresh(code + told).split()}


def names_for_type_checkers() -> set[str]:
    """What `turnscope/__init__.py` imports under TYPE_CHECKING."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.asname or alias.name
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_type_checkers_are_told_the_names_that_there_are() -> None:
    there = {name for name in vars(_later) if not name.startswith("_")}
    assert names_for_type_checkers() == there
    assert len(there) > 10


def test_the_kernel_comes_without_what_only_runs_need() -> None:
    loaded = loaded_by("from turnscope import Kernel, ToolCall, tool")
    assert "_kernel" in loaded
    assert not (OF_RUNS | OF_SOME_TURNS) & loaded


def test_of_anyio_comes_what_its_own_import_brings() -> None:
    told = "\nimport sys\nprint(*(name for name in sys.modules if name.startswith('anyio')))"
    ours, its = fresh("import turnscope" + told), fresh("import anyio" + told)
    assert set(ours.split()) == set(its.split())


def test_a_turn_of_your_own_loop_loads_nothing_of_runs() -> None:
    code = """
import anyio
from turnscope import Kernel, ToolCall, tool

@tool
async def echo(n: int) -> int:
    return n

async def main():
    async with Kernel() as kernel, kernel.turn([echo]) as turn:
        turn.submit(ToolCall("c1", "echo", '{"n": 1}'))
    assert turn.results[0].value == 1

anyio.run(main)"""
    assert not (OF_RUNS | OF_SOME_TURNS) & loaded_by(code)


def test_who_observes_has_the_events_of_turns_before_any_turn() -> None:
    code = """
from turnscope import Kernel

class Silent:
    def observe(self, event):
        raise AssertionError(event)

Kernel(observers=[Silent()])"""
    loaded = loaded_by(code)
    assert "_turn_events" in loaded
    assert not OF_RUNS & loaded


@pytest.mark.parametrize("name", sorted(names_for_type_checkers()))
def test_each_later_name_loads_them_all(name: str) -> None:
    code = f"from turnscope import {name}\nimport turnscope\nassert 'run' in vars(turnscope)"
    assert loaded_by(code) >= OF_RUNS


def test_later_names_are_seen_before_they_are_loaded() -> None:
    listed = fresh("import turnscope\nprint(*dir(turnscope))").split()
    assert set(listed) >= names_for_type_checkers() | {"Kernel", "Turn", "tool"}
    assert "TYPE_CHECKING" not in listed


def test_a_name_that_somebody_has_put_there_stays_when_the_others_come() -> None:
    fresh("import turnscope\nturnscope.Agent = 5\nturnscope.Run\nassert turnscope.Agent == 5")


def test_a_star_brings_them_all() -> None:
    given = fresh("from turnscope import *\nprint(*dir())").split()
    assert set(given) >= names_for_type_checkers() | {"Kernel", "Turn", "tool"}


def test_a_wrong_name_is_no_name_and_loads_nothing_if_it_is_private() -> None:
    with pytest.raises(ImportError, match="cannot import name 'Agnet'"):
        exec("from turnscope import Agnet")
    code = "import turnscope\nassert not hasattr(turnscope, '__wrapped__')"
    assert not OF_RUNS & loaded_by(code)
