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

from sweeps.folder.kept import index

STEPS = 30_000  # some fifteen seconds


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


@pytest.mark.timeout(400)
def test_a_worker_killed_near_its_end_repeats_at_most_one_period(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told by the learning curve: no point up to the checkpoint was trained again."""
    period, slack = 1.0, 2.0  # seconds; a noisy machine may keep a step or a write waiting
    monkeypatch.setenv("SEEDSWEEP_CHECKPOINT_SECONDS", str(period))
    long = {"objective": "wae", "training": {"steps": STEPS}}
    write(tmp_path, tiny(cells=[long], resources={"max_concurrent": 1}))
    folder = tmp_path / "runs" / "tiny"
    with started(tmp_path) as call:
        deadline, before = time.monotonic() + 240, 0
        while before < 0.9 * STEPS:
            assert time.monotonic() < deadline, "no worker came so far"
            assert call.poll() is None, "it ended before"
            time.sleep(0.02)
            before = max((one.step for one in index(folder).values()), default=0)
        time.sleep(period / 2)
        (pack,) = json.loads((folder / "progress.json").read_text())["running"]
        os.kill(pack["pid"], signal.SIGKILL)
        killed = time.time()
        kept = {one.run_id: one.step for one in index(folder).values()}
        written = max(one.path.stat().st_mtime for one in index(folder).values())
        out, err = call.communicate(timeout=120)
    assert call.returncode == 0, err
    assert "Traceback" not in err
    content = json.loads(out)
    assert (content["trained"], content["ok"] + content["collapsed"]) == (3, 3)
    assert killed - written < period + slack
    points = pq.read_table(folder / "history").to_pylist()
    for run_id, step in kept.items():
        assert step >= 0.9 * STEPS
        own = [row for row in points if row["run_id"] == run_id]
        assert [row["attempt"] for row in own] == [int(row["step"] > step) for row in own]
    (timeline,) = (json.loads(p.read_text()) for p in (folder / "timeline").glob("*.json"))
    (load,) = (span for span in timeline["spans"] if span["what"] == "load")
    assert set(load["steps"].values()) == set(kept.values()), "and it went on from there"


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
