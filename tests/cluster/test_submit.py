"""A study sent to a cluster from elsewhere: to its end, stopped and gone on with, refused."""

from __future__ import annotations

import getpass
import hashlib
import http.client
import io
import json
import re
import shutil
import socket
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nodes import BIN, HEAD, Cluster, free_port, wait_for
from recorded import RUNS, STUDY, Reference, kept, rows, running
from studies import tiny, write

from sweeps import __version__
from sweeps.remote import travel
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


def test_stopped_in_the_middle_it_says_what_is_kept_and_goes_on(
    sweeps: Sweeps, tmp_path: Path, reference: Reference
) -> None:
    """Beside it: logs --follow ends with the job, and jobs shows it."""
    write(tmp_path, STUDY)
    out = tmp_path / "out"
    words = ["submit", "x.yaml", "--out", str(out), "--pack-width", "2"]
    call = sweeps(*words)
    assert call.returncode == 0, call.stderr
    job = call.stdout.strip()
    assert re.fullmatch(r"cluster-[0-9a-f]{8}", job)
    assert call.stderr == f"follow it with: sweeps logs {job} --follow\n"
    (one,) = [
        one for one in json.loads(sweeps("jobs", "--json").stdout)["jobs"] if one["id"] == job
    ]
    assert (one["study"], one["owner"]) == ("cluster", getpass.getuser())
    assert (one["out"], one["version"]) == (str(out), __version__)
    assert one["status"] in ("PENDING", "RUNNING")
    wait_for(
        "a finished pack, and another that is kept",
        lambda: read_records(out) and running(out) and kept(out),
    )
    call = sweeps("stop", job)
    done = len(read_records(out))
    assert 0 < done < RUNS
    assert (call.returncode, call.stdout) == (
        0,
        f"{job}: stopped; {done} of 8 runs have a score, kept in {out}; submit it again to go on\n",
    )
    assert call.stderr == f"{job}: stopping; what is trained now is saved first\n"
    call = sweeps("logs", job, "--follow")
    assert call.returncode == 0
    assert "interrupted: what is finished is kept, the report follows" in call.stdout
    assert "Traceback" not in call.stdout
    assert sweeps("stop", job).stdout == f"{job}: has ended already: stopped\n"
    shown = sweeps("jobs").stdout.splitlines()
    assert shown[0].split() == ["job", "study", "status", "started", "owner"]
    assert shown[1].split()[:3] == [job, "cluster", "stopped"]
    call = sweeps(*words, "--wait")
    assert call.returncode == 0, call.stderr
    assert call.stdout == f"cluster: 8 of 8 runs have a score; report: {out}/report.html\n"
    assert f"cluster: {RUNS - done} of 8 runs to train, auto\n" in call.stderr
    reference.assert_equal(out)


@pytest.mark.usefixtures("apart")
def test_three_studies_side_by_side_all_complete(
    cluster: Cluster, url: str, sweeps: Sweeps, tmp_path: Path
) -> None:
    """None takes the whole cluster: each may have one pack at a time."""
    cluster.join()
    jobs = {}
    for number in range(3):
        study = tiny(name=f"side-{number}", seeds=4, resources={"max_concurrent": 1})
        write(tmp_path, study, f"{number}.yaml")
        out = tmp_path / f"out-{number}"
        call = sweeps("submit", f"{number}.yaml", "--out", str(out), "--pack-width", "1", "--json")
        said = json.loads(call.stdout)
        assert said == {
            "job": said["job"],
            "study": f"side-{number}",
            "address": url,
            "out": str(out),
        }
        jobs[said["job"]] = out
    for job in jobs:
        assert sweeps("logs", job, "--follow").returncode == 0
    ended = {one["id"]: one for one in json.loads(sweeps("jobs", "--json").stdout)["jobs"]}
    assert {ended[job]["status"] for job in jobs} == {"SUCCEEDED"}
    assert [len(read_records(out)) for out in jobs.values()] == [20, 20, 20]
    spans = [(ended[job]["started"], ended[job]["ended"]) for job in jobs]
    assert max(start for start, _ in spans) < min(end for _, end in spans), "at the same time"


def images(path: Path, shade: int = 0) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    pixels = rng.integers(0, 60, (40, 8, 8)) + 120 * labels[:, None, None] + shade
    np.savez(path, images=pixels.astype(np.uint8), labels=labels)


OWN = tiny(
    name="own",
    dataset={"path": "data/mine.npz", "preprocess": ["standardise"]},
    cells=[{"objective": "ae"}],
    seeds=2,
)


def test_a_dataset_of_the_users_own_goes_to_the_study_folder(
    sweeps: Sweeps, tmp_path: Path
) -> None:
    """There every later call finds it, also where the one that travelled is gone."""
    (tmp_path / "data").mkdir()
    images(tmp_path / "data/mine.npz")
    write(tmp_path, OWN)
    out = tmp_path / "out"
    call = sweeps("submit", "x.yaml", "--out", str(out), "--wait", "--json")
    assert call.returncode == 0, call.stderr
    assert json.loads(call.stdout)["ok"] + json.loads(call.stdout)["collapsed"] == 2
    (there,) = (out / "submitted").glob("*/mine.npz")
    assert there.read_bytes() == (tmp_path / "data/mine.npz").read_bytes()
    assert (out / "mlflow.db").is_file(), "nothing is left in the job's own folder, which goes"
    call = sweeps("run", "x.yaml", "--out", "here", "--launcher", "inline")
    assert call.returncode == 0, call.stderr
    assert rows(tmp_path / "here") == rows(out)
    shutil.rmtree(tmp_path / "data")
    call = sweeps("run", str(out), "--launcher", "inline", "--json")
    assert (call.returncode, json.loads(call.stdout)["trained"]) == (0, 0), call.stderr


def test_a_dataset_that_was_changed_on_the_way(
    sweeps: Sweeps, shared: Cluster, tmp_path: Path
) -> None:
    """Who can write to the cluster's store of packages has put another there, under its name."""
    (tmp_path / "data").mkdir()
    images(tmp_path / "data/mine.npz", shade=7)
    write(tmp_path, OWN)
    luggage = travel.pack(tmp_path / "x.yaml", None, HEAD, tmp_path)
    by_ray = hashlib.sha1(luggage.package.read_bytes(), usedforsecurity=False).hexdigest()
    with zipfile.ZipFile(luggage.package) as archive:
        contents = {one: archive.read(one) for one in archive.namelist()}
    (data,) = [one for one in contents if one.endswith("mine.npz")]
    before = hashlib.sha256(contents[data]).hexdigest()
    images(tmp_path / "data/mine.npz", shade=8)
    contents[data] = (tmp_path / "data/mine.npz").read_bytes()
    images(tmp_path / "data/mine.npz", shade=7)
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        for one, content in contents.items():
            archive.writestr(one, content)
    link = http.client.HTTPConnection(HEAD, shared.dashboard, timeout=60)
    bearer = {"Authorization": f"Bearer {shared.token}"}
    link.request("PUT", f"/api/packages/gcs/_ray_pkg_{by_ray}.zip", other.getvalue(), bearer)
    assert link.getresponse().status == 200
    link.close()
    out = tmp_path / "out"
    call = sweeps("submit", "x.yaml", "--out", str(out), "--wait", "--json")
    after = hashlib.sha256(contents[data]).hexdigest()
    assert (call.returncode, call.stdout) == (2, "")
    assert call.stderr.splitlines()[-1] == (
        f"{data}: changed on its way to the cluster: expected the SHA-256 {before[:16]}..., "
        f"got {after[:16]}...; nothing was trained; submit again"
    )
    assert not out.exists()


WRONG = "f" * 32


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"RAY_AUTH_TOKEN": WRONG},
            "{url}: the cluster does not take the token of RAY_AUTH_TOKEN; give its own",
        ),
        (
            {"RAY_AUTH_TOKEN": "", "RAY_AUTH_MODE": "disabled", "HOME": "/nonexistent"},
            "{url}: the cluster wants a token; "
            "set RAY_AUTH_TOKEN_PATH to the file that holds the cluster's",
        ),
        (
            {"RAY_AUTH_TOKEN": "", "HOME": "/nonexistent"},
            "RAY_AUTH_MODE is token, and there is no token; "
            "set RAY_AUTH_TOKEN_PATH to the file that holds the cluster's",
        ),
    ],
)
def test_a_token_that_is_not_the_clusters(
    variables: dict[str, str],
    sentence: str,
    sweeps: Sweeps,
    url: str,
    shared: Cluster,
    tmp_path: Path,
) -> None:
    write(tmp_path, tiny())
    start = time.monotonic()
    call = sweeps("submit", "x.yaml", "--out", str(tmp_path / "out"), **variables)
    assert time.monotonic() - start < 60
    assert (call.returncode, call.stdout) == (2, "")
    assert call.stderr == sentence.format(url=url) + "\n"
    assert WRONG not in call.stderr
    assert shared.token not in call.stderr


def test_what_else_may_be_at_an_address(sweeps: Sweeps, shared: Cluster) -> None:
    start = time.monotonic()
    port = free_port(HEAD)
    call = sweeps("jobs", "--address", f"http://{HEAD}:{port}")
    assert (call.returncode, call.stdout, call.stderr) == (
        2,
        "",
        f"http://{HEAD}:{port}: nothing answers there: Connection refused; "
        "correct the address, or start the cluster\n",
    )
    call = sweeps("jobs", "--address", f"http://{HEAD}:{shared.port}")
    assert (call.returncode, call.stdout, call.stderr) == (
        2,
        "",
        f"http://{HEAD}:{shared.port}: what answers there is no Ray dashboard; "
        "expected the dashboard's, such as http://HEAD:8265\n",
    )
    with socket.create_server((HEAD, 0)) as silent:
        port = silent.getsockname()[1]
        call = sweeps("jobs", "--address", f"http://{HEAD}:{port}")
    assert call.stderr == (
        f"http://{HEAD}:{port}: what listens there does not answer; "
        "expected the dashboard's, such as http://HEAD:8265\n"
    )
    assert time.monotonic() - start < 60, "all three of them"


def test_a_job_that_is_not_there(sweeps: Sweeps, url: str) -> None:
    for words in (("logs", "nobody"), ("stop", "nobody"), ("logs", "../../version", "--follow")):
        call = sweeps(*words)
        assert (call.returncode, call.stdout) == (2, "")
        assert call.stderr == f"{words[1]}: no such job at {url}; see: sweeps jobs\n"


def test_a_folder_that_holds_another_study_stays_as_it_is(sweeps: Sweeps, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write(out, tiny(name="another"), "study.yaml")
    write(tmp_path, tiny())
    call = sweeps("submit", "x.yaml", "--out", str(out), "--wait")
    assert (call.returncode, call.stdout) == (2, "")
    assert call.stderr.splitlines()[-1] == (
        f"{out}: holds the study 'another', not 'tiny'; choose another --out"
    )
    assert [one.name for one in out.iterdir()] == ["study.yaml"]
