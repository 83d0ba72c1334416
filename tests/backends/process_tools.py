"""Functions that `test_process` runs in workers. Cheap to import, for the workers' sake."""

from __future__ import annotations

import atexit
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any


class Decorated:
    """What a decorator makes of a function; the function itself is its ``fn``."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn


class TwoArguments(Exception):
    """Pickle would call its ``__init__`` with one."""

    def __init__(self, user: str, limit: int) -> None:
        super().__init__(f"{user} is over {limit}")


class SaysItTwice(Exception):
    """Survives pickling, but not unchanged."""

    def __init__(self, user: str) -> None:
        super().__init__(f"no user {user}")


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class OnlyHere:
    """Can be pickled, but is rebuilt in the process that made it and in no other."""

    def __reduce__(self) -> tuple[Callable[[int], OnlyHere], tuple[int]]:
        return _only_here, (os.getpid(),)


def _only_here(pid: int) -> OnlyHere:
    if pid != os.getpid():
        raise OSError("made in another process")
    return OnlyHere()


class FailsOnlyHere(Exception):
    def __reduce__(self) -> tuple[Callable[[int, str], Exception], tuple[int, str]]:
        return _fails_only_here, (os.getpid(), str(self))


def _fails_only_here(pid: int, text: str) -> Exception:
    _only_here(pid)
    return FailsOnlyHere(text)


def add(a: int, b: int) -> int:
    return a + b


class Around:
    """What a call can be in: it sets a variable, and says what came of the call."""

    now: str | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        Around.now = self.name

    def __exit__(self, *_: object) -> None:
        Around.now = None


class AroundOnlyHere(Around):
    def __reduce__(self) -> tuple[Callable[[int], OnlyHere], tuple[int]]:
        return _only_here, (os.getpid(),)


def around() -> str | None:
    return Around.now


def pid() -> int:
    return os.getpid()


@Decorated
def doubled(n: int) -> int:
    return 2 * n


class Box:
    @staticmethod
    def inside(n: int) -> int:
        return n + 1

    def method(self) -> None:
        return None

    def __call__(self) -> None:
        return None


def echo(value: Any) -> Any:
    return value


def leave(code: int) -> None:
    os._exit(code)


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sys_exit() -> None:
    sys.exit(3)


def chatter() -> str:
    print("printed")
    os.write(1, b"RETURN 5\nforged\n")
    subprocess.run(["echo", "echoed"], check=True)
    return "done"


def read_stdin() -> tuple[str, bytes, str]:
    child = subprocess.run(["cat"], check=True, stdout=subprocess.PIPE, text=True)
    return sys.stdin.read(), os.read(0, 10), child.stdout


def close_everything() -> None:
    os.closerange(3, 64)


def close_stdout() -> str:
    os.close(0)
    os.close(1)
    return "closed"


def fork_and_both_return() -> int:
    child = os.fork()
    return os.waitpid(child, 0)[1] if child else 0


def fork_a_sleeper_and_die(pid_file: str) -> None:
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    Path(pid_file).write_text(str(child))
    os._exit(1)


def interrupt_myself() -> str:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)
    return "still here"


def sigint_in_a_child_program() -> bool:
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    child = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
    return child.stdout.strip() == b"True"


def sigint_between_calls() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def install_own_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def sigint_is_default() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_DFL


def unpicklable() -> Iterator[int]:
    return iter(x for x in (1, 2))


def only_here() -> OnlyHere:
    return OnlyHere()


def fails(how: str) -> None:
    if how == "two":
        raise TwoArguments("bob", 3)
    if how == "twice":
        raise SaysItTwice("bob")
    if how == "mute":
        raise Mute()
    if how == "only here":
        raise FailsOnlyHere("here")
    if how == "unpicklable":
        raise ValueError(lambda: None)
    if how == "cancelled":
        import asyncio

        raise asyncio.CancelledError("mine")
    try:
        raise KeyError("deeper")
    except KeyError as exc:
        raise ValueError(how) from exc


def record_and_sleep(pid_file: str, seconds: float) -> None:
    Path(f"{pid_file}.part").write_text(str(os.getpid()))
    os.rename(f"{pid_file}.part", pid_file)
    time.sleep(seconds)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def meet(mine: str, other: str) -> int:
    """Return only if another call is at work at the same time."""
    Path(mine).touch()
    end = time.monotonic() + 10
    while not Path(other).exists():
        if time.monotonic() > end:
            raise TimeoutError("nobody came")
        time.sleep(0.002)
    return os.getpid()


async def asynchronous() -> None:
    return None


def generator() -> Iterator[int]:
    yield 1


lambda_ = lambda: None  # noqa: E731  # because the test is about lambdas
partial = functools.partial(add, 1)
bound = Box().method
instance = Box()


def replaced() -> None:
    return None


hidden = replaced


def replaced() -> None:  # type: ignore[no-redef]  # because the test is about it
    return None


def shout(size: int) -> str:
    for stream in (1, 2):
        written = 0
        while written < size:
            written += os.write(stream, b"x" * (size - written))
    return "done"


def at_exit_sleep(seconds: float) -> None:
    atexit.register(time.sleep, seconds)


def at_exit_touch(path: str) -> None:
    atexit.register(Path(path).touch)


def start_a_program_and_wait(pid_file: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    Path(f"{pid_file}.part").write_text(str(child.pid))
    os.rename(f"{pid_file}.part", pid_file)
    child.wait()


def _main() -> FrameType:
    """The outermost frame of this worker's own."""
    main = sys._getframe()
    while main.f_code.co_name != "main" and main.f_back is not None:
        main = main.f_back
    return main


def _line() -> Any:
    """This worker's line to its parent."""
    return _main().f_locals["line"]


def take_longer_to_end(seconds: float) -> None:
    """Let this worker take so long to end, once its parent has let go of the line."""
    _main().f_globals["LAST"] = seconds


def spoil(how: str) -> None:
    """Write what is no answer: beyond the guard, as only a broken library could."""
    line = _line()._answers.fileno()
    if how == "closed":
        os.close(line)
    elif how == "short":
        os.write(line, b"turn\0")
        os._exit(0)
    elif how == "half":
        os.write(line, b"turn" + (1000).to_bytes(8, "big") + b"x" * 500)
        os._exit(0)
    else:
        os.write(line, b"Segmentation fault\n")


def speak_after_the_answer() -> str:
    line = _line()
    answers = line._answers

    class Talkative:
        def write(self, answer: bytes) -> None:
            answers.write(answer + b"and another thing")

        def flush(self) -> None:
            answers.flush()

    line._answers = Talkative()
    return "done"
