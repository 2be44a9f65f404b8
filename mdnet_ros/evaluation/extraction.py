"""Features of images: from the cache, from a file of precomputed ones, or extracted now."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from mdnet_ros.baselines.precomputed import PrecomputedFeatures
from mdnet_ros.baselines.registry import ExtractorSpec
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.cache import Extraction, FeatureCache, extract, image_key
from mdnet_ros.evaluation.homography.data import read_image, scaling, shrink
from mdnet_ros.features.extractor import Extractor


@dataclass(frozen=True)
class LoadedImage:
    """An image as an extractor gets it.

    Attributes:
        path: of its file.
        pixels: (H, W, 3) uint8 BGR, shrunk if a size limit asks for it.
        to_pixels: (3, 3) map from pixels of the file to ``pixels``.
        key: hash of ``pixels``.
    """

    path: Path
    pixels: np.ndarray
    to_pixels: np.ndarray
    key: str


def load_image(path: Path, max_side: int = 0) -> LoadedImage:
    """Read an image, with its longer side limited to ``max_side`` pixels (0: no limit).

    Raises:
        DataError: it cannot be read.
    """
    pixels, to_pixels = shrink(read_image(path), max_side)
    return LoadedImage(path, pixels, to_pixels, image_key(pixels))


class FeatureSource:
    """Features of images by one extractor.

    The extractor is made when the first image is not in the cache; one that uses a single core is
    made once per thread and works on several images at a time.

    Args:
        spec: the extractor.
        cache: folder of the cache; None: no cache.

    Raises:
        WeightsError: its weights are missing.
        MissingDependencyError: its library is not installed.
        DataError: its file of precomputed features is missing.
    """

    def __init__(self, spec: ExtractorSpec, cache: Path | None) -> None:
        self.spec = spec
        self.workers = (os.cpu_count() or 1) if spec.single_threaded else 1
        self._local = threading.local()
        self._precomputed: PrecomputedFeatures | None = None
        self._cache: FeatureCache | None = None
        if spec.precomputed is not None:
            self._precomputed = PrecomputedFeatures(spec.precomputed, spec.max_keypoints)
        elif cache is not None:
            self._cache = FeatureCache(cache, spec.identity())

    def _extractor(self) -> Extractor:
        if not hasattr(self._local, 'extractor'):
            self._local.extractor = self.spec.create()
        return self._local.extractor

    def features(self, image: LoadedImage) -> Extraction:
        """Features of one image.

        Raises:
            ImageError: the extractor cannot use it.
            DataError: a file of precomputed features lacks it.
        """
        if self._precomputed is not None:
            return self._read(image)
        found = self._cache.get(image.key) if self._cache else None
        if found is None:
            found = extract(self._extractor(), image.pixels)
            if self._cache:
                self._cache.put(image.key, found)
        return found

    def features_of(self, images: Sequence[LoadedImage]) -> list[Extraction]:
        """Features of several images, in parallel where that pays; raises as :meth:`features`."""
        if self.workers == 1 or len(images) < 2:
            return [self.features(image) for image in images]
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            with ThreadPoolExecutor(self.workers) as pool:
                return list(pool.map(self.features, images))
        finally:
            cv2.setNumThreads(threads)

    def _read(self, image: LoadedImage) -> Extraction:
        """Precomputed features, brought to the pixels of the image."""
        assert self._precomputed is not None
        features = self._precomputed.read(image.path)
        height, width = image.pixels.shape[:2]
        native = np.linalg.inv(image.to_pixels) @ [width - 0.5, height - 0.5, 1.0] + 0.5
        size = (round(native[0]), round(native[1]))
        if features.image_size not in ((0, 0), size):
            raise DataError(
                f"precomputed '{self.spec.name}': {image.path.name} is {size[0]}x{size[1]}, "
                f'its features are of {features.image_size[0]}x{features.image_size[1]}'
            )
        scale = scaling(size, (width, height))
        keypoints = features.keypoints * [scale[0, 0], scale[1, 1]] + scale[:2, 2]
        return Extraction(
            replace(
                features, keypoints=keypoints.astype(np.float32), image_size=(width, height)
            ),
            0.0,
        )
