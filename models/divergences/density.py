"""Divergences of each density q(z|x) from the prior, averaged over the batch.

To add one: a final class here, and its place in `OfDensities`.
"""

from __future__ import annotations

import functools
import math
from typing import ClassVar, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.distributions import Distribution, Mixture
from models.divergences.base import Compared, Compares, Weighted

LEAST_WEIGHT = 1e-15  # of a node: more than half of 128 lie so far out that they add nothing
LOG_SQRT_2PI_E = 0.5 * math.log(2 * math.pi * math.e)


@final
class Kl(Weighted):
    """KL(q(z|x) || p) per image, the ELBO's own term (Kingma and Welling 2014, appendix B).

    Closed form for one Gaussian. For more on one unit, E_q[-log p] by Gauss-Hermite quadrature of
    order `nodes`: the integrand has a kink between two peaks that a wide q sees, and at 32 nodes
    its error makes a code across both peaks look better than one inside either, which invites
    collapse. On several units, E_q[-log p] by the sample that the decoder gets (Monte Carlo).
    """

    kind: Literal["kl"] = "kl"
    nodes: Literal[32, 64, 128, 256] = 128
    compares: ClassVar[Compares] = "density"
    everywhere: ClassVar[bool] = True
    learns: ClassVar[bool] = True

    def value(self, prior: Distribution, code: Compared) -> Tensor:
        """Return the mean over the batch, (S,)."""
        mean, log_variance = code.mean, code.spread("kl")
        if isinstance(prior, Mixture) and prior.peaks == 1:
            shift, scale = prior.means[0], prior.scales[0]
            at = mean.new_tensor(shift)
            squares = (log_variance.exp() + (mean - at).square()) / scale**2
            per_unit = 0.5 * (squares - 1 - log_variance) + math.log(scale)
            total: Tensor = per_unit.sum(2).mean(1)
            return total
        entropy = 0.5 * log_variance + LOG_SQRT_2PI_E
        if prior.units > 1:
            return (-entropy.sum(2) - prior.log_prob(code.sample)).mean(1)
        points, shares = (torch.from_numpy(part).to(mean) for part in _gauss_hermite(self.nodes))
        spread = (0.5 * log_variance).exp()
        z = mean + spread * points  # (S, B, nodes)
        return (-entropy.squeeze(2) - (prior.log_prob(z.unsqueeze(3)) * shares).sum(2)).mean(1)


@final
class Analogy(Weighted):
    """-|mu|^2 / 2 + |1 - sigma^2|, summed over units: the historical surrogate, no distance.

    It was used in 2017 as an "analogy" to the Wasserstein distance from two peaks, with tanh on the
    code. It does not look at the prior: a mere repulsion from 0, bounded by the tanh, that pulls
    every sigma to 1. Kept, so that the instability seen with it can be reproduced.
    """

    kind: Literal["analogy"] = "analogy"
    compares: ClassVar[Compares] = "density"

    def value(self, prior: Distribution, code: Compared) -> Tensor:
        """Return the mean over the batch, (S,); the prior is not looked at."""
        del prior
        each = (1 - code.spread("analogy").exp()).abs() - 0.5 * code.mean.square()
        total: Tensor = each.sum(2).mean(1)
        return total


@functools.lru_cache(maxsize=64)
def _gauss_hermite(nodes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights /= weights.sum()
    kept = weights > LEAST_WEIGHT
    points, weights = points[kept], weights[kept]
    return points, weights / weights.sum()


OfDensities = Kl | Analogy
