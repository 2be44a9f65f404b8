"""The exponential moving average of a network's weights, which is what a run exports."""

from __future__ import annotations

import copy

import torch

from mdnet_ros.features.network import MDNet


class WeightAverage:
    """Averages the weights and statistics of a network over the steps of its training.

    The same as PyTorch's ``AveragedModel`` with ``get_ema_multi_avg_fn``, which reads a counter
    from the device at each step, and so waits for it.

    Args:
        network: the network that is trained; its tensors must stay where they are.
        decay: share of the average that stays at each step.

    Attributes:
        network: the averaged network, in evaluation mode.
    """

    def __init__(self, network: MDNet, decay: float) -> None:
        self.network = copy.deepcopy(network).eval()
        self._decay = decay
        kept, latest = self.network.state_dict(), network.state_dict()
        # The others are counters of batches, which nothing reads.
        floats = [name for name, value in latest.items() if value.is_floating_point()]
        self._kept, self._latest = ([state[name] for name in floats] for state in (kept, latest))

    @torch.no_grad()
    def update(self) -> None:
        """Take in the network as it is now."""
        torch._foreach_lerp_(self._kept, self._latest, 1.0 - self._decay)
