"""Exports a network with its detection to an ONNX or TorchScript file of fixed shapes."""

from __future__ import annotations

import inspect
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from mdnet_ros.errors import DataError, MDNetError, MissingDependencyError, SettingError
from mdnet_ros.features.backends.base import find_keypoints
from mdnet_ros.features.backends.exported import (
    METADATA_KEY,
    SUFFIXES,
    ExportInfo,
    engine_folder,
    open_exported,
    require_tensorrt,
)
from mdnet_ros.features.detection import DetectionSettings
from mdnet_ros.features.network import MIN_SIDE, MDNet
from mdnet_ros.features.types import PaddedFeatures
from mdnet_ros.features.weights import load_weights

_OUTPUTS = ('keypoints', 'scores', 'descriptors', 'valid')
#: The first version with GridSample is 16.
_OPSET = 17
#: Keypoints closer than this are regarded as the same one, pixels.
_SAME = 0.05
#: Limits for a sound export; another order of the arithmetic explains no more.
_MIN_SHARE, _MAX_POSITION, _MAX_SCORE, _MAX_DESCRIPTOR = 0.99, 0.02, 1e-3, 5e-3


@dataclass(frozen=True)
class ExportCheck:
    """Differences between an exported file and PyTorch on real images.

    Attributes:
        images: number of images.
        keypoints: number of keypoints that PyTorch finds in them.
        share: share of these keypoints that the file finds, too. (Keypoints may change places with
            others of equal score just below the limit of their number.)
        position: largest distance between the positions of a keypoint found by both, pixels.
        score: largest difference of their scores.
        descriptor: largest difference of a component of their descriptors.
    """

    images: int
    keypoints: int
    share: float
    position: float
    score: float
    descriptor: float

    @property
    def sound(self) -> bool:
        """Whether the differences are no larger than another order of the arithmetic explains."""
        return (
            self.keypoints > 0
            and self.share >= _MIN_SHARE
            and self.position <= _MAX_POSITION
            and self.score <= _MAX_SCORE
            and self.descriptor <= _MAX_DESCRIPTOR
        )

    def __str__(self) -> str:
        return (
            f'{self.share:.2%} of {self.keypoints} keypoints in {self.images} images; at most '
            f'{self.position:.2g} px, {self.score:.2g} in score, {self.descriptor:.2g} in '
            'descriptors apart'
        )


class _Exportable(nn.Module):
    """Module that detects keypoints in uint8 images, with all shapes fixed."""

    def __init__(
        self, network: MDNet, shape: tuple[int, int, int], settings: DetectionSettings
    ) -> None:
        super().__init__()
        self.network = network
        self.shape = shape
        self.settings = settings

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = find_keypoints(self.network, images, self.shape, self.settings)
        return found.keypoints, found.scores, found.descriptors, found.valid


def export(
    weights: str | Path | None,
    out: str | Path,
    file_format: str,
    size: tuple[int, int],
    images: Sequence[np.ndarray],
    *,
    settings: DetectionSettings | None = None,
    batch: int = 1,
    device: str = 'cpu',
) -> ExportCheck:
    """Export a network and compare the file with PyTorch; no file is written if they differ.

    Args:
        weights: a shipped name, a ``.safetensors`` path, or None for the default.
        out: path of the file; its suffix must be that of the format.
        file_format: a key of :data:`SUFFIXES`.
        size: (height, width) of the images that the file will process, pixels.
        images: (H, W) uint8 gray images of any size for the comparison; they are resized.
        settings: settings of the detection, which become part of the file.
        batch: how many images the file will process at a time.
        device: ``cpu`` or ``cuda``: a TorchScript file runs on this device only; TensorRT needs
            ``cuda``.

    Raises:
        WeightsError: if the weights cannot be used.
        SettingError: if a setting is out of its range.
        MissingDependencyError: if a library is not installed.
        MDNetError: if TensorRT is not installed, or the file differs from PyTorch.
        DataError: if the file cannot be written.
    """
    out, settings = Path(out), settings or DetectionSettings()
    torch_device = torch.device(device)
    _check(out, file_format, size, batch, images)
    if file_format == 'tensorrt':
        require_tensorrt(torch_device)
    network, weights_info = load_weights(weights)
    network = network.to(torch_device).requires_grad_(False)
    module = _Exportable(network, (batch, *size), settings).eval()
    info = ExportInfo(
        file_format, network.config, settings, size, batch, torch_device.type,
        weights_info.path.stem, weights_info.sha256, weights_info.training, torch.__version__,
    )
    batches = _batches(images, size, batch)
    write = _write_torchscript if file_format == 'torchscript' else _write_onnx
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f'.{out.name}.', dir=out.parent) as folder:
            temporary = Path(folder) / out.name  # TensorRT names its engines by the file's name
            write(module, batches[0].to(torch_device), info, temporary)
            check = compare(module, temporary, batches, torch_device)
            if not check.sound:
                raise MDNetError(f"export '{out}': differs from PyTorch: {check}")
            os.replace(temporary, out)
            if engine_folder(temporary).is_dir():
                shutil.rmtree(engine_folder(out), ignore_errors=True)
                os.replace(engine_folder(temporary), engine_folder(out))
    except OSError as error:
        raise DataError(f"export '{out}': {error.strerror or error}") from None
    return check


def _check(
    out: Path, file_format: str, size: tuple[int, int], batch: int, images: Sequence[np.ndarray]
) -> None:
    if file_format not in SUFFIXES:
        raise SettingError(f"format '{file_format}': expected one of {', '.join(SUFFIXES)}")
    if out.suffix != SUFFIXES[file_format]:
        raise SettingError(
            f"out '{out}': expected a name that ends in {SUFFIXES[file_format]} "
            f'for format {file_format}'
        )
    if min(size) < MIN_SIDE:
        raise SettingError(
            f'size {size[1]}x{size[0]}: expected both sides at least {MIN_SIDE} px'
        )
    if batch < 1:
        raise SettingError(f'batch: expected at least 1, got {batch}')
    if not len(images):
        raise SettingError('images: expected at least one to compare on')


def _batches(
    images: Sequence[np.ndarray], size: tuple[int, int], batch: int
) -> list[torch.Tensor]:
    """Resize images and stack them as (B, 1, H, W) uint8; the first ones fill the last batch up."""
    height, width = size
    fitted = [cv2.resize(i, (width, height), interpolation=cv2.INTER_AREA) for i in images]
    fitted += [fitted[i % len(images)] for i in range(-len(images) % batch)]
    stacked = torch.from_numpy(np.stack(fitted))[:, None]
    return list(stacked.split(batch))


def _write_onnx(module: nn.Module, images: torch.Tensor, info: ExportInfo, path: Path) -> None:
    try:
        import onnx
    except ImportError:
        raise MissingDependencyError('onnx', 'onnx', 'mdnet export') from None
    # The tracing exporter needs no further library; torch before 2.5 has no other one.
    parameters = inspect.signature(torch.onnx.export).parameters
    options: dict[str, Any] = {'dynamo': False} if 'dynamo' in parameters else {}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about fixed shapes that become constants
        torch.onnx.export(
            module, (images,), str(path), input_names=['image'], output_names=list(_OUTPUTS),
            opset_version=_OPSET, **options,
        )
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {METADATA_KEY: info.to_json()})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _write_torchscript(
    module: nn.Module, images: torch.Tensor, info: ExportInfo, path: Path
) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')
        traced = torch.jit.freeze(torch.jit.trace(module, (images,), check_trace=False).eval())
    traced.save(str(path), _extra_files={METADATA_KEY: info.to_json()})


@torch.inference_mode()
def compare(
    module: nn.Module, path: Path, batches: Sequence[torch.Tensor], device: torch.device
) -> ExportCheck:
    """Run an exported file and the exported module on the same images, and compare the results.

    Args:
        module: the module; it returns keypoints, scores, descriptors and validity.
        path: path of the file.
        batches: batches of (B, 1, H, W) uint8 images on the host.
        device: device to run both on.
    """
    backend = open_exported(path, device)
    total = found = 0
    position = score = descriptor = 0.0
    for images in batches:
        expected = PaddedFeatures.of(t.cpu() for t in module(images.to(device)))
        result = backend.run(images, backend.export.settings, None)
        got = PaddedFeatures.of(t.cpu() for t in result.tensors())
        distance = torch.cdist(
            expected.keypoints, got.keypoints, compute_mode='donot_use_mm_for_euclid_dist'
        )
        distance = distance.masked_fill(~got.valid[:, :, None], torch.inf)
        nearest, row = distance.min(dim=-1)
        same = expected.valid & (nearest <= _SAME)
        total += int(expected.valid.sum())
        found += int(same.sum())
        if not same.any():
            continue
        partner = got.descriptors.gather(2, row[..., None].expand_as(expected.descriptors))
        position = max(position, float(nearest[same].max()))
        score = max(
            score, float((expected.scores - got.scores.gather(2, row))[same].abs().max())
        )
        descriptor = max(descriptor, float((expected.descriptors - partner)[same].abs().max()))
    return ExportCheck(
        sum(len(b) for b in batches), total, found / max(1, total), position, score, descriptor
    )
