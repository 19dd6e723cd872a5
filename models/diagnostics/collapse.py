"""What can be said of a code without labels: has it collapsed?"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from models.distributions import Distribution

# Burda et al. 2016 (arXiv:1509.00519), section 4: a unit is active above it; a spread of 0.1.
ACTIVE_VARIANCE = 0.01
LEAST_SHARE = 0.1  # of what the prior gives a peak: 5 % of all where two weigh the same


def collapse(code: NDArray[np.float32], prior: Distribution | None) -> str | None:
    """Return why the class units (N, C) have collapsed, or None where they have not.

    Collapsed: no unit varies, or one peak of a prior with several is all but empty. Peaks that
    overlap cannot be told apart, and none of them is missed. Reads no labels.
    """
    variance = code.astype(np.float64).var(axis=0)
    if not np.any(variance > ACTIVE_VARIANCE):
        return f"no active unit: the code's largest variance is {variance.max():.2g}"
    if prior is None or prior.peaks == 1 or prior.modes < prior.peaks:
        return None
    joint = prior.log_joint(torch.from_numpy(code.astype(np.float64)))
    shares = np.bincount(joint.argmax(-1).numpy(), minlength=prior.peaks) / len(code)
    wanted = np.asarray(prior.weights)
    place = int(np.argmin(shares / wanted))
    if shares[place] >= LEAST_SHARE * wanted[place]:
        return None
    if prior.peaks == 2:  # noqa: PLR2004
        return f"{shares[place]:.1%} of the codes lie on the smaller side of a two-peaked prior"
    return (
        f"{shares[place]:.1%} of the codes lie on peak {place + 1} of the prior's {prior.peaks}, "
        f"whose share is {wanted[place]:.1%}"
    )
