"""docker/: the checks of `make check` refuse what they are for, and the image's packages are named.

What needs an engine is in tests/containers.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
KUBERAY = (ROOT / "docker" / "kuberay.yaml").read_text()
CONSTRAINTS = (ROOT / "constraints.txt").read_text()


def script(name: str) -> ModuleType:
    """Import one of docker/'s files, which are no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docker" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_kuberay_as_it_stands() -> None:
    assert script("check_kuberay").mistakes(KUBERAY, CONSTRAINTS) == []


@pytest.mark.parametrize(
    ("written", "instead", "sentence"),
    [
        (
            "secretName: seedsweep-ray",
            "secret: seedsweep-ray",
            "RayCluster.spec.authOptions.secret: no documented field; known here: mode, secretName",
        ),
        (
            "mode: token",
            "mode: disabled",
            "RayCluster.spec.authOptions: expected mode token and the name of a secret",
        ),
        (
            "replicas: 2",
            'replicas: "2"',
            "RayCluster.spec.workerGroupSpecs[0].replicas: expected int, got '2'",
        ),
        (
            'rayVersion: "2.60.0"',
            'rayVersion: "2.9.0"',
            "RayCluster.spec.rayVersion: 2.9.0 is not that of constraints.txt",
        ),
        ("groupName: cpu", "", "RayCluster.spec.workerGroupSpecs[0].groupName: is missing"),
        (
            "ray.io/cluster: seedsweep",
            "ray.io/cluster: other",
            "RayJob.spec.clusterSelector: no RayCluster other in this file",
        ),
        ("kind: RayJob", "kind: RayTask", "document 2: kind RayTask; expected one of"),
        ("apiVersion: ray.io/v1\n", "apiVersion: v1\n", "apiVersion: expected ray.io/v1, got v1"),
        (
            "image: seedsweep:latest",
            "image: other:latest",
            "RayCluster: head and workers have other images: other:latest, seedsweep:latest",
        ),
        (
            "valueFrom: {secretKeyRef: {name: seedsweep-mlflow, key: password, optional: true}}",
            "value: hunter2",
            "RayCluster: MLFLOW_TRACKING_PASSWORD stands in the file; take it from a secret",
        ),
        (
            "runAsNonRoot: true, ",
            "",
            "RayCluster: a pod without securityContext.runAsNonRoot",
        ),
        ("spec:", "spec: [", "is no YAML: "),
    ],
)
def test_kuberay_with_a_mistake(written: str, instead: str, sentence: str) -> None:
    assert written in KUBERAY
    found = script("check_kuberay").mistakes(KUBERAY.replace(written, instead, 1), CONSTRAINTS)
    assert any(sentence in line for line in found), found


def test_the_image_takes_what_pyproject_names_and_nothing_that_is_not_pinned() -> None:
    locked = script("locked")
    project = {
        "dependencies": ["numpy>=2"],
        "optional-dependencies": {"image": ["ray[default]"], "test": ["pytest"]},
    }
    assert locked.needed(project, ["image"]) == ["numpy>=2", "ray[default]"]
    installed = {"Torch": "2.13.0+cpu", "ruamel-yaml": "0.19.1", "nvidia-nccl-cu13": "2.1"}
    pins = "# a comment\ntorch==2.13.0\nruamel.yaml==0.19.1\n"
    assert locked.unpinned(installed, pins) == []
    assert locked.unpinned({"torch": "2.14.0", "left-pad": "1"}, pins) == [
        "left-pad==1",
        "torch==2.14.0",
    ]


def test_no_secret_can_reach_the_build() -> None:
    """The build's files are named one by one, and secrets are kept out of git."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert [line for line in lines if line[:1] not in ("#", "!")] == ["*", "**/__pycache__"]
    assert "docker/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    for line in (line[1:] for line in lines if line.startswith("!")):
        assert (ROOT / line).exists(), line


def test_start_ends_without_its_secret(tmp_path: Path) -> None:
    call = subprocess.run(
        [sys.executable, ROOT / "docker" / "start.py", "head"],
        env={"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert call.returncode == 1
    assert call.stderr == (
        "start: secret ray_token: No such file or directory: /run/secrets/ray_token\n"
    )


def test_what_start_keeps_is_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_text("old")
    path.chmod(0o644)
    script("start").keep(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
