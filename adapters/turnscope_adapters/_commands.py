"""What may be typed after ``turnscope``, and its help. Above: `cli`. Below: each command's work.

cyclopts reads the arguments, and the help from the docstrings. Each command imports its work when
it is called, because ``turnscope --help`` need not wait for pydantic.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.exceptions import UnusedCliTokensError
from cyclopts.validators import Number

from turnscope_adapters._errors import BadUsage


def _version() -> str:
    try:
        return f"turnscope {version('turnscope')}"
    except PackageNotFoundError:
        return "turnscope (from a source tree that is not installed)"


app = App(
    name="turnscope",
    version=_version,
    version_flags=["--version"],
    help="One turn, one scope: structured concurrency for the tool calls of LLM agents.",
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # `cli` has a word for it
)


@app.command(name="run")
def run_agent(
    prompt: str | None = None,
    /,
    *,
    model: str,
    tools: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    mcp: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    instructions: str | None = None,
    history: str | None = None,
    timeout: Annotated[float | None, Parameter(validator=Number(gt=0))] = None,
    turns: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    tokens: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    loop: Literal["asyncio", "uvloop", "trio"] = "asyncio",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Let a model answer a prompt with your tools, and watch its calls.

    On a terminal the answer is streamed above a timeline of the calls. Elsewhere standard output
    is the answer alone, and what the calls came to is on standard error. Ctrl-C ends the run
    within a second.

    Parameters
    ----------
    prompt
        What to answer. Without one, the conversation in --history goes on.
    model
        openai:NAME, openai-responses:NAME, or the URL of a server that speaks Chat Completions, as
        http://127.0.0.1:8080/v1#NAME; the key is OPENAI_API_KEY in the environment. Or
        anthropic:NAME, with ANTHROPIC_API_KEY. Or MODULE:NAME of a model of your own.
    tools
        MODULE:NAME of a Tool, a function, or a list, tuple or dict of them; MODULE alone for every
        Tool in it. May be given more than once.
    mcp
        A tool server of the Model Context Protocol: the command that starts it, in quotes, or its
        URL. PREFIX= before it goes before the names of its tools. May be given more than once.
    instructions
        What the model is to be: a system prompt.
    history
        A file with the conversation so far, made if there is none. The run is stored in it, in
        whole turns, also if it fails or Ctrl-C ends it.
    timeout
        Seconds that the run may take.
    turns
        How many responses of the model the run may take; 50 by default.
    tokens
        How many tokens, in and out, the run may use.
    loop
        The event loop. uvloop and trio are extras of their own.
    json
        Print each event as one line of JSON, and nothing else.
    """
    from turnscope_adapters import _run_command

    options = _run_command.Options(
        model=model,
        tools=tools,
        mcp=mcp,
        instructions=instructions,
        history=history,
        timeout=timeout,
        turns=turns,
        tokens=tokens,
        loop=loop,
        json=json,
    )
    return _run_command.run(prompt, options)


@app.command
def demo(
    folder: str = ".",
    /,
    *,
    loop: Literal["asyncio", "uvloop", "trio"] = "asyncio",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run an agent with real tools on a folder, offline, and watch its calls overlap.

    Its model is a script of three turns and an answer. The first turn lists the folder. The second
    reads files in threads and hashes them in processes, while one tool fails, one is interrupted by
    its timeout, and one sleeps in a thread that nobody can stop. The third sums up. Nothing is
    written, and no network is used. Ctrl-C ends it within a second and shows what each call had
    come to.

    Parameters
    ----------
    folder
        What to look at.
    loop
        The event loop. uvloop and trio are extras of their own.
    json
        Print each event as one line of JSON, and nothing else.
    """
    from turnscope_adapters import _demo

    return _demo.demo(folder, loop, json)


@app.command
def tools(target: str, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Print what a model is told of your tools, and how their calls are run.

    Parameters
    ----------
    target
        MODULE:NAME, where NAME is a Tool, a function, or a list, tuple or dict of them; MODULE
        alone shows every Tool in it. The current folder is looked in first.
    json
        Print a JSON array, in the format that OpenAI's models take.
    """
    from turnscope_adapters import _tool_pages

    return _tool_pages.tools(target, json)


@app.command
def bench(
    *arguments: Annotated[str, Parameter(allow_leading_hyphen=True, show_default=False)],
) -> int:
    """Run a short benchmark, in a checkout of turnscope.

    About two minutes, which show how turnscope and a bare task group compare on this machine, and
    not to the last percent.

    Parameters
    ----------
    arguments
        What is passed on to bench/run.py, after its --quick: --scenario noop run, --json FILE,
        --plots FOLDER, --compare COMMIT; `turnscope bench -- --help` has the rest.
    """
    from turnscope_adapters import _bench_command

    return _bench_command.bench(arguments)


def run(arguments: Sequence[str]) -> int:
    """Do what *arguments* say; returns the exit code.

    Raises BadUsage if they say nothing that can be done.
    """
    try:
        code = app(list(arguments), exit_on_error=False, print_error=False)
    except UnusedCliTokensError as exc:
        raise BadUsage(
            f"too many arguments: {' '.join(exc.unused_tokens or ())}; see --help"
        ) from exc
    except CycloptsError as exc:
        raise BadUsage(f"{' '.join(str(exc).split())} See --help.") from exc
    return code if isinstance(code, int) else 0  # help and version come to no code
