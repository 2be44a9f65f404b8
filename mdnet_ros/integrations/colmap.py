"""A tracked sequence as a COLMAP database, ``database.db``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.colmap import COLMAP_OFFSET, colmap_camera, import_pycolmap, open_database
from mdnet_ros.errors import DataError
from mdnet_ros.features.types import Features
from mdnet_ros.integrations.pairs import ImagePair


def camera_for_colmap(
    camera: CameraModel | None, image_size: tuple[int, int]
) -> tuple[CameraModel | None, str]:
    """Choose the calibration to export.

    Returns:
        The camera and an empty text, or None and the reason why COLMAP cannot store it.

    Raises:
        MissingDependencyError: pycolmap is not installed.
    """
    try:
        colmap_camera(camera, image_size)
    except DataError as error:
        return None, str(error)
    return camera, ''


class ColmapDatabase:
    """Writes one camera, and images with keypoints, matches and two-view geometries.

    The matches of two images are all tracks that they share. Their two-view geometry is the
    tracker's own verification: its inliers are the tracks without an outlier step between the
    images, so that ``colmap mapper`` can start at once. It has no matrices; the mapper estimates
    what it needs. Coordinates are COLMAP's: the first pixel's centre lies at (0.5, 0.5).

    Args:
        folder: folder to write into.
        camera: calibration, see :func:`camera_for_colmap`; None: COLMAP estimates it.
        image_size: (width, height) in pixels.

    Raises:
        MissingDependencyError: pycolmap is not installed.
        DataError: COLMAP does not know the distortion model.
    """

    def __init__(
        self, folder: Path, camera: CameraModel | None, image_size: tuple[int, int]
    ) -> None:
        self._pycolmap = import_pycolmap()
        kinds = self._pycolmap.TwoViewGeometryConfiguration
        self._kind = kinds.UNCALIBRATED if camera is None else kinds.CALIBRATED
        converted = colmap_camera(camera, image_size)
        with _one_line_errors():
            self._database = open_database(folder / 'database.db')
            self._camera_id = self._database.write_camera(converted)
        self._ids: dict[str, int] = {}

    def close(self) -> None:
        """Close the database."""
        with _one_line_errors():
            self._database.close()

    def image(self, name: str, features: Features) -> None:
        """Write an image and its keypoints."""
        image = self._pycolmap.Image(name=name, camera_id=self._camera_id)
        points = np.asarray(features.keypoints, np.float32) + np.float32(COLMAP_OFFSET)
        with _one_line_errors():
            self._ids[name] = self._database.write_image(image)
            self._database.write_keypoints(self._ids[name], points)

    def pair(self, name_a: str, name_b: str, pair: ImagePair, features: tuple[int, int]) -> None:
        """Write the matches of two images and their two-view geometry."""
        a, b = self._ids[name_a], self._ids[name_b]
        rows = pair.rows.astype(np.uint32)
        geometry = self._pycolmap.TwoViewGeometry()
        geometry.config = self._kind
        geometry.inlier_matches = rows[pair.inlier]
        with _one_line_errors():
            self._database.write_matches(a, b, rows)
            self._database.write_two_view_geometry(a, b, geometry)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Raise a DataError where pycolmap cannot write, for example because the disk is full."""
    try:
        yield
    except RuntimeError as error:
        reason = ' '.join(str(error).split())[:200]
        raise DataError(f'COLMAP database: cannot be written: {reason}') from None
