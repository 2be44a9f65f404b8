"""Calibrations and depth maps of the Image Matching Benchmark, in HDF5 files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mdnet_ros.data.poses import Pose
from mdnet_ros.errors import DataError, MissingDependencyError

try:
    import h5py
except ImportError:
    h5py = None


def read_calibration(path: Path) -> tuple[np.ndarray, Pose]:
    """(3, 3) intrinsics and world→camera pose of a calibration file.

    Raises:
        DataError: if it is missing, unreadable, or not a calibration.
        MissingDependencyError: without h5py.
    """
    if h5py is None:
        raise MissingDependencyError('h5py', 'evaluate', 'reading camera calibrations')
    values: dict[str, np.ndarray] = {}
    if not path.is_file():
        raise DataError(f'{path}: no such calibration file')
    try:
        with h5py.File(path, 'r') as file:
            for key, size in (('K', 9), ('R', 9), ('T', 3)):
                if key not in file:
                    raise DataError(f'{path}: expected the key {key}, got {sorted(file)}')
                values[key] = np.asarray(file[key], np.float64)
                if values[key].size != size:
                    raise DataError(
                        f'{path}: expected {size} numbers in {key}, got shape {values[key].shape}'
                    )
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f'{path}: not a readable HDF5 calibration ({error})') from None
    intrinsics, rotation = values['K'].reshape(3, 3), values['R'].reshape(3, 3)
    if not all(np.isfinite(v).all() for v in values.values()):
        raise DataError(f'{path}: expected finite numbers')
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-2 or np.linalg.det(rotation) < 0:
        raise DataError(f'{path}: R: expected a rotation matrix')
    if min(intrinsics[0, 0], intrinsics[1, 1]) <= 0:
        raise DataError(f'{path}: K: expected positive focal lengths')
    return intrinsics, Pose(rotation, values['T'].ravel())


def read_depth(path: Path) -> np.ndarray:
    """(H, W) float32 depth along z, 0 where unknown.

    Raises:
        DataError: if it is unreadable.
    """
    try:
        with h5py.File(path, 'r') as file:
            depth = np.asarray(file['depth'], np.float32)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f'{path}: not a readable depth map ({error})') from None
    if depth.ndim != 2:
        raise DataError(f'{path}: depth: expected two dimensions, got shape {depth.shape}')
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0.0).astype(np.float32)
