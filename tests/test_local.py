"""Local Ray, for real: the command as a user types it, and the same bits as without Ray."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from studies import tiny, write

from sweeps.results import NOT_DETERMINISTIC, read

COMMAND = Path(sys.executable).parent / "sweeps"


def sweeps(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


def started(folder: Path) -> subprocess.Popen[str]:
    """Start the study of x.yaml in a process session of its own."""
    return subprocess.Popen(
        [COMMAND, "run", "x.yaml", "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def deterministic(folder: Path) -> list[dict[str, Any]]:
    rows = read(folder).runs.drop_columns(list(NOT_DETERMINISTIC)).to_pylist()
    return sorted(rows, key=lambda row: row["run_id"])


def weights(folder: Path) -> dict[str, str]:
    """Return the digest of every run's parameters and running statistics, whatever its pack."""
    digests: dict[str, Any] = {}
    for path in (folder / "members").iterdir():
        for name, tensor in sorted(load_file(path).items()):
            run_id, _, block = name.partition("/")
            digest = digests.setdefault(run_id, hashlib.sha256())
            digest.update(block.encode() + tensor.tobytes())
    return {run_id: digest.hexdigest() for run_id, digest in digests.items()}


def codes(folder: Path) -> dict[str, list[float]]:
    rows = pq.read_table(folder / "codes").to_pylist()
    return {row["run_id"]: row["code"] for row in rows}


def processes_of(session: int) -> list[str]:
    """Return what still runs in a process session."""
    lines = subprocess.run(
        ["ps", "-eo", "sid=,pid=,args="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [line for line in lines if line.split()[0] == str(session)]


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def listening(session: int) -> set[str]:
    """Return the addresses, as the kernel writes them, on which a session's processes listen."""
    sockets = set()
    for line in processes_of(session):
        for entry in Path(f"/proc/{line.split()[1]}/fd").glob("*"):
            with contextlib.suppress(OSError):  # closed meanwhile
                sockets.add(str(entry.readlink()))
    rows = [
        row.split()
        for table in ("tcp", "tcp6")
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    listens = "0A"
    return {
        row[1].partition(":")[0]
        for row in rows
        if row[3] == listens and f"socket:[{row[9]}]" in sockets
    }


@pytest.mark.timeout(300)
def test_ray_beside_foreign_packages_gives_the_bits_of_inline(tmp_path: Path) -> None:
    """Must hold 3 and 8: somebody else's models/ and sweeps/ in the folder are never imported."""
    for name in ("models", "sweeps"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong package')\n")
    odd = {"hidden": [30, 13], "batch_norm": True}
    cells = [
        {"objective": "ae", "activation": ["leaky_relu", "elu"]},
        {"objective": ["vae", "wae"], "prior": "bimodal", "network": odd},
    ]
    write(tmp_path, tiny(cells=cells))
    ray = sweeps(tmp_path, "run", "x.yaml", "--json", "--out", "ray")
    assert ray.returncode == 0, ray.stderr
    content = json.loads(ray.stdout)
    assert content["trained"] == content["planned"] == 12
    assert content["tracking"] == "written"
    assert "wrong package" not in ray.stderr
    inline = sweeps(
        tmp_path,
        "run",
        "x.yaml",
        "--json",
        "--out",
        "in",
        "--launcher",
        "inline",
        "--pack-width",
        "2",
    )
    assert inline.returncode == 0, inline.stderr
    assert deterministic(tmp_path / "ray") == deterministic(tmp_path / "in")
    assert weights(tmp_path / "ray") == weights(tmp_path / "in")
    assert codes(tmp_path / "ray") == codes(tmp_path / "in")
    assert len(weights(tmp_path / "ray")) == len(codes(tmp_path / "ray")) == 12
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        (runs,) = store.execute("select count(*) from runs").fetchone()
    assert runs == 1 + 4 + 12, "the second folder of one study adds no MLflow runs"
    again = sweeps(tmp_path, "run", "x.yaml", "--json", "--out", "ray")
    assert json.loads(again.stdout)["trained"] == 0
    assert again.stderr == "", "nothing to train, nothing to start"


def test_more_than_ray_has_is_refused(tmp_path: Path) -> None:
    write(tmp_path, tiny(resources={"cpus": 1000, "gpus": 3}))
    call = sweeps(tmp_path, "run", "x.yaml")
    assert call.returncode == 2
    cpus = os.cpu_count()
    assert call.stderr.splitlines() == [
        "tiny: 15 of 15 runs to train, local",
        f"resources.cpus: a pack asks for 1000, Ray has {cpus}",
        "resources.gpus: a pack asks for 3, Ray has 0",
    ]
    assert call.stdout == ""


@pytest.mark.timeout(300)
def test_an_interrupt_ends_ray_and_keeps_what_is_done(tmp_path: Path) -> None:
    cells = [{"objective": "ae"}, {"objective": "wae", "training": {"steps": 3_000_000}}]
    write(tmp_path, tiny(cells=cells, resources={"max_concurrent": 1}))
    with started(tmp_path) as call:
        records = tmp_path / "runs" / "tiny" / "records"
        deadline = time.monotonic() + 90
        while not (records.is_dir() and any(records.glob("*.parquet"))):
            assert time.monotonic() < deadline, "no pack finished"
            time.sleep(0.2)
        time.sleep(1)
        addresses = listening(call.pid)
        call.send_signal(signal.SIGINT)
        out, err = call.communicate(timeout=60)
    assert addresses, "Ray listens somewhere"
    assert addresses <= LOOPBACK
    assert call.returncode == 130, err
    assert json.loads(out)["trained"] == 3
    assert "interrupted" in err
    assert "Traceback" not in err
    assert not processes_of(call.pid)
    assert (tmp_path / "runs" / "tiny" / "report.html").is_file()


@pytest.mark.timeout(300)
def test_a_killed_worker_costs_time_and_no_run(tmp_path: Path) -> None:
    """The pack goes round again; Ray's words about it are no part of the answer."""
    long = {"objective": "wae", "training": {"steps": 4000}}
    write(tmp_path, tiny(cells=[long], resources={"max_concurrent": 1}))
    with started(tmp_path) as call:
        deadline, killed = time.monotonic() + 90, False
        while not killed:
            assert time.monotonic() < deadline, "no worker began"
            time.sleep(0.2)
            for line in processes_of(call.pid):
                if "ray::ImplicitFunc.train" in line:
                    os.kill(int(line.split()[1]), signal.SIGKILL)
                    killed = True
        out, err = call.communicate(timeout=120)
    assert call.returncode == 0, err
    content = json.loads(out)
    assert (content["trained"], content["ok"] + content["collapsed"]) == (3, 3)
    assert "Traceback" not in err


def test_inline_imports_no_ray(tmp_path: Path) -> None:
    """MLflow, which it does import, is the control."""
    write(tmp_path, tiny(cells=[{"objective": "ae"}], seeds=1))
    script = (
        "import sys; from sweeps.cli import main; "
        "main(['run', 'x.yaml', '--json', '--launcher', 'inline']); "
        "print('ray' in sys.modules, 'mlflow' in sys.modules)"
    )
    call = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=110,
    )
    assert call.stdout.splitlines()[-1] == "False True"
