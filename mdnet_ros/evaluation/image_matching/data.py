"""Scenes in the layout of the Image Matching Benchmark (Jin et al., IJCV 2021).

A scene holds in ``SCENE/set_100``: ``images/NAME.*``; ``calibration/calibration_NAME.h5`` with K,
R and T, where x = K (R X + T) and pixel centres lie at integers; and, where present,
``depth_maps/NAME.h5`` (z in the units of T, 0 unknown), ``new-vis-pairs/keys-th-0.1.npy`` (image
pairs as "NAME1-NAME2") and ``sub_set/SIZEbag_ID.txt`` (subsets, one image path per line).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mdnet_ros.data.h5_files import open_h5
from mdnet_ros.data.image_files import IMAGE_SUFFIXES
from mdnet_ros.data.poses import Pose
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.image_matching.scene import Scene, SceneSettings, View
from mdnet_ros.evaluation.image_matching.selection import (
    VISIBILITY_FILE,
    draw_subsets,
    pairs_by_angle,
    pairs_from_file,
    read_subsets,
)


def find_scenes(root: Path) -> list[Path]:
    """List the scenes (folders with ``set_100/images``) of a data set, or ``root`` if it is one.

    Raises:
        DataError: there is no scene.
    """
    candidates = [root, *sorted(p for p in root.glob('*') if p.is_dir())] if root.is_dir() else []
    scenes = [p for p in candidates if (p / 'set_100' / 'images').is_dir()]
    if not scenes:
        raise DataError(f'{root}: expected scenes as SCENE/set_100/images')
    return scenes


def load_scene(folder: Path, settings: SceneSettings) -> Scene:
    """Read a scene; images whose calibration cannot be used are left out and named.

    Raises:
        DataError: fewer than two images are left, or no pair.
        MissingDependencyError: h5py is not installed.
    """
    base = folder / 'set_100'
    omitted: list[str] = []
    views: dict[str, View] = {}
    files = (p for p in (base / 'images').iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    for path in sorted(files):
        if path.stem in views:
            raise DataError(
                f"{base}: images '{views[path.stem].image_path.name}' and '{path.name}' share the "
                f"name '{path.stem}', expected one of them"
            )
        try:
            calibration = base / 'calibration' / f'calibration_{path.stem}.h5'
            intrinsics, world_to_camera = read_calibration(calibration)
        except DataError as error:
            omitted.append(str(error))
            continue
        depth = base / 'depth_maps' / f'{path.stem}.h5'
        views[path.stem] = View(
            path.stem, path, intrinsics, world_to_camera,
            depth if depth.is_file() else None,
        )
    if len(views) < 2:
        reason = f' ({omitted[0]})' if omitted else ''
        raise DataError(f'{base}: expected at least 2 calibrated images, got {len(views)}{reason}')
    rng = np.random.default_rng(settings.seed)
    visibility = base / VISIBILITY_FILE
    if visibility.is_file():
        pairs, source = pairs_from_file(visibility, views, omitted), str(VISIBILITY_FILE)
    else:
        pairs = pairs_by_angle(list(views.values()), settings.max_angle)
        source = f'baseline angle up to {settings.max_angle:g} degrees'
    if not pairs:
        raise DataError(f'{base}: expected image pairs, found none by {source}')
    subsets = read_subsets(base / 'sub_set', views, settings, omitted)
    if not subsets:
        subsets = draw_subsets(list(views), pairs, settings, rng)
    if settings.max_pairs and len(pairs) > settings.max_pairs:
        chosen = sorted(rng.permutation(len(pairs))[: settings.max_pairs])
        pairs = [pairs[i] for i in chosen]
    return Scene(folder.name, views, tuple(pairs), source, tuple(subsets), tuple(omitted))


def read_calibration(path: Path) -> tuple[np.ndarray, Pose]:
    """Read a calibration file.

    Returns:
        The (3, 3) intrinsics and ``world_to_camera``, the pose as the benchmark stores it.

    Raises:
        DataError: the file is missing, unreadable, or not a calibration.
        MissingDependencyError: h5py is not installed.
    """
    values: dict[str, np.ndarray] = {}
    if not path.is_file():
        raise DataError(f'{path}: no such calibration file')
    with open_h5(path) as file:
        for key, size in (('K', 9), ('R', 9), ('T', 3)):
            if key not in file:
                raise DataError(f'{path}: expected the key {key}, got {sorted(file)}')
            values[key] = np.asarray(file[key], np.float64)
            if values[key].size != size:
                raise DataError(
                    f'{path}: expected {size} numbers in {key}, got shape {values[key].shape}'
                )
    intrinsics, rotation = values['K'].reshape(3, 3), values['R'].reshape(3, 3)
    if not all(np.isfinite(v).all() for v in values.values()):
        raise DataError(f'{path}: expected finite numbers')
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-2 or np.linalg.det(rotation) < 0:
        raise DataError(f'{path}: R: expected a rotation matrix')
    if min(intrinsics[0, 0], intrinsics[1, 1]) <= 0:
        raise DataError(f'{path}: K: expected positive focal lengths')
    return intrinsics, Pose(rotation, values['T'].ravel())


def read_depth(path: Path) -> np.ndarray:
    """Read a depth map.

    Returns:
        (H, W) float32 depth along z, 0 where unknown.

    Raises:
        DataError: the file is unreadable.
    """
    with open_h5(path) as file:
        depth = np.asarray(file['depth'], np.float32)
    if depth.ndim != 2:
        raise DataError(f'{path}: depth: expected two dimensions, got shape {depth.shape}')
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0.0).astype(np.float32)
