"""The house keeps its shape: who imports whom, how long a room is, what lies at the top.

Each rule is a function from source text to complaints, tried here on text that breaks it: a rule
that cannot complain protects nothing.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import attrs
import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "turnscope": "kernel/turnscope",
    "turnscope_backends": "backends/turnscope_backends",
    "turnscope_adapters": "adapters/turnscope_adapters",
}
KERNEL = "turnscope"
# What backends and adapters may import of the kernel: these four rooms, and their public names.
PORTS = {"turnscope", "turnscope.abc", "turnscope.events", "turnscope.testing"}
# The kernel's rooms that know a package which the others must not know.
KNOWN_IN = {
    "asyncio": {"_loop", "testing"},
    "pydantic": {"_schema"},
    "pydantic_core": {"_schema"},
    "tenacity": {"_retry"},
}
LONGEST = 300
TOP_LEVEL = {
    "adapters",
    "backends",
    "bench",
    "kernel",
    "tests",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "noxfile.py",
    "pyproject.toml",
}


@attrs.frozen
class Import:
    """One imported module, or one name of one module, by absolute names."""

    module: str
    name: str | None
    line: int

    @property
    def root(self) -> str:
        return self.module.partition(".")[0]


@attrs.frozen
class Room:
    """A module under inspection: its absolute name, its text, and whether it is an `__init__`."""

    name: str
    text: str
    package: bool = False

    @property
    def imports(self) -> Iterator[Import]:
        """Everything imported, at the top, in a function or for type checkers only."""
        for node in ast.walk(ast.parse(self.text)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(alias.name, None, node.lineno)
            elif isinstance(node, ast.ImportFrom):
                module = self.resolve(node.level, node.module)
                for alias in node.names:
                    yield Import(module, alias.name, node.lineno)

    def resolve(self, level: int, module: str | None) -> str:
        """The absolute name of what `from ..module import` means in this room."""
        if level == 0:
            return module or ""
        here = self.name.split(".") if self.package else self.name.split(".")[:-1]
        parts = here[: len(here) - level + 1]
        return ".".join([*parts, *([module] if module else [])])


def upward_imports(room: Room) -> list[str]:
    """The kernel imports neither of the others; backends and adapters do not know each other."""
    own = room.name.partition(".")[0]
    allowed = {own, KERNEL}
    return [
        f"{room.name}:{item.line} imports {item.module}: imports go down only"
        for item in room.imports
        if item.root in PACKAGES and item.root not in allowed
    ]


def private_imports(room: Room) -> list[str]:
    """Backends and adapters use what a third party could use: public names of public rooms."""
    if room.name.partition(".")[0] == KERNEL:
        return []
    complaints = []
    for item in room.imports:
        if item.root != KERNEL:
            continue
        name = item.name or ""
        is_room = f"{item.module}.{name}" in PORTS
        if item.module not in PORTS or (name.startswith("_") and not is_room):
            complaints.append(
                f"{room.name}:{item.line} imports {item.module}.{name}: only public names of "
                f"{', '.join(sorted(PORTS))}"
            )
    return complaints


def star_imports(room: Room) -> list[str]:
    """Names come out one by one, so that a reader finds where each is from."""
    return [
        f"{room.name}:{item.line} imports * from {item.module}: name what is used"
        for item in room.imports
        if item.name == "*"
    ]


def outside_imports(room: Room) -> list[str]:
    """What the kernel leans on from outside, it meets in few rooms: each can be replaced."""
    package, _, rest = room.name.partition(".")
    rest = rest.partition(".")[0]  # a folder is one room
    complaints = []
    for item in room.imports:
        allowed = KNOWN_IN.get(item.root)
        # Who writes an adapter may use pydantic; nobody outside the kernel needs asyncio.
        if allowed is None or (package != KERNEL and item.root != "asyncio"):
            continue
        if package != KERNEL or rest not in allowed:
            complaints.append(
                f"{room.name}:{item.line} imports {item.module}: only "
                f"{', '.join(sorted(allowed))} of {KERNEL} know {item.root}"
            )
    return complaints


def missing_docstring(room: Room) -> list[str]:
    """A module's docstring places the room."""
    if ast.get_docstring(ast.parse(room.text)):
        return []
    return [f"{room.name} has no docstring: say what it does, and what is above and below it"]


def too_long(room: Room) -> list[str]:
    """A file of more than 300 lines holds two rooms."""
    lines = len(room.text.splitlines())
    return [f"{room.name} has {lines} lines of {LONGEST}: find the two rooms"] * (lines > LONGEST)


def strange_names(names: set[str]) -> list[str]:
    """The top level is as CONTRIBUTING.md draws it; names that begin with a dot are free."""
    visible = {name for name in names if not name.startswith(".")}
    return [
        *(f"{name} does not belong at the top level" for name in sorted(visible - TOP_LEVEL)),
        *(f"{name} is missing at the top level" for name in sorted(TOP_LEVEL - visible)),
        *([] if ".ci" in names else [".ci is missing at the top level"]),
    ]


def circles(imports: dict[str, set[str]]) -> list[str]:
    """Down only, inside a package too: rooms that import each other have no order.

    `imports` maps each room to the rooms that it imports when it is itself imported.
    """
    complaints: list[str] = []
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            complaints.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for target in sorted(imports.get(name, ())):
                visit(target, (*path, name))
            done.add(name)

    for name in sorted(imports):
        visit(name, ())
    return complaints


def load_time_imports(room: Room, names: set[str]) -> set[str]:
    """The rooms among `names` that importing this one imports: not those under TYPE_CHECKING, nor
    those in a function, which are how a port may mention what is above it."""
    found: set[str] = set()

    def look(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                module = room.resolve(node.level, node.module)
                for alias in node.names:
                    inner = f"{module}.{alias.name}"
                    found.add(inner if inner in names else module)
            elif isinstance(node, ast.If):
                if "TYPE_CHECKING" not in ast.unparse(node.test):
                    look(node.body)
                look(node.orelse)
            elif isinstance(node, ast.Try):
                look([*node.body, *node.orelse, *node.finalbody])
                for handler in node.handlers:
                    look(handler.body)
            elif isinstance(node, ast.With | ast.ClassDef):
                look(node.body)

    look(ast.parse(room.text).body)
    return (found & names) - {room.name}


RULES: list[Callable[[Room], list[str]]] = [
    upward_imports,
    private_imports,
    star_imports,
    outside_imports,
    missing_docstring,
    too_long,
]


def rooms() -> Iterator[Room]:
    for package, folder in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            is_init = parts[-1] == "__init__"
            name = ".".join([package, *(parts[:-1] if is_init else parts)])
            yield Room(name, path.read_text(encoding="utf-8"), is_init)


def test_every_package_has_an_init_and_says_that_it_is_typed() -> None:
    names = {room.name for room in rooms()}
    assert set(PACKAGES) <= names
    assert all((ROOT / folder / "py.typed").is_file() for folder in PACKAGES.values())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_room_keeps_the_rule(rule: Callable[[Room], list[str]]) -> None:
    assert [complaint for room in rooms() for complaint in rule(room)] == []


def test_no_rooms_import_each_other_in_a_circle() -> None:
    found = list(rooms())
    names = {room.name for room in found}
    assert circles({room.name: load_time_imports(room, names) for room in found}) == []


def test_the_top_level_is_as_it_was_drawn() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: a source distribution adds and leaves out files of its own")
    # Tracked files only: what else lies about in a checkout is its owner's. `safe.directory`,
    # because whoever runs the tests need not be who cloned.
    git = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", "-z", "--cached"]
    try:
        listed = subprocess.run(git, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        pytest.skip("git is not installed, so what the repository holds is not known")
    tracked = [PurePosixPath(path) for path in listed.split("\0") if path]
    if not tracked:
        pytest.skip("nothing is committed yet")
    assert strange_names({path.parts[0] for path in tracked}) == []
    assert [str(path) for path in tracked if path.parts[0] == ".ci"] == [".ci/run"]


DOC = '"""A room."""\n'


@pytest.mark.parametrize(
    ("rule", "room"),
    [
        (upward_imports, Room("turnscope._turn", "import turnscope_backends")),
        (upward_imports, Room("turnscope._turn", "def f():\n    import turnscope_adapters.cli")),
        (upward_imports, Room("turnscope_backends._a", "from turnscope_adapters import cli")),
        (upward_imports, Room("turnscope_adapters._a", "import turnscope_backends as b")),
        (private_imports, Room("turnscope_backends._a", "from turnscope._turn import Turn")),
        (private_imports, Room("turnscope_backends._a", "import turnscope._turn")),
        (private_imports, Room("turnscope_adapters._a", "from turnscope import _turn")),
        (private_imports, Room("turnscope_adapters._a", "from turnscope.abc import _Hidden")),
        (star_imports, Room("turnscope", "from ._turn import *", package=True)),
        (outside_imports, Room("turnscope._turn", "if TYPE_CHECKING:\n    import asyncio")),
        (outside_imports, Room("turnscope_backends._a", "from asyncio.events import Handle")),
        (outside_imports, Room("turnscope._tools", "from pydantic import TypeAdapter")),
        (outside_imports, Room("turnscope.deep._schema", "import pydantic_core.core_schema")),
        (outside_imports, Room("turnscope._tools", "import pydantic")),
        (missing_docstring, Room("turnscope._turn", "# a comment is none\nx = 1\n")),
        (too_long, Room("turnscope._turn", DOC + "x = 1\n" * LONGEST)),
    ],
)
def test_each_rule_finds_what_breaks_it(rule: Callable[[Room], list[str]], room: Room) -> None:
    assert len(rule(room)) == 1


@pytest.mark.parametrize(
    ("rule", "room"),
    [
        (upward_imports, Room("turnscope_backends._a", "import turnscope, turnscope_backends._b")),
        (private_imports, Room("turnscope_backends._a", "from turnscope.abc import Backend")),
        (private_imports, Room("turnscope_backends._a", "from turnscope import abc, Status")),
        (private_imports, Room("turnscope_backends._a", "from ._guard import guard")),
        (private_imports, Room("turnscope._run", "from ._turn import _settle")),
        (outside_imports, Room("turnscope._loop", "import asyncio")),
        (outside_imports, Room("turnscope.testing", "from asyncio import SelectorEventLoop")),
        (outside_imports, Room("turnscope._schema", "from pydantic import TypeAdapter")),
        (outside_imports, Room("turnscope._schema._text", "import pydantic_core")),
        (outside_imports, Room("turnscope_adapters._wire", "import pydantic")),
        (missing_docstring, Room("turnscope._turn", DOC)),
        (too_long, Room("turnscope._turn", DOC + "x = 1\n" * (LONGEST - 1))),
    ],
)
def test_each_rule_lets_pass_what_keeps_it(rule: Callable[[Room], list[str]], room: Room) -> None:
    assert rule(room) == []


def test_relative_imports_are_resolved_from_where_they_stand() -> None:
    assert Room("turnscope._a", "").resolve(1, "_b") == "turnscope._b"
    assert Room("turnscope", "", package=True).resolve(1, "_b") == "turnscope._b"
    assert Room("turnscope.deep._a", "").resolve(2, None) == "turnscope"


def test_a_circle_of_imports_is_found() -> None:
    names = {"turnscope._a", "turnscope._b", "turnscope._c"}
    a = load_time_imports(Room("turnscope._a", "from ._b import x"), names)
    b = load_time_imports(Room("turnscope._b", "try:\n    from . import _c\nfinally: x = 1"), names)
    c = load_time_imports(Room("turnscope._c", "import turnscope._a"), names)
    found = circles({"turnscope._a": a, "turnscope._b": b, "turnscope._c": c})
    assert found == ["turnscope._a -> turnscope._b -> turnscope._c -> turnscope._a"]


def test_an_import_for_type_checkers_or_in_a_function_closes_no_circle() -> None:
    text = "if TYPE_CHECKING:\n    from ._a import x\ndef f():\n    from ._a import y\n"
    assert load_time_imports(Room("turnscope._b", text), {"turnscope._a"}) == set()


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ({*TOP_LEVEL, ".ci", "notes.txt"}, "notes.txt does not belong at the top level"),
        ({*TOP_LEVEL, ".ci"} - {"LICENSE"}, "LICENSE is missing at the top level"),
        (set(TOP_LEVEL), ".ci is missing at the top level"),
    ],
)
def test_a_wrong_top_level_is_found(names: set[str], complaint: str) -> None:
    assert strange_names(names) == [complaint]
    assert strange_names({*TOP_LEVEL, ".ci", ".gitignore"}) == []


def test_asyncio_is_imported_with_the_first_kernel() -> None:
    code = (
        "import sys, turnscope; turnscope.Agent(); "
        "assert 'asyncio' not in sys.modules, 'it takes longer than turnscope does'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
