"""Local Ray interrupted, and its workers killed, for real."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from processes import LOOPBACK, listening, processes_of, started
from studies import tiny, write


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


@pytest.mark.timeout(300)
def test_what_ray_says_of_a_killed_worker_stands_in_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own memory monitor, which finds that every worker uses too much."""
    write(tmp_path, tiny(cells=[{"objective": "ae"}], seeds=2))
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    with started(tmp_path) as call:
        _, err = call.communicate(timeout=240)
    assert call.returncode == 1, err
    assert "Traceback" not in err
    rows = pq.read_table(tmp_path / "runs" / "tiny" / "results.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["failed", "failed"]
    for row in rows:
        assert "killed due to the node running low on memory" in row["error"]
        assert "exceeded threshold" in row["traceback"], "Ray's whole account"
