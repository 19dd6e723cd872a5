"""Local Ray interrupted, and its workers killed, for real."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

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
