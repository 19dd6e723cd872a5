"""What a cluster cannot do is said before anything is trained."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nodes import ALONE, HEAD, SECOND, Cluster, Driver, free_port, mount_over
from studies import tiny, write

from sweeps.launch.versions import versions

pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).parents[2]
START = "start one with: ray start --head --port 6379"
WRONG = "f" * 32


def refusal(driver: Driver) -> str:
    """Return what a refused driver says last; nothing was trained."""
    code, out, err = driver.finish()
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    for name in ("records", "checkpoints", "results.parquet", ".token"):
        assert not (driver.folder / name).exists()
    first, _, rest = err.partition("\n")
    place = driver.process.args[-1]
    assert first == f"cluster: 8 of 8 runs to train, {place}"
    return rest


def test_a_port_where_nothing_answers(drive: Callable[..., Driver], shared: Cluster) -> None:
    place = f"{HEAD}:{free_port(HEAD)}"
    start = time.monotonic()
    assert refusal(drive(shared, "--launcher", place)) == (
        f"--launcher {place}: nothing answers there: Connection refused; "
        f"correct the address, or {START}\n"
    )
    assert time.monotonic() - start < 60, "seconds, on an idle machine"


def test_a_port_that_is_the_dashboards(drive: Callable[..., Driver], shared: Cluster) -> None:
    place = f"{HEAD}:{shared.dashboard}"
    assert refusal(drive(shared, "--launcher", place)) == (
        f"--launcher {place}: what answers there is no Ray cluster; "
        "expected the port of `ray start --head --port`, 6379 unless it was named\n"
    )


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"RAY_AUTH_TOKEN": WRONG},
            "the cluster does not take the token of RAY_AUTH_TOKEN; give its own",
        ),
        (
            {"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": "nowhere"},
            "RAY_AUTH_TOKEN_PATH: nowhere holds no token that can be read; "
            "set RAY_AUTH_TOKEN_PATH to the file that holds the cluster's",
        ),
        (
            {"RAY_AUTH_TOKEN": "", "RAY_AUTH_MODE": "disabled"},
            "the cluster wants a token; set RAY_AUTH_MODE to token and "
            "RAY_AUTH_TOKEN_PATH to the file that holds the cluster's",
        ),
    ],
)
def test_a_token_that_is_not_the_clusters(
    variables: dict[str, str], sentence: str, drive: Callable[..., Driver], shared: Cluster
) -> None:
    said = refusal(drive(shared, "--launcher", shared.address, **variables))
    assert said == f"--launcher {shared.address}: {sentence}\n"
    assert WRONG not in said
    assert shared.token not in said


def test_ray_client(drive: Callable[..., Driver], shared: Cluster) -> None:
    code, out, err = drive(shared, "--launcher", f"ray://{shared.address}").finish()
    assert (code, out) == (2, "")
    assert err == (
        f"--launcher ray://{shared.address}: Ray Client is not supported; "
        "run this on the cluster, with --launcher auto, or name its HOST:PORT\n"
    )


@pytest.mark.parametrize(
    "variables",
    [{"RAY_AUTH_TOKEN": WRONG}, {"RAY_AUTH_TOKEN": "", "RAY_AUTH_MODE": "disabled"}],
    ids=["a wrong token", "none"],
)
def test_the_port_of_ray_client(variables: dict[str, str], shared: Cluster, tmp_path: Path) -> None:
    """We never call there; it listens all the same, and lets nobody in by accident either."""
    once = "ray.util.connect(sys.argv[1], connection_retries=1)"  # ray.init tries for 30 s more
    code = f"import sys, ray; {once}; print('in:', ray.nodes())"
    where = f"{HEAD}:{shared.client}"

    def call(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, where],
            cwd=tmp_path,
            env={**shared.environment, "HOME": str(tmp_path), **more},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    start = time.monotonic()
    refused = call(**variables)
    assert time.monotonic() - start < 60
    assert refused.returncode != 0
    assert "in:" not in refused.stdout
    assert "ConnectionError" in refused.stderr, "Ray says no more"
    assert shared.token not in refused.stderr
    assert call().stdout.startswith("in:"), "it is the token that was missing"


@pytest.mark.usefixtures("apart")
def test_auto_where_no_cluster_runs(
    drive: Callable[..., Driver], shared: Cluster, tmp_path: Path
) -> None:
    """It sees neither this machine's processes nor Ray's note of its last cluster."""
    (tmp_path / "empty").mkdir()
    driver = drive(shared, "--launcher", "auto", before=ALONE, RAY_TMPDIR=str(tmp_path / "empty"))
    assert refusal(driver) == (
        f"--launcher auto: no Ray cluster runs on this machine; name its HOST:PORT, or {START}\n"
    )


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("hidden", "does not see the study folder {0}"),
        ("read-only", "cannot write the study folder {0}: Read-only file system"),
    ],
)
def test_storage_that_a_node_cannot_use(
    how: str, sentence: str, cluster: Cluster, drive: Callable[..., Driver], tmp_path: Path
) -> None:
    """Must hold 3."""
    cluster.join(mount_over(tmp_path, how))
    driver = drive(cluster, "--launcher", cluster.address)
    assert refusal(driver) == (
        f"node second ({SECOND}): {sentence.format(driver.folder)}; "
        "put it on storage that all nodes share, with --out\n"
    )
    assert sorted(path.name for path in driver.folder.iterdir()) == [".lock", "progress.json"]


def first(folder: Path) -> str:
    """Return the command that has a node import from a folder before all others."""
    return f"export PYTHONPATH={shlex.quote(str(folder))}:$PYTHONPATH"


@pytest.mark.usefixtures("apart")
def test_a_node_with_other_versions(
    cluster: Cluster, drive: Callable[..., Driver], tmp_path: Path
) -> None:
    """Ray itself lets no node in that has another Ray or Python."""
    other = tmp_path / "other" / "torch-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0+cpu\n")
    cluster.join(first(other.parent))
    ours = versions()["torch"]
    assert "+" not in ours
    assert refusal(drive(cluster, "--launcher", cluster.address)) == (
        f"node second ({SECOND}): has torch 1.0, the driver torch {ours}; "
        "install the same versions there\n"
    )


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize(
    ("before", "after"),
    [("PATIENCE = 120.0", "PATIENCE = 121.0"), ("token: str, source: str, drivers", "drivers")],
    ids=["a number", "what it is asked"],
)
def test_a_node_with_another_seedsweep(
    before: str, after: str, cluster: Cluster, drive: Callable[..., Driver], tmp_path: Path
) -> None:
    """It is told by its sources, whatever it calls itself."""
    other = tmp_path / "other"
    for package in ("models", "sweeps"):
        shutil.copytree(ROOT / package, other / package)
    changed = other / "sweeps" / "launch" / "nodes.py"
    text = changed.read_text()
    assert before in text
    changed.write_text(text.replace(before, after))
    cluster.join(first(other))
    assert refusal(drive(cluster, "--launcher", cluster.address)) == (
        f"node second ({SECOND}): has another version of seedsweep; install the driver's there\n"
    )


def test_more_than_this_machine_has(tmp_path: Path) -> None:
    """Local Ray, which is asked what it has before anything waits for it."""
    write(tmp_path, tiny(resources={"cpus": 1000, "gpus": 3}))
    command = [str(Path(sys.executable).parent / "sweeps"), "run", "x.yaml"]
    call = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (call.returncode, call.stdout) == (2, "")
    assert call.stderr.splitlines() == [
        "tiny: 15 of 15 runs to train, local",
        f"resources.cpus: a pack asks for 1000, no node of Ray's has more than {os.cpu_count()}",
        "resources.gpus: a pack asks for 3, no node of Ray's has more than 0",
    ]
