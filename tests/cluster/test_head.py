"""The head dies in the middle: the sweep ends with what is done, and goes on elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from nodes import Driver, wait_for
from nodes import running as cluster_running
from recorded import RUNS, Reference, attempts, kept, running

from sweeps.results import DONE, read_records


@pytest.mark.timeout(1200)
def test_what_is_finished_outlives_the_head(
    drive: Callable[..., Driver], reference: Reference
) -> None:
    with cluster_running() as first:
        driver = drive(first)
        wait_for(
            "a finished pack, and another that is kept",
            lambda: read_records(driver.folder) and running(driver.folder) and kept(driver.folder),
        )
        done = set(read_records(driver.folder))
        first.end()
        killed = time.monotonic()
        code, _, err = driver.finish()
        took = time.monotonic() - killed
    assert code == 2, err
    assert took < 120
    assert "Traceback" not in err
    assert err.splitlines()[-1] == (
        f"--launcher {first.address}: nothing answers there: Connection refused; correct the "
        "address, or start one with: ray start --head --port 6379"
    )
    finished = {i for i, row in read_records(driver.folder).items() if row["status"] in DONE}
    assert done <= finished
    assert len(finished) < RUNS
    steps = kept(driver.folder)
    assert steps
    with cluster_running() as second:
        again = drive(second, "--launcher", second.address)
        code, _, err = again.finish()
    assert code == 0, err
    reference.assert_equal(driver.folder)
    first_after = {
        run_id: min((step for step, attempt in points if attempt), default=0)
        for run_id, points in attempts(driver.folder).items()
    }
    assert all(first_after[run_id] > step for run_id, step in steps.items()), "none from scratch"
    assert all(first_after[run_id] == 0 for run_id in finished)
