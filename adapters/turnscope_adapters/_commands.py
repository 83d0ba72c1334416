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


@app.command
def demo(
    folder: str = ".",
    /,
    *,
    loop: Literal["asyncio", "uvloop", "trio"] = "asyncio",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run three turns of real tools on a folder, with no model, and watch their calls overlap.

    The first lists the folder. The second reads files in threads and hashes them in processes,
    while one tool fails, one is interrupted by its timeout, and one sleeps in a thread that nobody
    can stop. The third sums up. Nothing is written, and no network is used. Ctrl-C ends it within
    a second and shows what each call had come to.

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
