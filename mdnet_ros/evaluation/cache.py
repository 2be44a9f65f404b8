"""Features on disk: extracted once, found again under a key of image, extractor and settings."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdnet_ros.baselines.common import user_cache
from mdnet_ros.features.extractor import Extractor
from mdnet_ros.features.types import Features

_FIELDS = ('keypoints', 'scores', 'sets', 'descriptors')


@dataclass(frozen=True)
class Extraction:
    """Features and what they cost when they were extracted.

    Attributes:
        features: of one image.
        milliseconds: wall time of the extractor alone.
        reused: found in the cache.
    """

    features: Features
    milliseconds: float
    reused: bool = False


def default_cache() -> Path:
    """Where features are kept unless told otherwise."""
    return user_cache() / 'features'


def image_key(image: np.ndarray) -> str:
    """Hash of an image's shape and pixels, hexadecimal."""
    digest = hashlib.sha256(f'{image.shape} {image.dtype}'.encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def extract(extractor: Extractor, image: np.ndarray) -> Extraction:
    """Extract and take the time."""
    start = time.perf_counter()
    features = extractor(image)
    return Extraction(features, 1e3 * (time.perf_counter() - start))


class FeatureCache:
    """Extractions in files of one folder.

    A file appears under its name only once it is complete, so any number of processes may share
    a folder and an interrupted run continues where it was. A file that cannot be read counts as
    not there.

    Args:
        folder: created when the first extraction is stored.
        identity: hash of all that decides what the extractor gives, see
            :meth:`mdnet_ros.baselines.registry.ExtractorSpec.identity`.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder = folder / identity[:32]

    def _path(self, key: str) -> Path:
        return self._folder / f'{key}.npz'

    def get(self, key: str) -> Extraction | None:
        """The extraction stored under an image's key, if there is one."""
        try:
            with np.load(self._path(key), allow_pickle=False) as file:
                width, height, num_sets = (int(v) for v in file['meta'])
                arrays = {name: file[name] for name in _FIELDS}
                features = Features(**arrays, image_size=(width, height), num_sets=num_sets)
                return Extraction(features, float(file['milliseconds']), reused=True)
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
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
