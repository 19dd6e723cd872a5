"""What can be said of a code without labels: has it collapsed?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.priors import Mixture

# Burda et al. 2016 (arXiv:1509.00519), section 4: a unit is active above it; a spread of 0.1.
ACTIVE_VARIANCE = 0.01
LEAST_SHARE = 0.05


def collapse(code: NDArray[np.float32], prior: Mixture | None) -> str | None:
    """Return why the class units (N, C) have collapsed, or None where they have not.

    Collapsed: no unit varies, or one side of a prior with several peaks is all but empty. Reads no
    labels.
    """
    variance = code.astype(np.float64).var(axis=0)
    if not np.any(variance > ACTIVE_VARIANCE):
        return f"no active unit: the code's largest variance is {variance.max():.2g}"
    if prior is not None and prior.modes > 1:
        above = float(np.mean(code[:, 0] > prior.midpoint))
        if min(above, 1 - above) < LEAST_SHARE:
            share = min(above, 1 - above)
            return f"{share:.1%} of the codes lie on the smaller side of a two-peaked prior"
    return None
