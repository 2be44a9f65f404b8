"""Structure from motion by COLMAP (pycolmap), from given keypoints and matches."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.colmap import COLMAP_OFFSET, colmap_camera, open_database
from mdnet_ros.data.poses import Pose
from mdnet_ros.errors import MissingDependencyError

try:
    import pycolmap
except ImportError:
    pycolmap = None  # type: ignore[assignment]


@dataclass(frozen=True)
class ReconstructionInput:
    """An image to reconstruct from.

    Attributes:
        name: name of the image.
        image_size: (width, height) in pixels.
        keypoints: (N, 2) pixels, integer pixel centres.
        intrinsics: (3, 3), or None where COLMAP is to find focal length and distortion.
    """

    name: str
    image_size: tuple[int, int]
    keypoints: np.ndarray
    intrinsics: np.ndarray | None = None


@dataclass(frozen=True)
class Reconstruction:
    """The largest model COLMAP found.

    Attributes:
        world_to_camera: pose of every registered image, by name.
        num_landmarks: number of triangulated points.
        mean_track_length: mean number of images that a point is seen in; 0 without a point. An
            image that sees a point twice counts once, unlike in COLMAP's own mean track length.
        verified_matches: two-view inlier matches of each image pair given, 0 where rejected.
    """

    world_to_camera: dict[str, Pose]
    num_landmarks: int
    mean_track_length: float
    verified_matches: tuple[int, ...]


def reconstruct(
    images: Sequence[ReconstructionInput],
    matches: Mapping[tuple[int, int], np.ndarray],
    seed: int = 0,
    min_model_size: int = 3,
) -> Reconstruction:
    """Verify the matches of image pairs, then reconstruct incrementally.

    It runs in one thread with a fixed seed, so that equal input gives an equal model.

    Args:
        images: images to reconstruct from.
        matches: (M, 2) integer rows of keypoints, by (i, j) with i < j, indices of ``images``.
        seed: seed of COLMAP's random sampling.
        min_model_size: smaller models are dropped.

    Raises:
        MissingDependencyError: pycolmap is not installed.
    """
    if pycolmap is None:
        raise MissingDependencyError('pycolmap', 'evaluate', 'multiview reconstruction')
    pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
    pycolmap.set_random_seed(seed)
    with tempfile.TemporaryDirectory(prefix='mdnet-colmap-') as folder:
        database_path = Path(folder, 'database.db')
        ids = _write_database(database_path, images, matches)
        pairs_path = Path(folder, 'pairs.txt')
        names = [f'{images[i].name} {images[j].name}' for i, j in matches]
        pairs_path.write_text('\n'.join(names) + '\n')
        two_view = pycolmap.TwoViewGeometryOptions()
        two_view.ransac.random_seed = seed
        pycolmap.verify_matches(database_path, pairs_path, two_view)
        verified = _verified_counts(database_path, ids, matches)
        models = {}
        if any(verified):
            models = pycolmap.incremental_mapping(
                database_path, folder, folder, _options(images, seed, min_model_size)
            )
    if not models:
        return Reconstruction({}, 0, 0.0, verified)
    model = max(models.values(), key=lambda m: (m.num_reg_images(), m.num_points3D()))
    poses = {}
    for image_id in model.reg_image_ids():
        image = model.image(image_id)
        # A method since pycolmap 3.12, a property before.
        cam_from_world = image.cam_from_world
        rigid = cam_from_world() if callable(cam_from_world) else cam_from_world
        matrix = rigid.matrix()
        poses[image.name] = Pose(matrix[:, :3], matrix[:, 3])
    lengths = [
        len({element.image_id for element in point.track.elements})
        for point in model.points3D.values()
    ]
    length = float(np.mean(lengths)) if lengths else 0.0
    return Reconstruction(poses, model.num_points3D(), length, verified)


def _write_database(
    path: Path,
    images: Sequence[ReconstructionInput],
    matches: Mapping[tuple[int, int], np.ndarray],
) -> list[int]:
    """Fill a new database and return COLMAP's id of each image."""
    database = open_database(path)
    ids = []
    for image in images:
        camera_id = database.write_camera(_camera(image))
        image_id = database.write_image(pycolmap.Image(name=image.name, camera_id=camera_id))
        keypoints = np.asarray(image.keypoints, np.float32) + np.float32(COLMAP_OFFSET)
        database.write_keypoints(image_id, keypoints)
        ids.append(image_id)
    for (i, j), rows in matches.items():
        if len(rows):
            database.write_matches(ids[i], ids[j], np.asarray(rows, np.uint32))
    database.close()
    return ids


def _camera(image: ReconstructionInput) -> Any:
    k, size = image.intrinsics, image.image_size
    camera = None if k is None else CameraModel(*size, np.asarray(k), np.zeros(0), '')
    return colmap_camera(camera, size)


def _verified_counts(
    path: Path, ids: list[int], matches: Mapping[tuple[int, int], np.ndarray]
) -> tuple[int, ...]:
    database = open_database(path)
    counts = []
    for i, j in matches:
        found = database.exists_two_view_geometry(ids[i], ids[j]) if len(matches[i, j]) else False
        geometry = database.read_two_view_geometry(ids[i], ids[j]) if found else None
        counts.append(len(geometry.inlier_matches) if geometry is not None else 0)
    database.close()
    return tuple(counts)


def _options(images: Sequence[ReconstructionInput], seed: int, min_model_size: int) -> Any:
    options = pycolmap.IncrementalPipelineOptions()
    options.ba_refine_focal_length = any(image.intrinsics is None for image in images)
    options.min_model_size = min_model_size
    options.num_threads = 1
    options.extract_colors = False
    for part in (options, options.mapper, options.triangulation):
        if hasattr(part, 'random_seed'):  # since pycolmap 3.13
            part.random_seed = seed
    return options
