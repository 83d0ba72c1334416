"""The examples, run: on each event loop, and as the scripts that they are."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

from tests.examples import (
    deps_tool,
    own_loop,
    plan_in_one_turn,
    process_tool,
    thread_tool,
    two_edits,
)
from turnscope import Kernel

HERE = Path(__file__).parent
README = HERE.parent.parent / "README.md"

# As the OpenAI client gives it: a message whose calls have an id, a function and its JSON text.
REPLY = SimpleNamespace(
    role="assistant",
    content=None,
    tool_calls=[
        SimpleNamespace(
            id=id, type="function", function=SimpleNamespace(name=name, arguments=arguments)
        )
        for id, name, arguments in [
            ("call_1", "weather", '{"city": "Beijing"}'),
            ("call_2", "population", '{"city": "Shanghai"}'),
            ("call_3", "population", '{"city": "Atlantis"}'),
            ("call_4", "wheather", '{"city": "Beijing"}'),
        ]
    ],
)


@pytest.mark.anyio
async def test_ones_own_loop_gets_an_answer_for_each_call_in_order() -> None:
    async with Kernel() as kernel:
        messages = await own_loop.answer(kernel, REPLY)
    assert [message["tool_call_id"] for message in messages] == [
        call.id for call in REPLY.tool_calls
    ]
    assert [message["content"] for message in messages] == [
        "sunny in Beijing",
        "24870895",
        "KeyError: 'Atlantis'",
        "no tool named 'wheather'; did you mean 'weather'?",
    ]


def test_the_tools_are_offered_as_the_api_wants_them() -> None:
    weather = own_loop.offered()[0]["function"]
    assert weather["name"] == "weather"
    assert weather["description"] == "Tell today's weather."
    assert weather["parameters"]["properties"]["city"] == {
        "type": "string",
        "description": "name of the city, in English",
    }
    json.dumps(own_loop.offered())


@pytest.mark.anyio
async def test_a_thread_tool_reads_its_file(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"turnscope" * 500_000)
    assert await thread_tool.main(str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.anyio
async def test_a_process_tool_computes_and_is_killed_in_time() -> None:
    with anyio.fail_after(60):
        results = await process_tool.main(91, 97)
        assert [result.value for result in results] == [[7, 13], [97]]
        # 10^18 and a bit, prime: a minute of work.
        (result,) = await process_tool.main(1_000_000_000_000_000_003, timeout=1.0)
        assert result.status in ("timed_out", "not_started")


@pytest.mark.anyio
async def test_a_tool_with_deps_changes_what_the_service_owns() -> None:
    inventory = deps_tool.Inventory({"lamp": 3})
    first, second = await deps_tool.main(inventory)
    assert (first.status, first.content) == ("ok", "reserved 2, 1 left")
    assert (second.status, second.content) == ("failed", "ValueError: only 1 of lamp are left")
    assert inventory.stock == {"lamp": 1}
    assert "context" not in deps_tool.reserve.schema["properties"]


@pytest.mark.anyio
async def test_two_edits_of_one_file_are_both_kept(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("a b c")
    other.write_text("x")
    (tmp_path / "below").mkdir()
    results = await two_edits.main(
        [
            two_edits.edit("c1", one, "a", "1"),
            two_edits.edit("c2", tmp_path / "below" / ".." / "one", "b", "2"),
            two_edits.edit("c3", other, "x", "y"),
            two_edits.edit("c4", Path(f"{one}/"), "1 2 c", "3"),
        ]
    )
    assert [result.status for result in results] == ["ok"] * 4
    assert (one.read_text(), other.read_text()) == ("3", "y")
    started = [result.started_at or 0.0 for result in results]
    ended = [result.ended_at for result in results]
    assert started[0] < ended[0] <= started[1] < ended[1] <= started[3]
    assert started[2] < ended[0], "the edit of another file waits for nothing"


@pytest.mark.anyio
async def test_a_plan_of_four_calls_is_one_turn() -> None:
    result = await plan_in_one_turn.main()
    steps = json.loads(str(result.history.results[0].content))
    assert [(step["id"], step["status"]) for step in steps] == [
        ("found", "ok"),
        ("one", "ok"),
        ("other", "ok"),
        ("sum", "ok"),
    ]
    assert steps[-1]["content"] == 42.5
    assert result.turns == 2, "the plan, and the answer"


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("thread_tool", hashlib.sha256((HERE / "thread_tool.py").read_bytes()).hexdigest()),
        ("process_tool", "of 91 [7,13]"),
        ("deps_tool", "c1 ok reserved 2, 1 left"),
        ("two_edits", "tulips are red, violets are blue"),
        ("plan_in_one_turn", "They cost 42.5."),
    ],
)
def test_an_example_runs_as_a_script(name: str, printed: str) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / f"{name}.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert printed in done.stdout.splitlines()
    assert done.stderr == ""


@pytest.mark.skipif(not README.exists(), reason="the README is not beside the tests here")
def test_the_python_of_the_readme_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    done = subprocess.run(
        [sys.executable, "-"],
        input=blocks[0],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "ok sunny in Beijing",
        "ok 1346269",
        (
            "timed_out 'slow' was interrupted by its timeout of 0.1 s. It had started, so its "
            "effects may or may not have happened."
        ),
        "invalid no tool named 'wether'; did you mean 'weather'?",
    ]
