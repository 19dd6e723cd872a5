"""`sweeps gallery`: formulas against SciPy, rows against their limits, tables, JSON, figures."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy.integrate import quad
from scipy.stats import norm

from models import apart
from models.apart import Pulled
from models.exhibits import (
    CONSTANT,
    EXACT,
    FEW,
    HALVES,
    MANY,
    MIXTURE,
    PEAKS,
    PLACES,
    ROWS,
    WIDTHS,
    Curve,
    by_row,
)
from models.priors import Normal
from sweeps import gallery
from sweeps.cli import main

FORMULAS: dict[str, Callable[[Any], Pulled]] = {
    **{name: exhibit.limit for name, exhibit in ROWS.items()},
    **{f"{name} {w}": functools.partial(f, width=w) for name, f in EXACT.items() for w in WIDTHS},
    "halves": functools.partial(apart.mean_of_kls, sigma=0.5, m=1.0, s=0.35),
    "constant": functools.partial(apart.kl_and_constant, sigma=0.5, m=1.0, s=0.35),
}
Found = dict[tuple[str, float, str, str], Curve]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def shown() -> list[Curve]:
    return gallery.curves()


@pytest.fixture(scope="module")
def found(shown: list[Curve]) -> Found:
    return {(one.pair, one.width, one.divergence, one.source): one for one in shown}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Run the command; return what it printed, and its folder."""
    folder, out = tmp_path_factory.mktemp("ran") / "drawn", io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["gallery", "--json", "--out", str(folder)]) == 0
    return out.getvalue(), folder


@pytest.fixture
def drawn_before(shown: list[Curve], monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the command the seconds that the fixture above has taken."""
    monkeypatch.setattr(gallery, "curves", lambda: shown)


def at(curve: Curve, theta: float) -> tuple[float, float]:
    (place,) = np.flatnonzero(curve.theta == theta)
    return float(curve.value[place]), float(curve.gradient[place])


def integral(formula: Callable[[float], float], cuts: Sequence[float]) -> float:
    """Integrate piece by piece, so that no narrow peak is overlooked."""
    pairs = itertools.pairwise(sorted(set(cuts)))
    return sum(quad(formula, a, b, epsabs=1e-12, limit=200)[0] for a, b in pairs)


def test_the_limits_of_parallel_lines(found: Found) -> None:
    """KL infinite, JS log 2 with zero gradient, W1 = |theta| with its sign; all 0 at theta = 0."""
    for theta in (-3.0, -0.05, 0.5, 2.0):
        assert at(found["lines", 0, "kl_aggregate", "formula"], theta)[0] == math.inf
        assert at(found["lines", 0, "js", "formula"], theta) == (math.log(2), 0)
        side = math.copysign(1, theta)
        assert at(found["lines", 0, "wasserstein p=1", "formula"], theta) == (abs(theta), side)
        assert at(found["lines", 0, "wasserstein p=2", "formula"], theta) == (theta**2, 2 * theta)
        assert at(found["lines", 0, "energy", "formula"], theta) == (2 * abs(theta), 2 * side)
        assert at(found["lines", 0, "sinkhorn", "formula"], theta) == (theta**2 / 2, theta)
    for name in ROWS:
        assert at(found["lines", 0, name, "formula"], 0.0)[0] == 0
    assert at(found["lines", 0, "wasserstein p=1", "formula"], 0.0) == (0, 0)
    for name in ("kl_aggregate", "js", "mmd"):
        assert math.isnan(at(found["lines", 0, name, "formula"], 0.0)[1]), "a jump has no gradient"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("u", [-2.5, -0.3, 0.0, 1.0, 4.0])
def test_kl_js_and_wasserstein_of_two_gaussians_are_scipys_integrals(
    width: float, u: float
) -> None:
    theta = u * width
    q, p = norm(theta, width), norm(0, width)
    cuts = [k * width for k in (-12, -4, -2.5, -1, 0, 1, 2.5, 4, 5, 8, 16)] + [theta, theta / 2]

    def half(a: Any, b: Any, z: float) -> float:
        x, mean = float(a.pdf(z)), float(a.pdf(z) + b.pdf(z)) / 2
        return x * math.log(x / mean) if x else 0.0

    integrands: dict[str, Callable[[float], float]] = {
        "kl_aggregate": lambda z: float(q.pdf(z) * (q.logpdf(z) - p.logpdf(z))),
        "js": lambda z: (half(q, p, z) + half(p, q, z)) / 2,
        "wasserstein p=1": lambda z: abs(float(q.cdf(z) - p.cdf(z))),
    }
    for name, formula in EXACT.items():
        value, _ = formula(np.array([theta]), width)
        assert value[0] == pytest.approx(integral(integrands[name], cuts), abs=1e-9), name


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    theta = np.array([-1.7, -0.21, -0.02, 0.013, 0.4, 2.2])
    _, gradient = FORMULAS[name](theta)
    if name == "kl_aggregate":
        assert np.isnan(gradient).all(), "infinity has no gradient"
        return
    step = 1e-5
    ends = [FORMULAS[name](theta + side * step)[0] for side in (1, -1)]
    np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), gradient, rtol=1e-6, atol=1e-7)


def test_the_limit_of_mmd_is_what_is_left_of_the_kernels_within_each_shape() -> None:
    """E[s / (s + g^2)] by SciPy's integral over a standard normal g."""
    scales = (0.1, 1.0, 10.0)
    inside = [
        quad(lambda g, s=s: s / (s + g * g) * norm.pdf(g), -12, 12, points=[0], limit=200)[0]
        for s in scales
    ]
    (value,), (gradient,) = apart.mmd_of_lines(np.array([0.7]), scales)
    assert (value, gradient) == (pytest.approx(2 * sum(inside), rel=1e-9), 0)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", EXACT)
def test_rows_are_their_formulas(name: str, width: float, found: Found) -> None:
    """The batch is the Gaussian itself, so what a row sees at each theta is exact to quadrature."""
    row, exact = (found["gaussians", width, name, source] for source in ("row", "formula"))
    for theta in FEW:
        assert at(row, theta) == pytest.approx(at(exact, theta), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", ROWS)
def test_rows_approach_the_lines_as_gaussians_grow_narrower(name: str, found: Found) -> None:
    """At theta = 1; KL grows beyond all bounds as 1 / width^2, the others come nearer each time."""
    seen = [at(found["gaussians", width, name, "row"], 1.0) for width in WIDTHS]
    value, gradient = at(found["lines", 0, name, "formula"], 1.0)
    if math.isinf(value):
        assert [one[0] for one in seen] == pytest.approx([0.5 / w**2 for w in WIDTHS])
        return
    off = [abs(one[0] - value) for one in seen]
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(off))
    # mmd's kernels reach as far as the widest, sqrt(20) widths: 2 % of it is there yet.
    assert off[-1] <= 0.04 * value
    assert seen[-1][1] == pytest.approx(gradient, abs=0.02 * value)


@pytest.mark.parametrize("name", ROWS)
def test_everything_is_nothing_where_both_are_the_same(name: str, found: Found) -> None:
    """But for the scatter of what a row draws: the unbiased ones may be below zero."""
    scatter = {"sinkhorn": 0.02, "energy": 0.05, "mmd": 0.1}.get(name, 1e-6)
    for width in WIDTHS:
        assert abs(at(found["gaussians", width, name, "row"], 0.0)[0]) < scatter


def test_what_the_note_says_of_js_holds() -> None:
    """Less than 1 % of its steepest gradient from 7 widths on."""
    u = np.linspace(0, 20, 2001)
    _, gradient = apart.js_of_gaussians(u, 1.0)
    assert (gradient[u >= 7] < 0.01 * gradient.max()).all()
    assert (gradient[u <= 6] > 0.01 * gradient.max())[1:].sum() > 500


def test_mmd_goes_flat_and_the_others_that_the_note_names_do_not(found: Found) -> None:
    pulls = {name: at(found["gaussians", 0.03, name, "row"], 2.0)[1] for name in ROWS}
    assert abs(pulls["mmd"]) < 0.05
    assert abs(pulls["js"]) < 1e-9
    for name in ("wasserstein p=1", "wasserstein p=2", "sinkhorn", "energy"):
        assert pulls[name] > 0.99


def test_the_mean_of_two_kls_is_one_kl_and_a_constant_and_the_mixtures_is_not(
    found: Found,
) -> None:
    m, s = PEAKS.m, PEAKS.s
    halves, one = (found["peaks", s, name, "formula"] for name in (HALVES, CONSTANT))
    mixture = found["peaks", s, MIXTURE, "row"]
    np.testing.assert_allclose(halves.value, one.value, rtol=1e-13)
    np.testing.assert_allclose(halves.gradient, one.gradient, rtol=1e-13, atol=1e-13)
    assert at(halves, 0.0)[0] == pytest.approx(m**2 / (2 * s**2))
    assert halves.theta[halves.value.argmin()] == 0
    assert abs(mixture.theta[mixture.value.argmin()]) == m
    for place in PLACES[::8]:
        q = norm(place, s)

        def integrand(z: float, q: Any = q) -> float:
            log_p = np.logaddexp(norm.logpdf(z, -m, s), norm.logpdf(z, m, s)) - math.log(2)
            return float(q.pdf(z) * (q.logpdf(z) - log_p))

        exact = integral(
            integrand, [place - 10 * s, place - s, place, 0, place + s, place + 10 * s]
        )
        assert at(mixture, float(place))[0] == pytest.approx(exact, abs=2e-5)


def test_a_row_sees_codes_moved_by_theta() -> None:
    theta = np.array([0.0, 1.5])
    value, gradient = by_row(
        ROWS["wasserstein p=2"].row, Normal(scale=0.5).distribution(), theta, 0.5, count=16
    )
    assert value.tolist() == [0, pytest.approx(2.25)]
    assert gradient.tolist() == [0, pytest.approx(3)]


def test_the_grids_hold_what_the_tables_show() -> None:
    assert {*gallery.LINES_AT, *gallery.GAUSSIANS_AT, *FEW} <= set(MANY)
    assert gallery.ROWS_AT in FEW
    assert set(gallery.CODES_AT) <= set(PLACES)
    np.testing.assert_allclose(MANY, -MANY[::-1])


def test_json_is_one_object_without_infinities(ran: tuple[str, Path]) -> None:
    out, folder = ran
    assert out.count("\n") == 1

    def never(text: str) -> None:
        raise AssertionError(text)

    content = json.loads(out, parse_constant=never)
    assert list(content) == ["curves", "peaks", "notes", "files"]
    assert content["peaks"] == {"m": 1.0, "s": 0.35}
    assert len(content["curves"]) == len(ROWS) + len(WIDTHS) * (len(ROWS) + len(EXACT)) + 3
    for one in content["curves"]:
        assert list(one) == [
            "pair", "width", "divergence", "source", "theta", "value", "gradient"
        ]  # fmt: skip
        assert len(one["theta"]) == len(one["value"]) == len(one["gradient"])
    kl, js = content["curves"][:2]
    zero = kl["theta"].index(0)
    assert (kl["value"][0], kl["value"][zero], kl["gradient"][0]) == ("infinite", 0, None)
    assert (js["value"][0], js["gradient"][0], js["gradient"][zero]) == (math.log(2), 0, None)
    assert sorted(content["files"]) == [str(path) for path in sorted(folder.iterdir())]


@pytest.mark.usefixtures("drawn_before")
def test_the_tables_fit_a_pipe_and_say_what_to_take_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["gallery"]) == 0
    out = capfd.readouterr().out
    tables = out.partition("written: ")[0].splitlines()
    assert max(map(len, tables)) <= 80
    rows = [line.split() for line in tables]
    assert ["-2", "infinite", "none", "0.693", "0.000", "2.000", "-1.000"] in rows
    assert ["0", "0.000", "none", "0.000", "none", "0.000", "0.000"] in rows
    assert ["energy", "value", "0.429", "1.260", "1.750", "1.925", "2.000"] in rows
    assert ["0", "4.082", "0.000", "4.082", "0.000", "2.384", "0.000"] in rows
    plain = " ".join(out.split())
    for note in gallery.NOTES.values():
        assert note in plain
    assert "written: gallery/lines.svg" in plain
    assert (tmp_path / "gallery" / "gallery.csv").is_file()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_no_number_is_cut_off_in_a_narrow_terminal(shown: list[Curve], encoding: str) -> None:
    raw = io.BytesIO()
    sink = io.TextIOWrapper(raw, encoding=encoding)
    gallery.print_gallery(shown, Console(file=sink, width=40))
    sink.flush()
    rows = [line.split() for line in raw.getvalue().decode(encoding).splitlines()]
    assert ["-2", "infinite", "none", "0.693", "0.000", "2.000", "-1.000"] in rows
    assert ["mmd", "value", "0.637", "4.746", "8.111", "8.753", "8.928"] in rows


@pytest.mark.usefixtures("drawn_before")
def test_a_folder_that_cannot_be_is_refused_in_a_sentence(tmp_path: Path, capfd: Capture) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    for path, reason in ((taken, "File exists"), (taken / "below", "Not a directory")):
        assert main(["gallery", "--out", str(path)]) == 2
        captured = capfd.readouterr()
        sentence = f"{path}: cannot be written: {reason}; choose another with --out\n"
        assert (captured.out, captured.err) == ("", sentence)
    room = tmp_path / "room"
    (room / "gallery.csv").mkdir(parents=True)
    assert main(["gallery", "--out", str(room)]) == 2
    sentence = f"{room}: cannot be written: Is a directory; choose another with --out\n"
    assert capfd.readouterr().err == sentence


def test_files_are_the_same_each_time(
    shown: list[Curve], ran: tuple[str, Path], tmp_path: Path
) -> None:
    """Computed twice and drawn twice."""
    first = {path.name: path.read_bytes() for path in gallery.write(shown, tmp_path)}
    assert first == {path.name: path.read_bytes() for path in ran[1].iterdir()}
    assert sorted(first) == [
        "gallery.csv", "lines.png", "lines.svg", "peaks.png", "peaks.svg", "rows.png", "rows.svg",
    ]  # fmt: skip
    for name, panels in (("lines", 6), ("rows", 8), ("peaks", 2)):
        root = ET.fromstring(first[f"{name}.svg"])  # noqa: S314 - our own
        assert root.attrib["role"] == "img"
        text = " ".join("".join(one.itertext()) for one in root.iter() if one.tag.endswith("text"))
        assert text.count("gradient") == panels // 2
        assert b"prefers-color-scheme:dark" in first[f"{name}.svg"]
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.width == 1350
    lines = first["gallery.csv"].decode().splitlines()
    assert lines[0] == "pair,width,divergence,source,theta,value,gradient"
    assert len(lines) == 1 + sum(len(one.theta) for one in shown)
    assert "lines,0.0,kl_aggregate,formula,-3.0,inf," in lines


def test_help_does_not_load_torch() -> None:
    code = "import sys\nfrom sweeps.cli import main\n"
    code += (
        "try:\n    main(['gallery', '--help'])\nexcept SystemExit as end:\n    print(end.code)\n"
    )
    code += "print(sorted({'torch', 'matplotlib', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-2:] == ["0", "[]"], done.stderr
