"""Two commits in one run: what is seen, what is not claimed, and what ends the run with 1."""

from __future__ import annotations

import itertools
import math
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench import against, base, compare, output, processes
from bench import run as bench_run
from bench.compare import FASTER, REGRESSION, SAME, UNCLEAR, Change, changes
from bench.contenders import BEFORE, EVERY, OURS
from bench.samples import Sample, summary
from bench.scenarios import SCENARIOS

METRICS = 60


def ratios(
    chance: random.Random, true: float = 1.0, rounds: int = 15, noise: float = 0.03
) -> list[float]:
    """What *rounds* rounds might give; every twelfth is far off, as on a machine that is shared."""
    return [
        true
        * math.exp(
            chance.gauss(0, noise) + (chance.gauss(0, 0.5) if chance.random() < 1 / 12 else 0)
        )
        for _ in range(rounds)
    ]


def run_of(chance: random.Random, **more: Sequence[float]) -> dict[str, Change]:
    """A run of many metrics that have not changed, and *more*."""
    pairs = {("noop", f"metric {n}", "asyncio"): ratios(chance) for n in range(METRICS)}
    pairs |= {("noop", name, "asyncio"): list(values) for name, values in more.items()}
    return {change.metric: change for change in changes(pairs)}


def test_a_planted_regression_is_seen_and_nothing_else() -> None:
    seen, runs = {"worse": 0, "better": 0}, 40
    for seed in range(runs):
        chance = random.Random(seed)
        made = run_of(chance, worse=ratios(chance, 1.25), better=ratios(chance, 0.8))
        named = [each.metric for each in compare.regressions(list(made.values()))]
        assert named in ([], ["worse"])
        assert 1.15 < made["worse"].ratio < 1.35
        seen["worse"] += bool(named)
        seen["better"] += made["better"].word == FASTER
    # Not always: in about every eighth run two of the 15 rounds are spoilt to the other side.
    assert min(seen.values()) >= runs * 0.8, seen


def test_equal_commits_are_called_different_in_no_more_runs_than_is_said() -> None:
    runs, wrong, failed = 400, 0, 0
    for seed in range(runs):
        made = list(run_of(random.Random(seed)).values())
        wrong += any(change.low > 1 for change in made)
        failed += bool(compare.regressions(made))
    # 60 comparisons of 15 rounds may be wrong in 60 x 16 / 2**15 = 2.9 % of runs: 5 % was said.
    assert 0 < wrong / runs <= compare.ALPHA
    assert failed == 0


def test_without_the_correction_for_many_comparisons_equal_commits_would_be_called_different() -> (
    None
):
    wrong = 0
    for seed in range(50):
        chance = random.Random(seed)
        wrong += any(compare.interval(ratios(chance), compare.ALPHA)[0] > 1 for _ in range(METRICS))
    assert wrong > 20  # of 50, instead of 2 or 3


def test_one_noisy_metric_fails_no_run() -> None:
    for seed in range(50):
        chance = random.Random(seed)
        made = run_of(chance, noisy=ratios(chance, noise=0.5))
        assert compare.regressions(list(made.values())) == []
        assert made["noisy"].word == UNCLEAR
        assert made["noisy"].seen_from(0.05) > 1.3


def test_one_spoilt_round_neither_makes_a_regression_nor_hides_one() -> None:
    steady, slower = [1.0] * 14, [1.2] * 14
    made = run_of(random.Random(0), steady=[*steady, 50.0], slower=[*slower, 0.01])
    assert made["steady"].word == SAME
    assert made["slower"].word == REGRESSION


def test_intervals_become_narrower_with_rounds() -> None:
    widths = []
    for rounds in (10, 20, 40, 80, 160):
        found = [
            compare.interval(ratios(random.Random(seed), rounds=rounds), 0.001)
            for seed in range(40)
        ]
        widths.append(sum(math.log(high / low) for low, high in found) / len(found))
    assert all(wide > 1.2 * narrow for wide, narrow in itertools.pairwise(widths))


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    # Skewed on purpose: neither a normal nor a symmetric distribution is asked for.
    chance, level, n, times = random.Random(1), 0.1, 15, 4000
    median = math.log(2)
    found = [
        compare.interval([chance.expovariate(1) for _ in range(n)], level) for _ in range(times)
    ]
    k = compare.tolerated(n, level)
    assert k == 4
    exact = sum(math.comb(n, each) for each in range(k + 1)) / 2**n
    for wrong in (sum(low > median for low, _ in found), sum(high < median for _, high in found)):
        assert wrong / times == pytest.approx(exact, abs=0.015)
        assert wrong / times < level


@pytest.mark.parametrize(
    ("rounds", "level", "k"),
    [(1, 0.5, 0), (1, 0.49, None), (10, 2**-10, 0), (10, 2**-10.1, None), (10, 11 / 2**10, 1)],
)
def test_so_many_rounds_may_be_on_the_wrong_side(rounds: int, level: float, k: int | None) -> None:
    assert compare.tolerated(rounds, level) == k


def test_too_few_rounds_claim_nothing() -> None:
    enough = compare.least_rounds(METRICS)
    for rounds, word in ((enough - 1, UNCLEAR), (enough, REGRESSION)):
        pairs = {("noop", f"{n}", "trio"): [2.0] * rounds for n in range(METRICS)}
        assert {change.word for change in changes(pairs)} == {word}
    text = compare.noise(changes({("noop", "x", "trio"): [2.0]}))
    assert "1 have too few rounds for an interval: 5 are needed." in text


def test_a_ratio_is_of_one_round_and_a_round_without_one_is_left_out() -> None:
    # The machine changes its pace between rounds; one commit lacks round 3, the other saw no stall.
    pace = {0: 1.0, 1: 10.0, 2: 3.0, 3: 1.0, 4: 0.0}
    samples = [
        Sample(OURS, "threads", "trio", at, {"stall": 2 * each}) for at, each in pace.items()
    ]
    samples += [
        Sample(BEFORE, "threads", "trio", at, {"stall": 1.0 if at == 4 else each})
        for at, each in pace.items()
        if at != 3
    ]
    (change,) = against.changes(summary(samples), {})
    assert (change.scenario, change.metric, change.loop) == ("threads", "stall", "trio")
    assert change.ratios == (2.0, 2.0, 2.0)
    nothing = [Sample(name, "threads", "trio", 0, {"stall": 0.0}) for name in (OURS, BEFORE)]
    (change,) = against.changes(summary(nothing), {})
    assert (change.ratios, change.word) == ((), UNCLEAR)
    assert against.rows([change], 0.05) == [
        ["threads: stall", "trio", "", "too few rounds", "", UNCLEAR]
    ]
    assert against.changes(summary(samples[:3]), {}) == []
    counted = {"scenarios": {"threads": {"units": {"stall": "of 64"}}}}
    assert against.changes(summary(samples), counted) == []


def test_the_threshold_is_what_is_of_concern() -> None:
    pairs = {("noop", "x", "trio"): [1.08, 1.09, 1.10] * 5}
    assert changes(pairs)[0].word == REGRESSION
    assert changes(pairs, 0.1)[0].word == SAME
    assert changes(pairs, 0.085)[0].word == UNCLEAR


def test_the_noise_of_the_run_is_stated() -> None:
    pairs = {("noop", f"{n}", "trio"): [1.0] * 15 for n in range(3)}
    pairs["noop", "noisy", "trio"] = [0.5, 1.0, 2.0] * 5
    text = compare.noise(changes(pairs))
    assert "4 comparisons" in text and "at most 5%" in text and "wholly above 1.05" in text
    assert "a slow-down of 5.0% would have been seen in the quietest metric" in text
    assert "1 would have missed 50%" in text


class Machine:
    """Answers in the place of the processes: *slower* times as slow as before, never twice alike."""

    def __init__(self, slower: float = 1.0, lacks: dict[str, str] | None = None) -> None:
        self.slower = slower
        self.lacks = lacks or {}
        self.measured: list[tuple[str, str, str]] = []
        self._chance = random.Random(0)

    def __call__(self, command: list[str]) -> dict[str, Any]:
        if "bench.measure" not in command:
            return {"python": "3"}
        name, scenario, loop = command[3:6]
        assert (command[0] == "/of/before/python") == (name == BEFORE)
        self.measured.append((name, scenario, loop))
        if name == BEFORE and scenario in self.lacks:
            return {"failed": self.lacks[scenario]}
        pace = self.slower if name == OURS else 1.0
        return {
            "metrics": {
                metric: pace * self._chance.lognormvariate(0, 0.01)
                for metric in SCENARIOS[scenario].units
            }
        }


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other commit is there."""
    monkeypatch.setattr(
        output, "install", lambda revision: (f"{revision}{revision}", "/of/before/python")
    )


COMPARE = ("--compare", "abc", "--scenario", "noop", "cancel", "--loop", "asyncio", "trio")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("slower", "code"), [(1.0, 0), (1.03, 0), (1.2, 1), (0.8, 0)])
def test_a_regression_is_an_exit_code(
    slower: float,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    machine = Machine(slower)
    monkeypatch.setattr(processes, "run", machine)
    file = tmp_path / "run.json"
    assert bench_run.main([*COMPARE, "--json", str(file)]) == code
    told = capsys.readouterr().out
    assert ("| REGRESSION" in told) == bool(code)
    assert {name for name, _, _ in machine.measured} == {OURS, BEFORE}
    # Each has as many rounds as it takes, and they are interleaved.
    rounds = compare.rounds_for(16)
    assert rounds >= 12
    of_cell = [name for name, *cell in machine.measured if cell == ["noop", "trio"]]
    assert len(of_cell) == 2 * rounds
    assert [{*pair} for pair in zip(of_cell[::2], of_cell[1::2], strict=True)] == [
        {OURS, BEFORE}
    ] * rounds
    assert {*of_cell[::2]} == {OURS, BEFORE}  # neither is always the first
    assert bench_run.main(["--from", str(file)]) == code
    assert capsys.readouterr().out == told
    # What is of no concern to somebody else need not be measured again.
    assert bench_run.main(["--from", str(file), "--threshold", "25"]) == 0


@pytest.mark.usefixtures("installed")
def test_what_the_other_commit_cannot_do_is_skipped_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(lacks={"cancel": "TypeError: tool() got an unexpected keyword argument"})
    monkeypatch.setattr(processes, "run", machine)
    assert bench_run.main([*COMPARE]) == 0
    told = capsys.readouterr().out
    assert "* turnscope_before, cancel, trio: TypeError: tool() got an unexpected" in told
    assert "CHECKS FAILED" not in told
    # And nobody waits for rounds that have nothing to be compared with.
    assert machine.measured.count((BEFORE, "cancel", "trio")) == 1
    assert machine.measured.count((OURS, "cancel", "trio")) <= 1


@pytest.mark.usefixtures("installed")
def test_whatever_is_not_too_long_is_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine()
    monkeypatch.setattr(processes, "run", machine)
    # Those that ask for no event loop are measured in another way.
    chosen = [name for name in EVERY if name in SCENARIOS]
    assert bench_run.main(["--compare", "abc", "--loop", "asyncio", "--scenario", *chosen]) == 0
    compared = {scenario for name, scenario, _ in machine.measured if name == BEFORE}
    assert set(chosen) - compared == {"agents_10000"}
    told = capsys.readouterr().out
    assert "* turnscope_before, agents_10000, all: it takes too long for many rounds" in told


@pytest.mark.usefixtures("installed")
def test_a_comparison_of_nothing_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacks = dict.fromkeys(("noop", "cancel"), "cannot import name 'Agent' from 'turnscope'")
    monkeypatch.setattr(processes, "run", Machine(lacks=lacks))
    assert bench_run.main([*COMPARE]) == 1
    told = capsys.readouterr().out
    assert "Nothing was measured on both sides." in told
    assert "* turnscope_before, noop, trio: cannot import name 'Agent'" in told


@pytest.mark.usefixtures("installed")
def test_a_checker_that_fails_here_fails_the_comparison(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine()

    def came(command: list[str]) -> dict[str, Any]:
        return {"failed": "a value was lost"} if OURS in command else machine(command)

    monkeypatch.setattr(processes, "run", came)
    assert bench_run.main([*COMPARE]) == 1
    assert "a value was lost" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--compare", "x", "--rounds", "3"], "3 rounds can show nothing; take "),
        (["--compare", "x", "--from", "y"], "--compare measures and --from does not"),
        (["--compare", "x", "--threshold", "-1"], "-1 is below 0"),
        (["--threshold", "1"], "--threshold is for --compare"),
    ],
)
def test_what_can_show_nothing_is_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        bench_run.main(arguments)
    assert raised.value.code == 2
    assert words in capsys.readouterr().err


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, in the place of this one."""
    if shutil.which("git") is None:
        pytest.skip("there is no git on this machine, and so no other commit to compare with")
    root = tmp_path / "repository"
    root.mkdir()
    (root / "file").write_text("of the commit")
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    (root / "file").write_text("of the working tree")
    monkeypatch.setattr(base, "ROOT", root)
    monkeypatch.setattr(base, "SCRATCH", tmp_path / "scratch")
    return root


def test_a_commit_is_installed_once_from_its_own_files(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, ...]] = []
    fails = True

    def do(*command: str) -> str:
        done.append(command)
        if fails and "install" in command:
            raise base.NoBase("no network")
        return ""

    monkeypatch.setattr(base, "_do", do)
    commit = base.commit_of("HEAD")
    assert len(commit) == 40
    with pytest.raises(base.NoBase, match="no network"):
        base.python_of(commit)
    fails = False  # what was left half made is made anew
    python = base.python_of(commit)
    assert len(done) == 4
    assert done[2][1:3] == ("-m", "venv") and done[3][0] == str(python)
    sources = Path(next(word for word in done[3] if "[trio,uvloop]" in word).partition("[")[0])
    assert (sources / "file").read_text() == "of the commit"
    pins = (sources.parent / "pins.txt").read_text()
    assert "\nanyio==" in pins and "turnscope" not in pins
    assert base.python_of(commit) == python
    assert len(done) == 4


def test_a_revision_that_is_none_is_refused(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for revision in ("nowhere", "--all", "HEAD:file"):
        assert bench_run.main([f"--compare={revision}"]) == 2
        assert repr(revision) in capsys.readouterr().err


def test_a_checkout_says_which_commit_it_is_and_that_it_was_changed(repository: Path) -> None:
    commit = base.commit_of("HEAD")
    assert base.here() == f"{commit[:12]}-dirty"
    (repository / "file").write_text("of the commit")
    assert base.here() == commit[:12]
    shutil.rmtree(repository / ".git")
    assert base.here() is None


def test_a_turnscope_from_elsewhere_is_not_taken_for_the_other_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = (tmp_path / name / "lib" / "turnscope" / "__init__.py" for name in ("env", "us"))
    python = tmp_path / "env" / "bin" / "python"
    monkeypatch.setattr(base, "_do", lambda *command: f"{own}\n")
    base.check_apart(python)
    monkeypatch.setattr(base, "_do", lambda *command: f"{other}\n")
    with pytest.raises(base.NoBase, match=r"turnscope is .*us.lib.*, which is not in .*env"):
        base.check_apart(python)


def test_an_interpreter_of_its_own_does_not_see_our_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    program = "import json, os; print(json.dumps(dict(path=os.environ.get('PYTHONPATH'))))"
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    assert processes.run([sys.executable, "-c", program]) == {"path": str(tmp_path)}
    assert processes.run([str(other), "-c", program]) == {"path": None}
