"""What a reviewer sees in MLflow's own UI, as `sweeps ui` starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from studies import tiny, write

from sweeps import results
from sweeps.cli import main

pytestmark = pytest.mark.timeout(300)  # the first trains, and starts a server
SHOT = Callable[[str], Path]


@dataclass(frozen=True)
class Shown:
    """A finished study, and where the UI shows its cells and its seeds."""

    folder: Path
    cells: str
    seeds: str

    @property
    def runs(self) -> str:
        """Return the address of the table of all runs, without a saved view."""
        return self.cells.partition("&")[0]

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return the summary's row of each cell by its label."""
        return {row["cell"]: row for row in results.read(self.folder).summary.to_pylist()}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """Train a small study, start its UI as a user does, and end it with Ctrl-C's signal."""
    folder = tmp_path_factory.mktemp("ui")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        content = tiny(question="Which of these is steady?", seeds=4)
        assert main(["run", str(write(folder, content)), "--launcher", "inline", "--json"]) == 0
    command = [sys.executable, "-m", "sweeps.cli", "ui", "runs/tiny"]
    with (folder / "ui.err").open("w+") as err:
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=err, text=True
        )
        try:
            assert process.stdout is not None
            cells = process.stdout.readline().strip()
            assert cells.startswith("http://127.0.0.1:"), (folder / "ui.err").read_text()
            seeds = re.search(r"its seeds, grouped by cell: (\S+)", (folder / "ui.err").read_text())
            assert seeds
            yield Shown(folder / "runs" / "tiny", cells, seeds[1])
        finally:
            os.kill(process.pid, signal.SIGINT)
            code = process.wait(30)
            process.stdout.close()
    assert code == 0


@pytest.fixture
def tolerated() -> tuple[str, ...]:
    """Return what MLflow's UI says of itself: it asks who is logged in where nobody can be."""
    return (r"users/current", r"ResizeObserver loop")


def columns(page: Page, column: str) -> list[str]:
    """Return the texts of a column of the runs table, from above."""
    found = page.locator(f'[role=gridcell][col-id="{column}"]')
    expect(found.first).to_be_visible()
    boxes = [(cell.bounding_box() or {"y": 0})["y"] for cell in found.all()]
    return [text for _, text in sorted(zip(boxes, found.all_inner_texts(), strict=True))]


def test_every_cell_with_its_statistics_best_first(
    page: Page, shown: Shown, screenshot: SHOT
) -> None:
    page.goto(shown.cells)
    shown_names = names(page)
    screenshot("cells")
    summary = shown.summary()
    best_first = sorted(summary, key=lambda name: -summary[name]["auc_split_mean"])
    assert shown_names == best_first
    for statistic in ("mean", "ci_low", "ci_high", "variance"):
        values = [float(text) for text in columns(page, f"metrics.`auc_split_{statistic}`")]
        expected = [summary[name][f"auc_split_{statistic}"] for name in best_first]
        assert values == pytest.approx(expected, rel=1e-6)


def names(page: Page) -> list[str]:
    """Return the names of the rows, runs or groups, without a colour before and a count after."""
    found = [text.split("\n") for text in columns(page, "attributes.`Run Name`")]
    words = [[word for word in lines if not re.fullmatch(r"#\w{6}|\d*", word)] for lines in found]
    return [" ".join(lines).removeprefix("Group: ") for lines in words]


def test_seeds_grouped_by_cell_with_averages(page: Page, shown: Shown, screenshot: SHOT) -> None:
    """The UI's own averages over the seeds are the summary's means."""
    page.goto(shown.seeds)
    expect(page.get_by_text("Group by: cell")).to_be_visible()
    groups = names(page)
    screenshot("seeds-grouped")
    summary = shown.summary()
    assert sorted(groups) == sorted(summary)
    for metric in ("auc_split", "reconstruction"):
        texts = columns(page, f"metrics.`{metric}`")
        values = [float(text.partition(" ")[0]) for text in texts]
        expected = [summary[name][f"{metric}_mean"] for name in groups]
        assert values == pytest.approx(expected, rel=1e-6)


def test_grouping_by_hand(page: Page, shown: Shown, screenshot: SHOT) -> None:
    page.goto(shown.runs)
    page.get_by_role("button", name="Group by").click()
    page.get_by_role("menuitemcheckbox", name="cell", exact=True).first.click()
    page.keyboard.press("Escape")
    for label in shown.summary():
        group = page.get_by_role("gridcell").filter(has_text=f"Group: {label}").first
        expect(group).to_contain_text("4")  # seeds, and no run of another level
    screenshot("grouped-by-hand")


def test_study_cells_and_seeds_below_each_other(page: Page, shown: Shown, screenshot: SHOT) -> None:
    page.goto(shown.runs)
    for name in ("tiny", "ae relu"):
        row = page.get_by_role("gridcell").filter(has=page.get_by_text(name, exact=True)).first
        row.locator("svg").first.click()
    for seed in range(4):
        expect(page.get_by_role("link", name=f"seed {seed} · ae relu")).to_be_visible()
    screenshot("levels")
    for label in shown.summary():
        expect(page.get_by_role("link", name=label, exact=True)).to_be_visible()


def test_the_study_run_shows_question_dataset_and_figures(
    page: Page, shown: Shown, screenshot: SHOT
) -> None:
    page.goto(shown.runs)
    page.get_by_role("gridcell").get_by_role("link", name="tiny", exact=True).click()
    expect(page.get_by_text("Which of these is steady?")).to_be_visible()
    digest = results.read(shown.folder).runs["dataset_digest"][0].as_py()
    expect(page.get_by_text(f"digits ({digest[:36]})")).to_be_visible()
    screenshot("study")
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("figures", exact=True).first.click()
    page.get_by_text("seeds-auc_split.svg", exact=True).first.click()
    picture = page.get_by_role("img").filter(visible=True).last
    expect(page.get_by_text("figures/seeds-auc_split.svg").first).to_be_visible()
    expect(picture).to_be_visible()
    screenshot("figure")
    page.get_by_text("report.html", exact=True).first.click()
    report = page.frame_locator("iframe").first
    expect(report.get_by_text("Which of these is steady?").first).to_be_visible()
    screenshot("report")
