"""``turnscope demo``: an agent with real tools on a real folder, whose model is a script.

Above: `_commands`. Below: `_stage`, which runs the agent and shows it, `_demo_model`, what is said,
and `_demo_tools`, what is done.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from turnscope import Agent, Limits

from . import _files
from ._demo_model import DemoModel, trouble
from ._demo_tools import TOOLS
from ._errors import BadUsage
from ._interrupts import Interrupts
from ._stage import PATIENCE, Loop, Stage, check_loop

LIMITS: Final = Limits(calls=16, threads=4, processes=2)


def demo(folder: str, loop: Loop, json_lines: bool) -> int:
    """Run the demo on *folder*; returns the exit code: 0, 1 if it broke off, 130 after Ctrl-C.

    Raises BadUsage if *folder* is not one that can be read, or *loop* is not installed.
    """
    _check_folder(folder)
    check_loop(loop)
    shown = _files.shown(folder)
    with Interrupts(PATIENCE) as interrupts:
        stage = Stage(
            agent=Agent(model=DemoModel(shown), tools=TOOLS),
            prompt=f"What is in {shown}?",
            loop=loop,
            folder=shown,
            interrupts=interrupts,
            limits=LIMITS,
        )
        stage.show(json_lines, sys.stdout)
        if interrupts.asked:
            print("turnscope: interrupted", file=sys.stderr, flush=True)
            return 130
        if stage.error is not None:
            raise stage.error  # the script cannot fail by itself
        problem = None if stage.history is None else trouble(stage.history)
        if problem is not None:
            print(f"turnscope: the demo broke off: {problem}", file=sys.stderr)
            return 1
        return 0


def _check_folder(folder: str) -> None:
    name = repr(folder)
    try:
        os.scandir(folder).close()
    except FileNotFoundError:
        raise BadUsage(f"there is no folder {name}: name one that exists") from None
    except NotADirectoryError:
        parent = os.path.dirname(folder) or "."
        raise BadUsage(f"{name} is not a folder; name one, such as {parent!r}") from None
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise BadUsage(f"the folder {name} cannot be read: {reason}") from None
