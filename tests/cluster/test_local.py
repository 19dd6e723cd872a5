"""Local Ray, for real: the command as a user types it, and the same bits as without Ray."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from studies import tiny, write

from sweeps.results import NOT_DETERMINISTIC, read

COMMAND = Path(sys.executable).parent / "sweeps"
INLINE = """
import sys
from sweeps.cli import main
code = main(["run", "x.yaml", "--json", "--out", "in", "--launcher", "inline", "--pack-width", "2"])
print("ray" in sys.modules, "mlflow" in sys.modules)
sys.exit(code)
"""


def sweeps(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
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
    inline = subprocess.run(
        [sys.executable, "-P", "-c", INLINE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert inline.stdout.splitlines()[-1] == "False False", "neither Ray nor MLflow is imported"
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
