"""The pictures: what is decided before the drawing, and what is to be found in what was drawn."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib.text import Text

from bench import plots, processes
from bench import run as bench_run
from bench.contenders import FLOOR, OURS
from bench.panels import OVERVIEW, Panel, heading, headline, panels
from bench.plots import draw
from bench.record import Record, write
from bench.samples import Failure, Sample
from bench.scenarios import IMPORT, SCENARIOS
from tests.bench.records import TITLES, record

FEW = ("gather", FLOOR, OURS, "bridgic", "agentscope")


def of(*names: str, contenders: Sequence[str] = tuple(TITLES)) -> Record:
    """The made-up record, of the scenarios *names* and some *contenders* alone."""
    whole = record(rounds=2)
    whole.about["titles"] = {name: TITLES[name] for name in contenders}
    whole.about["scenarios"] = {name: whole.about["scenarios"][name] for name in names}
    shown = whole.about["titles"]
    whole.samples = [
        each for each in whole.samples if each.scenario in names and each.contender in shown
    ]
    whole.failures = [
        each for each in whole.failures if each.scenario in names and each.contender in shown
    ]
    return whole


def panel(name: str) -> Panel:
    (only,) = panels(of(name))
    return only


def test_the_fastest_is_on_top_and_who_failed_is_below_all_who_did_not() -> None:
    rows = panel("cancel").rows
    ranks = [row.rank for row in rows]
    medians = [rank.median for rank in ranks if rank is not None]
    assert medians == sorted(medians) and len(medians) == len(TITLES) - 2
    assert ranks[-2:] == [None, None]
    assert {row.name: row.mark for row in rows[-2:]} == {
        "bridgic": "failed: 63 of 64 calls are alive after the cancelled turn",
        "agentscope": "failed: the turn swallowed the cancellation",
    }
    assert all(row.mark == "" for row in rows[:-2])


def test_who_failed_on_one_event_loop_has_figures_on_the_others_alone() -> None:
    kept = of("run")
    kept.failures += [
        Failure("pydantic_ai", "run", "uvloop", 2, "it lost a value"),
        Failure("pydantic_ai", "run", "uvloop", 1, "later"),
    ]
    (only,) = panels(kept)
    row = next(row for row in only.rows if row.name == "pydantic_ai")
    assert list(row.spreads) == ["asyncio"]
    assert row.mark == "failed on uvloop: it lost a value"


def test_who_was_not_asked_is_not_in_the_panel() -> None:
    assert "inspect_ai" not in [row.name for row in panel("threads").rows]


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [(1.0, 10.1, True), (1.0, 9.9, False), (0.0, 100.0, False), (-1.0, 100.0, False)],
)
def test_the_axis_is_logarithmic_where_medians_span_more_than_a_decade(
    low: float, high: float, log: bool
) -> None:
    kept = of("run")
    metric = kept.about["scenarios"]["run"]["headline"]
    kept.samples = [
        Sample(name, "run", "asyncio", 0, {metric: value})
        for name, value in ((FLOOR, low), (OURS, high))
    ]
    (only,) = panels(kept)
    assert only.log is log
    assert ("log scale" in only.label) is log
    assert "µs" in only.label


def test_an_axis_says_whether_it_counts_or_compares() -> None:
    kept = of("cpu")
    assert panels(kept)[0].label == "wall over ideal (ratio)"
    about = kept.about["scenarios"]["cpu"]
    about["units"] = {"distributions": ""}
    about["headline"] = "distributions"
    kept.samples = [Sample(OURS, "cpu", "none", 0, {"distributions": 8.0})]
    assert panels(kept)[0].label == "distributions (number)"


def test_each_event_loop_has_the_floor_of_its_own() -> None:
    only = panel("noop")
    floor = next(row for row in only.rows if row.name == FLOOR)
    assert only.floors == {loop: each.median for loop, each in floor.spreads.items()}
    assert list(only.floors) == ["asyncio", "uvloop", "trio"]


def test_every_scenario_has_a_headline_of_its_own_metrics() -> None:
    for scenario in (*SCENARIOS.values(), IMPORT):
        assert headline(scenario.name, scenario.units) in scenario.units
    assert headline("threads", SCENARIOS["threads"].units) == "stall"
    assert headline("unheard of", {"first": "ms", "second": "ms"}) == "first"
    assert headline("noop", {"first": "ms", "second": "ms"}) == "first"


def test_a_picture_shows_the_claim_and_where_it_comes_from(tmp_path: Path) -> None:
    files = draw(of("cancel", "threads", "streamed", contenders=FEW), tmp_path)
    assert [path.name for path in files] == [
        "bench.svg",
        "bench.png",
        "overview.svg",
        "overview.png",
    ]
    assert files[1].read_bytes().startswith(b"\x89PNG")
    text = files[0].read_text(encoding="utf-8")
    shown = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    for words in (
        "failed: the turn swallowed the cancellation",
        "failed: 63 of 64 calls are alive after the cancelled turn",
        "from the cancel until all is quiet (µs)",
        "longest stall of the event loop (ms, log scale)",
        "the run, of which the stream is 1,000 ms (ms)",
        "Made up, 2 CPUs, Linux-6.1, Python 3.11.7",
        "2001-02-03: python bench/run.py",
        *(TITLES[name] for name in FEW),
        *("asyncio", "uvloop", "trio"),
    ):
        assert words in shown, words
    assert any("bridgic\N{NO-BREAK SPACE}1.2.3" in words for words in shown)
    assert any("commit 0123456789ab" in words for words in shown)
    for name in ("cancel", "threads", "streamed"):
        for loop in ("asyncio", "uvloop", "trio"):
            assert text.count(f'id="floor-{name}-{loop}"') == 1
    assert "swallowed" in files[2].read_text(encoding="utf-8")


def test_a_long_reason_is_cut_between_words() -> None:
    (line,) = plots._clip(f"failed: {'word ' * 40}", plots.SHORT, plots.SHORT)
    assert line.endswith("word…") and len(line) <= plots.SHORT
    assert plots._clip("failed: it is late", plots.SHORT, plots.SHORT) == ["failed: it is late"]


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    first = draw(of("cancel", contenders=FEW), tmp_path / "first")
    second = draw(of("cancel", contenders=FEW), tmp_path / "second")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert b"matplotlib" not in first[1].read_bytes().lower()


def test_the_small_picture_has_the_most_telling_scenarios_that_there_are(tmp_path: Path) -> None:
    assert [each.scenario for each in panels(record(rounds=1), OVERVIEW)] == list(OVERVIEW)
    files = draw(of("hang", contenders=FEW), tmp_path)
    assert [path.name for path in files] == ["bench.svg", "bench.png"]


def test_pictures_are_drawn_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "run", lambda command: pytest.fail("it measured"))
    write(of("streamed", contenders=FEW), tmp_path / "run.json")
    folder = tmp_path / "pictures" / "new"
    bench_run.main(["--from", str(tmp_path / "run.json"), "--plots", str(folder)])
    assert sorted(path.name for path in folder.iterdir()) == [
        "bench.png",
        "bench.svg",
        "overview.png",
        "overview.svg",
    ]
    assert str(folder / "bench.svg") in capsys.readouterr().err


def test_without_matplotlib_nothing_is_measured_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nowhere(name: str) -> Any:
        return None

    monkeypatch.setattr("bench.output.find_spec", nowhere)
    monkeypatch.setattr(processes, "run", lambda command: pytest.fail("it measured"))
    with pytest.raises(SystemExit):
        bench_run.main(["--plots", str(tmp_path)])
    assert "pip install matplotlib" in capsys.readouterr().err


def test_a_command_is_shown_without_the_places_of_its_files() -> None:
    kept = of("streamed")
    kept.about["command"] = [
        *("python", "bench/run.py", "--quick", "--json", "/home/me/x.json", "--plots=/home/me"),
        *("--python", "before=/home/me/env/bin/python", "--loop", "trio"),
    ]
    assert heading(kept)[-1].endswith(
        ": python bench/run.py --quick --python before=python --loop trio"
    )


@pytest.mark.parametrize("names", [("cancel",), ("run", "streamed"), ("cancel", "threads", "hang")])
def test_no_text_lies_on_another_or_beyond_the_page(names: tuple[str, ...]) -> None:
    kept = of(*names)
    kept.failures.append(Failure("pydantic_ai", "run", "uvloop", 2, "it lost a value"))
    with mpl.rc_context():
        mpl.rcParams.update(plots.SETTINGS)
        figure = plots._figure(panels(kept), heading(kept))
        figure.draw_without_rendering()
        (legend,) = figure.legends
        boxes: dict[Any, Any] = {
            artist: box
            for artist in figure.findobj(Text)
            if artist.get_text() and artist not in legend.findobj(Text)
            # Ticks beyond the ends of an axis are there, and have no place.
            if (box := artist.get_window_extent()).width > 1
        }
        # With its marks, beside which a text would be in the way too.
        boxes[legend] = legend.get_window_extent()
    page = figure.bbox
    for artist, box in boxes.items():
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.x1 and box.y1 <= page.y1
        assert inside, artist
    for (one, box), (other, over) in itertools.combinations(boxes.items(), 2):
        assert not box.overlaps(over), (one, other)
