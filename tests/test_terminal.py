"""The terminal's table says what the summary holds, in 80 columns and in any encoding."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from reports import BASELINES, STUDY, Finished, finish, gathered, relabelled
from rich.cells import cell_len
from rich.console import Console

from sweeps.progress import Display
from sweeps.results import Results
from sweeps.terminal import Look, markdown_table, print_plan, print_table
from sweeps.wording import (
    DASH,
    fixed,
    mixed_cells,
    percent,
    protocol,
    ranked,
    variances,
)

LONG = "wae mixture(m=2, s=0.25) sliced_wasserstein(weight=25) gelu!"
NUMBERS = ("mean", "sd", "min", "worst_quarter")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finish(tmp_path_factory.mktemp("study"), STUDY.replace("seeds: 11", "seeds: 6"))


def printed(done: Finished, **settings: Any) -> str:
    """Return what a console of these settings gets, 80 columns wide if not said otherwise."""
    console = Console(**{"file": io.StringIO(), "width": 80, **settings})
    print_table(done.study, done.results, BASELINES, console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def line_of(text: str, start: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line


def test_the_table_holds_the_summarys_numbers(done: Finished) -> None:
    short = done
    for place, label in enumerate("abcd"):
        short = relabelled(short, place, f"cell-{label}")
    text = printed(short)
    for row in short.results.summary.to_pylist():
        own = {name[len("auc_split_") :]: v for name, v in row.items() if "auc_split_" in name}
        words = line_of(text, f"{row['cell']} ").replace(" %", "%").split()
        assert words[:2] == [row["cell"], f"{row['n_scored']}/{row['n_planned']}"]
        mean, bounds, sd, variance, *rest = words[2:]
        assert mean == fixed(own["mean"])
        if own["sd"] is None:
            assert (bounds, sd, variance) == (DASH, DASH, DASH)
            continue
        assert bounds == f"{own['ci_low']:.3f}{DASH}{own['ci_high']:.3f}"
        assert sd == f"{own['sd']:.3f}"
        assert float(variance) == pytest.approx(own["variance"], abs=5e-5, rel=0.05)
        assert rest[:2] == [f"{own['min']:.3f}", f"{own['worst_quarter']:.3f}"]
        shares = [own["low_basin_share"], own["beats_baseline_share"]]
        assert rest[2:] == [percent(share).replace(" ", "") for share in shares]
    assert line_of(text, "  k-means").split() == ["k-means", "0.610"]


def test_cells_stand_by_mean_and_those_without_one_last(done: Finished) -> None:
    means = [row["auc_split_mean"] for row in ranked(done.study, done.results)]
    known = [mean for mean in means if mean is not None]
    assert known == sorted(known, reverse=True)
    assert means[: len(known)] == known


def test_markdown_holds_the_same_numbers(done: Finished) -> None:
    lines = markdown_table(done.study, done.results, BASELINES).splitlines()
    cells = [[word.strip() for word in line.strip("|").split(" | ")] for line in lines]
    assert cells[0] == [
        *("cell", "n", "mean", "95 % interval", "sd", "variance", "min", "worst quarter"),
        *("below 0.8", "beats baseline"),
    ]
    rows = ranked(done.study, done.results)
    for texts, row in zip(cells[2:], rows, strict=False):
        assert texts[:3] == [
            row["cell"],
            f"{row['n_scored']}/{row['n_planned']}",
            fixed(row["auc_split_mean"]),
        ]
        assert texts[4] == fixed(row["auc_split_sd"])
        assert texts[6:8] == [fixed(row["auc_split_min"]), fixed(row["auc_split_worst_quarter"])]
    assert cells[2 + len(rows)][:3] == ["*baseline: k-means*", "", "0.610"]


def test_markdown_keeps_labels_as_text(done: Finished) -> None:
    odd = relabelled(done, 0, "a|b <script> [x](y) *z*\nleaky_relu")
    text = markdown_table(odd.study, odd.results, BASELINES)
    assert r"a\|b \<script\> \[x\](y) \*z\* leaky_relu |" in text
    assert len(text.splitlines()) == 2 + 4 + 2


@pytest.mark.parametrize("label", [LONG, "x" * 60, "漢字" * 30, "a", "[red]no[/red] :smile:"])
@pytest.mark.parametrize("width", [80, 100])
def test_lines_are_no_wider_than_the_terminal_and_numbers_are_whole(
    label: str, width: int, done: Finished
) -> None:
    odd = relabelled(done, 0, label)
    text = printed(odd, width=width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "…" not in text
    rows = odd.results.summary.to_pylist()
    for row in rows:
        assert fixed(row["auc_split_mean"]) in text
    joined = "".join(text.split())
    assert label.replace(" ", "")[:14] in joined  # its first line, numbers behind it
    assert text == "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


@pytest.mark.parametrize("width", [20, 40, 60])
def test_a_narrow_terminal_loses_columns_not_digits(width: int, done: Finished) -> None:
    text = printed(done, width=width)
    for row in done.results.summary.to_pylist():
        assert fixed(row["auc_split_mean"]) in text


def test_control_codes_in_a_label_stay_harmless(done: Finished) -> None:
    assert "\x1b" not in printed(relabelled(done, 0, "a\x1b[31mb"))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_encoding_can_print_it(encoding: str, done: Finished) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    odd = relabelled(done, 0, "naïve é … 漢")
    print_table(odd.study, odd.results, BASELINES, console=Console(file=file, width=80))
    file.flush()
    text = raw.getvalue().decode(encoding)
    assert max(map(cell_len, text.splitlines())) <= 80
    assert "k-means" in text
    assert ("─" in text) is (encoding == "utf-8")


def test_no_codes_in_pipes_or_under_no_color(
    done: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    assert "\x1b" not in printed(done)
    assert "\x1b" in printed(done, force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in printed(done, force_terminal=True, color_system="standard")


def test_notes_say_what_is_wrong(done: Finished) -> None:
    text = " ".join(printed(done).split())
    label = done.study.cells[1].label
    assert f"! {label}: of 6 runs" in text
    assert "6 failed" in text
    assert "diverged and failed ones have none" in text
    assert "m <= s, so this bimodal prior has one mode, not two" in text
    assert "A seed redraws initialisation, batch order and noise" in text
    assert "takes its sign from the other" in text
    assert "(k-means, 0.610)" in text


def test_nothing_trained_yet(done: Finished, tmp_path: Any) -> None:
    empty = replace(done, results=gathered(done.study, done.runs, tmp_path))
    text = printed(empty)
    assert text.count("0/6") == 4
    assert text.count("6 not trained yet") == 4
    assert f"0/6 | {DASH} | {DASH} |" in markdown_table(empty.study, empty.results, {})


@pytest.mark.parametrize("metric", ["auc_oracle", "auc_covariate", "balanced_accuracy"])
def test_every_metric_says_what_it_is(metric: str, done: Finished) -> None:
    study = replace(done.study, metric=metric, orient_by="ink")
    sentence = protocol(study, BASELINES)[0]
    assert sentence.startswith(f"{metric}: ")
    assert ("ink" in sentence) is (metric == "auc_covariate")
    assert metric in printed(replace(done, study=study))


def test_mixed_cells(done: Finished) -> None:
    assert mixed_cells(done.results) == []
    versions = done.results.runs["torch_version"].to_pylist()
    place = done.results.runs.schema.get_field_index("torch_version")

    def with_versions(values: list[str | None]) -> Results:
        runs = done.results.runs.set_column(place, "torch_version", pa.array(values, pa.string()))
        return Results(runs, done.results.summary)

    assert mixed_cells(with_versions([None, *versions[1:]])) == []
    label = done.study.cells[0].label
    assert mixed_cells(with_versions(["1.0", *versions[1:]])) == [
        f"{label}: its runs mix torch_version (1.0, {versions[1]})"
    ]


def test_numbers_are_short_and_true() -> None:
    shares = [0.0, 0.001, 0.5, 0.994, 0.999, 1.0, None]
    assert [percent(share) for share in shares] == [
        *("0 %", "<1 %", "50 %", "99 %", ">99 %", "100 %", DASH)
    ]
    assert variances([0.0123, 0.0, None]) == ["0.0123", "0.0000", DASH]
    assert variances([0.0123, 4e-6]) == ["1.2e-02", "4.0e-06"]
    assert fixed(1.368e14) == "1.37e+14"


class Clock:
    """A clock that stands still until it is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def pipe() -> Console:
    return Console(file=io.StringIO(), width=80)


def test_a_log_gets_a_line_every_ten_seconds() -> None:
    clock, console = Clock(), pipe()
    with Display(console, "quickstart", 8000, 8, clock=clock) as display:
        for second in range(1, 41):
            clock.now = 100.0 + second
            display.steps("a", second * 100)
            display.steps("b", second * 100)
        display.finished("a", 4, 1000)
        display.finished("b", 4, 1000)
    assert lines(console) == [
        "quickstart: 0/8 runs, 23 %, 0:31 left",  # b is a second behind
        "quickstart: 0/8 runs, 48 %, 0:21 left",
        "quickstart: 0/8 runs, 73 %, 0:11 left",
        "quickstart: 0/8 runs, 98 %, 0:01 left",
        "quickstart: 8/8 runs, 100 %, in 0:40",
    ]


def test_time_left_is_unknown_until_work_is_done_and_after_it_is() -> None:
    clock = Clock()
    with Display(pipe(), "x", 100, 2, clock=clock) as display:
        assert display.seconds_left() is None
        display.steps("a", 10)
        assert display.seconds_left() is None  # the first news tells no speed
        clock.now += 5
        assert display.seconds_left() is None
        display.steps("a", 20)
        assert display.seconds_left() == pytest.approx(40)
        display.finished("a", 1, 50)
        assert display.seconds_left() == pytest.approx(6.25)
        display.finished("b", 1, 50)
        assert display.seconds_left() is None


def test_what_is_trained_again_is_not_counted_twice() -> None:
    clock, console = Clock(), pipe()
    with Display(console, "x", 100, 2, clock=clock) as display:
        display.finished("ab", 2, 50)
        display.steps("a", 25)
        display.finished("a", 1, 50)
        display.finished("ab", 2, 50)
        display.steps("ab", 20)
    assert lines(console) == ["x: 2/2 runs, 100 %, in 0:00"]


@pytest.mark.parametrize(("steps", "runs"), [(0, 0), (0, 3)])
def test_no_work_is_nothing_odd(steps: int, runs: int) -> None:
    console = pipe()
    with Display(console, "x", steps, runs, clock=Clock()) as display:
        display.finished("a", runs, 0)
        assert display.seconds_left() is None
    assert lines(console) == (["x: 3/3 runs, 100 %, in 0:00"] if runs else [])


def test_an_interrupt_says_how_far_it_came() -> None:
    clock, console = Clock(), pipe()

    def work() -> None:
        with Display(console, "x", 100, 2, clock=clock) as display:
            display.finished("a", 1, 50)
            clock.now += 3661.2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert lines(console) == ["x: 1/2 runs, 50 %, stopped after 1:01:02"]


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("total", [0, 100])
def test_a_terminal_gets_one_live_line(total: int) -> None:
    clock = Clock()
    console = Console(file=Terminal(), width=80, force_terminal=True, color_system=None)
    with Display(console, "[b]" + "long-" * 30, total, 2, clock=clock) as display:
        display.steps("a", 25)
        clock.now += 10
        display.finished("a", 1, 50)
        display.finished("b", 1, 50)
    assert isinstance(console.file, Terminal)
    last = [line for line in console.file.getvalue().splitlines() if "runs" in line][-1]
    assert "2/2 runs, 100 %, 0:10 elapsed" in last
    assert "[b]long-" in last
    assert cell_len(last.split("\x1b[2K")[-1]) <= 80
    assert "left" not in last


def test_a_log_under_force_color_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = pipe()
    with Display(console, "x", 10, 1, clock=Clock()) as display:
        display.finished("a", 1, 10)
    assert [line for line in lines(console) if "\x1b[2K" in line] == []
    assert len(lines(console)) == 1


def test_the_plan_is_printed_in_80_columns(done: Finished) -> None:
    console = pipe()
    counts = {"cells": 4, "seeds": 10, "runs": 40, "packs": 8, "done": 2, "missing": 38, "slots": 2}
    content = {
        **counts,
        "estimate_seconds": 83.2,
        "estimate_gpu_hours": 0.0,
        "out": "runs/x",
        "warnings": done.study.cells[2].warnings(),
    }
    print_plan(done.study, content, console)
    text = "\n".join(lines(console))
    assert max(map(len, lines(console))) <= 80
    for words in ("40, of which 2 are done", "38 in 8 packs, 2 at a time", "1:24", "one mode"):
        assert words in text


def test_a_look_spells_what_it_cannot_print() -> None:
    assert Look(encoding="ascii").text(f"a {DASH} b… é").plain == "a - b... ?"
