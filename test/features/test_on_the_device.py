"""The way of an image through the network never waits for the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mdnet_ros.features.detection import DetectionSettings, detect
from mdnet_ros.features.extractor import _enlarged
from mdnet_ros.features.network import CONFIGS, MDNet, fuse
from mdnet_ros.features.packing import pack


class Crossings(TorchDispatchMode):
    """Notes every operation that reads from another device than the one it runs on."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in (*args, result) if isinstance(t, torch.Tensor)]
        if len({t.device.type for t in tensors}) > 1:
            self.found.append(str(func))
        return result


class Literals(TorchFunctionMode):
    """Notes tensors made of Python's numbers: on the host, then uploaded."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor):
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('masked', [False, True])
def test_no_value_is_asked_of_the_device(masked: bool) -> None:
    """On a device without values, whatever needs one raises, and copies to it are seen."""
    network = fuse(MDNet(CONFIGS['md2net-light']).eval()).to('meta').requires_grad_(False)
    images = torch.zeros(2, 1, 128, 208, device='meta')
    mask = torch.ones(2, 1, 128, 208, dtype=torch.bool, device='meta') if masked else None
    crossings, literals = Crossings(), Literals()
    with crossings, literals:
        found = detect(network(images), DetectionSettings(256), (120, 200), mask)
        packed = pack(found)
        _enlarged(found, (120, 200), (240, 400))
    assert packed.shape == (2 * 2 * 128 * (4 + 64),)
    assert crossings.found == literals.found == []
    with crossings, literals:  # both would be seen
        torch.ones(2).to('meta')
        found.scores.new_tensor([1.0, 2.0])
    assert len(crossings.found) == len(literals.found) == 1
