"""Settings of the tracker together with the network and the mask that were loaded for them."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from mdnet_ros.data.image_files import read_image
from mdnet_ros.errors import ImageError
from mdnet_ros.features.extractor import MDNetExtractor
from mdnet_ros.tracker.settings import TrackerSettings

#: (height, width) of the blank image that a new network is warmed up with.
_WARM_UP = (480, 640)
#: Larger mask files are refused unread.
_MAX_MASK_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Configuration:
    """Settings that were checked, with the network and the mask loaded for them.

    Attributes:
        settings: values of all parameters.
        extractor: the network that ``settings`` names.
        mask: (h, w) uint8, the region of interest that ``settings.mask`` names; None: everywhere.

    Raises:
        SettingError: if the network cannot detect keypoints with these settings.
    """

    settings: TrackerSettings
    extractor: MDNetExtractor
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.extractor.backend.check(self.settings.detection)

    def changed(self, settings: TrackerSettings) -> Configuration:
        """Return a configuration with the same network and other settings.

        Raises:
            SettingError: if the network cannot detect keypoints with these settings.
            ImageError: if the mask cannot be used.
        """
        same_mask = settings.mask == self.settings.mask
        mask = self.mask if same_mask else read_mask(settings.mask)
        return Configuration(settings, self.extractor, mask)

    def on_cpu(self) -> Configuration:
        """Return a configuration that runs the same network on the CPU."""
        settings = replace(self.settings, device='cpu', precision='fp32')
        return Configuration(self.settings, _load_in_thread(settings), self.mask)

    def prepare(self) -> None:
        """Have the network use the settings and the mask; cannot fail, they were checked."""
        self.extractor.settings = self.settings.detection
        self.extractor.max_side = self.settings.max_side
        self.extractor.mask = self.mask


def load_configuration(settings: TrackerSettings) -> Configuration:
    """Load the network and the mask that settings name, and warm the network up.

    Raises:
        WeightsError: if the weights cannot be used.
        SettingError: if the device is not there, or the network cannot detect keypoints with
            these settings.
        ImageError: if the mask cannot be used.
    """
    mask = read_mask(settings.mask)
    return Configuration(settings, _load_in_thread(settings), mask)


def read_mask(path: str) -> np.ndarray | None:
    """Read a region of interest, (h, w) uint8, from an image file; None for an empty path.

    Raises:
        ImageError: if the file is not an image, or is black everywhere.
    """
    if not path:
        return None
    file = Path(path).expanduser()
    if not file.is_file():
        raise ImageError(f"mask '{path}': no such file")
    if file.stat().st_size > _MAX_MASK_BYTES:
        raise ImageError(f"mask '{path}': larger than {_MAX_MASK_BYTES} bytes, refused")
    try:
        mask = read_image(file)
    except ImageError:
        raise ImageError(f"mask '{path}': not a readable image") from None
    if not mask.any():
        raise ImageError(f"mask '{path}': black everywhere; expected white where to detect")
    return mask


def free_memory() -> None:
    """Return the device memory of networks that are no longer used to the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _load_in_thread(settings: TrackerSettings) -> MDNetExtractor:
    """Load a network in a thread that ends.

    On the CPU each thread that ran a network keeps helper threads for as long as it lives. While
    there are more of them than cores, OpenMP lets all threads sleep instead of spin between two
    layers, and the worker would take half as long again.
    """
    with ThreadPoolExecutor(1) as loader:
        return loader.submit(_load, settings).result()


def _load(settings: TrackerSettings) -> MDNetExtractor:
    extractor = MDNetExtractor(
        settings.weights,
        settings.device,
        settings.max_keypoints,
        score_threshold=settings.score_threshold,
        nms_radius=settings.nms_radius,
        border=settings.border,
        precision=settings.precision,
        max_side=settings.max_side,
        runtime=settings.runtime,
    )
    count = extractor.fixed_batch or len(settings.camera_names)
    extractor.extract_batch([np.zeros(extractor.fixed_size or _WARM_UP, np.uint8)] * count)
    return extractor
