"""Two nodes train one study: undisturbed, with one killed, and with a second driver."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nodes import SECOND, Cluster, Driver, children, mount_over, wait_for
from recorded import PACKS, RUNS, STEPS, Reference, attempts, kept, records, running

pytestmark = [pytest.mark.timeout(1200), pytest.mark.usefixtures("apart")]


def packs_of(driver: Driver, raylet: int) -> list[str]:
    """Return which packs train in a node's workers now."""
    assert driver.process.poll() is None, driver.process.communicate()
    workers = children(raylet)
    return [one["pack"] for one in running(driver.folder) if one["pid"] in workers]


def test_both_nodes_train_and_the_bits_are_those_of_inline(
    cluster: Cluster, drive: Callable[..., Driver], reference: Reference
) -> None:
    """Beside it: a second driver on the same study folder says who holds it."""
    second = cluster.join()
    driver = drive(cluster)
    wait_for("a pack on the second node", lambda: packs_of(driver, second.raylet))
    code, out, err = drive(cluster, "--launcher", "inline").finish()
    assert (code, out) == (2, "")
    holder, _, rest = err.partition(" since ")
    assert holder == (
        "runs/cluster: held by 'sweeps run cluster', "
        f"process {driver.process.pid} on {os.uname().nodename}"
    )
    assert rest.endswith(f" UTC; wait for it, or end it with: kill -INT {driver.process.pid}\n")
    code, _, err = driver.finish()
    assert code == 0, err
    reference.assert_equal(driver.folder)
    hosts = [row["host"] for row in records(driver.folder)]
    assert set(hosts) == {os.uname().nodename, "second"}
    assert {point for points in attempts(driver.folder).values() for _, point in points} == {0}
    assert not (driver.folder / ".token").exists()
    assert not (driver.folder / "checkpoints").exists()


def test_a_killed_node_costs_no_more_than_what_came_after_the_last_checkpoint(
    cluster: Cluster, drive: Callable[..., Driver], reference: Reference
) -> None:
    """Must hold 3."""
    second = cluster.join()
    driver = drive(cluster)

    def half_way() -> bool:
        """Tell whether the second node's pack has been saved, some way in."""
        packs = packs_of(driver, second.raylet)
        return bool(packs) and min(saved_of(driver, packs[0]).values(), default=0) > STEPS // 4

    wait_for("a checkpoint of the second node's pack", half_way)
    (pack,) = packs_of(driver, second.raylet)
    saved = saved_of(driver, pack)
    killed = time.monotonic()
    os.kill(second.raylet, signal.SIGKILL)
    code, _, err = driver.finish()
    print(f"killed at steps {saved}, ended {time.monotonic() - killed:.1f} s later")  # noqa: T201
    assert code == 0, err
    reference.assert_equal(driver.folder)
    again = {run_id: points for run_id, points in attempts(driver.folder).items() if points[-1][1]}
    assert again.keys() == saved.keys(), "the pack's runs, and no others, were picked up again"
    for run_id, points in again.items():
        assert {attempt for _, attempt in points} == {0, 1}, "picked up once"
        assert min(step for step, attempt in points if attempt) > saved[run_id]
    assert len(records(driver.folder)) == RUNS
    assert len({row["pack"] for row in records(driver.folder)}) == PACKS


def saved_of(driver: Driver, pack: str) -> dict[str, int]:
    """Return the steps that a running pack's checkpoint holds, by run."""
    ids = {i for one in running(driver.folder) if one["pack"] == pack for i in one["run_ids"]}
    return {run_id: step for run_id, step in kept(driver.folder).items() if run_id in ids}


def test_a_node_that_joins_without_the_storage_costs_one_round(
    cluster: Cluster, drive: Callable[..., Driver], reference: Reference, tmp_path: Path
) -> None:
    """It takes a dead node's place, gets its pack, and is left out from then on."""
    second = cluster.join()
    driver = drive(cluster, "--pack-width", "1", "--launcher", cluster.address)
    wait_for("a pack on the second node", lambda: packs_of(driver, second.raylet))
    second.end()
    cluster.join(mount_over(tmp_path, "hidden"))
    code, _, err = driver.finish()
    assert code == 0, err
    reference.assert_equal(driver.folder)
    assert (
        f"node second ({SECOND}): does not see the study folder {driver.folder}; "
        "put it on storage that all nodes share, with --out; it gets no packs\n"
    ) in err
