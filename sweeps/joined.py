"""What one member, or several joined, say of new images: a score or clusters, and their names.

One class unit orders the images: each member's code becomes the share of its own training codes
below it, its sign is aligned with the others', and shares are averaged. Several class units, or
more than two peaks or classes, give clusters: aligned with a reference member's, and averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.clusters import shares, threshold_of
from models.datasets import Dataset
from models.distributions import Distribution
from models.joining import aligned_clusters, aligned_signs, share_below
from models.ranks import evenly
from models.scores import match, rises
from models.spec import Spec
from sweeps.mistakes import Refused

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Values = Array | Rows | list[str | None] | list[int | None]


@dataclass(frozen=True)
class Member:
    """One member's class units of the images it was trained on, (N, C), and of new ones, (M, C).

    `prior` is that of its class units, which it may have learned.
    """

    training: Array
    new: Array
    prior: Distribution | None


@dataclass(frozen=True)
class Known:
    """What a study knows of the images that it trained on, in the order of the members' codes.

    `labels` (N,) only name what comes out; without them `covariate` (N,) gives a score its sign,
    whose name is `of`.
    """

    labels: Rows | None
    class_names: tuple[str, ...]
    covariate: Array
    of: str

    @classmethod
    def of_study(cls, dataset: Dataset, rows: Rows | None, orient_by: str | None) -> Known:
        """Return what is known of the rows that were trained on, None for all."""
        every = slice(None) if rows is None else rows
        labels = None if dataset.labels is None else dataset.labels[every]
        if orient_by:
            covariate, name = dataset.covariates[orient_by], f"covariate '{orient_by}'"
        else:
            covariate, name = dataset.pixels.mean(1, dtype=np.float64), "mean pixel"
        return cls(labels, dataset.class_names, covariate[every], name)


@dataclass(frozen=True)
class Said:
    """Columns (M,) by name, and a sentence on what score, clusters and classes mean."""

    columns: dict[str, Values]
    naming: str


def said(members: Sequence[Member], spec: Spec, known: Known, *, joined: bool) -> Said:
    """Return what the members say; a single one that is not joined says its raw code.

    Raises Refused where seeds have nothing in common that could be averaged.
    """
    classes = 0 if known.labels is None else len(known.class_names)
    prior = spec.class_prior
    peaks = 1 if prior is None else prior.peaks
    if spec.code.class_units == 1 and max(peaks, classes) <= 2:  # noqa: PLR2004
        return _order(members, known, joined=joined, two=max(peaks, classes) == 2)  # noqa: PLR2004
    return _clusters(members, known, classes, joined=joined)


def _order(members: Sequence[Member], known: Known, *, joined: bool, two: bool) -> Said:
    codes = [member.training[:, 0] for member in members]
    signs = aligned_signs(codes)
    own = [s * code for s, code in zip(signs, codes, strict=True)]
    together = np.mean([share_below(code, code) for code in own], axis=0)
    if not _upright(together, known):
        signs, own = -signs, [-code for code in own]
    cuts = [s * _cut(member) for s, member in zip(signs, members, strict=True)]
    new = [s * member.new[:, 0] for s, member in zip(signs, members, strict=True)]
    columns: dict[str, Values] = {}
    if joined:
        ranks = np.array([share_below(*pair) for pair in zip(own, new, strict=True)])
        places = [share_below(code, np.array([cut])) for code, cut in zip(own, cuts, strict=True)]
        score, cut = ranks.mean(0), float(np.mean(places))
        columns |= {"score": score, "spread": _deviation(ranks)}
    else:
        score, cut = new[0], float(cuts[0])
        columns["score"] = members[0].new[:, 0]  # raw, whatever its sign means
    above = [None if np.isnan(value) else int(value > cut) for value in score]
    upward = "high" if joined or signs[0] > 0 else "low"
    if known.labels is not None and two:
        columns["class"] = _named(above, known.class_names)
        name = known.class_names[-1]
        return Said(columns, f"named by the study's labels: a {upward} score means '{name}'")
    naming = f"no labels: a {upward} score goes with a high {known.of}"
    if two:
        columns["cluster"] = above
        naming += f"; cluster 1 has the {upward} scores"
    return Said(columns, naming)


def _upright(score: Array, known: Known) -> bool:
    """Return whether a score of the training images (N,) has the sign that it should be given."""
    if known.labels is not None:
        return rises(known.labels, score)
    if np.ptp(score) == 0 or np.ptp(known.covariate) == 0:
        return True
    return bool(np.corrcoef(score, known.covariate)[0, 1] >= 0)


def _cut(member: Member) -> float:
    code = member.training[:, 0]
    cut = threshold_of(code, member.prior)
    return float(code[0]) if cut is None else cut


def _clusters(members: Sequence[Member], known: Known, classes: int, *, joined: bool) -> Said:
    count = len(members[0].new)
    few = evenly(len(members[0].training))
    both, units = [], members[0].new.shape[1]
    for member in members:
        alive = np.isfinite(member.new.sum(1))
        points = np.concatenate([member.training[few], np.where(alive[:, None], member.new, 0)])
        found = shares(member.training, points, member.prior, classes)
        if found is not None:
            found[len(few) :][~alive] = np.nan
            both.append(found)
    columns: dict[str, Values] = {}
    if not joined:
        for unit in range(units):
            columns["score" if units == 1 else f"code_{unit}"] = members[0].new[:, unit]
    if not both:
        if joined:
            text = f"{units} class units without clusters: no prior with peaks, and no classes"
            raise Refused([f"seeds cannot be joined: {text} to look for; choose one with --seed"])
        return Said(columns, "raw codes: their signs and their order mean nothing by themselves")
    order = aligned_clusters([one[: len(few)] for one in both])
    aligned = np.array([one[:, places] for one, places in zip(both, order, strict=True)])
    mean = aligned.mean(0)
    cluster = np.nan_to_num(mean, nan=-1.0).argmax(1)
    new = cluster[len(few) :]
    share = mean[len(few) :][np.arange(count), new]
    numbers = [None if np.isnan(s) else int(c) for s, c in zip(share, new, strict=True)]
    columns |= {"cluster": numbers, "share": share}
    if joined:
        columns["spread"] = _deviation(aligned[:, len(few) :][:, np.arange(count), new])
    if known.labels is None:
        return Said(columns, "no labels: clusters are numbered from 0, and have no names")
    cluster_of = match(known.labels[few], cluster[: len(few)], classes, mean.shape[1])
    names = {place: known.class_names[label] for label, place in cluster_of.items()}
    columns["class"] = [None if c is None else names.get(c) for c in numbers]
    told = ", ".join(f"{place} is '{name}'" for place, name in sorted(names.items()))
    return Said(columns, f"named by the study's labels: cluster {told}")


def _named(above: Sequence[int | None], names: Sequence[str]) -> list[str | None]:
    return [None if one is None else names[one] for one in above]


def _deviation(values: Array) -> Array:
    """Return the sd over members (S, M) -> (M,), ddof 1; NaN for a single member."""
    if len(values) < 2:  # noqa: PLR2004
        return np.full(values.shape[1], np.nan)
    deviation: Array = values.std(0, ddof=1)
    return deviation
