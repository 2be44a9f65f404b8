"""The learning rate over a run."""

from __future__ import annotations

import math

from mdnet_ros.training.config import TrainingConfig


def learning_rate(config: TrainingConfig, step: int, steps: int) -> float:
    """Linear warm-up, then a half cosine down to ``final_rate`` of the peak.

    Args:
        config: configuration of the run.
        step: the step about to be made, from 0.
        steps: length of the schedule.
    """
    warm_up = min(config.warm_up, max(1, steps // 10))
    rise = min(1.0, (step + 1) / warm_up)
    fall = 0.5 * (1.0 + math.cos(math.pi * step / steps))
    return config.learning_rate * rise * (config.final_rate + (1.0 - config.final_rate) * fall)
