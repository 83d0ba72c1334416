"""What a worker process does: a call at a time, from its parent's line and back to it.

This file is the program that is run there. It imports the standard library alone: what else a tool
needs comes with the tool. A tool that prints, starts a program or calls ``sys.exit`` could break
the line, or leave a broken worker to the next call. So the line is moved away from descriptors 0
and 1, where the null device takes its place, and whatever happens in a call is returned as plain
data. That stops accidents, not a hostile tool. Above: `_child` at the other end of the line, and
`_parcels`, which packs what `work` unpacks.
"""

from __future__ import annotations

import _thread
import importlib
import io
import os
import pickle
import select
import signal
import sys
import time
from contextlib import nullcontext, suppress
from types import ModuleType
from typing import Any, BinaryIO, Final

_MARK: Final = b"turn"
HEAD: Final = len(_MARK) + 8
"""Bytes before each pickle on the line: the mark, which what a tool prints does not begin with, and
the pickle's length."""

LAST: Final = 1.0
"""Seconds for a worker to end in, once its parent has let go of the line."""

Told = tuple[bool, bytes | None, str, str, str]
"""A `turnscope_backends._parcels.Outcome`, as it travels."""


def framed(pickled: bytes) -> bytes:
    """*pickled* as it goes over the line."""
    return _MARK + len(pickled).to_bytes(8, "big") + pickled


def length(head: bytes | bytearray) -> int:
    """The bytes that follow *head*. Raises ValueError if that is not the beginning of a frame."""
    if len(head) != HEAD or not head.startswith(_MARK):
        raise ValueError(f"no frame begins with {bytes(head)!r}")
    return int.from_bytes(head[len(_MARK) :], "big")


class _Line:
    """The way to the parent and back, where neither a tool nor what it starts will find it."""

    def __init__(self) -> None:
        _close_copies(0, 1)
        self.requests: BinaryIO = os.fdopen(os.dup(0), "rb")
        self._answers: BinaryIO = os.fdopen(os.dup(1), "wb")
        self._null = os.open(os.devnull, os.O_RDWR)
        self.cover()

    def cover(self) -> None:
        """Point descriptors 0, 1 and 2 at the null device."""
        for stream in (0, 1, 2):
            os.dup2(self._null, stream)

    def read(self) -> Any:
        """The next request. Raises EOFError when none comes any more."""
        head = self.requests.read(HEAD)
        if len(head) < HEAD:
            raise EOFError
        body = self.requests.read(length(head))
        if len(body) < length(head):
            raise EOFError
        return pickle.loads(body)

    def write(self, answer: Told) -> None:
        self._answers.write(framed(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)))
        self._answers.flush()

    def hang_up(self) -> None:
        self.requests.close()
        self._answers.close()


def _close_copies(*streams: int) -> None:
    """Close what else leads where *streams* lead; a fork of this process would keep it open.

    uvloop leaves such copies behind.
    """
    if os.path.isdir("/dev/fd"):
        ours = [os.fstat(stream) for stream in streams]
        for name in os.listdir("/dev/fd"):
            with suppress(OSError):  # the folder's own descriptor, which is closed by now
                if int(name) > 2 and any(os.path.samestat(os.fstat(int(name)), o) for o in ours):
                    os.close(int(name))


def main() -> None:
    """Be a worker, until the parent closes the line or is no more."""
    line = _Line()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stay)
    if sys.platform != "win32":
        # A fork that outlived its worker would hold the line open, the parent wait for an answer.
        os.register_at_fork(after_in_child=line.hang_up)
        _thread.start_new_thread(_end_with_the_parent, (line.requests.fileno(),))
    work: Any = begin  # the first request
    while True:
        try:
            request = line.read()
        except EOFError:
            return
        told = work(*request)
        try:
            line.cover()
            line.write(told)
        except (OSError, ValueError):
            # The tool closed the line, or this is a fork of the worker that fell out of the tool.
            os._exit(1)
        work = call


def _stay(_signum: int, _frame: object) -> None:
    """Only the parent decides what Ctrl-C ends. Unlike SIG_IGN, no program inherits this."""


def _end_with_the_parent(line: int) -> None:
    """Kill this process, with what it has started, a moment after its parent let go of *line*.

    A busy worker would go on for ever when its parent is killed, and one that is to end may have
    threads or exit functions that never do.
    """
    if sys.platform != "win32":
        poll = select.poll()
        poll.register(line, 0)  # a hang-up alone, which is always told
        poll.poll()
        time.sleep(LAST)
        os.killpg(0, signal.SIGKILL)


def begin(path: list[str], script: str | None) -> Told:
    """Import the parent's main *script*, with its `sys.path`; what is in it is no main program."""
    sys.path[:] = path
    module = ModuleType("__mp_main__")
    # `ProcessBackend.check` looks whether there is one: in here it must not be used.
    del sys.modules["__main__"]
    try:
        if script is not None:
            import runpy

            vars(module).update(runpy.run_path(script, run_name="__mp_main__"))
    except BaseException as exc:
        return _failure(exc)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    return True, pickle.dumps(None), "NoneType", "", ""


def call(module: str, path: str, arguments: bytes, around: bytes | None = None) -> Told:
    """Call the function at *path* in *module* with the pickled *arguments*.

    *around* is the context manager to call it in, pickled, if there is one.
    """
    value: Any = None
    try:
        try:
            fn = follow(module, path)
        except AttributeError as exc:
            raise LookupError(
                f"a worker process finds no {path!r} in module {module!r}; define it at top "
                'level, not under `if __name__ == "__main__":` or a condition'
            ) from exc
        try:
            kwargs = load(arguments)
        except Exception as exc:
            raise TypeError(
                f"the arguments cannot be rebuilt in a worker process ({exc}); pass plain "
                "data, or use the thread backend"
            ) from exc
        try:
            within = nullcontext() if around is None else load(around)
        except Exception as exc:
            raise TypeError(
                f"what carry= gave cannot be rebuilt in a worker process ({exc}); make it of plain "
                "data"
            ) from exc
        with within:
            value = fn(**kwargs)
    except BaseException as exc:
        return _failure(exc)
    try:
        return True, pickle.dumps(value, pickle.HIGHEST_PROTOCOL), type_name(value), "", ""
    except Exception as exc:
        return True, None, type_name(value), f"{type(exc).__name__}: {exc}", ""


def follow(module: str, path: str) -> Any:
    """The object at the end of dotted *path* in *module*, which is imported if need be."""
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


class _Unpickler(pickle.Unpickler):
    """In a worker the parent's main script is called ``__mp_main__``: one name for both ends."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        return super().find_class(
            "__main__" if module_name == "__mp_main__" else module_name, global_name
        )


def load(data: bytes) -> Any:
    """What was pickled, here or at the other end. Raises whatever the making of it raises."""
    return _Unpickler(io.BytesIO(data)).load()


def type_name(value: object) -> str:
    return type(value).__qualname__


def _failure(error: BaseException) -> Told:
    import traceback

    pickled = None
    # A cancellation of some event loop in the worker means nothing to the parent's: words only.
    if isinstance(error, (Exception, SystemExit, KeyboardInterrupt)):
        try:
            pickled = pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
            copy = load(pickled)
            # An __init__ that makes its own text loads without complaint, and says it twice.
            if type(copy) is not type(error) or str(copy) != str(error):
                pickled = None
        except Exception:
            pickled = None
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be had)"
    # The first frame is of this file.
    frames = error.__traceback__ and error.__traceback__.tb_next
    words = "".join(traceback.format_exception(type(error), error, frames))
    return False, pickled, type_name(error), text, words


if __name__ == "__main__":
    main()
