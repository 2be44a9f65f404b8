"""The Extractor protocol and the MD-Net extractor: uint8 images in, Features out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import torch

from mdnet_ros.errors import ImageError, SettingError
from mdnet_ros.features.backends.base import PRECISIONS
from mdnet_ros.features.backends.choice import load_backend
from mdnet_ros.features.detection import DetectionSettings
from mdnet_ros.features.network import MIN_SIDE
from mdnet_ros.features.packing import Packing, pack
from mdnet_ros.features.types import Features, HostTables, PaddedFeatures
from mdnet_ros.features.weights import WeightsInfo


@runtime_checkable
class Extractor(Protocol):
    """Detects and describes keypoints: MD-Net and every baseline in ``baselines``."""

    name: str

    def __call__(self, image: np.ndarray) -> Features:
        """Extract features.

        Args:
            image: uint8, (H, W) gray or (H, W, 3) BGR, any strides.

        Raises:
            ImageError: if the image cannot be used.
        """
        ...


def to_gray(image: np.ndarray) -> np.ndarray:
    """Convert a gray or BGR image to (H, W) uint8 gray.

    Raises:
        ImageError: if the image is not uint8 or not (H, W) or (H, W, 3), or is empty.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        got = getattr(image, 'dtype', type(image).__name__)
        raise ImageError(f'image: expected a uint8 array, got {got}')
    if image.size == 0:
        raise ImageError(f'image: expected pixels, got shape {image.shape}')
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim == 2:
        return image
    if image.ndim == 3 and image.shape[2] == 3:
        return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    raise ImageError(f'image: expected shape (H, W) or (H, W, 3), got {image.shape}')


def choose_device(device: str) -> torch.device:
    """Return the torch device for ``auto`` (CUDA if there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        SettingError: if the name is unknown or the device is not there.
    """
    if device == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    if not re.fullmatch(r'cpu|cuda(:\d+)?', device):
        raise SettingError(f"device '{device}': expected auto, cpu, cuda or cuda:N")
    chosen, count = torch.device(device), torch.cuda.device_count()
    if chosen.type == 'cuda' and (chosen.index or 0) >= count:
        raise SettingError(f"device '{device}': torch sees {count} CUDA devices")
    return chosen


def fastest_precision(device: torch.device) -> str:
    """Return the fastest precision with almost no loss of accuracy.

    It is fp16 on CUDA, bf16 on CPUs with instructions for it (AVX-512 BF16 or AMX), else fp32.
    """
    if device.type == 'cuda':
        return 'fp16'
    # There is no public function for this yet; torch versions differ in which of these they have.
    probes = ('_is_avx512_bf16_supported', '_is_amx_tile_supported')
    if any(getattr(torch.cpu, name, bool)() for name in probes):
        return 'bf16'
    return 'fp32'


class MDNetExtractor:
    """Extracts MD-Net's complementary keypoint sets and their descriptors.

    Args:
        weights: a shipped name (``md2net``, ``md2net-light``), a ``.safetensors`` path, a file
            that ``mdnet export`` wrote (``.onnx``, ``.torchscript``; images of one size only),
            or None for ``md2net``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        max_keypoints: the most keypoints of one image, shared by the sets as evenly as possible.
        score_threshold: keypoints scoring less are dropped; in [0, 1].
        nms_radius: before sub-pixel refinement, keypoints of a set are more than this apart
            (Chebyshev distance), pixels.
        border: keypoints closer to the edge of the image are left out, pixels; less than 3 acts
            as 3, which sub-pixel refinement needs.
        precision: ``fp32``, ``fp16``, ``bf16``, or ``auto`` (see
            :func:`fastest_precision`).
        max_side: larger images are shrunk to this longer side first, pixels; 0: never.
            Keypoints are in pixels of the original image in any case.
        runtime: ``torch``, or ``openvino`` (CPU only, needs the extra of that name).

    Attributes:
        backend: runs the network.
        mask: (h, w) uint8 region of interest for all images, stretched to the image: no keypoint
            where it is 0; None: everywhere.

    Raises:
        WeightsError: if the weights are missing or corrupt.
        SettingError: if a setting is out of its range.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        device: str = 'auto',
        max_keypoints: int = 2048,
        *,
        score_threshold: float = 0.0,
        nms_radius: int = 2,
        border: int = 8,
        precision: str = 'auto',
        max_side: int = 0,
        runtime: str = 'torch',
    ) -> None:
        settings = DetectionSettings(max_keypoints, score_threshold, nms_radius, border)
        self.max_side = max_side
        if precision not in ('auto', *PRECISIONS):
            raise SettingError(f"precision '{precision}': expected auto, {', '.join(PRECISIONS)}")
        self.device = choose_device(device)
        wanted = fastest_precision(self.device) if precision == 'auto' else precision
        self.backend = load_backend(weights, self.device, wanted, runtime)
        if precision not in ('auto', self.backend.precision):
            raise SettingError(
                f"precision '{precision}': '{self.info.path}' has {self.backend.precision}"
            )
        self.name = self.info.path.stem
        self.settings = settings
        self.mask: np.ndarray | None = None

    @property
    def info(self) -> WeightsInfo:
        """Description of the weights file."""
        return self.backend.info

    @property
    def precision(self) -> str:
        """Precision of the network: ``fp32``, ``fp16`` or ``bf16``."""
        return self.backend.precision

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """(height, width) of the only images that an exported file takes; None: any."""
        return self.backend.fixed_size

    @property
    def fixed_batch(self) -> int | None:
        """How many images an exported file takes at a time; None: any number."""
        return self.backend.fixed_batch

    @property
    def settings(self) -> DetectionSettings:
        """Settings of the detection; SettingError when set to what an exported file cannot do."""
        return self._settings

    @settings.setter
    def settings(self, settings: DetectionSettings) -> None:
        self.backend.check(settings)
        self._settings = settings

    @property
    def max_side(self) -> int:
        """Longer side that larger images are shrunk to, pixels; 0: never.

        Raises:
            SettingError: when set to a value that is neither 0 nor at least ``MIN_SIDE``.
        """
        return self._max_side

    @max_side.setter
    def max_side(self, max_side: int) -> None:
        if max_side and max_side < MIN_SIDE:
            raise SettingError(f'max_side: expected 0 or at least {MIN_SIDE}, got {max_side}')
        self._max_side = max_side

    @property
    def dim(self) -> int:
        """Length of the descriptors."""
        return self.info.config.dim

    @property
    def num_sets(self) -> int:
        """Number of keypoint sets."""
        return self.info.config.num_sets

    def __call__(self, image: np.ndarray) -> Features:
        """Extract features of one image.

        Args:
            image: uint8, (H, W) gray or (H, W, 3) BGR.

        Raises:
            ImageError: if type or shape are wrong, or a side is shorter than ``MIN_SIDE``.
        """
        return self.extract_batch([image])[0]

    def extract_batch(
        self,
        images: Sequence[np.ndarray],
        masks: Sequence[np.ndarray | None] | None = None,
    ) -> list[Features]:
        """Extract features of images of one size (several cameras) in one pass.

        Args:
            images: images as for :meth:`__call__`.
            masks: a region of interest for each image, (h, w) uint8 of any size, or None; applied
                in addition to ``mask``, which is for all images.

        Raises:
            ImageError: as for :meth:`__call__`, or if the sizes differ.
        """
        grays = [to_gray(image) for image in images]
        shapes = {gray.shape for gray in grays}
        if len(shapes) != 1:
            raise ImageError(f'images: expected one size, got {sorted(shapes)}')
        height, width = grays[0].shape
        if min(height, width) < MIN_SIDE:
            raise ImageError(
                f'image: expected both sides at least {MIN_SIDE} px, got {width}x{height}'
            )
        grays, size = self._shrink(grays)
        batch = torch.from_numpy(np.stack(grays))[:, None]
        regions = self._regions(masks or [None] * len(grays), size)
        padded = self.backend.run(batch, self.settings, regions)
        if size != (height, width):
            padded = _enlarged(padded, size, (height, width))
        padded = replace(padded, host=_on_host(padded))
        return [self._features(padded[i], (width, height)) for i in range(len(images))]

    def _shrink(self, grays: list[np.ndarray]) -> tuple[list[np.ndarray], tuple[int, int]]:
        """Shrink images to ``max_side``; also return their (height, width)."""
        height, width = grays[0].shape
        if not self.max_side or max(height, width) <= self.max_side:
            return grays, (height, width)
        factor = self.max_side / max(height, width)
        size = (max(MIN_SIDE, round(height * factor)), max(MIN_SIDE, round(width * factor)))
        return [
            cv2.resize(g, (size[1], size[0]), interpolation=cv2.INTER_AREA) for g in grays
        ], size

    def _regions(
        self, masks: Sequence[np.ndarray | None], size: tuple[int, int]
    ) -> torch.Tensor | None:
        """Return (B, 1, H, W) bool regions of interest for images of a (height, width), or None."""
        if self.mask is None and all(mask is None for mask in masks):
            return None
        regions = np.ones((len(masks), 1, *size), bool)
        for region, own in zip(regions, masks, strict=True):
            for mask in (self.mask, own):
                if mask is not None:
                    region &= cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST) > 0
        return torch.from_numpy(regions)

    def _features(self, padded: PaddedFeatures, image_size: tuple[int, int]) -> Features:
        """Make one image's features; copies its tables only where some are not valid."""
        tables = _on_host(padded)
        keypoints, scores = tables.keypoints[0], tables.scores[0]
        descriptors, valid = tables.descriptors[0], tables.valid[0]
        sets = np.repeat(np.arange(self.num_sets, dtype=np.int32), valid.sum(1))
        in_order = True
        if not valid.all():
            keypoints, scores, descriptors = keypoints[valid], scores[valid], descriptors[valid]
            in_order = bool((valid[:, :-1] >= valid[:, 1:]).all())
        return Features(
            keypoints=np.ascontiguousarray(keypoints.reshape(-1, 2)),
            scores=np.ascontiguousarray(scores.reshape(-1)),
            sets=sets,
            descriptors=np.ascontiguousarray(descriptors.reshape(-1, descriptors.shape[-1])),
            image_size=image_size,
            num_sets=self.num_sets,
            padded=padded if in_order else None,
        )


def _on_host(features: PaddedFeatures) -> HostTables:
    """Return the tables on the host, by one download where they are not there yet."""
    if features.host is not None:
        return features.host
    if features.keypoints.device.type == 'cpu':
        return HostTables(*(tensor.numpy() for tensor in features.tensors()))
    return Packing.of(features).unpack_on_host(pack(features).cpu().numpy())[0]


def _enlarged(
    features: PaddedFeatures, size: tuple[int, int], to: tuple[int, int]
) -> PaddedFeatures:
    """Move keypoints found in an image of a (height, width) to the same image in another size."""
    host = features.host
    if host is not None:
        keypoints = _rescaled(torch.from_numpy(host.keypoints), size, to).numpy()
        host = replace(host, keypoints=keypoints)
    return replace(features, keypoints=_rescaled(features.keypoints, size, to), host=host)


def _rescaled(
    keypoints: torch.Tensor, size: tuple[int, int], to: tuple[int, int]
) -> torch.Tensor:
    """Scale (..., 2) pixels of an image of a (height, width) to another size."""
    x, y = keypoints.unbind(-1)
    # Python numbers: a tensor would have to be uploaded, and the upload waited for.
    x = (x + 0.5) * (to[1] / size[1]) - 0.5
    y = (y + 0.5) * (to[0] / size[0]) - 0.5
    return torch.stack([x, y], -1)
