"""A clock that jumps, for real: the command under libfaketime."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from processes import COMMAND
from studies import tiny, write

from sweeps.results import NOT_DETERMINISTIC


@pytest.mark.timeout(300)
@pytest.mark.parametrize("jump", ["-4000d", "+4000d"])
def test_a_clock_that_jumps_changes_no_number(tmp_path: Path, jump: str) -> None:
    """Seeds are added after the jump, and nothing is trained again."""
    faketime = shutil.which("faketime")
    assert faketime, "Debian's package faketime is missing"
    write(tmp_path, tiny(cells=[{"objective": "ae"}]))

    def run(out: str, *before: str, seeds: int) -> dict[str, object]:
        words = f"run x.yaml --json --launcher inline --out {out} --seeds {seeds}".split()
        done = subprocess.run(
            [*before, COMMAND, *words],
            cwd=tmp_path,
            env={**os.environ, "SEEDSWEEP_CHECKPOINT_SECONDS": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        content: dict[str, object] = json.loads(done.stdout)
        assert content["tracking"] == "written", done.stderr
        return content

    assert run("calm", seeds=3)["trained"] == 3
    assert run("jumped", seeds=2)["trained"] == 2
    assert run("jumped", faketime, "-f", jump, seeds=3)["trained"] == 1
    assert run("jumped", seeds=3)["trained"] == 0
    tables = [
        pq.read_table(tmp_path / out / "results.parquet").drop_columns([*NOT_DETERMINISTIC])
        for out in ("calm", "jumped")
    ]
    assert tables[0].equals(tables[1])
    times = pq.read_table(tmp_path / "jumped" / "results.parquet")["finished_at"].to_pylist()
    assert max(times).year - min(times).year >= 10, "the clock did jump"
