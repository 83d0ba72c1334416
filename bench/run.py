"""The latency benchmark: ``python bench/run.py [--quick] [--scenario NAME ...] [--json FILE]``.

Every measurement has a process of its own, and every round has one of each contender, so that what
disturbs the machine disturbs them all. It ends with 0 whatever the figures are, and with 1 only if
a checker failed, for a contender that did not do its work has no figures, or if ``--compare`` has
found a regression. With ``--peers`` it measures other frameworks too, each in an environment of its
own; what a checker finds there is no error.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # started as a script: only its own folder is there
    sys.path.insert(0, str(ROOT))

from bench import output  # noqa: E402 -- because the path comes first
from bench.base import NoBase  # noqa: E402 -- because, likewise
from bench.contenders import BEFORE, CONTENDERS, LOOPS, OURS, Contender  # noqa: E402 -- because, likewise
from bench.cores import cpus  # noqa: E402 -- because, likewise
from bench.join import joined  # noqa: E402 -- because, likewise
from bench.machine import load, machine, versions  # noqa: E402 -- because, likewise
from bench.plan import plan, plan_in_small  # noqa: E402 -- because, likewise
from bench.processes import Bench  # noqa: E402 -- because, likewise
from bench.record import NoRecord, Record, read  # noqa: E402 -- because, likewise
from bench.samples import Skip  # noqa: E402 -- because, likewise
from bench.scenarios import EVERY  # noqa: E402 -- because, likewise

ENVIRONMENTS: Final = ROOT / ".nox" / "turnscope" / "bench"
NAMES: Final = tuple(EVERY)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="bench/run.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--quick", action="store_true", help="about two minutes; shows little but that it runs"
    )
    parser.add_argument(
        "--smoke", action="store_true", help="in small, at once: does everything run, and right?"
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
        default=[contender.name for contender in CONTENDERS if not contender.peer],
        metavar="NAME",
        help=", ".join(known),
    )
    parser.add_argument(
        "--peers", action="store_true", help="other frameworks too: installs them when first asked"
    )
    parser.add_argument(
        "--environments",
        type=Path,
        default=ENVIRONMENTS,
        metavar="FOLDER",
        help="where those are installed, and found again",
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


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables; 1 if a checker failed or a regression was found, else 0."""
    asked = arguments(argv)
    commit = None
    pythons = dict(each.split("=", 1) for each in asked.python)
    try:
        if asked.source is not None:
            return output.tell(joined([read(file) for file in asked.source]), asked)
        if asked.compare is not None:
            commit, pythons[BEFORE] = output.install(asked.compare)
            asked.contender, asked.peers = [OURS, BEFORE], False
    except (NoRecord, NoBase) as exc:
        return output.refuse(exc)
    bench = Bench(pythons, comparing=commit is not None)
    chosen = chosen_by(asked, bench)
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
    if asked.smoke:
        print("A smoke run: sizes are small and processes run at once, so no figure holds.\n")
        with ThreadPoolExecutor(cpus()) as pool:
            list(pool.map(lambda job: job(), plan_in_small(bench, asked, chosen)))
    else:
        for job in plan(bench, asked, chosen):
            job()
    about["seconds"] = round(time.time() - began, 1)
    about["load at the end"] = load()
    return output.tell(
        Record(about, bench.samples, bench.failures, bench.skips, bench.modules), asked
    )


def chosen_by(asked: argparse.Namespace, bench: Bench) -> list[Contender]:
    """The contenders that were asked for and can be measured; the reasons of others are noted."""
    chosen = [
        contender
        for contender in CONTENDERS
        if (contender.name in asked.contender or (asked.peers and contender.peer))
        and (contender.name in bench.pythons or not contender.elsewhere)
    ]
    chosen = bench.settle(chosen, asked.environments)
    bench.skips += [
        Skip(each.name, name, "all", reason)
        for each in chosen
        for name, reason in each.lacks.items()
        if name in asked.scenario
    ]
    return chosen


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
