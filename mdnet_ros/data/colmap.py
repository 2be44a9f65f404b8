"""COLMAP's conventions for pixels, names of camera models, and opening its database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.errors import DataError, MissingDependencyError

#: COLMAP puts the centre of the first pixel at (0.5, 0.5), this package at (0, 0).
COLMAP_OFFSET = 0.5


def import_pycolmap() -> Any:
    """Import pycolmap.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    try:
        import pycolmap
    except ImportError:
        raise MissingDependencyError('pycolmap', 'evaluate', "COLMAP's database") from None
    return pycolmap


def open_database(path: Path) -> Any:
    """Open a database, which is created if it does not exist.

    ``Database.open`` came with pycolmap 3.13, and the constructor went.
    """
    database = import_pycolmap().Database
    return database.open(path) if hasattr(database, 'open') else database(str(path))


def colmap_camera(camera: CameraModel | None, image_size: tuple[int, int]) -> Any:
    """Convert a camera to COLMAP's, with the distortion model that has the same formula.

    Args:
        camera: the calibration; None: COLMAP is to find focal length and distortion, and starts
            where it does itself for an image without EXIF.
        image_size: (width, height) in pixels.

    Returns:
        A ``pycolmap.Camera``.

    Raises:
        DataError: for coefficients that no model of COLMAP has.
    """
    model, params = _model(camera, image_size)
    return import_pycolmap().Camera(
        model=model, width=image_size[0], height=image_size[1], params=params,
        has_prior_focal_length=camera is not None,
    )


def _model(camera: CameraModel | None, image_size: tuple[int, int]) -> tuple[str, list[float]]:
    """Return COLMAP's name of the model and its parameters."""
    width, height = image_size
    if camera is None:
        return 'SIMPLE_RADIAL', [1.2 * max(width, height), width / 2, height / 2, 0.0]
    k = camera.k
    pinhole = [
        k[0, 0], k[1, 1], k[0, 2] + COLMAP_OFFSET, k[1, 2] + COLMAP_OFFSET
    ]
    if k[0, 1]:
        raise DataError('camera_info: expected no skew in k for COLMAP, whose cameras have none')
    # An equidistant lens is none of a pinhole, whatever its coefficients.
    if camera.is_fisheye:
        return 'OPENCV_FISHEYE', [*pinhole, *(camera.d if len(camera.d) else np.zeros(4))]
    if not camera.d.any():
        return 'PINHOLE', pinhole
    # Both count k1, k2, p1, p2, k3, k4, k5, k6, as OpenCV does.
    d = np.zeros(14)
    d[: len(camera.d)] = camera.d
    if d[8:].any():
        raise DataError(
            'camera_info: expected at most 8 distortion coefficients for COLMAP, which knows '
            'neither thin prism nor tilted sensor'
        )
    if d[4:].any():
        return 'FULL_OPENCV', [*pinhole, *d[:8]]
    return 'OPENCV', [*pinhole, *d[:4]]
