"""Two equal shapes drawn apart: what divergences say of them, and which way they pull, by formula.

Shapes at a distance theta: lines without a width (Arjovsky et al. 2017, arXiv:1701.07875, example
1), Gaussians of one width, and a code before two peaks. Each function takes theta (T,) and returns
the value and its derivative by theta, (T,) each: infinite where it is, NaN where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, expit

Array = NDArray[np.float64]
Pulled = tuple[Array, Array]  # a value, and its derivative by theta

REACH, STEP = 10.0, 0.02  # standard deviations: the trapezoidal rule is exact to rounding there
NODES = np.arange(-REACH, REACH + STEP / 2, STEP)
SHARES = np.exp(-0.5 * NODES**2) * (STEP / math.sqrt(2 * math.pi))


def kl_of_lines(theta: Array) -> Pulled:
    """Return KL of parallel lines: infinite wherever they are not the same, so without a slope."""
    return np.where(theta == 0, 0.0, np.inf), np.full_like(theta, np.nan)


def js_of_lines(theta: Array) -> Pulled:
    """Return JS of parallel lines: log 2 with slope 0; at 0 it jumps."""
    return _jump(theta, math.log(2))


def wasserstein_1_of_lines(theta: Array) -> Pulled:
    """Return W_1 of parallel lines: |theta| with slope sign theta, at 0 the middle of both."""
    return np.abs(theta), np.sign(theta)


def wasserstein_2_of_lines(theta: Array) -> Pulled:
    """Return W_2^2 of parallel lines."""
    return theta**2, 2 * theta


def sinkhorn_of_lines(theta: Array) -> Pulled:
    """Return the Sinkhorn divergence of parallel lines for half of squares, whatever its blur.

    Between a shape and the same shape moved it is half the squared distance of the means.
    """
    return theta**2 / 2, theta.copy()


def energy_of_lines(theta: Array) -> Pulled:
    """Return the energy distance of parallel lines: twice |theta|, and nothing within each."""
    return 2 * np.abs(theta), 2 * np.sign(theta)


def mmd_of_lines(theta: Array, scales: Sequence[float]) -> Pulled:
    """Return MMD^2 of ever narrower Gaussians with multiquadratic kernels as wide as they are.

    k = s C / (s C + |x - y|^2) with C = 2 v: between the two it vanishes, and within each, with g
    standard normal, 2 sum of E[s / (s + g^2)] is left, whatever theta: as flat as JS.
    """
    inside = [math.sqrt(math.pi * s / 2) * float(erfcx(math.sqrt(s / 2))) for s in scales]
    return _jump(theta, 2 * sum(inside))


def _jump(theta: Array, height: float) -> Pulled:
    return np.where(theta == 0, 0.0, height), np.where(theta == 0, np.nan, 0.0)


def kl_of_gaussians(theta: Array, width: float) -> Pulled:
    """Return KL of two Gaussians of one width."""
    return theta**2 / (2 * width**2), theta / width**2


def js_of_gaussians(theta: Array, width: float) -> Pulled:
    """Return JS of two Gaussians of one width, by quadrature; both halves are equal.

    With u = theta / width and x standard normal: log 2 - E[log(1 + e^w)], w = -u x - u^2 / 2 the
    log ratio of the densities where the code has its x; the slope is E[(x + u) / (1 + e^-w)].
    """
    u = theta[:, None] / width
    ratio = -u * NODES - 0.5 * u**2  # (T, nodes)
    value = math.log(2) - np.logaddexp(0, ratio) @ SHARES
    return value, ((NODES + u) * expit(ratio)) @ SHARES / width


def wasserstein_1_of_gaussians(theta: Array, width: float) -> Pulled:
    """Return W_1 of two Gaussians of one width: that of lines, since all of it moves alike."""
    del width
    return wasserstein_1_of_lines(theta)


def mean_of_kls(theta: Array, sigma: float, m: float, s: float) -> Pulled:
    """Return KL(q, N(-m, s^2)) / 2 + KL(q, N(m, s^2)) / 2 of a code q = N(theta, sigma^2)."""
    sides = [_kl(theta, sigma, side, s) for side in (-m, m)]
    return (sides[0][0] + sides[1][0]) / 2, (sides[0][1] + sides[1][1]) / 2


def kl_and_constant(theta: Array, sigma: float, m: float, s: float) -> Pulled:
    """Return KL(q, N(0, s^2)) + m^2 / 2 s^2 of a code q = N(theta, sigma^2): equal to the mean."""
    value, slope = _kl(theta, sigma, 0.0, s)
    return value + m**2 / (2 * s**2), slope


def _kl(theta: Array, sigma: float, mean: float, s: float) -> Pulled:
    shift = theta - mean
    return math.log(s / sigma) + (sigma**2 + shift**2) / (2 * s**2) - 0.5, shift / s**2
