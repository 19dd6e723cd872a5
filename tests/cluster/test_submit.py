"""A study sent to a cluster from elsewhere: to its end, stopped and gone on with, refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nodes import BIN, HEAD, Cluster, free_port, wait_for
from recorded import RUNS, STUDY, Reference, kept, running
from studies import tiny, write

from sweeps.results import read_records

pytestmark = pytest.mark.timeout(1200)

Call = subprocess.CompletedProcess[str]
Sweeps = Callable[..., Call]


@pytest.fixture
def url(shared: Cluster) -> str:
    return f"http://{HEAD}:{shared.dashboard}"


@pytest.fixture
def sweeps(shared: Cluster, url: str, tmp_path: Path) -> Sweeps:
    """Return what runs the command in the test's folder, with the cluster's token and address."""

    def call(*arguments: str, **environment: str) -> Call:
        own = {"RAY_API_SERVER_ADDRESS": url, "RAY_ADDRESS": "", **environment}
        return subprocess.run(
            [BIN / "sweeps", *arguments],
            cwd=tmp_path,
            env={**shared.environment, **own},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    return call


def test_a_study_goes_there_and_its_answer_comes_back(
    sweeps: Sweeps, tmp_path: Path, reference: Reference
) -> None:
    write(tmp_path, STUDY)
    out = tmp_path / "out"
    words = ["submit", "x.yaml", "--out", str(out), "--pack-width", "2", "--wait", "--json"]
    call = sweeps(*words)
    print(call.stderr)  # noqa: T201 - shown where the test fails
    assert call.returncode == 0
    answer = json.loads(call.stdout)
    assert (answer["planned"], answer["trained"], answer["out"]) == (RUNS, RUNS, str(out))
    assert "cluster: 8 of 8 runs to train, auto\n" in call.stderr
    assert "Traceback" not in call.stderr
    reference.assert_equal(out)
