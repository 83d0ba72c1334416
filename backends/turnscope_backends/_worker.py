"""Both ends of the pipe to a worker process: what is sent, what is done there, what comes back.

A worker's file descriptors 0 and 1 are its line to the parent, and 2 is a pipe that nobody reads. A
tool that prints, starts a program or calls ``sys.exit`` could break that line, or fill the pipe and
stand still, or leave a broken worker to the next call. So every call goes through `work`: it takes
the three out of the tool's reach, and returns whatever happens as plain data. That stops accidents,
not a hostile tool. Above: `_process`, in the parent. Below: the standard library alone, because the
worker imports this file before any tool.
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

_STREAMS: Final = (0, 1, 2)

_line: list[int] = []
"""While a tool runs: copies of descriptors 0, 1 and 2, which lead to the parent."""


class Outcome(NamedTuple):
    """What a call came to, as it travels. Nothing in it can fail to be pickled or rebuilt."""

    ok: bool
    """Whether the function returned; the rest then speaks of its value, else of its exception."""
    pickled: bytes | None
    """The value or exception; None if it does not survive the journey."""
    type_name: str
    text: str
    """Why the value cannot be pickled; what the exception says."""
    traceback: str = ""


class _Unpickler(pickle.Unpickler):
    """In a worker the parent's main script is called ``__mp_main__``: one name for both ends."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        return super().find_class(
            "__main__" if module_name == "__mp_main__" else module_name, global_name
        )


def _load(data: bytes) -> Any:
    return _Unpickler(io.BytesIO(data)).load()


def follow(module: str, path: str) -> Any:
    """The object at the end of dotted *path* in *module*, which is imported if need be."""
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def path_to(fn: Callable[..., object]) -> tuple[str, str] | None:
    """Module and dotted path that lead to *fn*, or None; under a decorator it is ``name.fn``."""
    module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    if isinstance(module, str) and isinstance(name, str):
        for path in (name, f"{name}.fn"):
            try:
                if follow(module, path) is fn:
                    return module, path
            except (ImportError, AttributeError):
                continue
    return None


def pack(kwargs: Mapping[str, Any]) -> bytes:
    """Pickle the arguments. Raises TypeError that names the parameter which cannot be."""
    try:
        return pickle.dumps(dict(kwargs), pickle.HIGHEST_PROTOCOL)
    except Exception as whole:
        for name, value in kwargs.items():
            try:
                pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
            except Exception as exc:
                raise TypeError(
                    f"the argument {name!r}, of type {_type_name(value)}, cannot be sent to a "
                    f"worker process ({exc}); pass plain data, or use the thread backend"
                ) from exc
        raise TypeError(f"the arguments cannot be sent to a worker process ({whole})") from whole


def unpack(outcome: Outcome) -> Any:
    """Return the value that came back, or raise the exception, noting the worker's traceback.

    An exception that does not survive pickling is told of by a RuntimeError; a value that does not,
    by a TypeError that names its type.
    """
    if outcome.ok:
        reason = outcome.text
        if outcome.pickled is not None:
            try:
                return _load(outcome.pickled)
            except Exception as exc:
                reason = f"{type(exc).__name__}: {exc}"
        raise TypeError(
            f"the result, of type {outcome.type_name}, cannot be sent back from a worker process "
            f"({reason}); return plain data, or use the thread backend"
        )
    error: BaseException | None = None
    if outcome.pickled is not None:
        try:
            error = _load(outcome.pickled)
        except Exception:
            error = None  # an import that only the worker can do: its words will have to serve
    if error is None:
        error = RuntimeError(f"{outcome.type_name}: {outcome.text}")
    error.add_note(f"in a worker process:\n\n{outcome.traceback}")
    try:
        raise error
    finally:
        del error  # an exception held by a frame of its own traceback is a cycle


def ready() -> None:
    """What a new worker runs first. From now on Ctrl-C is the parent's to answer."""
    _swap_sigint(signal.default_int_handler, signal.SIG_IGN)


def work(module: str, path: str, arguments: bytes) -> Outcome:
    """Call the function at *path* in *module*: in the worker, out of reach of the line."""
    with _line_out_of_reach():
        try:
            try:
                fn = follow(module, path)
            except AttributeError as exc:
                raise LookupError(
                    f"a worker process finds no {path!r} in module {module!r}; define it at top "
                    'level, not under `if __name__ == "__main__":` or a condition'
                ) from exc
            try:
                kwargs = _load(arguments)
            except Exception as exc:
                raise TypeError(
                    f"the arguments cannot be rebuilt in a worker process ({exc}); pass plain "
                    "data, or use the thread backend"
                ) from exc
            value = fn(**kwargs)
        except BaseException as exc:
            return _failure(exc)
        try:
            return Outcome(
                True, pickle.dumps(value, pickle.HIGHEST_PROTOCOL), _type_name(value), ""
            )
        except Exception as exc:
            return Outcome(True, None, _type_name(value), f"{type(exc).__name__}: {exc}")


def _failure(error: BaseException) -> Outcome:
    pickled = None
    # A cancellation of some event loop in the worker means nothing to the parent's: words only.
    if isinstance(error, (Exception, SystemExit, KeyboardInterrupt)):
        try:
            pickled = pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
            copy = _load(pickled)
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
    told = "".join(traceback.format_exception(type(error), error, frames))
    return Outcome(False, pickled, _type_name(error), text, told)


def _type_name(value: object) -> str:
    return type(value).__qualname__


@contextmanager
def _line_out_of_reach() -> Generator[None]:
    """Point descriptors 0, 1 and 2 at the null device; afterwards restore them."""
    null = os.open(os.devnull, os.O_RDWR)
    _line[:] = map(os.dup, _STREAMS)  # these copies are closed in programs that the tool starts
    for stream in _STREAMS:
        os.dup2(null, stream)
    os.close(null)
    _swap_sigint(signal.SIG_IGN, _stay)
    try:
        yield
    finally:
        _swap_sigint(_stay, signal.SIG_IGN)
        try:
            for stream in _STREAMS:
                os.dup2(_line[stream], stream)
        except (OSError, IndexError):
            # The tool closed the copies, or this is a fork of the worker that fell out of the tool.
            # To go on would be to answer in the wrong place.
            os._exit(1)
        _hang_up()


def _hang_up() -> None:
    while _line:
        os.close(_line.pop())


def _stay(_signum: int, _frame: object) -> None:
    """Ctrl-C reaches every process of the terminal, but only the parent decides.

    While a tool runs this stands in for SIG_IGN, which the programs that it starts would inherit:
    they would not end at Ctrl-C. Between calls SIG_IGN is better: it never cuts a write in two.
    """


def _swap_sigint(old: Any, new: Any) -> None:
    """Leave alone what the user's own code has installed."""
    if signal.getsignal(signal.SIGINT) is old:
        signal.signal(signal.SIGINT, new)


if sys.platform != "win32":
    # A fork that outlived its worker would hold the line open, and the parent wait for an answer.
    os.register_at_fork(after_in_child=_hang_up)
