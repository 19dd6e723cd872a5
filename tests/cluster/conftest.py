"""What the tests of a cluster share: one head, the study's undisturbed results, its command."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from nodes import APART, BIN, Cluster, Driver, running
from recorded import STUDY, Reference
from studies import write

from sweeps import api


@pytest.fixture(scope="session")
def shared() -> Iterator[Cluster]:
    """Return a cluster whose head lives as long as the tests."""
    with running() as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    """Return the shared cluster; nodes that joined in a test leave with it."""
    yield shared
    for node in shared.nodes[1:]:
        node.end()
    if len(shared.nodes) > 1:
        del shared.nodes[1:]
        time.sleep(4)  # until the head misses them


@pytest.fixture(scope="session")
def apart() -> None:
    """Skip where a node cannot have a name and mounts of its own."""
    call = subprocess.run([*APART, "true"], capture_output=True, text=True, check=False)
    if call.returncode:
        pytest.skip(f"needs root or user namespaces: {call.stderr.strip()}")


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Return what the study gives undisturbed, in this process, without Ray."""
    folder = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        api.load(write(folder, STUDY)).run(launcher="inline", out=folder, progress=False)
    return Reference(folder)


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Return what starts `sweeps run` on the study, in a folder of the test's; ends it after."""
    write(tmp_path, STUDY)
    started = []

    def start(
        cluster: Cluster, *arguments: str, before: Sequence[str] = (), **environment: str
    ) -> Driver:
        process = subprocess.Popen(
            [*before, BIN / "sweeps", "run", "x.yaml", "--json", "--pack-width", "2"]
            + (list(arguments) or ["--launcher", cluster.address]),
            cwd=tmp_path,
            env={**cluster.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return Driver(process, tmp_path / "runs" / "cluster")

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate(timeout=30)
