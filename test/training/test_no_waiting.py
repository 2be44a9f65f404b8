"""Nothing in a training step asks the device for a value: a GPU never waits for the CPU.

Tensors on PyTorch's ``meta`` device have shapes but no values: each ``.item()``, ``bool(tensor)``
and index by a mask raises on it; what runs there is enqueued on a GPU without waiting.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mdnet_ros.features.network import CONFIGS, MDNet
from mdnet_ros.training.images import ImagePool, NamedImage
from mdnet_ros.training.objective import Draws, LossWeights, objective
from mdnet_ros.training.photometric import PhotometricRanges, change_light
from mdnet_ros.training.views import make_pairs
from mdnet_ros.training.warps import WarpRanges

META = torch.device('meta')


def test_a_step_needs_no_value_on_the_way() -> None:
    pool = ImagePool([NamedImage('gray', np.zeros((300, 400), np.uint8))]).to(META)
    generator = torch.Generator()
    index = torch.zeros(4, dtype=torch.int64, device=META)
    pair = make_pairs(pool, index, 64, WarpRanges(wide_rotation=0.2), 1.0, generator)
    pair = replace(pair, images=change_light(pair.images, PhotometricRanges(), 1.0, generator))
    network = MDNet(CONFIGS['md2net-light']).to(META)
    terms = objective(
        network(pair.images), pair, LossWeights(1, 1, 1, 1, 1, 1, 1, 1), 0.03, 1.0,
        Draws((3, 4), torch.zeros(4, 5, 2, device=META)),
    )
    terms.total.backward()
    assert all(p.grad is not None for p in network.parameters())
    with pytest.raises((RuntimeError, NotImplementedError)):  # the test can see an error
        bool(pair.valid.any())
    with pytest.raises((RuntimeError, NotImplementedError)):
        _ = pair.images[pair.valid]
