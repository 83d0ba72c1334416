"""The ``turnscope`` command: runs what was typed, and turns its end into a line and an exit code.

0: it worked. 1: it failed, and one line on standard error says why. 2: bad usage, or an extra that
is not installed. 130: Ctrl-C. Above: the console script, and ``python -m turnscope_adapters.cli``.
Below: `_commands`.

A worker process imports the program's main script, so this file imports next to nothing, and under
absolute names: the worker runs it outside of its package.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from typing import cast

from turnscope_adapters._errors import BadUsage, Broken


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with *argv*, by default what was typed; returns the exit code."""
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()  # a reader who has left is to be met here, not at Python's end
    except BadUsage as exc:
        return _say(str(exc), 2)
    except Broken as exc:
        return _say(str(exc), 1)
    except KeyboardInterrupt:
        if threading.current_thread() is threading.main_thread():
            # One more, now that all is over, would only kill the last words.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return _say("interrupted", 130)
    except SystemExit as exc:  # rich's, when nobody reads what it prints
        return exc.code if isinstance(exc.code, int) else 1
    except BrokenPipeError:
        # As `| head` does it. Python would complain again when it flushes what nobody reads.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as exc:
        return _say(_described(exc), 1)


def _run(arguments: Sequence[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a name that the terminal cannot show is no reason to stop
            reconfigure(errors="backslashreplace")
    for name in ("cyclopts", "rich"):
        if find_spec(name) is None:
            raise BadUsage(f"{name} is not installed: pip install 'turnscope[cli]'")
    from turnscope_adapters import _commands  # here, because it needs both

    return _commands.run(arguments)


def _say(sentence: str, code: int) -> int:
    print(f"turnscope: {sentence}", file=sys.stderr, flush=True)
    return code


def _described(exc: BaseException) -> str:
    """An unexpected error in one line; a group of one is its one error."""
    error: object = exc
    if isinstance(error, BaseExceptionGroup):
        members = cast("BaseExceptionGroup[BaseException]", error).exceptions
        if len(members) == 1:
            return _described(members[0])
    text = " ".join(str(exc).split())
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


if __name__ == "__main__":
    sys.exit(main())
