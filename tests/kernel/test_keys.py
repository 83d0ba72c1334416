"""Keys: what a text, a template or a function makes of the arguments, and what it refuses."""

from __future__ import annotations

import enum
import os
import posixpath
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnscope import CallContext, InvalidArguments, Tool, tool
from turnscope._keys import declared


def keys(what: Any, **arguments: Any) -> list[str]:
    """The keys that *what* makes of *arguments*."""
    made = declared("work", (), what)
    assert made is not None
    return made.of(arguments)[1]


class Colour(enum.Enum):
    RED = "red/ish"


@pytest.mark.parametrize(
    ("template", "arguments", "key"),
    [
        ("db", {}, "db"),
        ("a//b/./c/", {}, "a/b/c"),
        ("/", {}, ""),
        ("row/{table}", {"table": "users"}, "row/users"),
        ("row/{table}/{n}", {"table": "users", "n": 7}, "row/users/7"),
        ("row/{table}", {"table": "a/b"}, "row/a%2Fb"),
        ("row/{table}", {"table": "a%2Fb"}, "row/a%252Fb"),
        ("row/{table}", {"table": ".."}, "row/%2E%2E"),
        ("row/{a}{b}/x", {"a": ".", "b": "."}, "row/%2E%2E/x"),
        ("row/{colour}", {"colour": Colour.RED}, "row/red%2Fish"),
        ("{{{name}}}", {"name": "x"}, "{x}"),
        ("file/{path}", {"path": "a/../b"}, "file/b"),
        ("file/{path}", {"path": "./b//"}, "file/b"),
        ("file/{path}", {"path": Path("a/../b")}, "file/b"),
        ("row/{table}", {"table": PurePosixPath("x/b")}, "row/x/b"),
        ("file/{path}", {"path": "/etc/../etc/hosts"}, "file/etc/hosts"),
        ("file/{path}", {"path": "/" + "../" * 50 + "etc/hosts"}, "file/etc/hosts"),
        ("file/{name}", {"name": "a/b"}, "file/a/b"),
        ("db/{targetPath}", {"targetPath": "a/./b"}, "db/a/b"),
        ("db/{profile}", {"profile": "a/b"}, "db/a%2Fb"),
        ("db/{where:path}", {"where": "a/./b"}, "db/a/b"),
        ("db/{path:text}", {"path": "a/./b"}, "db/a%2F.%2Fb"),
        ("{path}", {"path": "a/b/"}, "a/b"),
        ("file/{path}", {"path": "."}, "file"),
        ("file/{path}/lines", {"path": "/"}, "file"),
        ("file/{path}.lock", {"path": "a/b"}, "file/a%2Fb.lock"),
    ],
)
def test_a_template_gives_one_key(template: str, arguments: dict[str, Any], key: str) -> None:
    assert keys(template, **arguments) == [key]


def test_all_forms_of_one_path_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    forms: list[str | Path] = ["a", "./a", "x/../a", "a/", "a/.", f"../{tmp_path.name}/a"]
    forms += [str(tmp_path / "a"), f"/{tmp_path}//a/", tmp_path / "x" / ".." / "a", Path("a")]
    assert {key for form in forms for key in keys("file/{path}", path=form)} == {"file/a"}
    assert {key for form in forms for key in keys("file/{f:path}", f=form)} == {"file/a"}
    absolute = [form for form in forms if os.path.isabs(form)]
    by_function = [keys(lambda path: f"file/{path}", path=form) for form in ["a", *absolute]]
    assert by_function == [["file/a"]] * (1 + len(absolute))


def test_what_holds_the_current_directory_is_the_whole_prefix(tmp_path: Path) -> None:
    for above in (Path.cwd(), *Path.cwd().parents):
        assert keys("file/{path}", path=str(above)) == ["file"]
    assert keys("file/{path}", path=str(tmp_path))[0].startswith("file/")


@given(path=st.text("ab./", min_size=1).filter(str.strip))
def test_no_path_leaves_its_prefix_and_each_meets_itself(path: str) -> None:
    (key,) = keys("file/{path}", path=path)
    assert key == "file" or key.startswith("file/")
    assert not {"", ".", ".."} & set(key.split("/"))
    assert keys("file/{path}", path=os.path.abspath(path)) == [key]
    assert keys("file/{path}", path=f"./x/../{path}" if path[0] != "/" else path) == [key]


@given(value=st.text("ab./%", min_size=1).filter(str.strip))
def test_what_is_no_path_is_one_part_and_a_part_of_its_own(value: str) -> None:
    (key,) = keys("row/{name}", name=value)
    assert key.count("/") == 1
    assert posixpath.normpath(key) == key
    (other,) = keys("row/{name}", name=value + "x")
    assert other != key


def test_a_list_gives_a_key_for_each() -> None:
    assert keys("file/{paths}", paths=["a", "b/../c"]) == ["file/a", "file/c"]
    assert keys(["x", "row/{a}/{b}"], a=[1, 2], b=(3, 4)) == [
        *("x", "row/1/3", "row/1/4"),
        *("row/2/3", "row/2/4"),
    ]
    assert keys("file/{paths}", paths=[]) == []


@pytest.mark.parametrize(
    ("fn", "made"),
    [
        (lambda path: f"file/{path}", ["file/b"]),
        (lambda path: path, ["b"]),
        (lambda **given: sorted(given), ["other", "path"]),
        (lambda: "a//x/../y/", ["a/y"]),
        (lambda other: ["a/", "b", f"../{other}"], ["a", "b", "1"]),
        (lambda path: (each for each in ("x", "y")), ["x", "y"]),
        (lambda path, absent="d": absent, ["d"]),
        (lambda path: [], []),
    ],
)
def test_a_function_gets_the_arguments_that_it_names(
    fn: Callable[..., Any], made: list[str]
) -> None:
    assert keys(fn, path="a/../b", other=1) == made


@pytest.mark.parametrize("empty", ["", "  ", None])
def test_an_empty_value_is_refused_in_words_for_the_model(empty: str | None) -> None:
    with pytest.raises(InvalidArguments, match="path: must not be empty"):
        keys("file/{path}", path=empty)
    with pytest.raises(InvalidArguments, match="paths: must not be empty"):
        keys("file/{paths}", paths=["a", empty])


def test_a_function_that_makes_an_empty_key_is_refused_likewise() -> None:
    with pytest.raises(InvalidArguments, match="is empty"):
        keys(lambda path: path, path=" ")


@pytest.mark.parametrize("made", [None, 7, b"a", {"a": 1}, ["a", 7]])
def test_what_is_no_key_is_refused(made: object) -> None:
    with pytest.raises(InvalidArguments, match="are texts, not"):
        keys(lambda: made)


@pytest.mark.parametrize("value", [{"a": 1}, b"x", [["nested"]]])
def test_a_value_without_a_text_of_its_own_is_refused(value: object) -> None:
    with pytest.raises(InvalidArguments, match="give a function of the arguments"):
        keys("row/{value}", value=value)


# What fails when the tool is defined.


async def edit(path: str, text: str = "", context: CallContext[Any] | None = None) -> None: ...


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("file/{pth}", ValueError, "made of 'pth' .* no parameter .*there are: 'path', 'text'"),
        ("file/{context}", ValueError, "made of 'context'"),
        (["a", lambda pth: pth], ValueError, "made of 'pth' .by <lambda>."),
        ("", ValueError, "not empty"),
        ("file/{path", ValueError, "no template"),
        ("file/{path.name}", ValueError, "a field is the name of a parameter"),
        ("file/{}", ValueError, "a field is the name of a parameter"),
        ("file/{path!r}", ValueError, "a field is the name of a parameter"),
        ("file/{path:>3}", ValueError, "a field is the name of a parameter"),
        ("file/../{path}", ValueError, "does not go up"),
        (7, TypeError, "a text, a function of the arguments, or several"),
        ({"a": 1}, TypeError, "a text, a function of the arguments, or several"),
        (["a", 7], TypeError, "neither a text nor a function"),
        (edit, TypeError, "make .* a def"),
    ],
)
def test_a_mistake_in_a_declaration_fails_when_the_tool_is_defined(
    what: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Tool(edit, reads=what)
    with pytest.raises(error, match=words):
        tool(writes=what)(edit)


def test_the_keys_of_a_hand_written_schema_are_its_properties() -> None:
    schema = {"type": "object", "properties": {"path": {"type": "string"}}}
    made = Tool(edit, schema=schema, writes="file/{path}").keys
    assert made is not None
    assert made.of({"path": "x/../a"}) == ([], ["file/a"])
    with pytest.raises(ValueError, match="made of 'text'"):
        Tool(edit, schema=schema, writes="file/{text}")


def test_a_schema_that_names_no_properties_is_taken_at_its_word() -> None:
    made = Tool(edit, schema={"type": "object"}, writes="file/{path}").keys
    assert made is not None
    assert made.of({"path": "a"}) == ([], ["file/a"])
    with pytest.raises(InvalidArguments, match="path: must not be empty"):
        made.of({})


def test_an_argument_that_is_left_out_has_its_default() -> None:
    async def look(path: str = "here", depth: int = 2) -> None: ...

    made = Tool(look, reads=["file/{path}", lambda depth: f"d/{depth}"]).keys
    assert made is not None
    assert made.of({}) == (["file/here", "d/2"], [])


class Store:
    """Tools that are methods."""

    @tool(writes="row/{key}")
    async def put(self, key: str, value: int = 0) -> None: ...

    @staticmethod
    def plain(key: str) -> None: ...


def test_the_keys_of_a_method_are_made_of_what_the_model_gives() -> None:
    made = Store().put.keys
    assert made is not None
    assert made.of({"key": "a"}) == ([], ["row/a"])


def test_a_method_that_lacks_the_parameter_fails_when_its_class_is_defined() -> None:
    with pytest.raises(ValueError, match="made of 'kez'"):

        class _Broken:
            @tool(writes="row/{kez}")
            async def put(self, key: str) -> None: ...


def test_self_is_no_parameter_that_a_model_gives() -> None:
    class Selfish:
        @tool(writes="row/{self}")
        async def put(self, key: str) -> None: ...

    with pytest.raises(ValueError, match="made of 'self'"):
        _ = Selfish().put.keys
