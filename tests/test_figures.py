"""Figures against independent computations: what is drawn is what the data say."""

from __future__ import annotations

import itertools
import math
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as oracle_curve

from sweeps.figures.codes import Codes, code_densities, histogram, prior_line
from sweeps.figures.curves import GRID, Roc, learning_curves, roc_curve, roc_curves
from sweeps.figures.images import Sheet, contact_sheet
from sweeps.figures.scores import mean_against_spread, quartiles, strip_plot
from sweeps.figures.style import CLASSES, DARK, SEED, TROUBLE
from sweeps.figures.svg import alone, png, svg

Row = dict[str, Any]
SCRIPT = "<script>alert('x')</script>"
NAMES = ("a", f"b {SCRIPT}", "$c$")


def run(cell: str, seed: int, value: float | None, status: str = "ok") -> Row:
    return {"cell_id": cell, "seed": seed, "status": status, "m": value}


def row(cell: str, mean: float | None, sd: float | None = 0.1) -> Row:
    found = {"cell": cell, "cell_id": cell, "m_mean": mean, "m_sd": sd}
    return found | {"m_ci_low": mean and mean - 0.1, "m_ci_high": mean and mean + 0.1}


def points(axes: Axes) -> list[NDArray[np.float64]]:
    return [np.asarray(one.get_offsets(), dtype=float) for one in axes.collections]


def test_every_scored_run_is_a_dot_and_collapsed_ones_are_hollow() -> None:
    runs = [run("a", seed, 0.5 + seed / 20) for seed in range(7)]
    runs += [run("a", 7, 0.51, "collapsed"), run("a", 8, None, "diverged"), run("b", 0, 0.9)]
    rows = [row("b", 0.9), row("a", 0.6)]
    (axes,) = strip_plot(rows, runs, "m", 0.8, [("k-means", 0.61), ("none", None)]).axes
    dots = points(axes)
    assert sorted(np.concatenate(dots)[:, 0]) == sorted(r["m"] for r in runs if r["m"] is not None)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a"]
    filled = [len(np.asarray(one.get_facecolor())) > 0 for one in axes.collections]
    assert [
        place[0] for place, full in zip(dots, filled, strict=True) if len(place) and not full
    ] == [pytest.approx(np.array([0.51, dots[3][0][1]]))]


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_the_box_is_numpys_quartiles(count: int) -> None:
    values = np.random.default_rng(count).random(count).tolist()
    assert quartiles(values) == pytest.approx(np.percentile(values, [25, 50, 75]))
    runs = [run("a", seed, value) for seed, value in enumerate(values)]
    (axes,) = strip_plot([row("a", float(np.mean(values)))], runs, "m", None, []).axes
    (box,) = axes.patches
    first, median, third = np.percentile(values, [25, 50, 75])
    assert [box.get_x(), box.get_x() + box.get_width()] == pytest.approx([first, third])  # type: ignore[attr-defined]
    assert any(np.allclose(np.asarray(line.get_xdata(), float), median) for line in axes.lines)


def test_a_metric_without_any_value_has_a_figure() -> None:
    (axes,) = strip_plot([row("a", None)], [], "m", None, []).axes
    assert [text.get_text() for text in axes.texts] == ["no scored run"]


def test_mean_against_spread_has_a_point_and_a_number_a_cell() -> None:
    rows = [row(f"cell {n}", 0.5 + n / 40, 0.1 + 0.01 * (n % 3)) for n in range(9)]
    figure = mean_against_spread([*rows, row("one seed", 0.4, None)], "m", ("k-means", 0.61))
    (axes,) = figure.axes
    (dots,) = points(axes)
    assert dots.tolist() == [[r["m_mean"], r["m_sd"]] for r in rows]
    assert [text.get_text() for text in axes.texts[2:]] == [str(n) for n in range(1, 10)]
    assert "high and steady" in [text.get_text() for text in axes.texts]
    assert [text.get_text() for text in figure.texts[1::2]] == [r["cell"] for r in rows]
    (low,) = mean_against_spread(rows, "m", None, high=False).axes
    assert "low and steady" in [text.get_text() for text in low.texts]


@pytest.mark.parametrize("seed", range(3))
def test_numbers_of_cells_do_not_hide_each_other(seed: int) -> None:
    draw = np.random.default_rng(seed)
    rows = [row(f"c{n}", *draw.normal([0.7, 0.1], [0.05, 0.02]).tolist()) for n in range(24)]
    figure = mean_against_spread(rows, "m", None)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text().isdigit()]
    assert len(boxes) == 24
    hidden = [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    assert len(hidden) <= 1


def cases() -> list[tuple[NDArray[np.bool_], NDArray[np.float64]]]:
    draw = np.random.default_rng(5)
    found = []
    for count, ties in ((40, 1000), (60, 7), (31, 2), (200, 50)):
        positive = draw.random(count) < 0.4
        positive[:2] = (True, False)
        code = draw.integers(0, ties, count) / ties + 0.3 * positive * (-1) ** count
        found.append((positive, code))
    return found


@pytest.mark.parametrize(("positive", "code"), cases())
def test_a_roc_curve_is_scikit_learns_and_its_area_that_of_pairs(
    positive: NDArray[np.bool_], code: NDArray[np.float64]
) -> None:
    curve, area = roc_curve(positive, code)
    gaps = code[positive][:, None] - code[~positive][None, :]
    by_pairs = float(np.mean((gaps > 0) + 0.5 * (gaps == 0)))
    assert area == pytest.approx(max(by_pairs, 1 - by_pairs), abs=1e-12)
    sign = 1 if roc_auc_score(positive, code) >= 0.5 else -1
    false, true, _ = oracle_curve(positive, sign * code, drop_intermediate=False)
    for x, y in zip(GRID, curve, strict=True):
        if x in false:  # straight up: the upper end counts
            assert y == pytest.approx(true[false == x].max())
        else:
            assert y == pytest.approx(np.interp(x, false, true))
    assert np.all(np.diff(curve) >= 0)
    assert curve[-1] == 1
    again, same = roc_curve(positive, -code)
    assert (same, again.tolist()) == (pytest.approx(area), pytest.approx(curve.tolist()))


def test_a_code_that_says_nothing_is_the_diagonal() -> None:
    curve, area = roc_curve(np.array([True, False, True]), np.zeros(3))
    assert area == 0.5
    assert curve.tolist() == pytest.approx(GRID.tolist())


def test_the_band_of_roc_curves_is_pointwise() -> None:
    curves = np.sort(np.random.default_rng(1).random((11, len(GRID))), axis=1)
    roc = Roc("a", tuple(range(11)), curves, (0.5,) * 11)
    assert roc.band[1].tolist() == np.median(curves, axis=0).tolist()
    assert roc.band[0].tolist() == pytest.approx(np.sort(curves, axis=0)[1].tolist())
    assert roc.band[2].tolist() == pytest.approx(np.sort(curves, axis=0)[9].tolist())
    (axes,) = roc_curves([roc]).axes
    assert len(axes.lines) == 1 + 11 + 1  # chance, seeds, median
    assert np.asarray(axes.lines[-1].get_ydata())[1:].tolist() == roc.band[1].tolist()


def normal(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard normal density of points (M, C)."""
    found: NDArray[np.float64] = np.exp(-0.5 * (z**2).sum(1)) / (2 * math.pi) ** (z.shape[1] / 2)
    return found


def codes(units: int, classes: int | None) -> Codes:
    draw = np.random.default_rng(3)
    which = None if classes is None else np.arange(300) % classes
    reach = np.array([[-3.0] * units, [3.0] * units])
    return Codes("a", "seed 0", draw.normal(size=(300, units)), which, normal, reach)


@pytest.mark.parametrize("classes", [None, 2, 3, 12])
def test_counts_are_exact_and_areas_add_to_one(classes: int | None) -> None:
    cell = codes(1, classes)
    edges, counts = histogram(cell, classes or 0)
    assert counts.sum(1).tolist() == ([300] if classes is None else [300 // classes] * classes)
    for place, line in enumerate(counts):
        own = cell.units[:, 0] if cell.classes is None else cell.units[cell.classes == place, 0]
        for low, high, count in zip(edges[:-1], edges[1:], line, strict=True):
            last = high == edges[-1]
            assert count == sum(low <= v < high or (last and v == high) for v in own)
    (axes,) = code_densities([cell], [str(n) for n in range(classes or 0)]).axes
    steps = [patch for patch in axes.patches if patch.get_fill()]
    areas = [sum(s.get_data().values) * (edges[1] - edges[0]) for s in steps]  # type: ignore[attr-defined]
    assert len(areas) == (classes or 1)
    assert sum(areas) == pytest.approx(1)
    line = prior_line(cell)
    assert line is not None
    assert np.trapezoid(line[1], line[0]) == pytest.approx(1, abs=0.01)
    assert np.asarray(axes.lines[0].get_ydata()).tolist() == line[1].tolist()


def test_a_code_without_prior_or_without_spread_is_drawn() -> None:
    flat = Codes("a", "", np.zeros((20, 1)), np.arange(20) % 2)
    assert histogram(flat, 2)[1].sum() == 20
    assert prior_line(flat) is None
    (axes,) = code_densities([flat], NAMES[:2]).axes
    assert axes.lines[:] == []


def test_two_class_units_are_dots_with_the_prior_s_contours() -> None:
    (axes,) = code_densities([codes(2, 3)], NAMES).axes
    dots = points(axes)
    assert sum(len(one) for one in dots[:3]) == 300
    (contour,) = axes.collections[3:]
    rings = [np.hypot(*path.vertices.T) for path in contour.get_paths()]  # type: ignore[misc]
    assert [float(np.median(ring)) for ring in rings] == pytest.approx([2, 1], rel=0.02)
    (more,) = code_densities([codes(3, None)], ()).axes
    assert len(more.collections) == 1  # a plane shows two of three, and no prior


def test_class_names_are_texts() -> None:
    picture = svg(code_densities([codes(1, 3)], NAMES))
    assert "<script" not in picture
    texts = ["".join(e.itertext()) for e in ET.fromstring(picture).iter() if e.tag.endswith("text")]  # noqa: S314 - ours
    assert set(NAMES) <= {text.strip() for text in texts}


def sheet(label: str, count: int, shape: tuple[int, ...]) -> Sheet:
    return Sheet(label, "seed 0", np.random.default_rng(count).random((count, *shape)))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 20, 31), (2, 300, 5), (1, 1, 1)])
def test_contact_sheets_show_each_image_once(shape: tuple[int, ...]) -> None:
    figure = contact_sheet([sheet("a", 8, shape), sheet(SCRIPT, 5, shape)], NAMES, "x")
    shown = [np.asarray(axes.get_images()[0].get_array()) for axes in figure.axes]
    for strip, count in zip(shown, (8, 5), strict=True):
        opaque = strip[0, :, 3] > 0
        starts = np.flatnonzero(np.diff(np.append(False, opaque).astype(int)) == 1)
        assert len(starts) == count
    text = svg(figure)
    root = ET.fromstring(text)  # noqa: S314 - ours
    pictures = [e for e in root.iter() if e.tag.endswith("image")]
    assert len(pictures) == 2
    assert all(p.attrib["href"].startswith("data:image/png;base64,") for p in pictures)
    assert "<script" not in text


def test_the_first_rows_range_is_black_to_white() -> None:
    image = np.linspace(2, 4, 64).reshape(1, 1, 8, 8)
    rows = [Sheet("a", "", image), Sheet("b", "", image * 10), Sheet("c", "", image * 0)]
    first, over, under = (
        np.asarray(axes.get_images()[0].get_array()) for axes in contact_sheet(rows, [""], "x").axes
    )
    assert (first[0, 0, 0], first[-1, -1, 0]) == (0, 255)
    assert first[::8, ::8, 0].ravel().tolist() == np.round(np.linspace(0, 255, 64)).tolist()
    assert (over[..., :3].min(), under[..., :3].max()) == (255, 0)


def luminance(colour: str) -> float:
    """Return the relative luminance of sRGB (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_are_seen_on_light_and_dark() -> None:
    assert len(set(CLASSES)) == 10
    assert len({*DARK, *DARK.values()}) == 2 * len(DARK) == 24
    for light, dark in DARK.items():
        least = 4.5 if light in {SEED, TROUBLE} else 3  # WCAG: text, and graphics
        assert contrast(light, "#fdfdfc") >= least, light
        assert contrast(dark, "#17181b") >= least, dark


def test_a_figure_alone_has_its_own_ink() -> None:
    picture = alone(svg(roc_curves([Roc("a", (0,), GRID[None], (0.5,))])))
    root = ET.fromstring(picture)  # noqa: S314 - ours
    (style,) = [e for e in root.iter() if e.tag.endswith("style")]
    assert style.text is not None
    assert f"--c0:{SEED};" in style.text
    assert f"--c0:{DARK[SEED]};" in style.text
    assert f"var(--c0,{SEED})" in picture


def test_a_png_is_one() -> None:
    data = png(Figure(figsize=(2, 1)))
    assert data.startswith(b"\x89PNG\r\n")
    assert [int.from_bytes(data[at : at + 4]) for at in (16, 20)] == [300, 150]


def test_a_diverged_run_counts_as_the_worst_in_the_median_curve() -> None:
    steps = [1, 2, 3]
    runs = [
        {"status": "ok", "step": steps, "loss": [4.0, 3.0, 2.0]},
        {"status": "ok", "step": steps, "loss": [5.0, 2.0, 1.0]},
        {"status": "diverged", "step": [1, 2], "loss": [1.0, None]},
    ]
    (axes,) = learning_curves([("a", runs)]).axes
    assert np.asarray(axes.lines[-1].get_ydata()).tolist() == [4.0, 3.0, 2.0]
    (axes,) = learning_curves([("a", [*runs, runs[-1]])]).axes
    median = np.asarray(axes.lines[-1].get_ydata(), dtype=float)
    assert median[0] == 2.5
    assert np.isnan(median[1:]).all()


@pytest.mark.parametrize("count", [1, 3, 30])
def test_names_above_the_seeds_never_overlap(count: int) -> None:
    row: dict[str, Any] = {"cell": "a", "cell_id": "a", "m_mean": None}
    row |= {"m_ci_low": None, "m_ci_high": None}
    baselines = [(f"baseline number {place}", 0.5 + place / 97) for place in range(count)]
    figure = strip_plot([row], [], "m", 0.8, baselines)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    boxes = [box for box in boxes if box.y1 > figure.axes[0].get_window_extent().y1]
    assert len(boxes) == count + 1
    for place, box in enumerate(boxes):
        assert box.y1 < figure.bbox.y1 + 1
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])


def test_a_figure_without_anything() -> None:
    ET.fromstring(svg(Figure()))  # noqa: S314 - our own
    assert learning_curves([]).axes == []
    (axes,) = learning_curves([("a", [])]).axes
    assert axes.texts[0].get_text() == "no curve"


def test_a_loss_that_ran_away_leaves_the_others_apart() -> None:
    runs = [run("a", seed, value) for seed, value in enumerate([1.0, 2.0, 1e9])]
    (axes,) = strip_plot([row("a", 3e8)], runs, "m", None, []).axes
    assert axes.get_xscale() == "log"
    (axes,) = strip_plot([row("a", 1.5)], runs[:2], "m", None, []).axes
    assert axes.get_xscale() == "linear"


def test_a_figure_of_many_seeds_is_small() -> None:
    draw = np.random.default_rng(0)
    runs = [run(f"c{n % 30}", n // 30, value) for n, value in enumerate(draw.random(3000))]
    rows = [row(f"c{n}", 0.5) for n in range(30)]
    assert len(svg(strip_plot(rows, runs, "m", 0.8, []))) < 75 * 3000
    curves = np.sort(draw.random((60, len(GRID))), axis=1)
    rocs = [Roc(f"c{n}", tuple(range(60)), curves, (0.6,) * 60) for n in range(12)]
    assert len(svg(roc_curves(rocs))) < 1_000_000


def test_more_cells_than_a_figure_holds() -> None:
    rows = [row(f"c{n}", 0.5) for n in range(80)]
    (axes,) = strip_plot(rows, [run("c79", 0, 1e9), run("c0", 0, 0.5)], "m", 0.8, []).axes
    assert len(axes.get_yticks()) == 60
    assert axes.get_xlim()[1] < 1
