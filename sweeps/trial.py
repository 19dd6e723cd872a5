"""Step 5: one pack on a worker. Knows no Ray; every failure becomes a row."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.clusters import evidence
from models.diagnostics.request import Requested
from models.diagnostics.table import Examination
from models.saved import Saved, check_saved
from models.scores import METRICS, Scorer
from models.spec import Spec
from models.train import TRAINER_VERSION, Trained, train
from sweeps import checkpoints
from sweeps.checkpoints import Keeper
from sweeps.draws import Draw, Recipe
from sweeps.folder.places import place
from sweeps.folder.storage import write_whole
from sweeps.folder.timeline import FOLDER as TIMELINE
from sweeps.folder.timeline import Timeline
from sweeps.leaves import write_pack
from sweeps.measures import as_identities, examination, measured, missing, one_thread
from sweeps.plan import Pack
from sweeps.results import Record, write_part

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
NOTICED = 0.001  # seconds: shorter reports are no part of the timeline


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
    checkpoint_seconds: float = 15.0  # the shortest time between two checkpoints
    diagnostics: Requested = field(default_factory=Requested)
    gpus: tuple[str, ...] = ()  # numbers of those that its worker was given
    recipe: Recipe | None = None  # of the data of this pack alone; None: what all packs read

    @staticmethod
    def of(
        pack: Pack,
        folder: Path,
        git_commit: str | None,
        checkpoint_seconds: float,
        diagnostics: Requested,
        recipe: Recipe | None = None,
    ) -> Job:
        """Return a pack of the plan as what its worker needs."""
        return Job(
            folder=str(folder.resolve()),
            pack_id=pack.pack_id,
            cell_id=pack.runs[0].cell_id,
            spec=pack.cell.spec,
            seeds=tuple(run.seed for run in pack.runs),
            run_ids=tuple(run.run_id for run in pack.runs),
            device="cpu",
            git_commit=git_commit,
            checkpoint_seconds=checkpoint_seconds,
            diagnostics=diagnostics,
            recipe=recipe,
        )

    def data(self, shared: Data) -> Data:
        """Return what the pack trains on and is scored with; raises where that cannot be drawn."""
        return shared if self.recipe is None else Data.of(self.recipe.made())


@dataclass(frozen=True)
class Data:
    """What every pack of a study reads: images (N, C, H, W) to train on, the scorer for afterwards.

    `rows` are the places of the images to train on, None for all.
    """

    images: NDArray[np.float32]
    image_digest: str
    scorer: Scorer
    rows: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, draw: Draw) -> Data:
        """Return a dataset as packs read it."""
        return cls(draw.dataset.images, draw.dataset.image_digest, draw.scorer, draw.rows)

    def __getstate__(self) -> dict[str, Any]:
        """Send images that are mapped from a file as its name: a worker maps the same file."""
        state = dict(self.__dict__)
        file = getattr(self.images, "filename", None)
        if file is not None:
            state["images"] = (os.fspath(file), self.images.shape)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map the file that was named.

        Raises FileNotFoundError on a machine that has it not.
        """
        if isinstance(state["images"], tuple):
            file, shape = state["images"]
            images = np.load(file, mmap_mode="c", allow_pickle=False)
            state = {**state, "images": images.reshape(shape)}
        self.__dict__.update(state)


def run_pack(job: Job, shared: Data, progress: Callable[[int], None] | None = None) -> list[Record]:
    """Train, score and write one pack; return its records, `failed` ones where training raised.

    It goes on from what checkpoints hold of its members. `progress` hears of the optimiser steps
    that the members have, all together. Raises OSError where the study folder cannot be written.
    """
    folder = place(job.folder)
    began = datetime.now(UTC).isoformat()
    timeline = Timeline({"pack": job.pack_id, "began": began, "gpus": list(job.gpus), **here()})
    data: Data | None = None
    try:
        with timeline.span("load") as span:
            data = job.data(shared)
            resume = _resumable(job, data)
            span["steps"] = {seed: saved.step for seed, saved in resume.items()}
        with timeline.span("train"):
            members = train(
                job.spec,
                job.seeds,
                data.images,
                rows=data.rows,
                device=job.device,
                resume=resume,
                keeper=Keeper(folder, job.pack_id, job.run_ids, job.checkpoint_seconds, timeline),
                progress=_timed(progress, timeline),
            )
        with timeline.span("score"):
            scored = [_outcome(job.spec, member, data.scorer) for member in members]
        with timeline.span("diagnose"), one_thread():
            exam = examination(data.images, data.scorer, job.diagnostics)
            for outcome, member in zip(scored, members, strict=True):
                outcome.update(_diagnosed(job.spec, member, outcome, exam))
        with timeline.span("write"):
            write_pack(folder, job.pack_id, job.spec, job.run_ids, members)
    except Exception as failure:  # noqa: BLE001 - whatever it is, it becomes the members' record
        scored = [failed_outcome(failure)] * len(job.seeds)
    failed = scored[0]["status"] == "failed"
    if failed:
        _free_memory()
    seconds = timeline.seconds() / len(job.seeds)
    records = [
        _circumstances(job, data, seconds) | {"run_id": run_id, "seed": seed} | outcome
        for run_id, seed, outcome in zip(job.run_ids, job.seeds, scored, strict=True)
    ]
    write_part(folder, job.pack_id, records)
    # What is finished is finished without the two below.
    with contextlib.suppress(OSError):
        if not failed:
            checkpoints.remove(folder, job.pack_id)
    with contextlib.suppress(OSError):
        write_whole(folder / TIMELINE / f"{job.pack_id}.json", timeline.as_json())
    return records


def _free_memory() -> None:
    """Give back what a pack that failed has held: the next one runs in the same process."""
    gc.collect()  # tensors and the frames of a traceback hold each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def here() -> dict[str, Any]:
    """Return which process this is, and the file that holds what it prints, if any."""
    try:
        log: Path | None = Path(f"/proc/{os.getpid()}/fd/2").readlink()
    except OSError:  # not Linux
        log = None
    named = str(log) if log is not None and log.is_file() else None
    return {"host": socket.gethostname(), "pid": os.getpid(), "log": named}


def _resumable(job: Job, data: Data) -> dict[int, Saved]:
    """Return by seed what the members can go on from; what does not fit is left where it is."""
    found = checkpoints.read(place(job.folder), job.run_ids)
    count = len(data.images if data.rows is None else data.rows)
    fitting = {}
    for run_id, seed in zip(job.run_ids, job.seeds, strict=True):
        if run_id in found:
            with contextlib.suppress(ValueError):
                check_saved(found[run_id], seed, job.spec, data.images.shape[1:], count)
                fitting[seed] = found[run_id]
    return fitting


def _timed(
    progress: Callable[[int], None] | None, timeline: Timeline
) -> Callable[[int], None] | None:
    """Return what passes progress on and measures how long that takes: it may be a round trip."""
    if progress is None:
        return None

    def timed(done: int) -> None:
        with timeline.span("report", least=NOTICED):
            progress(done)

    return timed


def failed_outcome(failure: BaseException) -> Record:
    """Return the fields of a failed run that say why."""
    text = "".join(traceback.format_exception(failure))[-MOST_TRACEBACK:]
    reason = f"{type(failure).__name__}: {failure}"
    return {"status": "failed", "error": reason, "traceback": text, "log": here()["log"]}


def _outcome(spec: Spec, member: Trained, scorer: Scorer) -> Record:
    scores: dict[str, float | None] = dict.fromkeys(METRICS)
    if member.code is not None:
        scores = score_code(spec, member.code, scorer, member.learned_prior)
    return {
        "status": member.status,
        "error": member.reason,
        "reconstruction": member.reconstruction,
        "divergence_value": member.divergence_value,
        "learned_prior": member.learned_prior,
        **scores,
    }


def _diagnosed(spec: Spec, member: Trained, outcome: Record, exam: Examination) -> Record:
    """Return a member's diagnostics; nothing where one raised: the review takes them again.

    What was trained is worth more than what is said of it.
    """
    wanted = exam.identities()
    groups = missing(outcome, wanted)
    if member.code is None or not groups:
        return {}
    try:
        found = measured(
            spec,
            member.seed,
            member.code,
            lambda: member.tensors,
            groups,
            exam,
            member.learned_prior,
        )
    except Exception:  # noqa: BLE001 - whatever it is
        return {}
    return found | {"diagnostics_id": as_identities(outcome, groups, wanted)}


def score_code(
    spec: Spec, code: NDArray[np.float32], scorer: Scorer, learned_prior: str | None
) -> dict[str, float | None]:
    """Score the class units of a code (N, C + T), with what their prior says of peaks."""
    units = code[:, : spec.code.class_units].astype(np.float64)
    return scorer.scores(evidence(units, spec.prior_of(learned_prior), scorer.classes))


def _sources(job: Job, data: Data | None) -> Record:
    """Return what a pack was trained on and is scored with; None: that could not be drawn."""
    if data is None:
        return {"dataset_digest": None if job.recipe is None else job.recipe.image_digest}
    return {
        "dataset_digest": data.image_digest,
        "label_digest": data.scorer.label_digest or None,
        "score_id": data.scorer.identity(),
    }


def _circumstances(job: Job, data: Data | None, seconds: float) -> Record:
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
        **_sources(job, data),
        "finished_at": datetime.now(UTC),
    }


def _device_name(device: str) -> str:
    return "cpu" if device == "cpu" else torch.cuda.get_device_name(device)
