"""Log-odds of probabilities that may be 0 or 1."""

from typing import Any

import numpy as np
from scipy.special import logit


def log_odds(y_prob: Any, margin: float = 1e-7) -> np.ndarray:
    """Return log(p / (1 - p)), with p kept at least `margin` away from 0 and 1."""
    return logit(np.clip(np.asarray(y_prob, float), margin, 1 - margin))
