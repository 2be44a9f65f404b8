"""Features computed by other programs: h5 of hloc or the Image Matching Benchmark, npz of D2-Net.

They are for extractors that have no adapter in this package (LIFT, ASLFeat). ``PATH`` is

- an h5 file as hloc writes it: a group per image with ``keypoints`` (N, 2), ``descriptors``
  (D, N), ``scores`` (N,) and ``image_size``; integer coordinates at pixel centres;
- a folder as in the Image Matching Benchmark: ``keypoints.h5``, ``descriptors.h5`` and
  optionally ``scores.h5``, each with one array per image; or
- a folder of npz files as D2-Net and R2D2 write them: ``IMAGE.EXT.METHOD`` beside or named like
  the image, with ``keypoints`` (N, 2 or more), ``descriptors`` (N, D) and ``scores`` (N,).

An image is found by the end of its path, with or without its suffix: ``v_bark/1.png``,
``v_bark-1``, or ``1.png`` where only one image is called so. Names may hold dots; two entries for
one image are an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from mdnet_ros.baselines.common import build_features
from mdnet_ros.data.array_files import read_npz
from mdnet_ros.data.h5_files import open_h5
from mdnet_ros.data.image_files import image_name
from mdnet_ros.errors import DataError
from mdnet_ros.features.types import Features

_Arrays = dict[str, np.ndarray]
_Entry = TypeVar('_Entry')


def _normal(name: str) -> str:
    """Path of an image without its suffix, with one kind of separators."""
    return image_name(name.replace('\\', '/')).replace('-', '/')


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
            count = len(keypoints)
            scores = np.asarray(arrays.get('scores', -np.arange(count)), np.float32).reshape(-1)
            width, height = (int(n) for n in np.ravel(arrays.get('image_size', (0, 0)))[:2])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f'{where}: expected keypoints, descriptors, scores and an image size of numbers: '
                f'{error}'
            ) from None
        if keypoints.ndim != 2 or keypoints.shape[1] < 2 or len(scores) != count:
            raise DataError(f'{where}: expected (N, 2) keypoints and N scores')
        if descriptors.ndim != 2 or len(descriptors) != count:
            raise DataError(f'{where}: expected {count} descriptors, got {descriptors.shape}')
        if not (np.isfinite(keypoints).all() and np.isfinite(descriptors).all()):
            raise DataError(f'{where}: holds values that are not finite')
        return build_features(
            keypoints[:, :2], scores, descriptors, (width, height), self.max_keypoints
        )

    def _index_hloc(self) -> dict[str, Callable[[], _Arrays]]:
        groups: list[str] = []
        with open_h5(self._path) as file:
            file.visititems(
                lambda name, item: groups.append(name)
                if hasattr(item, 'keys') and 'keypoints' in item
                else None
            )

        def read(name: str) -> _Arrays:
            with open_h5(self._path) as file:
                arrays = {key: np.asarray(file[name][key]) for key in file[name]}
            if 'descriptors' in arrays:
                arrays['descriptors'] = arrays['descriptors'].T
            return arrays

        return self._by_image([(name, name) for name in groups], read)

    def _index_imb(self) -> dict[str, Callable[[], _Arrays]]:
        def read(name: str) -> _Arrays:
            arrays = {}
            for kind in ('keypoints', 'descriptors', 'scores'):
                path = self._path / f'{kind}.h5'
                if path.is_file():
                    with open_h5(path) as file:
                        if name in file:
                            arrays[kind] = np.asarray(file[name])
            return arrays

        with open_h5(self._path / 'keypoints.h5') as file:
            names = list(file)
        return self._by_image([(name, name) for name in names], read)

    def _index_npz(self) -> dict[str, Callable[[], _Arrays]]:
        def read(path: Path) -> _Arrays:
            arrays = read_npz(path)
            if 'imsize' in arrays:  # R2D2's name for it
                arrays['image_size'] = arrays.pop('imsize')
            return arrays

        # The last suffix is the method's; the image's own may stand before it.
        files = [
            (str(path.relative_to(self._path).with_suffix('')), path)
            for path in sorted(self._path.rglob('*'))
            if path.is_file() and _is_zip(path)
        ]
        return self._by_image(files, read)

    def _by_image(
        self, entries: Iterable[tuple[str, _Entry]], read: Callable[[_Entry], _Arrays]
    ) -> dict[str, Callable[[], _Arrays]]:
        """Readers by the image's normal name.

        Raises:
            DataError: if two entries are for one image.
        """
        names: dict[str, str] = {}
        readers: dict[str, Callable[[], _Arrays]] = {}
        for name, entry in entries:
            key = _normal(name)
            if key in names:
                raise DataError(
                    f"precomputed '{self._path}': expected one entry for each image, found "
                    f"'{names[key]}' and '{name}' for one"
                )
            names[key], readers[key] = name, partial(read, entry)
        return readers


def _is_zip(path: Path) -> bool:
    with open(path, 'rb') as file:
        return file.read(2) == b'PK'
