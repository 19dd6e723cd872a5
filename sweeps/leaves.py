"""What a pack leaves beside its records: weights, codes and learning curves, a file each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from models.spec import Spec
from models.train import Trained
from sweeps.folder.storage import to_parquet, to_safetensors, write_whole


def write_pack(
    folder: Path, pack_id: str, spec: Spec, run_ids: Sequence[str], members: Sequence[Trained]
) -> None:
    """Write a pack's files; the records that vouch for them come after.

    Raises OSError where the folder cannot be written.
    """
    pairs = list(zip(run_ids, members, strict=True))
    tensors = {f"{run_id}/{key}": array for run_id, m in pairs for key, array in m.tensors.items()}
    notes = {"spec": spec.canonical_json(), "seeds": json.dumps([m.seed for m in members])}
    write_whole(folder / "members" / f"{pack_id}.safetensors", to_safetensors(tensors, notes))
    write_whole(folder / "codes" / f"{pack_id}.parquet", to_parquet(_codes(pairs)))
    write_whole(folder / "history" / f"{pack_id}.parquet", to_parquet(_history(pairs)))


def _codes(pairs: Sequence[tuple[str, Trained]]) -> pa.Table:
    """Lay codes out with a row a run: `code` is the flat (N, units) array, row by row."""
    kept = [(run_id, m.seed, m.code) for run_id, m in pairs if m.code is not None]
    return pa.table(
        {
            "run_id": pa.array([run_id for run_id, _, _ in kept], pa.string()),
            "seed": pa.array([seed for _, seed, _ in kept], pa.int64()),
            "units": pa.array([code.shape[1] for _, _, code in kept], pa.int64()),
            "code": pa.array([code.ravel() for _, _, code in kept], pa.list_(pa.float32())),
        }
    )


def _history(pairs: Sequence[tuple[str, Trained]]) -> pa.Table:
    """Lay learning curves out with a row a point.

    `attempt` counts how often the run had been picked up from a checkpoint before the point: a
    point of attempt 0 was never trained again.
    """
    curves = np.concatenate([member.history.reshape(-1, 4) for _, member in pairs])
    lengths = [len(member.history) for _, member in pairs]
    columns: dict[str, pa.Array[Any]] = {
        "run_id": pa.array(np.repeat([run_id for run_id, _ in pairs], lengths), pa.string()),
        "seed": pa.array(np.repeat([m.seed for _, m in pairs], lengths), pa.int64()),
        "step": pa.array(curves[:, 0].astype(np.int64)),
    }
    columns["attempt"] = pa.array(
        np.concatenate(
            [np.searchsorted(m.resumed, m.history.reshape(-1, 4)[:, 0]) for _, m in pairs]
        ).astype(np.int64)
    )
    for place, part in enumerate(("loss", "reconstruction", "divergence"), start=1):
        # No number: no divergence in this objective, or a member that diverged.
        columns[part] = pa.array(curves[:, place], mask=~np.isfinite(curves[:, place]))
    return pa.table(columns)
