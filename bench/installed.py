"""What is installed for a module: its distribution and all that this requires, by their metadata.

Used by `footprint`, in the environment of a contender. Only the standard library.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.metadata import packages_distributions as distributions_by_package

REQUIREMENT = re.compile(r"\s*([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?([^;]*)(?:;(.*))?")
EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")


def distributions_of(statement: str) -> set[str]:
    """The distributions of the modules that *statement* imports; none for the standard library's.

    Raises LookupError for a module that is not of an installed distribution.
    """
    modules = set()
    for node in ast.walk(ast.parse(statement)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module.partition(".")[0])
    known = distributions_by_package()
    names: set[str] = set()
    for module in modules - sys.stdlib_module_names:
        if module not in known:
            raise LookupError(f"{module} is not of an installed distribution")
        names.update(known[module])
    return names


def with_all_required(names: Iterable[str]) -> dict[str, Distribution]:
    """*names* and what they require, transitively, by their normal names.

    A requirement with a marker counts if it is installed: an environment that was made for them has
    what the markers choose. One of an extra counts if that was asked for.
    """
    found: dict[str, Distribution] = {}
    asked = [(name, frozenset[str]()) for name in names]
    seen = set()
    while asked:
        name, extras = asked.pop()
        normal = re.sub(r"[-_.]+", "-", name).lower()
        if (normal, extras) in seen:
            continue
        seen.add((normal, extras))
        try:
            found[normal] = distribution(name)
        except PackageNotFoundError:
            continue
        asked += _required(found[normal], extras)
    return found


def _required(of: Distribution, extras: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    required = []
    for requirement in of.requires or ():
        if match := REQUIREMENT.match(requirement):
            name, of_it, _, marker = match.groups()
            needs = set(EXTRA.findall(marker or ""))
            if not needs or needs & extras:
                its = frozenset(each.strip() for each in (of_it or "").split(",") if each.strip())
                required.append((name, its))
    return required


def size_of(installed: dict[str, Distribution]) -> int:
    """The bytes of their files on disk; bytecode, which one installer writes and another does not,
    is left out.

    Raises LookupError if the files of one cannot be known.
    """
    size = 0
    for name, each in installed.items():
        origin = json.loads(each.read_text("direct_url.json") or "{}")
        if origin.get("dir_info", {}).get("editable") or each.files is None:
            raise LookupError(f"{name} is installed from a source tree: its files are not known")
        for file in each.files:
            path = file.locate()
            if file.suffix != ".pyc" and path.is_file():
                size += path.stat().st_size
    return size
