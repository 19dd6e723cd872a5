"""GPUs that are logical: Ray counts and places as with real ones, and packs train on the CPU.

What this cannot show is a training on CUDA: `make test-gpu` is for a machine that has it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from nodes import SECOND, Cluster, Driver, Node
from recorded import PACKS, STUDY, Reference, records
from studies import write

pytestmark = [pytest.mark.timeout(1200), pytest.mark.usefixtures("apart")]

HERE = "SEEDSWEEP_DEVICE=cpu"


@pytest.fixture
def gpus(cluster: Cluster) -> Node:
    """Return a node of two logical GPUs and four cores, whose packs train on the CPU."""
    return cluster.join(f"export {HERE}", "--num-gpus=2", "--num-cpus=4")


def asking(folder: Path, resources: Mapping[str, float]) -> None:
    write(folder, {**STUDY, "resources": dict(resources)})


def placed(folder: Path) -> list[dict[str, Any]]:
    """Return each pack's timeline with the moments between which it ran."""
    found = []
    for path in (folder / "timeline").iterdir():
        one = json.loads(path.read_text())
        begin = datetime.fromisoformat(one["began"])
        found.append({**one, "begin": begin, "end": begin + timedelta(seconds=one["seconds"])})
    return found


def most_at_once(packs: list[dict[str, Any]]) -> int:
    """Return how many packs ran at a time, at most."""
    return max(sum(one["begin"] <= at["begin"] < one["end"] for one in packs) for at in packs)


@pytest.mark.parametrize(
    ("share", "on_each", "at_once"),
    [({"cpus": 0.5, "gpus": 0.5}, 2, 4), ({"cpus": 0.5, "gpus": 1}, 1, 2)],
    ids=["two packs a GPU", "whole GPUs"],
)
def test_what_was_asked_is_what_was_placed(
    share: dict[str, float],
    on_each: int,
    at_once: int,
    gpus: Node,
    cluster: Cluster,
    drive: Callable[..., Driver],
    reference: Reference,
    tmp_path: Path,
) -> None:
    """The head has a core and no GPU: it gets nothing of it."""
    assert gpus.address == SECOND
    asking(tmp_path, share)
    driver = drive(cluster, "--launcher", cluster.address, "--out", "out")
    code, _, err = driver.finish()
    assert code == 0, err
    folder = tmp_path / "out"
    reference.assert_equal(folder)
    assert {row["host"] for row in records(folder)} == {"second"}
    assert {row["device"] for row in records(folder)} == {"cpu"}
    packs = placed(folder)
    assert len(packs) == PACKS
    assert all(len(one["gpus"]) == 1 for one in packs)
    assert {one["gpus"][0] for one in packs} == {"0", "1"}
    for number in ("0", "1"):
        assert most_at_once([one for one in packs if one["gpus"] == [number]]) <= on_each
    assert most_at_once(packs) <= at_once


def test_a_gpu_that_torch_does_not_see_is_refused_before_anything_trains(
    cluster: Cluster, drive: Callable[..., Driver], tmp_path: Path
) -> None:
    cluster.join("true", "--num-gpus=1")
    asking(tmp_path, {"gpus": 1})
    code, out, err = drive(cluster, "--launcher", cluster.address, "--out", "o").finish()
    assert (code, out) == (2, "")
    assert err.splitlines()[1] == (
        f"node second ({SECOND}): has a GPU as Ray says, and its torch {torch.__version__} sees "
        "none: install a build of torch with CUDA there, or try out the placement alone with "
        f"{HERE}"
    )
    assert not (tmp_path / "o" / "records").exists()
