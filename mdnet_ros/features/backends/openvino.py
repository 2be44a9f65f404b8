"""OpenVINO backend for CPUs; the keypoint detection is PyTorch's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mdnet_ros.errors import MissingDependencyError, SettingError
from mdnet_ros.features.backends.pytorch import WeightsBackend
from mdnet_ros.features.network import MDNet, NetworkOutput, fuse

#: How many compiled networks are kept, one for each shape of input.
_KEPT = 4


class OpenVinoNetwork:
    """Runs a network like :class:`MDNet`; compiles it for each new shape of input.

    The number of threads is that of torch in the calling thread at that time.

    Args:
        network: in evaluation mode, on the CPU.
        precision: ``fp32`` or ``bf16``.

    Raises:
        MissingDependencyError: if OpenVINO is not installed.
        SettingError: if the precision is another one.
    """

    def __init__(self, network: MDNet, precision: str) -> None:
        try:
            import openvino
            from openvino.frontend import FrontEndManager
            from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
        except ImportError:
            raise MissingDependencyError('openvino', 'openvino', 'runtime openvino') from None
        if precision not in ('fp32', 'bf16'):
            raise SettingError(
                f"precision '{precision}': expected fp32 or bf16 for runtime openvino"
            )
        self._hint = {'fp32': 'f32', 'bf16': 'bf16'}[precision]
        self._core = openvino.Core()
        # Not openvino.convert_model, which reports each call to Intel over the network.
        frontend = FrontEndManager().load_by_framework('pytorch')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # about values that become constants, as intended
            decoder = TorchScriptPythonDecoder(
                network, example_input=(torch.zeros(1, 1, 64, 64),)
            )
        self._model = frontend.convert(frontend.load(decoder))
        self._projection = network.projection()
        self._requests: dict[tuple[object, ...], Any] = {}

    def __call__(self, image: torch.Tensor) -> NetworkOutput:
        """Run the network on (B, 1, H, W) float32 images, see :meth:`MDNet.forward`."""
        key = (tuple(image.shape), torch.get_num_threads())
        if key not in self._requests:
            while len(self._requests) >= _KEPT:
                del self._requests[next(iter(self._requests))]
            self._requests[key] = self._compile(*key)
        result = self._requests[key].infer([image.contiguous().numpy()], share_inputs=True)
        logits, descriptors = (torch.from_numpy(result[i]) for i in range(2))
        return NetworkOutput(logits, descriptors, *self._projection)

    def _compile(self, shape: tuple[int, ...], threads: int) -> Any:
        model = self._model.clone()
        model.reshape(list(shape))
        options = {
            'INFERENCE_NUM_THREADS': threads,
            'INFERENCE_PRECISION_HINT': self._hint,
            'PERFORMANCE_HINT': 'LATENCY',
            'NUM_STREAMS': 1,
        }
        return self._core.compile_model(model, 'CPU', options).create_infer_request()


class OpenVinoBackend(WeightsBackend):
    """Runs a weights file with OpenVINO on images of any size, with any settings.

    Args:
        weights: a shipped name, a path, or None for the default.
        device: must be the CPU.
        precision: ``fp32`` or ``bf16``.

    Raises:
        WeightsError: if the file is missing or corrupt.
        SettingError: if the device is not the CPU, or the precision is another one.
        MissingDependencyError: if OpenVINO is not installed.
    """

    def __init__(self, weights: str | Path | None, device: torch.device, precision: str) -> None:
        if device.type != 'cpu':
            raise SettingError(f"device '{device}': expected cpu for runtime openvino")
        super().__init__(weights, device, precision)

    def _prepare(self, network: MDNet) -> Callable[[torch.Tensor], NetworkOutput]:
        return OpenVinoNetwork(fuse(network), self.precision)
