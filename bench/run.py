"""The latency benchmark: ``python bench/run.py [--quick] [--scenario NAME ...] [--json FILE]``.

Every measurement has a process of its own, and every round has one of each contender, so that what
disturbs the machine disturbs them all. It ends with 0 whatever the figures are, and with 1 only if
a checker failed, for a contender that did not do its work has no figures, or if ``--compare`` has
found a regression.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # started as a script: only its own folder is there
    sys.path.insert(0, str(ROOT))

from bench import compare, output  # noqa: E402 -- because the path comes first
from bench.base import NoBase  # noqa: E402 -- because, likewise
from bench.contenders import BEFORE, CONTENDERS, KNOWN, LOOPS, OURS, Contender  # noqa: E402 -- because, likewise
from bench.cores import cpus  # noqa: E402 -- because, likewise
from bench.record import NoRecord, Record, read  # noqa: E402 -- because, likewise
from bench.report import Failure, Sample, Skip  # noqa: E402 -- because, likewise
from bench.scenarios import IMPORT, SCENARIOS  # noqa: E402 -- because, likewise

TIMEOUT: Final = 180
"""Seconds that one process may take."""
NAMES: Final = (*SCENARIOS, IMPORT.name)
# What would make this Python slower than a user's, or leave it without bytecode.
UNUSUAL: Final = frozenset(
    {
        "PYTHONASYNCIODEBUG",
        "PYTHONDEVMODE",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONMALLOC",
        "PYTHONPROFILEIMPORTTIME",
        "PYTHONTRACEMALLOC",
        "PYTHONWARNINGS",
    }
)


@dataclass(slots=True)
class Bench:
    """One run of the benchmark: what was asked for, and what has come of it."""

    pythons: dict[str, str]
    comparing: bool = False
    """Whether a cell that the other commit lacks is of no use."""
    samples: list[Sample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    modules: dict[str, list[str]] = field(default_factory=dict)
    """What came with the import of each contender."""

    def python(self, contender: Contender) -> str:
        """The interpreter of *contender*."""
        return self.pythons.get(contender.name, sys.executable)

    def measure(
        self, contender: Contender, scenario: str, loop: str, round_: int, *more: str
    ) -> None:
        """Measure once, in a fresh process."""
        cell = (contender.name, scenario, loop)
        whose = {contender.name, BEFORE} if self.comparing else {contender.name}
        if any(
            skip.contender in whose and (skip.scenario, skip.loop) == cell[1:]
            for skip in self.skips
        ):
            return
        command = [self.python(contender), "-m", "bench.measure", contender.name, scenario, loop]
        came = _run([*command, *more])
        if "metrics" in came:
            self.samples.append(Sample(*cell, round_, came["metrics"]))
        elif "skipped" in came:
            self.skips.append(Skip(*cell, came["skipped"]))
        elif contender.name == BEFORE:  # what an older commit cannot do is no failure of this one
            self.skips.append(Skip(*cell, came["failed"]))
        else:
            self.failures.append(Failure(*cell, round_, came["failed"]))

    def known(self) -> None:
        """Note the modules of what turnscope is built on."""
        script = str(ROOT / "bench" / "imported.py")
        self.modules["known"] = _run([sys.executable, script, KNOWN]).get("modules", [])

    def imported(self, contender: Contender, round_: int) -> None:
        """Time one import, in a fresh process; round -1 compiles, and does not count."""
        cell = (contender.name, IMPORT.name, "none")
        script = str(ROOT / "bench" / "imported.py")
        came = _run([self.python(contender), script, contender.imports, contender.first])
        if "failed" in came and contender.name == BEFORE:
            self.skips.append(Skip(*cell, came["failed"]))
        elif "failed" in came:
            self.failures.append(Failure(*cell, round_, came["failed"]))
        elif round_ < 0:
            return
        elif came["uncompiled"]:
            sentence = f"{came['uncompiled']} modules have no bytecode on disk: is it read-only?"
            self.failures.append(Failure(*cell, round_, sentence))
        else:
            self.modules[contender.name] = came["modules"]
            metrics = {"import": came["seconds"] * 1e3, "modules": float(len(came["modules"]))}
            if contender.first:
                metrics["first tool after it"] = came["used"] * 1e3
            self.samples.append(Sample(*cell, round_, metrics))


def _run(command: list[str]) -> dict[str, Any]:
    # What lies on this interpreter's path would hide what another one has installed.
    unwanted = UNUSUAL if command[0] == sys.executable else UNUSUAL | {"PYTHONPATH"}
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no end within {TIMEOUT} s"}
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"failed": words[-1], "stderr": done.stderr}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def versions(python: str, names: tuple[str, ...]) -> dict[str, str | None]:
    """The versions of Python and of *names* in the environment of *python*; None: not installed."""
    program = """if True:
        import importlib.metadata, json, platform, sys
        came = {"python": platform.python_version()}
        for name in sys.argv[1:]:
            try:
                came[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                came[name] = None
        print(json.dumps(came))
    """
    return _run([python, "-c", program, *names])


def machine() -> dict[str, Any]:
    """What it runs on."""
    model = platform.processor()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        ...  # no Linux: what platform knows has to do
    return {"system": platform.platform(), "processor": model, "cpus": cpus(), "load": load()}


def load() -> float | None:
    """The load average of the last minute, where there is one."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="bench/run.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--quick", action="store_true", help="about two minutes; shows little but that it runs"
    )
    parser.add_argument(
        "--scenario", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES)
    )
    parser.add_argument(
        "--loop", nargs="+", choices=LOOPS, default=LOOPS, metavar="LOOP", help=", ".join(LOOPS)
    )
    known = [contender.name for contender in CONTENDERS]
    parser.add_argument(
        "--contender",
        nargs="+",
        choices=known,
        default=known,
        metavar="NAME",
        help=", ".join(known),
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="fresh processes for each contender and loop"
    )
    parser.add_argument(
        "--python",
        nargs="+",
        default=[],
        metavar="NAME=PATH",
        help="the interpreter of a contender",
    )
    output.add_options(parser)
    asked = parser.parse_args(argv)
    output.check(parser, asked)
    return asked


def turned(contenders: list[Contender], round_: int) -> list[Contender]:
    """Each round begins with another contender: none is always the one after the rest."""
    first = round_ % len(contenders) if contenders else 0
    return [*contenders[first:], *contenders[:first]]


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables; 1 if a checker failed or a regression was found, else 0."""
    asked = arguments(argv)
    commit = None
    pythons = dict(each.split("=", 1) for each in asked.python)
    try:
        if asked.source is not None:
            return output.tell(read(asked.source), asked)
        if asked.compare is not None:
            commit, pythons[BEFORE] = output.install(asked.compare)
            asked.contender = [OURS, BEFORE]
    except (NoRecord, NoBase) as exc:
        return output.refuse(exc)
    bench = Bench(pythons, comparing=commit is not None)
    chosen = [
        contender
        for contender in CONTENDERS
        if contender.name in asked.contender
        and (contender.name in bench.pythons or not contender.elsewhere)
    ]
    began = time.time()
    about: dict[str, Any] = {
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        **output.about(asked, sys.argv[1:] if argv is None else argv, chosen, commit),
        "machine": machine(),
        "contenders": {
            each.name: versions(
                bench.python(each), ("anyio", "trio", "uvloop", *each.distributions)
            )
            for each in chosen
        },
    }
    for name in NAMES:
        if name not in asked.scenario:
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        scenario = IMPORT if name == IMPORT.name else SCENARIOS[name]
        effort = scenario.quick if asked.quick or bench.comparing else scenario.full
        taking = [contender for contender in chosen if name in contender.scenarios]
        rounds = asked.rounds or effort.rounds
        if bench.comparing and asked.rounds is None:
            rounds = compare.rounds_for(output.comparisons(asked))
        if name == IMPORT.name:
            for round_ in range(-1, rounds):
                for contender in turned(taking, round_):
                    bench.imported(contender, round_)
            bench.known()
            continue
        for round_ in range(rounds):
            for loop in asked.loop:
                for contender in turned(taking, round_):
                    if loop in contender.loops:
                        bench.measure(
                            contender, name, loop, round_, str(rounds), str(effort.seconds)
                        )
    about["seconds"] = round(time.time() - began, 1)
    about["load at the end"] = load()
    return output.tell(
        Record(about, bench.samples, bench.failures, bench.skips, bench.modules), asked
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
