"""Features computed by other programs: h5 of hloc or the Image Matching Benchmark, npz of D2-Net.

They are for extractors that have no adapter in this package (LIFT, ASLFeat). ``PATH`` is

- an h5 file as hloc writes it: a group per image with ``keypoints`` (N, 2), ``descriptors``
  (D, N), ``scores`` (N,) and ``image_size``; integer coordinates at pixel centres;
- a folder as in the Image Matching Benchmark: ``keypoints.h5``, ``descriptors.h5`` and
  optionally ``scores.h5``, each with one array per image; or
- a folder of npz files as D2-Net and R2D2 write them: ``IMAGE.EXT.METHOD`` beside or named like
  the image, with ``keypoints`` (N, 2 or more), ``descriptors`` (N, D) and ``scores`` (N,).

An image is found by the end of its path: ``v_bark/1.png``, ``v_bark-1``, or ``1.png`` where only
one image has that name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mdnet_ros.baselines.common import build_features
from mdnet_ros.errors import DataError, MissingDependencyError
from mdnet_ros.features.types import Features

_Arrays = dict[str, np.ndarray]


def _import_h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise MissingDependencyError('h5py', 'evaluate', 'reading precomputed h5 files') from None
    return h5py


def _normal(name: str) -> str:
    """Return an image's path without extension, with all separators the same."""
    path = Path(name.replace('\\', '/'))
    return '/'.join([*path.parts[:-1], path.name.split('.')[0]]).replace('-', '/')


class PrecomputedFeatures:
    """Features looked up by the path of an image.

    Args:
        path: file or folder, see the module's docstring.
        max_keypoints: the best this many are used.

    Raises:
        DataError: there is nothing that can be read.
        MissingDependencyError: h5py is needed and not installed.
    """

    def __init__(self, path: Path, max_keypoints: int) -> None:
        self.name = path.stem
        self.max_keypoints = max_keypoints
        self._path = path
        if path.is_file():
            self._readers = self._index_hloc()
        elif (path / 'keypoints.h5').is_file():
            self._readers = self._index_imb()
        elif path.is_dir():
            self._readers = self._index_npz()
        else:
            raise DataError(f"precomputed '{path}': no such file or folder")
        if not self._readers:
            raise DataError(f"precomputed '{path}': expected features of images, found none")

    def __call__(self, image: np.ndarray) -> Features:
        """Refuse an image without a path: the features belong to files.

        Raises:
            DataError: always; use :meth:`read`.
        """
        raise DataError(f"precomputed '{self._path}': holds features of files, not of live images")

    def read(self, image: Path) -> Features:
        """Read the features of an image file; ``image_size`` is (0, 0) where it was not stored.

        Raises:
            DataError: the file has no features, or they are malformed.
        """
        parts = _normal(str(image)).split('/')
        for start in range(len(parts)):
            tail = parts[start:]
            found = [key for key in self._readers if key.split('/')[-len(tail) :] == tail]
            found = found or [key for key in self._readers if key == '/'.join(tail)]
            if len(found) == 1:
                return self._build(found[0], self._readers[found[0]]())
            if len(found) > 1:
                break
        raise DataError(f"precomputed '{self._path}': no features of '{image.name}' alone")

    def _build(self, key: str, arrays: _Arrays) -> Features:
        where = f"precomputed '{self._path}': '{key}'"
        try:
            keypoints = np.asarray(arrays['keypoints'], np.float32)
            descriptors = np.asarray(arrays['descriptors'], np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f'{where}: expected keypoints and descriptors: {error}') from None
        count = len(keypoints)
        scores = np.asarray(arrays.get('scores', -np.arange(count)), np.float32).reshape(-1)
        if keypoints.ndim != 2 or keypoints.shape[1] < 2 or len(scores) != count:
            raise DataError(f'{where}: expected (N, 2) keypoints and N scores')
        if descriptors.ndim != 2 or len(descriptors) != count:
            raise DataError(f'{where}: expected {count} descriptors, got {descriptors.shape}')
        if not (np.isfinite(keypoints).all() and np.isfinite(descriptors).all()):
            raise DataError(f'{where}: holds values that are not finite')
        size = tuple(int(v) for v in np.asarray(arrays.get('image_size', (0, 0))).reshape(-1)[:2])
        return build_features(
            keypoints[:, :2], scores, descriptors, (size[0], size[1]), self.max_keypoints
        )

    def _index_hloc(self) -> dict[str, Callable[[], _Arrays]]:
        h5py = _import_h5py()
        groups: list[str] = []
        try:
            with h5py.File(self._path, 'r') as file:
                file.visititems(
                    lambda name, item: groups.append(name)
                    if isinstance(item, h5py.Group) and 'keypoints' in item
                    else None
                )
        except OSError:
            raise DataError(f"precomputed '{self._path}': not an h5 file") from None

        def read(name: str) -> _Arrays:
            with h5py.File(self._path, 'r') as file:
                arrays = {key: np.asarray(file[name][key]) for key in file[name]}
            if 'descriptors' in arrays:
                arrays['descriptors'] = arrays['descriptors'].T
            return arrays

        return {_normal(name): lambda name=name: read(name) for name in groups}  # type: ignore[misc]

    def _index_imb(self) -> dict[str, Callable[[], _Arrays]]:
        h5py = _import_h5py()

        def read(name: str) -> _Arrays:
            arrays = {}
            for kind in ('keypoints', 'descriptors', 'scores'):
                path = self._path / f'{kind}.h5'
                if path.is_file():
                    with h5py.File(path, 'r') as file:
                        if name in file:
                            arrays[kind] = np.asarray(file[name])
            return arrays

        with h5py.File(self._path / 'keypoints.h5', 'r') as file:
            names = list(file)
        return {_normal(name): lambda name=name: read(name) for name in names}  # type: ignore[misc]

    def _index_npz(self) -> dict[str, Callable[[], _Arrays]]:
        def read(path: Path) -> _Arrays:
            try:
                with np.load(path, allow_pickle=False) as file:
                    arrays = dict(file)
            except (OSError, ValueError) as error:
                raise DataError(f"precomputed '{path}': not an npz file: {error}") from None
            if 'imsize' in arrays:  # R2D2's name for it
                arrays['image_size'] = arrays.pop('imsize')
            return arrays

        return {
            _normal(str(path.relative_to(self._path))): lambda path=path: read(path)  # type: ignore[misc]
            for path in sorted(self._path.rglob('*'))
            if path.is_file() and _is_zip(path)
        }


def _is_zip(path: Path) -> bool:
    with open(path, 'rb') as file:
        return file.read(2) == b'PK'
