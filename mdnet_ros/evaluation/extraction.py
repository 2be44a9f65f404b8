"""Features of images, from the cache, from a file of precomputed features, or extracted now."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mdnet_ros.baselines.common import user_cache
from mdnet_ros.baselines.precomputed import PrecomputedFeatures
from mdnet_ros.baselines.registry import ExtractorSpec
from mdnet_ros.data.array_files import read_npz
from mdnet_ros.data.image_files import read_image
from mdnet_ros.errors import DataError
from mdnet_ros.features.extractor import Extractor
from mdnet_ros.features.types import Features

_FIELDS = ('keypoints', 'scores', 'sets', 'descriptors')


@dataclass(frozen=True)
class Extraction:
    """Features of one image with the time their extraction took.

    Attributes:
        features: features of the image.
        milliseconds: wall time of the extractor alone.
        reused: whether they come from the cache.
    """

    features: Features
    milliseconds: float
    reused: bool = False


def default_cache() -> Path:
    """Return the default folder for features."""
    return user_cache() / 'features'


def image_key(image: np.ndarray) -> str:
    """Hash of an image's shape and pixels, hexadecimal."""
    digest = hashlib.sha256(f'{image.shape} {image.dtype}'.encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def extract(extractor: Extractor, image: np.ndarray) -> Extraction:
    """Extract features of an image and measure the time."""
    start = time.perf_counter()
    features = extractor(image)
    return Extraction(features, 1e3 * (time.perf_counter() - start))


class FeatureCache:
    """Cache of extractions, in files of one folder.

    A file appears under its name only once it is complete, so any number of processes may share
    a folder and an interrupted run continues where it was. A file that cannot be read is
    ignored.

    Args:
        folder: folder of the cache, created when the first extraction is stored.
        identity: hash of everything that decides the extractor's output, see
            :meth:`mdnet_ros.baselines.registry.ExtractorSpec.identity`.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder = folder / identity[:32]

    def _path(self, key: str) -> Path:
        return self._folder / f'{key}.npz'

    def get(self, key: str) -> Extraction | None:
        """Return the extraction stored under an image's key, or None."""
        try:
            file = read_npz(self._path(key))
            width, height, num_sets = (int(v) for v in file['meta'])
            arrays: dict[str, Any] = {name: file[name] for name in _FIELDS}
            features = Features(**arrays, image_size=(width, height), num_sets=num_sets)
            return Extraction(features, float(file['milliseconds']), reused=True)
        except (DataError, KeyError, ValueError, TypeError):  # extracted again
            return None

    def put(self, key: str, extraction: Extraction) -> None:
        """Store an extraction under an image's key."""
        features = extraction.features
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f'.{path.name}.{os.getpid()}.{threading.get_ident()}.tmp')
        try:
            with open(temporary, 'wb') as file:
                np.savez(
                    file,
                    meta=np.array([*features.image_size, features.num_sets]),
                    milliseconds=np.array(extraction.milliseconds),
                    **{name: getattr(features, name) for name in _FIELDS},
                )
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def shrink(image: np.ndarray, max_side: int) -> tuple[np.ndarray, np.ndarray]:
    """Limit the longer side of an image.

    Args:
        image: (H, W, …) uint8.
        max_side: the longest side allowed, pixels; 0: no limit.

    Returns:
        The image, shrunk if necessary, and the (3, 3) map from its old to its new pixels. Pixel
        centres lie at integers, so a side scaled by s maps x to (x + 0.5)·s - 0.5.
    """
    height, width = image.shape[:2]
    if not max_side or max(height, width) <= max_side:
        return image, np.eye(3)
    factor = max_side / max(height, width)
    new = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(image, new, interpolation=cv2.INTER_AREA), scaling((width, height), new)


def scaling(old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """Return the (3, 3) map of pixels from (width, height) ``old`` to a copy of size ``new``."""
    sx, sy = new[0] / old[0], new[1] / old[1]
    return np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])


@dataclass(frozen=True)
class LoadedImage:
    """Image that is passed to an extractor.

    Attributes:
        path: path of its file.
        pixels: (H, W, 3) uint8 BGR, shrunk if a size limit asks for it.
        to_pixels: (3, 3) map from pixels of the file to ``pixels``.
        key: hash of ``pixels``.
    """

    path: Path
    pixels: np.ndarray
    to_pixels: np.ndarray
    key: str


def load_image(path: Path, max_side: int = 0) -> LoadedImage:
    """Read an image and limit its longer side to ``max_side`` pixels (0: no limit).

    Raises:
        ImageError: it cannot be read.
    """
    pixels, to_pixels = shrink(read_image(path, colour=True), max_side)
    return LoadedImage(path, pixels, to_pixels, image_key(pixels))


class FeatureSource:
    """Source of one extractor's features, with a cache.

    The extractor is created when the first image is not in the cache. One that uses a single core
    is created once per thread and works on several images at a time.

    Args:
        spec: extractor to use.
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
        """Return the features of one image.

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
        """Return the features of several images, extracted in parallel where that pays.

        Raises:
            ImageError: the extractor cannot use an image.
            DataError: a file of precomputed features lacks an image.
        """
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
        """Read precomputed features and scale them to the pixels of the image."""
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


@dataclass(frozen=True)
class MeasuredData:
    """Data set and extractors of an evaluation, from which pictures of reports are drawn.

    Attributes:
        root: folder of the data set.
        specs: extractors that were measured.
        cache: folder of their cached features; None: extract again.
    """

    root: Path
    specs: Sequence[ExtractorSpec]
    cache: Path | None = None

    def sources(self) -> list[FeatureSource]:
        """Return a source of features for each extractor."""
        return [FeatureSource(spec, self.cache) for spec in self.specs]
