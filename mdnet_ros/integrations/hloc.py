"""Features and matches of a tracked sequence as hloc's two h5 files.

======================= ======================================================================
features.h5, by image   keypoints (N, 2) float32, integer coordinates at pixel centres;
                        descriptors (D, N) float32; scores (N,) float32; image_size (2,): width,
                        height
matches.h5, by pair     group ``IMAGE/IMAGE``: matches0 (N,) int16 or int32, the row in the second
                        image or -1; matching_scores0 (N,) float16
======================= ======================================================================
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.errors import DataError, MissingDependencyError
from mdnet_ros.features.types import Features
from mdnet_ros.integrations.pairs import ImagePair


class _KeptError(io.FileIO):
    """A file for HDF5 that keeps its first error instead of raising it.

    HDF5 crashes the process when it closes a file that could not be written, for example because
    the disk is full. After an error nothing is written any more, and all looks well to HDF5.

    Attributes:
        error: the first error; None: all was written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, 'w+')
        self.path = path
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast('B')
        done = 0
        while self.error is None and done < len(view):
            try:
                done += super().write(view[done:])
            except OSError as error:
                self.error = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        if self.error is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self.error = error
        return size or 0

    def readinto(self, buffer: Any) -> int:
        """Read; zeros where an error left nothing to read."""
        view = memoryview(buffer).cast('B')
        count = super().readinto(view) or 0
        view[count:] = bytes(len(view) - count)
        return len(view)

    def check(self) -> None:
        """Raise DataError if there was an error."""
        if self.error is not None:
            reason = self.error.strerror or self.error
            raise DataError(f"'{self.path}': cannot be written: {reason}")


class HlocFiles:
    """Writes ``features.h5`` and ``matches.h5``.

    Args:
        folder: folder to write into.
        camera: not used; hloc reads calibrations from elsewhere.
        image_size: (width, height) in pixels.

    Raises:
        MissingDependencyError: h5py is not installed.
        DataError: a file cannot be written; also raised by the methods.
    """

    def __init__(
        self, folder: Path, camera: CameraModel | None, image_size: tuple[int, int]
    ) -> None:
        try:
            import h5py
        except ImportError:
            raise MissingDependencyError('h5py', 'evaluate', 'writing h5 files') from None
        self._size = np.array(image_size)
        try:
            self._files = [_KeptError(folder / f'{name}.h5') for name in ('features', 'matches')]
        except OSError as error:
            raise DataError(f"'{folder}': cannot be written: {error.strerror}") from None
        self._features: Any = h5py.File(self._files[0], 'w')
        self._matches: Any = h5py.File(self._files[1], 'w')

    def close(self) -> None:
        """Close the files."""
        for opened in (self._features, self._matches, *self._files):
            opened.close()
        self._check()

    def _check(self) -> None:
        for file in self._files:
            file.check()

    def image(self, name: str, features: Features) -> None:
        """Write an image's features."""
        group = self._features.create_group(name)
        group.create_dataset('keypoints', data=features.keypoints)
        group.create_dataset('descriptors', data=features.descriptors.T)
        group.create_dataset('scores', data=features.scores)
        group.create_dataset('image_size', data=self._size)
        self._check()

    def pair(self, name_a: str, name_b: str, pair: ImagePair, features: tuple[int, int]) -> None:
        """Write the matches of two images."""
        group = self._matches.create_group(f'{name_a}/{name_b}')
        # hloc's own type, int16, unless it cannot hold the rows.
        kind = np.int16 if max(features) <= np.iinfo(np.int16).max else np.int32
        partner = np.full(features[0], -1, kind)
        scores = np.zeros(features[0], np.float16)
        partner[pair.rows[:, 0]] = pair.rows[:, 1]
        scores[pair.rows[:, 0]] = pair.similarity
        group.create_dataset('matches0', data=partner)
        group.create_dataset('matching_scores0', data=scores)
        self._check()
