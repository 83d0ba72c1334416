"""A run of the benchmark as a file, and back: what was measured, of whom, where, when and how.

The tables and the pictures need nothing but a `Record`, so they can be made anew from a file, also
by a checkout that no longer has the scenario or the contender. What is derived (the verdicts) is in
the file for other readers, and is not read back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any, Final, TypeVar, get_type_hints

from .samples import Failure, Sample, Skip, summary, verdicts

FORMAT: Final = "turnscope-bench"
VERSION: Final = 1
"""Goes up when a reader of the last one would misread a file."""
ABOUT: Final[dict[str, type | tuple[type, ...]]] = {
    "began": str,
    "seconds": (int, float),
    "command": list,
    "quick": bool,
    "commit": (str, type(None)),
    "machine": dict,
    "load at the end": (int, float, type(None)),
    "contenders": dict,
    "titles": dict,
    "scenarios": dict,
}
"""What a file says of its run, beside the samples."""

FOLDERS: Final = ("--json", "--plots", "--environments")
"""Options that say where files are, and nothing of what was measured."""

Row = TypeVar("Row", Sample, Failure, Skip)


class NoRecord(Exception):
    """A file is no record of the benchmark; the sentence says where it stops being one."""


@dataclass(slots=True)
class Record:
    """Everything that is known of one run."""

    about: dict[str, Any]
    samples: list[Sample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    modules: dict[str, list[str]] = field(default_factory=dict)


def write(record: Record, path: Path) -> None:
    """Write *record* to *path*, as JSON."""
    found = summary(record.samples, record.failures, record.skips)
    data = {
        "format": FORMAT,
        "version": VERSION,
        **record.about,
        "verdicts": [asdict(verdict) for verdict in verdicts(found, record.failures)],
        "failures": [asdict(failure) for failure in record.failures],
        "skips": [asdict(skip) for skip in record.skips],
        "modules": record.modules,
        "samples": [asdict(sample) for sample in record.samples],
    }
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Record:
    """Read what `write` wrote. Raises NoRecord for anything else, and for what is damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise NoRecord(f"{path}: {exc.strerror or exc}") from exc
    except ValueError as exc:  # no UTF-8, or no JSON: cut off, most likely
        raise NoRecord(f"{path} is not JSON: {exc}") from exc
    try:
        return _record(data)
    except NoRecord as exc:
        raise NoRecord(f"{path}: {exc}") from None


def shown(command: Sequence[str]) -> str:
    """*command* as others would type it: what was measured, not where the files went."""
    kept: list[str] = []
    words = iter(command)
    for word in words:
        if word in FOLDERS:
            next(words, None)
        elif word.partition("=")[0] in FOLDERS:
            continue
        else:
            name, found, path = word.partition("=")
            kept.append(f"{name}={PurePath(path).name}" if found else word)
    return " ".join(kept)


def _record(data: Any) -> Record:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise NoRecord("not a record of this benchmark: bench/run.py --json FILE writes one")
    if data.get("version") != VERSION:
        raise NoRecord(f"a record of version {data.get('version')!r}; this reads {VERSION}")
    for name, kind in ABOUT.items():
        if not isinstance(data.get(name, ...), kind):
            raise NoRecord(f"{name!r} is missing, or is not what it should be")
    for name, needs in (("machine", ("system", "processor", "cpus", "load")),):
        if missing := [each for each in needs if each not in data[name]]:
            raise NoRecord(f"{name!r} lacks {missing[0]!r}")
    for name, scenario in data["scenarios"].items():
        _check_scenario(name, scenario)
    _check_more(data.get("more", []))
    rows = {"samples", "failures", "skips", "modules", "verdicts", "format", "version"}
    record = Record(
        {name: value for name, value in data.items() if name not in rows},
        _rows(data, "samples", Sample),
        _rows(data, "failures", Failure),
        _rows(data, "skips", Skip),
        data.get("modules", {}),
    )
    _check_modules(record.modules)
    for name, found in (("samples", record.samples), ("failures", record.failures)):
        for index, each in enumerate(found):
            if each.contender not in record.about["titles"]:
                raise NoRecord(f"{name}[{index}]: nobody says who {each.contender!r} is")
    for index, sample in enumerate(record.samples):
        units = record.about["scenarios"].get(sample.scenario, {}).get("units", {})
        if unknown := [metric for metric in sample.metrics if metric not in units]:
            raise NoRecord(
                f"samples[{index}]: nobody says what {unknown[0]!r} of {sample.scenario!r} is"
            )
    return record


def _check_scenario(name: str, scenario: Any) -> None:
    right = (
        isinstance(scenario, dict)
        and isinstance(scenario.get("title"), str)
        and isinstance(scenario.get("units"), dict)
        and all(isinstance(unit, str) for unit in scenario["units"].values())
        and scenario.get("headline") in scenario["units"]
    )
    if not right:
        raise NoRecord(f"scenario {name!r} needs a title, units, and one of them as headline")


def _check_more(more: object) -> None:
    if not isinstance(more, list) or not all(
        isinstance(each, dict)
        and {"seconds", "load", "load at the end"} <= set(each)
        and isinstance(each.get("began"), str)
        and isinstance(each.get("command"), list)
        for each in more
    ):
        raise NoRecord("'more' is not a list of what other runs say of themselves")


def _check_modules(modules: object) -> None:
    if not isinstance(modules, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names)
        for names in modules.values()
    ):
        raise NoRecord("'modules' is not a list of names for each contender")


def _rows(data: Mapping[str, Any], name: str, kind: type[Row]) -> list[Row]:
    rows = data.get(name)
    if not isinstance(rows, list):
        raise NoRecord(f"{name!r} is missing, or is not a list")
    return [_row(each, f"{name}[{index}]", kind) for index, each in enumerate(rows)]


def _row(data: Any, where: str, kind: type[Row]) -> Row:
    hints = get_type_hints(kind)
    if not isinstance(data, dict) or set(data) != set(hints):
        raise NoRecord(f"{where} needs {_listed(list(hints))}, and nothing else")
    for name, hint in hints.items():
        value = data[name]
        if hint == dict[str, float]:
            right = isinstance(value, dict) and all(map(_is_number, value.values()))
        else:
            right = type(value) is hint
        if not right:
            raise NoRecord(f"{where}: {name} is {value!r}")
    return kind(**data)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type] -- because the type was just looked at


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
