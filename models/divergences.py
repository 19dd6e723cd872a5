"""Divergences: how far the code is from the prior, a value a member.

Each row says what it compares: the *density* of q(z|x), known where the encoder is stochastic, or
the *sample* of codes in the batch. To add one: a final class here, and its place in `Divergence`.
"""

from __future__ import annotations

import functools
import math
from typing import Annotated, ClassVar, Literal, final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from torch import Tensor

from models.priors import Mixture
from models.settings import Settings, as_kind

Compares = Literal["density", "sample"]

LEAST_WEIGHT = 1e-15  # of a node: more than half of 128 lie so far out that they add nothing
LOG_SQRT_2PI_E = 0.5 * math.log(2 * math.pi * math.e)


class Weighted(Settings):
    """What every divergence has: its weight in the loss, and a linear warm-up in steps."""

    weight: float = Field(default=1.0, ge=0)
    warm_up: int = Field(default=0, ge=0)

    def weight_at(self, step: int) -> float:
        """Return the weight at a step, counted from 0: a line from 0 to `weight`, then flat."""
        return self.weight * min(1.0, step / self.warm_up) if self.warm_up else self.weight


@final
class Kl(Weighted):
    """KL(q(z|x) || p) per image, the ELBO's own term (Kingma and Welling 2014, appendix B).

    Closed form for one Gaussian; for more, E_q[-log p] by Gauss-Hermite quadrature of order
    `nodes`. The integrand has a kink between two peaks that a wide q sees: at 32 nodes its error
    makes a code across both peaks look better than one inside either, which invites collapse.
    """

    kind: Literal["kl"] = "kl"
    nodes: Literal[32, 64, 128, 256] = 128
    compares: ClassVar[Compares] = "density"

    def value(self, prior: Mixture, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Return the mean over the batch: (S, B, U) twice gives (S,)."""
        if len(prior.means) == 1:
            shift, scale = prior.means[0], prior.scales[0]
            squares = (log_variance.exp() + (mean - shift).square()) / scale**2
            per_unit = 0.5 * (squares - 1 - log_variance) + math.log(scale)
        else:
            points, shares = (
                torch.from_numpy(part).to(mean) for part in _gauss_hermite(self.nodes)
            )
            spread = (0.5 * log_variance).exp()
            z = mean.unsqueeze(3) + spread.unsqueeze(3) * points  # (S, B, U, nodes)
            per_unit = -0.5 * log_variance - LOG_SQRT_2PI_E - (prior.log_prob(z) * shares).sum(3)
        return per_unit.sum(2).mean(1)


@final
class Wasserstein(Weighted):
    """W_p^p between the batch of codes and the prior, exact on the line.

    (1/B) sum_i |z_(i) - Q((i - 1/2) / B)|^p with the prior's quantile function Q (Villani 2009,
    theorem 2.18 and remark 2.19). Not zero at the optimum: its floor falls with B.
    """

    kind: Literal["wasserstein"] = "wasserstein"
    weight: float = Field(default=10.0, ge=0)
    p: Literal[1, 2] = 2
    compares: ClassVar[Compares] = "sample"

    def value(self, prior: Mixture, codes: Tensor) -> Tensor:
        """Return the distance of each member's batch: (S, B, 1) gives (S,)."""
        targets = torch.from_numpy(_mid_quantiles(prior, codes.shape[1])).to(codes)
        gaps = codes.squeeze(2).sort(1).values - targets
        return (gaps.abs() if self.p == 1 else gaps.square()).mean(1)


@functools.lru_cache(maxsize=64)
def _gauss_hermite(nodes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights /= weights.sum()
    kept = weights > LEAST_WEIGHT
    points, weights = points[kept], weights[kept]
    return points, weights / weights.sum()


@functools.lru_cache(maxsize=64)
def _mid_quantiles(prior: Mixture, count: int) -> NDArray[np.float64]:
    return prior.quantile((np.arange(count) + 0.5) / count)


Divergence = Annotated[Kl | Wasserstein, Field(discriminator="kind"), BeforeValidator(as_kind)]
COMPARES: dict[str, Compares] = {
    row.model_fields["kind"].default: row.compares for row in get_args(get_args(Divergence)[0])
}
