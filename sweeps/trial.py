"""Step 5: one pack on a worker. Knows no Ray; every failure becomes a row."""

from __future__ import annotations

import json
import os
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from models.clusters import evidence
from models.scores import METRICS, Scorer
from models.spec import Spec
from models.train import TRAINER_VERSION, Trained, train
from sweeps.results import Record, to_parquet, write_part
from sweeps.storage import to_safetensors, write_whole

# What besides the machine chooses kernels: the promise of equal bits holds between equal values.
KERNEL_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
)
MOST_TRACEBACK = 20_000


@dataclass(frozen=True)
class Job:
    """A pack as it travels to a worker."""

    folder: str
    pack_id: str
    cell_id: str
    spec: Spec
    seeds: tuple[int, ...]
    run_ids: tuple[str, ...]
    device: str
    git_commit: str | None


@dataclass(frozen=True)
class Data:
    """What every pack of a study reads: pixels (N, D) for training, the scorer for afterwards.

    `rows` are the places of the images to train on, None for all.
    """

    pixels: NDArray[np.float32]
    image_digest: str
    scorer: Scorer
    rows: NDArray[np.int64] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Send images that are mapped from a file as its name: a worker maps the same file."""
        state = dict(self.__dict__)
        file = getattr(self.pixels, "filename", None)
        if file is not None:
            state["pixels"] = (os.fspath(file), self.pixels.shape)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map the file that was named.

        Raises FileNotFoundError on a machine that has it not.
        """
        if isinstance(state["pixels"], tuple):
            file, shape = state["pixels"]
            images = np.load(file, mmap_mode="c", allow_pickle=False)
            state = {**state, "pixels": images.reshape(shape)}
        self.__dict__.update(state)


def run_pack(job: Job, data: Data, progress: Callable[[int], None] | None = None) -> list[Record]:
    """Train, score and write one pack; return its records, `failed` ones where training raised.

    Raises OSError where the study folder cannot be written.
    """
    start = time.perf_counter()
    try:
        members = train(
            job.spec,
            job.seeds,
            data.pixels,
            rows=data.rows,
            device=job.device,
            progress=progress,
        )
        scored = [_outcome(job.spec, member, data.scorer) for member in members]
        _write_files(job, members)
    except Exception as failure:  # noqa: BLE001 - whatever it is, it becomes the members' record
        scored = [failed_outcome(failure)] * len(job.seeds)
    seconds = (time.perf_counter() - start) / len(job.seeds)
    records = [
        _circumstances(job, data, seconds) | {"run_id": run_id, "seed": seed} | outcome
        for run_id, seed, outcome in zip(job.run_ids, job.seeds, scored, strict=True)
    ]
    write_part(Path(job.folder), job.pack_id, records)
    return records


def failed_outcome(failure: BaseException) -> Record:
    """Return the fields of a failed run that say why."""
    text = "".join(traceback.format_exception(failure))[-MOST_TRACEBACK:]
    reason = f"{type(failure).__name__}: {failure}"
    return {"status": "failed", "error": reason, "traceback": text}


def _outcome(spec: Spec, member: Trained, scorer: Scorer) -> Record:
    scores: dict[str, float | None] = dict.fromkeys(METRICS)
    if member.code is not None:
        scores = score_code(spec, member.code, scorer)
    return {
        "status": member.status,
        "error": member.reason,
        "reconstruction": member.reconstruction,
        "divergence_value": member.divergence_value,
        **scores,
    }


def score_code(spec: Spec, code: NDArray[np.float32], scorer: Scorer) -> dict[str, float | None]:
    """Score the class units of a code (N, C + T), with what their prior says of peaks."""
    units = code[:, : spec.code.class_units].astype(np.float64)
    return scorer.scores(evidence(units, spec.class_prior, scorer.classes))


def _circumstances(job: Job, data: Data, seconds: float) -> Record:
    """Return where, when and with what a pack was trained."""
    settings = {name: os.environ[name] for name in KERNEL_VARIABLES if name in os.environ}
    return {
        "cell_id": job.cell_id,
        "seconds": seconds,
        "pack": job.pack_id,
        "host": socket.gethostname(),
        "device": _device_name(job.device),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": 1,
        "kernel_settings": json.dumps(settings, sort_keys=True),
        "torch_version": str(torch.__version__),
        "trainer_version": TRAINER_VERSION,
        "git_commit": job.git_commit,
        "dataset_digest": data.image_digest,
        "label_digest": data.scorer.label_digest or None,
        "score_id": data.scorer.identity(),
        "finished_at": datetime.now(UTC),
    }


def _device_name(device: str) -> str:
    return "cpu" if device == "cpu" else torch.cuda.get_device_name(device)


def _write_files(job: Job, members: Sequence[Trained]) -> None:
    """Write weights, codes and learning curves; the records that vouch for them come last."""
    folder, name = Path(job.folder), job.pack_id
    pairs = list(zip(job.run_ids, members, strict=True))
    tensors = {f"{run_id}/{key}": array for run_id, m in pairs for key, array in m.tensors.items()}
    notes = {"spec": job.spec.canonical_json(), "seeds": json.dumps(job.seeds)}
    write_whole(folder / "members" / f"{name}.safetensors", to_safetensors(tensors, notes))
    write_whole(folder / "codes" / f"{name}.parquet", to_parquet(_codes(pairs)))
    write_whole(folder / "history" / f"{name}.parquet", to_parquet(_history(pairs)))


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
    """Lay learning curves out with a row a point."""
    curves = np.concatenate([member.history.reshape(-1, 4) for _, member in pairs])
    lengths = [len(member.history) for _, member in pairs]
    columns: dict[str, pa.Array[Any]] = {
        "run_id": pa.array(np.repeat([run_id for run_id, _ in pairs], lengths), pa.string()),
        "seed": pa.array(np.repeat([m.seed for _, m in pairs], lengths), pa.int64()),
        "step": pa.array(curves[:, 0].astype(np.int64)),
    }
    for place, part in enumerate(("loss", "reconstruction", "divergence"), start=1):
        # No number: no divergence in this objective, or a member that diverged.
        columns[part] = pa.array(curves[:, place], mask=~np.isfinite(curves[:, place]))
    return pa.table(columns)
