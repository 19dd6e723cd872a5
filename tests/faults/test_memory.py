"""Memory that runs out for real: the pack is halved, and the numbers stay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from studies import as_yaml

from sweeps.results import NOT_DETERMINISTIC

SEEDS, SIDE = 8, 100
# The kernel's own limit on the address space, from where the process stands after its imports; only
# around the training: threads of the baselines would need some too.
LIMITED = """
import contextlib, resource, sys
from pathlib import Path
from sweeps.review import review
from sweeps.run import train_missing
from sweeps.session import open_study

class Silent(contextlib.AbstractContextManager):
    steps = finished = lost = lambda *_: None
    def __exit__(self, *_): pass

sweep = open_study("x.yaml", None, Path(sys.argv[2]))
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
free, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]) * 2**20, hard))
train_missing(sweep, launcher="inline", width=8, display=lambda *_: Silent())
resource.setrlimit(resource.RLIMIT_AS, (free, hard))
print(sorted({row["status"] for row in review(sweep).results.runs.to_pylist()}))
"""


def test_a_pack_that_does_not_fit_goes_on_in_halves(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.random((64, SIDE, SIDE), dtype=np.float32)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(64) % 2)
    study = {
        "name": "large",
        "dataset": {"path": "x.npz"},
        "seeds": SEEDS,
        "spec": {"network": {"hidden": [128]}, "training": {"steps": 4, "batch_size": 32}},
        "cells": [{"objective": "ae"}],
    }
    (tmp_path / "x.yaml").write_text(as_yaml(study))
    widths, tables = {}, {}
    for name, megabytes in {"wide": 16_000, "narrow": 520}.items():
        done = subprocess.run(
            [sys.executable, "-c", LIMITED, str(megabytes), name],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "failed" not in done.stdout
        table = pq.read_table(tmp_path / name / "results.parquet")
        widths[name] = table["pack"].value_counts().to_pylist()
        tables[name] = table.drop_columns([*NOT_DETERMINISTIC]).sort_by("seed")
    assert [one["counts"] for one in widths["wide"]] == [8]
    assert max(one["counts"] for one in widths["narrow"]) < 8
    assert tables["wide"].equals(tables["narrow"])
    kept = pq.read_table(tmp_path / "narrow" / "records")
    assert kept.num_rows == SEEDS, "no record of the pack that failed is left"
