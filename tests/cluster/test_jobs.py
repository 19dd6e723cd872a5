"""The command as a Ray job of anybody's making: stopped without grace; run again, it goes on."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from nodes import BIN, HEAD, Cluster, wait_for
from ray.job_submission import JobStatus, JobSubmissionClient
from recorded import PACKS, RUNS, STUDY, Reference, attempts, kept, running
from studies import write

from sweeps.results import read_records

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def client(shared: Cluster, monkeypatch: pytest.MonkeyPatch) -> JobSubmissionClient:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", shared.token)
    return JobSubmissionClient(
        f"http://{HEAD}:{shared.dashboard}", headers={"Authorization": f"Bearer {shared.token}"}
    )


def submit(client: JobSubmissionClient, folder: Path) -> str:
    """Submit the command, as a user would type it there."""
    words = [str(BIN / "sweeps"), "run", str(folder / "x.yaml"), "--launcher", "auto"]
    words += ["--pack-width", "2", "--out", str(folder / "out"), "--json"]
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    environment |= {"SEEDSWEEP_CHECKPOINT_SECONDS": "1"}
    jobs: list[str] = []

    def submitted() -> list[str]:
        with contextlib.suppress(RuntimeError):  # the head's agent is not there yet
            jobs.append(
                client.submit_job(
                    entrypoint=shlex.join(words), runtime_env={"env_vars": environment}
                )
            )
        return jobs

    wait_for("an agent that takes a job", submitted)
    return jobs[0]


def ended(client: JobSubmissionClient, job: str) -> JobStatus:
    """Wait for a job's end; return how it ended."""
    wait_for("the job's end", lambda: client.get_job_status(job).is_terminal())
    status: JobStatus = client.get_job_status(job)
    return status


def wait_for_half(folder: Path) -> None:
    """Wait until a pack is finished, and a checkpoint of another is there."""
    wait_for(
        "a finished pack, and another that is kept",
        lambda: read_records(folder) and running(folder) and kept(folder),
    )


def status(folder: Path) -> dict[str, Any]:
    """Return what `sweeps status` says."""
    call = subprocess.run(
        [BIN / "sweeps", "status", str(folder), "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert call.stderr == ""
    content: dict[str, Any] = json.loads(call.stdout)
    return content


def test_a_job_that_is_stopped_keeps_what_is_done_and_goes_on(
    client: JobSubmissionClient, tmp_path: Path, reference: Reference
) -> None:
    """As Ray stops one, after 3 s: then records and checkpoints are all there is.

    With the grace that `sweeps submit` asks for: tests/cluster/test_submit.py.
    """
    write(tmp_path, STUDY)
    out = tmp_path / "out"
    job = submit(client, tmp_path)
    wait_for_half(out)
    client.stop_job(job)
    assert ended(client, job) == JobStatus.STOPPED, client.get_job_logs(job)
    logs = client.get_job_logs(job)
    print(logs)  # noqa: T201 - shown where the test fails
    done = read_records(out)
    assert 0 < len(done) < RUNS
    assert all(row["status"] in ("ok", "collapsed") for row in done.values())
    said = status(out)
    assert (said["planned"], said["missing"], said["failed"]) == (RUNS, RUNS - len(done), 0)
    again = submit(client, tmp_path)
    assert ended(client, again) == JobStatus.SUCCEEDED, client.get_job_logs(again)
    reference.assert_equal(out)
    picked_up = {run_id for run_id, points in attempts(out).items() if points[-1][1]}
    assert picked_up.isdisjoint(done), "what was finished is not trained again"
    assert len(list((out / "records").iterdir())) == PACKS
