"""The command: what may be typed, what it says, and its exit codes."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.adapters.command import MODULE, SCRIPT, SECONDS, environment, one_line, run
from turnscope_adapters.cli import main

WEATHER = '''
from turnscope import tool

print("hello from the module")

@tool(read_only=True, timeout=5, limit="net")
async def weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: where, in English
    """
    return city

@tool(backend="process", on_error="raise")
def factorise(n: int) -> list[int]:
    """Factorise a number."""
    return [n]

def plain(text: str = "x") -> str:
    """Say it."""
    return text

def variadic(*texts: str) -> str:
    return ""

alias = weather
both = [weather, plain]
by_name = {"f": factorise}
nothing = ()
number = 7

class Shop:
    @tool
    def buy(self, item: str) -> str:
        """Buy it."""
        return item

shop = Shop()
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a module of tools, and with modules that cannot be imported."""
    (tmp_path / "weather_tools.py").write_text(WEATHER)
    (tmp_path / "fails.py").write_text("\n\nraise LookupError('no key')\n")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "lacks.py").write_text("import a_package_that_is_nowhere\n")
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "counter.py").write_text("def sell(item: str) -> str:\n    return item\n")
    return tmp_path


@pytest.mark.parametrize("command", [SCRIPT, MODULE], ids=["script", "module"])
def test_the_version_is_told(command: list[str]) -> None:
    done = run("--version", command=command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("turnscope ") and done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["run", "demo", "tools", "bench", "--version"]),
        (["--help"], ["run", "demo", "tools", "bench", "--version"]),
        (["run", "--help"], ["PROMPT", "--model", "openai:NAME", "anthropic:NAME", "--tools"]),
        (["demo", "--help"], ["FOLDER", "--loop", "--json"]),
        (["tools", "--help"], ["MODULE:NAME", "--json"]),
        (["bench", "--help"], ["ARGUMENTS", "--quick", "bench -- --help"]),
    ],
)
def test_help_names_what_can_be_typed(arguments: list[str], words: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert [word for word in words if word not in done.stdout] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dmo"], "demo"),
        (["--jsn"], "--jsn"),
        (["demo", "--loop", "curio"], '"trio"'),
        (["demo", "--loop"], "--loop"),
        (["demo", ".", "x", "y"], "too many arguments: x y"),
        (["demo", "there-is-none"], "there is no folder 'there-is-none'"),
        (["demo", ""], "there is no folder ''"),
        (["demo", __file__], "is not a folder"),
        (["tools"], "TARGET"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_gets_one_clear_line_and_exit_code_2(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in one_line(done.stderr)


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("trio", ["demo", "--loop", "trio"], "turnscope[trio]"),
        ("uvloop", ["demo", "--loop", "uvloop"], "turnscope[uvloop]"),
        ("cyclopts", ["demo"], "turnscope[cli]"),
        ("rich", ["demo"], "turnscope[cli]"),
        ("rich", ["--help"], "turnscope[cli]"),
    ],
)
def test_an_extra_that_is_missing_is_named_with_how_to_get_it(
    missing: str, arguments: list[str], extra: str
) -> None:
    # None in sys.modules makes an import fail as it does where nothing is installed.
    program = f"""
        import sys
        sys.modules[{missing!r}] = None
        from turnscope_adapters.cli import main
        sys.exit(main({arguments!r}))
    """
    done = run(command=[sys.executable, "-c", textwrap.dedent(program)])
    assert (done.returncode, done.stdout) == (2, "")
    assert f"pip install '{extra}'" in one_line(done.stderr)


def test_main_takes_arguments_and_returns_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert main(["demo", "there-is-none"]) == 2
    assert "there-is-none" in one_line(capsys.readouterr().err)


def test_an_unexpected_error_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken(*_args: object, **_kwargs: object) -> None:
        raise ExceptionGroup("group", [RuntimeError("the loop\nis broken")])

    monkeypatch.setattr(logging.Logger, "setLevel", lambda *_: None)  # it would outlive the test
    monkeypatch.setattr("anyio.run", broken)
    assert main(["demo", str(tmp_path)]) == 1
    assert one_line(capsys.readouterr().err) == "turnscope: RuntimeError: the loop is broken"


def test_tools_prints_what_a_model_sees_and_how_calls_run(folder: Path) -> None:
    done = run("tools", "weather_tools", cwd=folder)
    assert done.returncode == 0
    assert done.stderr == "hello from the module\n"
    for words in (
        "Tell the weather.",
        "where, in English",
        "runs: in the event loop (inline), timeout 5 s, limit 'net', read_only\n",
        "runs: in the backend 'process', on_error raise\n",
        '"required": [',
    ):
        assert words in done.stdout
    assert done.stdout.count("Tell the weather.") == 1  # it has two names


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("weather_tools", ["weather", "factorise"]),
        ("weather_tools:weather", ["weather"]),
        ("weather_tools:plain", ["plain"]),
        ("weather_tools:both", ["weather", "plain"]),
        ("weather_tools:by_name", ["factorise"]),
        ("weather_tools:shop.buy", ["buy"]),
        ("shop.counter:sell", ["sell"]),
    ],
)
def test_tools_as_json_is_an_array_of_functions(
    folder: Path, target: str, names: list[str]
) -> None:
    done = run("tools", target, "--json", cwd=folder)
    assert done.returncode == 0
    functions = json.loads(done.stdout)
    assert [each["type"] for each in functions] == ["function"] * len(names)
    assert [each["function"]["name"] for each in functions] == names
    for each in functions:
        assert set(each["function"]) == {"name", "description", "parameters"}
        assert each["function"]["parameters"]["type"] == "object"
        assert "self" not in each["function"]["parameters"]["properties"]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("weather_tool", "there is no module 'weather_tool'; did you mean 'weather_tools'?"),
        ("shop.countr:sell", "there is no module 'shop.countr'; did you mean 'counter'?"),
        ("weather_tools:wether", "has no 'wether'; did you mean 'weather'?"),
        ("weather_tools:shop.by", "has no 'by'; did you mean 'buy'?"),
        ("weather_tools:number", "a value of type int"),
        ("weather_tools:Shop", "leads to a class"),
        ("weather_tools:nothing", "it is empty"),
        ("weather_tools:variadic", "no tool can be made"),
        ("weather_tools:", "write MODULE or MODULE:NAME"),
        (":weather", "write MODULE or MODULE:NAME"),
        ("shop.counter", "has no Tool"),
        ("shop/counter.py:sell", "name the module, as 'shop.counter'"),
        ("..x", "write MODULE or MODULE:NAME"),
    ],
)
def test_tools_that_are_not_found_get_one_line_and_exit_code_2(
    folder: Path, target: str, words: str
) -> None:
    done = run("tools", target, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in one_line(done.stderr.removeprefix("hello from the module\n"))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("fails", "LookupError: no key"),
        ("leaves", "SystemExit: 3"),
        ("lacks", "No module named 'a_package_that_is_nowhere'"),
    ],
)
def test_a_module_that_fails_to_import_is_told_with_its_place_and_exit_code_1(
    folder: Path, target: str, words: str
) -> None:
    done = run("tools", target, cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    line = one_line(done.stderr)
    assert words in line and f"{target}.py:" in line


def test_a_reader_that_leaves_early_gets_no_traceback(folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        for more in ([], ["--json"]):
            done = subprocess.run(
                [*MODULE, "tools", "weather_tools", *more],
                cwd=folder,
                env=environment(),
                stdout=writing,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                timeout=SECONDS,
            )
            assert (done.returncode, done.stderr) == (1, "hello from the module\n")
    finally:
        os.close(writing)
