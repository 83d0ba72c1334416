"""The sessions that say whether turnscope holds: style, types, tests, lowest versions, coverage.

`nox` runs all of them; `nox -s tests` one; `nox -s tests-3.12 -- --loop=trio` one cell of it; what
follows `--` goes to pytest (or to the benchmark). Tests run against the built wheel, never against
the source tree, so a file that the wheel lacks is a failure here and not at a user's.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nox
from packaging.requirements import Requirement

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml("pyproject.toml")
PACKAGES = ("turnscope", "turnscope_backends", "turnscope_adapters")
EXTRAS = "trio,uvloop,cli,openai,anthropic,langchain,mcp,otel"
SCRATCH = ROOT / ".nox" / "turnscope"
REPORTS = SCRATCH / "reports"  # one JUnit file for each pytest run; .ci/run adds them up

NODE = SCRATCH / "node"
NODE_SCRIPTS = NODE / "node_modules" / ".bin"
NPM_SERVERS = (
    "@modelcontextprotocol/server-everything",
    "@modelcontextprotocol/server-filesystem",
    # In this version: it has a new one every few days, and tests count the pieces that it streams.
    "@copilotkit/aimock@1.43.0",
)

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
MATRIX = ("3.11", "3.12", "3.13")
# The Python that runs nox is always tested, also one that is newer than the matrix: a machine that
# has no other would else skip every session and call it success.
PYTHONS = [*MATRIX, *([] if RUNNING in MATRIX else [RUNNING])]
# In front, so that its `pythonX.Y` is the one found: a version manager's shim of that name may
# refuse to start it.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "venv"
nox.options.download_python = "never"  # a Python that is not here is skipped, with a warning
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "tests", "lowest", "coverage"]


def group(name: str) -> tuple[str, ...]:
    """The requirements of one of pyproject's dependency groups."""
    return nox.project.dependency_groups(PYPROJECT, name)


def distribution(session: nox.Session) -> Path:
    """The wheel under test, built once for each run of nox, through the sdist."""
    session.install("build")
    return _build(functools.partial(session.run, "python", "-m", "build", silent=True))


_built: list[Path] = []


def _build(run: functools.partial[object]) -> Path:
    if not _built:
        shutil.rmtree(SCRATCH / "dist", ignore_errors=True)
        run("--outdir", str(SCRATCH / "dist"), str(ROOT))
        _built.extend((SCRATCH / "dist").glob("*.whl"))
    return _built[0]


def install_wheel(session: nox.Session, *more: str, extras: str = EXTRAS) -> None:
    """Install the wheel with *extras*, and make sure that it is what Python imports."""
    wheel = distribution(session)
    session.install(f"turnscope[{extras}] @ {wheel.as_uri()}", *more)
    # Under `nox -r` pip would keep an older wheel: it has the same version.
    session.install("--force-reinstall", "--no-deps", str(wheel), silent=True)
    probe = "import sys, {0}; sys.exit('site-packages' not in {0}.__file__)"
    for package in PACKAGES:
        session.run("python", "-c", probe.format(package), silent=True)


def _is_here(python: str) -> bool:
    """Whether *python* can be started; a version manager's shim of that name may refuse."""
    found = shutil.which(f"python{python}")
    return found is not None and not subprocess.run([found, "-V"], capture_output=True).returncode


# How many examples a law gets depends on no Python: the one that is always there has them all, the
# other sessions a few examples of each law. Nor do whether broken kernels are caught, what programs
# of others and a bad wire do to an adapter, whether the benchmark sees who cheats, and what the
# demo shows at Ctrl-C: these are shared among the Pythons that are here, so that each takes about
# as long.
HERE = [RUNNING, *(python for python in PYTHONS if python != RUNNING and _is_here(python))]
SHARED = (
    ("tests/planted",),
    ("tests/adapters/aimock", "tests/adapters/mcp"),
    (
        "tests/adapters/test_cli_interrupt.py",
        "tests/adapters/test_wire.py",
        "tests/bench",
        "tests/test_stalls.py",
    ),
)


def of_others(python: str) -> list[str]:
    """Options that leave out what is another Python's share."""
    parts = [part for n, part in enumerate(SHARED) if HERE[n % len(HERE)] != python]
    return [f"--ignore={path}" for path in itertools.chain(*parts)]


# What `lowest` and `coverage` look at: the laws and the benchmark are made of the same calls.
PARTS = ("tests/kernel", "tests/backends", "tests/contract", "tests/adapters", "tests/examples")
# They leave out what is shared, and Ctrl-C in processes of its own: neither looks into those.
APART = (
    "--ignore=tests/adapters/aimock",
    "--ignore=tests/adapters/test_wire.py",
    "--ignore=tests/adapters/test_cli_interrupt.py",
    "--ignore=tests/kernel/test_ctrl_c.py",
)

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def install_servers(session: nox.Session) -> None:
    """Install the servers of npm that tests run; without npm, those tests are skipped."""
    installed = NODE / "installed.txt"
    names = "".join(f"{name}\n" for name in NPM_SERVERS)
    if shutil.which("npm") is None:
        session.warn("npm is not here: tests against servers of npm are skipped")
    elif not installed.exists() or installed.read_text() != names:
        NODE.mkdir(parents=True, exist_ok=True)
        where = ("--no-audit", "--no-fund", "--no-save", "--fetch-retries=1", "--prefix", str(NODE))
        try:
            session.run("npm", "install", *where, *NPM_SERVERS, external=True, silent=True)
        except nox.command.CommandFailed:
            session.warn("npm could not install them: tests against servers of npm are skipped")
        else:
            installed.write_text(names)


def pytest(
    session: nox.Session, profile: str, *arguments: str, programs: str = "", part: str = ""
) -> None:
    """Run pytest, with the examples of *profile* (tests/conftest.py) and a report of its own.

    *programs* is a folder of those that the tests start, beside what npm installed. A session's
    second run is a *part* with a name.
    """
    name = re.sub(r"[^0-9a-z.]+", "-", f"{session.name} {part}".lower()).strip("-")
    report = REPORTS / f"{name}.xml"
    report.unlink(missing_ok=True)
    session.run(
        "python",
        "-m",
        "pytest",
        f"--junitxml={report}",
        f"--numprocesses={CPUS + 1}",  # one waits, as a rule: for a timeout, or another process
        "--dist=worksteal",
        *arguments,
        *session.posargs,
        env={
            "HYPOTHESIS_PROFILE": os.environ.get("HYPOTHESIS_PROFILE", profile),
            # Last, so that of what npm installs only what is asked for by name is found.
            "PATH": os.pathsep.join(
                filter(None, [os.environ["PATH"], str(NODE_SCRIPTS), programs])
            ),
        },
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Style: ruff's rules, and its format."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types: mypy and pyright, both strict, and the installed surface from outside."""
    requirements = list(group("types"))
    if shutil.which("node") is None:  # pyright's wheel holds pyright, but not what runs it
        requirements = [re.sub(r"^pyright\b", "pyright[nodejs]", name) for name in requirements]
    install_wheel(session, *requirements)
    session.run("mypy")
    session.run("pyright")
    elsewhere = SCRATCH / "elsewhere"  # where no configuration points at the source tree
    elsewhere.mkdir(parents=True, exist_ok=True)
    with session.chdir(elsewhere):
        for package in PACKAGES:
            session.run("pyright", "--verifytypes", package, "--ignoreexternal")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The suite on one Python: each event loop, asyncio, uvloop and trio."""
    install_wheel(session, *group("test"), *group("mcp"))
    install_servers(session)
    profile = "ci" if session.python == RUNNING else "brief"
    pytest(session, profile, *of_others(session.python))


@nox.session(python=MATRIX[0])
def lowest(session: nox.Session) -> None:
    """The suite on the lowest version of every direct dependency that pyproject allows."""
    constraints = SCRATCH / "lowest.txt"
    constraints.parent.mkdir(parents=True, exist_ok=True)
    constraints.write_text("".join(f"{pin}\n" for pin in lower_bounds()))
    # Without mcp, which asks for newer versions of httpx2 and jsonschema than we do: its tests are
    # skipped here. The other sessions have them, on the newest.
    some = ",".join(name for name in EXTRAS.split(",") if name != "mcp")
    install_wheel(session, *group("test"), "--constraint", str(constraints), extras=some)
    session.run("python", "-m", "pip", "list")
    pytest(session, "brief", *PARTS, *APART, "--loop=asyncio")
    # What no other library has a part in: how the kernel and each loop get on.
    loops = ("tests/contract", "tests/kernel/test_ending.py", "tests/kernel/test_driver.py")
    pytest(session, "brief", *loops, "--loop=trio", "--loop=uvloop", part="loops")


def lower_bounds() -> list[str]:
    """`name==version` for each requirement and extra; ValueError where a bound is missing."""
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"].values()
    pins = []
    for requirement in map(Requirement, itertools.chain(project["dependencies"], *extras)):
        bounds = [spec.version for spec in requirement.specifier if spec.operator == ">="]
        if len(bounds) != 1:
            raise ValueError(f"{requirement}: give it one lower bound, as name>=version")
        marker = f" ; {requirement.marker}" if requirement.marker else ""
        pins.append(f"{requirement.name}=={bounds[0]}{marker}")
    return pins


@nox.session
def coverage(session: nox.Session) -> None:
    """The suite on asyncio, with the wheel's lines mapped back to the source tree."""
    install_wheel(session, *group("test"), *group("mcp"), *group("coverage"))
    install_servers(session)
    # Not on uvloop and trio, for which few lines are: the other sessions run those, and this one is
    # the slowest for what it does. Nor the command's own processes, which it does not look into.
    some = (*PARTS, *APART, "--loop=asyncio", "--ignore-glob=*/test_cli_*.py")
    pytest(session, "brief", *some, "--cov", "--cov-report=term-missing")


@nox.session
def bench(session: nox.Session) -> None:
    """The latency benchmark: `nox -s bench -- --help`, `-- --compare main`, `-- --plots FOLDER`."""
    install_wheel(session, *group("bench"))
    session.run("python", "bench/run.py", *session.posargs)


@nox.session(python=MATRIX[0])
def litellm(session: nox.Session) -> None:
    """By hand: models behind LiteLLM's proxy, which has aimock behind it. 700 MB to install."""
    install_wheel(session, *group("test"))
    install_servers(session)
    # In an environment of its own: it asks for exact versions of what is tested here.
    place = SCRATCH / "litellm"
    if not (place / "bin" / "litellm").exists():
        session.run("python", "-m", "venv", str(place))
        session.run(str(place / "bin" / "pip"), "install", "litellm[proxy]", external=True)
    path = "tests/by_hand/litellm_proxy.py"
    pytest(session, "brief", path, "--numprocesses=0", programs=str(place / "bin"))


@nox.session(python=MATRIX[0])
def llama(session: nox.Session) -> None:
    """By hand: models behind llama.cpp's own server, with a small model that the tests make."""
    # Its server comes from a package that has it built.
    install_wheel(session, *group("test"), "xllamacpp", "gguf")
    pytest(session, "brief", "tests/by_hand/llama_server.py", "--numprocesses=0")
