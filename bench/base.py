"""Another commit's turnscope, installed where this one's cannot be mistaken for it.

One environment for each commit, under ``.nox/turnscope/base``, made once: the commit's own sources,
and of everything else the versions that are installed here, so that what differs is the commit.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
SCRATCH: Final = ROOT / ".nox" / "turnscope" / "base"
COMPLETE: Final = "complete"
"""The file that is written last: a folder without it was left half made."""


class NoBase(Exception):
    """A commit cannot be compared with; the sentence says why."""


def commit_of(revision: str) -> str:
    """The full name of the commit that *revision* names. Raises NoBase if it names none."""
    if revision.startswith("-"):  # git would take it for an option
        raise NoBase(f"{revision!r} is no revision")
    found = _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if found is None:
        raise NoBase(f"git knows no commit {revision!r} in {ROOT}")
    return found.decode().strip()


def here() -> str | None:
    """The commit of this checkout, marked if it has changes; None if git does not tell."""
    found = _git("describe", "--always", "--abbrev=12", "--exclude=*", "--dirty")
    return None if found is None else found.decode().strip()


def python_of(commit: str) -> Path:
    """The interpreter of *commit*'s environment, which is made if there is none. Raises NoBase."""
    pins = _pins()
    about = hashlib.sha256("\n".join([sys.version, *pins]).encode()).hexdigest()
    folder = SCRATCH / f"{commit[:12]}-{about[:8]}"
    python = folder / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    if (folder / COMPLETE).exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    sources = folder / "sources"
    sources.mkdir(parents=True)
    packed = _git("archive", "--format=tar", commit)
    if packed is None:
        raise NoBase(f"git cannot give the files of {commit}")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(sources, filter="data")
    (folder / "pins.txt").write_text("".join(f"{pin}\n" for pin in pins))
    _do(sys.executable, "-m", "venv", str(folder / "env"))
    wanted = f"{sources}[trio,uvloop]"
    pip = (str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install")
    _do(*pip, "--constraint", str(folder / "pins.txt"), wanted, "psutil")
    (folder / COMPLETE).touch()
    return python


def check_apart(python: Path) -> None:
    """Raise NoBase unless *python* imports a turnscope from its own environment."""
    program = "import turnscope; print(turnscope.__file__)"
    came = Path(_do(str(python), "-c", program).strip()).resolve()
    own = python.parent.parent.resolve()  # not of `python` itself, a link to where this one is
    if not came.is_relative_to(own):
        raise NoBase(f"the other commit's turnscope is {came}, which is not in {own}")


def _pins() -> list[str]:
    names = {re.sub(r"[-_.]+", "-", each.name).lower(): each for each in _installed()}
    return [f"{name}=={each.version}" for name, each in sorted(names.items())]


def _installed() -> list[importlib.metadata.Distribution]:
    # `pip` and what builds are the new environment's own.
    own = ("turnscope", "pip", "setuptools", "wheel")
    return [each for each in importlib.metadata.distributions() if each.name.lower() not in own]


def _git(*arguments: str) -> bytes | None:
    """What git says in this checkout; None if it says no, or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def _do(*command: str) -> str:
    # PYTHONPATH would put this checkout before what the environment has.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise NoBase(f"{' '.join(command[:4])} ...: {' / '.join(words)}")
    return done.stdout
