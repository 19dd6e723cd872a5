"""The cheap baselines of a study's data, kept in its folder; of each draw where seeds redraw it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from models.baselines import fit_all, names
from models.diagnostics.table import MEDIAN_FILTER
from sweeps.draws import Draw
from sweeps.folder.storage import write_whole
from sweeps.look import many
from sweeps.measures import examination
from sweeps.sweep import Sweep

FILE = "baselines.json"
SD = "_sd"  # after a metric's name: its spread over draws

Say = Callable[[str], None]
Scores = Mapping[str, float | None]
Baselines = Mapping[str, Scores]


def score_baselines(sweep: Sweep) -> Baselines:
    """Return the baselines of a study's data; their means where each seed has its own."""
    return over_draws(baselines_by_seed(sweep))


def baselines_by_seed(sweep: Sweep, say: Say | None = None) -> dict[int, Baselines]:
    """Return the baselines of each planned seed's data; of the first seed where all share them.

    They are fit without labels, scored as the codes are, and kept in the folder. `say` is told of
    more than one that must be made: each takes seconds.
    """
    study, kept = sweep.study, _kept(sweep)
    if say is not None and study.redraws_data and len(study.seeds) > len(kept) + 1:
        say(f"{study.name}: the baselines of {many(len(study.seeds) - len(kept), 'draw')}, once")
    used: dict[str, Any] = {}
    found: dict[int, Baselines] = {}
    for seed in study.seeds if study.redraws_data else study.seeds[:1]:
        draw = sweep.draws.of(seed)
        key = _key(draw)
        used[key] = kept[key] if key in kept else _scored(draw)
        found[seed] = {**used[key], **_median_filter(sweep, draw)}
    if used.keys() - kept.keys():
        write_whole(sweep.folder / FILE, json.dumps({"made": used}, indent=1).encode())
    return found


def over_draws(found: Mapping[int, Baselines]) -> Baselines:
    """Return the mean over draws of every number, and its sd as METRIC_sd; one draw's as it is.

    None where a draw leaves it undefined: no mean is taken over holes.
    """
    every = list(found.values())
    if len(every) == 1:
        return every[0]
    return {name: _mean([one[name] for one in every]) for name in every[0]}


def _mean(draws: list[Scores]) -> dict[str, float | None]:
    made: dict[str, float | None] = {}
    for metric in draws[0]:
        values = [value for one in draws if (value := one[metric]) is not None]
        whole = len(values) == len(draws)
        made[metric] = statistics.mean(values) if whole else None
        made[f"{metric}{SD}"] = statistics.stdev(values) if whole else None
    return made


def _kept(sweep: Sweep) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return what the folder holds, by what it was made from; it is derived, and made anew."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads((sweep.folder / FILE).read_text())["made"]
        return {key: dict(scores) for key, scores in content.items()}
    return {}


def _key(draw: Draw) -> str:
    """Return all that the scores depend on."""
    dataset, scalar = draw.dataset, draw.dataset.own_scalar
    what = f"{dataset.image_digest} {draw.split} {draw.scorer.identity()}"
    key = f"{what} {','.join(names(dataset.scalar))}"
    if scalar is not None:  # of all that the baselines look at, it alone is no function of pixels
        key = f"{key} {hashlib.sha256(scalar[1].tobytes()).hexdigest()[:16]}"
    return key


def _scored(draw: Draw) -> dict[str, dict[str, float | None]]:
    scorer, dataset = draw.scorer, draw.dataset
    found = fit_all(dataset.pixels, draw.rows, scorer.classes, dataset.own_scalar)
    return {name: scorer.scores(evidence) for name, evidence in found.items()}


def _median_filter(sweep: Sweep, draw: Draw) -> Baselines:
    """Return what a median filter makes of the hot pixels, where the study asks for denoising."""
    if sweep.study.diagnostics.denoising is None:
        return {}
    exam = examination(draw.dataset.images, draw.scorer, sweep.study.diagnostics)
    return {MEDIAN_FILTER: exam.median_filter()}
