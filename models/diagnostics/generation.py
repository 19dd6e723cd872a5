"""What a member makes of nothing: are decoded samples like images?

Samples come from the prior, as a generative model's do, and from a density fitted to the codes
afterwards (Ghosh et al. 2020, arXiv:1903.12436), which gives a plain autoencoder samples too: so
that autoencoders with and without a prior stand on one ruler.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from models.diagnostics.likeness import NAMES_OF_LIKENESS, Likeness
from models.distributions import Distribution

SOURCES = ("prior", "expost")
NAMES = (*(f"{source}_{name}" for source in SOURCES for name in NAMES_OF_LIKENESS), "decoder_jump")
COMPONENTS = 10  # of the density fitted afterwards, as in the source
A_UNIT = 20  # codes at least for each unit of each component
MOST_CODES = 2000  # that it is fitted to, evenly spaced
STEPS = 64
CENTRAL = (0.01, 0.99)
KEY = 0x6E

Floats = NDArray[np.float32]
Array = NDArray[np.float64]
Numbers = dict[str, float | None]
Decode = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Coded:
    """A member's codes (N, C + T), class units first, and what they were pushed towards.

    `normal_style` where the style units were pushed towards a standard Gaussian.
    """

    code: Floats
    class_units: int
    prior: Distribution | None
    normal_style: bool = False


def generation_of(decode: Decode, coded: Coded, likeness: Likeness, seed: int) -> Numbers:
    """Return the numbers of NAMES for a member: how like images what it makes is.

    As many samples as `likeness` has images. `prior_...` is None without a prior, `decoder_jump`
    where the decoder does not change. What is not finite is None.
    """
    found: Numbers = dict.fromkeys(NAMES)
    for source in SOURCES:
        drawn = samples(coded, source, likeness.count, seed)
        if drawn is not None:
            made = decode(drawn)
            found |= {f"{source}_{name}": x for name, x in likeness.of(made).items()}
    return found | {"decoder_jump": jump(decode, coded)}


def samples(coded: Coded, source: str, count: int, seed: int) -> Floats | None:
    """Return codes (count, C + T) drawn from `prior` or `expost`; None where there is no prior.

    Free style units of a prior's samples, which it says nothing of, are drawn ex post by
    themselves, so independently of the class units. The same for the same seed.
    """
    key = np.random.SeedSequence([KEY, SOURCES.index(source), seed])
    generator = np.random.default_rng(key)
    if source == "expost":
        return ex_post(coded.code, count, generator).astype(np.float32)
    if coded.prior is None:
        return None
    torch_generator = torch.Generator().manual_seed(int(generator.integers(2**31)))
    own: Floats = coded.prior.sample((count,), torch_generator).numpy()
    style = coded.code[:, coded.class_units :]
    if not style.shape[1]:
        return own
    if coded.normal_style:
        other = generator.normal(size=(count, style.shape[1]))
    else:
        other = ex_post(style, count, generator)
    return np.hstack([own, other]).astype(np.float32)


def ex_post(code: Floats, count: int, generator: np.random.Generator) -> Array:
    """Return samples (count, U) of a Gaussian mixture fitted to codes (N, U).

    Ten components with full covariances, fewer where there are fewer than 20 codes for each unit of
    each, or fewer distinct ones. It starts from k-means and is the same each time.
    """
    step = -(-len(code) // MOST_CODES)
    values = code[::step].astype(np.float64)
    distinct = len(np.unique(values, axis=0))
    components = max(1, min(COMPONENTS, len(values) // (A_UNIT * values.shape[1]), distinct))
    scale = values.std(axis=0)
    scale[scale == 0] = 1.0  # its own regularisation is in absolute units
    mixture = GaussianMixture(components, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a hundred rounds are near enough
        mixture.fit(values / scale)
    which = generator.choice(components, size=count, p=mixture.weights_ / mixture.weights_.sum())
    factors = np.linalg.cholesky(mixture.covariances_)
    noise = generator.normal(size=(count, values.shape[1]))
    drawn: Array = mixture.means_[which] + np.einsum("nij,nj->ni", factors[which], noise)
    drawn *= scale
    return drawn


def jump(decode: Decode, coded: Coded) -> float | None:
    """Return how unevenly what is decoded moves along the code: 1 for evenly, 64 for one leap.

    Each class unit goes from its 1 % to its 99 % quantile in 64 equal steps, the other units at
    their medians; the longest step between decoded images over the mean step; the largest over the
    class units. None where nothing moves.
    """
    middle = np.median(coded.code, axis=0)
    found = []
    for unit in range(coded.class_units):
        path = np.repeat(middle[None], STEPS + 1, axis=0)
        low, high = np.quantile(coded.code[:, unit], CENTRAL)
        path[:, unit] = np.linspace(low, high, STEPS + 1)
        made = decode(path.astype(np.float32)).astype(np.float64)
        steps = np.linalg.norm(np.diff(made, axis=0), axis=1)
        if np.isfinite(steps).all() and steps.sum() > 0:
            found.append(float(steps.max() / steps.mean()))
    return max(found, default=None)
