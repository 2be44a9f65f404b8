"""Brightness of the demo's images over time."""

from __future__ import annotations

import numpy as np

#: Seconds of the first sudden change of brightness, and between such changes.
_FIRST_STEP, _STEP_PERIOD = 6.0, 20.0


def gain(time: float) -> float:
    """Return the factor that an image's brightness is multiplied by.

    It drifts by a quarter up and down. At 6 s, and every 20 s from then on, it drops suddenly by
    45 per cent and recovers with a time constant of 0.8 s.

    Args:
        time: seconds since the start.
    """
    drift = 1.0 + 0.25 * np.sin(2 * np.pi * time / 3.7)
    since = (time - _FIRST_STEP) % _STEP_PERIOD if time >= _FIRST_STEP else np.inf
    return float(drift * (1.0 - 0.45 * np.exp(-since / 0.8)))
