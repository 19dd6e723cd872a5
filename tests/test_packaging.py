"""The built wheel, with the source tree out of reach: what a user gets is all there."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LOOK = """
import importlib.resources, sys
import models, models.datasets, models.train, sweeps, sweeps.cli, sweeps.studies
for package in (models, sweeps):
    assert package.__file__.startswith(sys.argv[1]), package.__file__
    assert importlib.resources.files(package).joinpath("py.typed").is_file()
from sweeps.study import find_study, load_study
for name in ("quickstart", "smoke"):
    assert str(find_study(name)).startswith(sys.argv[1]), find_study(name)
    load_study(find_study(name))
import sweeps.report, sweeps.pictures
for ending in ("html", "css", "js"):
    assert importlib.resources.files(sweeps).joinpath(f"report.{ending}").is_file(), ending
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that nothing is left in the tree, and unpack it."""
    source, built, target = (tmp_path_factory.mktemp(name) for name in ("src", "built", "site"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "models", "sweeps"):
        (source / name).symlink_to(ROOT / name)
    call = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"),
            *("--quiet", "--disable-pip-version-check", "--wheel-dir", built, source),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert call.returncode == 0, call.stderr
    (wheel,) = built.glob("seedsweep-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def python(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python elsewhere, with the unpacked wheel before whatever is installed."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_holds_both_packages_and_nothing_else(unpacked: Path) -> None:
    tops = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"models", "sweeps"}
    shipped = {
        path.relative_to(unpacked)
        for path in unpacked.rglob("*")
        if path.is_file() and path.relative_to(unpacked).parts[0] in tops
    }
    written = {
        path.relative_to(ROOT)
        for top in tops
        for path in (ROOT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped == written, "a file of the tree is missing from the wheel, or the reverse"


def test_it_imports_with_template_studies_and_types(unpacked: Path, tmp_path: Path) -> None:
    call = python(unpacked, tmp_path, "-c", LOOK, str(unpacked))
    assert call.returncode == 0, call.stderr


def test_its_command_works(unpacked: Path, tmp_path: Path) -> None:
    script = "import sys; from sweeps.cli import main; sys.exit(main())"
    call = python(unpacked, tmp_path, "-c", script, "--help")
    assert call.returncode == 0, call.stderr
    assert all(f"\n    {name} " in call.stdout for name in ("plan", "run", "report")), call.stdout
    metadata = next(unpacked.glob("*.dist-info"))
    assert "sweeps = sweeps.cli:main" in (metadata / "entry_points.txt").read_text()
