"""Errors of estimated trajectories, by evo (Grupp, github.com/MichaelGrupp/evo)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet_ros.data.poses import Trajectory
from mdnet_ros.errors import MissingDependencyError

try:
    from evo.core import geometry, metrics, trajectory
except ImportError:
    geometry = metrics = trajectory = None


@dataclass(frozen=True)
class TrajectoryErrors:
    """Errors of a monocular trajectory after Sim(3) alignment with the truth.

    Attributes:
        frames: number of poses compared.
        length: length of the true path, metres.
        scale: factor by which the estimate was multiplied.
        ate: absolute trajectory error, root mean square of the positions, metres.
        rpe_translation: relative pose error from frame to frame, root mean square, metres.
        rpe_rotation: the same for the rotation, degrees.
        aligned: (N, 3) estimated positions, aligned.
        truth: (N, 3) true positions.
    """

    frames: int
    length: float
    scale: float
    ate: float
    rpe_translation: float
    rpe_rotation: float
    aligned: np.ndarray
    truth: np.ndarray


def align_similarity(points: np.ndarray, target: np.ndarray) -> np.ndarray | None:
    """Move points onto others by the best similarity (Umeyama, PAMI 1991, equations 34 to 43).

    Args:
        points: (N, 3).
        target: (N, 3), row by row the same points.

    Returns:
        (N, 3), or None if the points fix no similarity (all on one line, or at one place).

    Raises:
        MissingDependencyError: without evo.
    """
    _require_evo()
    if len(points) < 3:
        return None
    try:
        rotation, translation, scale = geometry.umeyama_alignment(points.T, target.T, True)
    except geometry.GeometryException:
        return None
    return scale * points @ rotation.T + translation


def compare_trajectories(estimate: Trajectory, truth: Trajectory) -> TrajectoryErrors | None:
    """Compare a trajectory with the truth at its own stamps, where the truth is known.

    Args:
        estimate: estimated poses, camera to map, of unknown scale.
        truth: true poses, camera to map, metres.

    Returns:
        The errors, or None if fewer than three poses can be compared or they fix no similarity.

    Raises:
        MissingDependencyError: without evo.
    """
    _require_evo()
    true = [truth.interpolated_at(int(stamp)) for stamp in estimate.stamps_ns]
    rows = [i for i, pose in enumerate(true) if pose is not None]
    if len(rows) < 3:
        return None
    reference = trajectory.PosePath3D(
        poses_se3=[_se3(p.rotation, p.translation) for p in true if p is not None]
    )
    found = trajectory.PosePath3D(
        poses_se3=[_se3(estimate.rotations[i], estimate.translations[i]) for i in rows]
    )
    try:
        scale = found.align(reference, correct_scale=True)[2]
    except geometry.GeometryException:
        return None
    data = (reference, found)
    return TrajectoryErrors(
        frames=len(rows),
        length=float(reference.path_length),
        scale=float(scale),
        ate=_rmse(metrics.APE(metrics.PoseRelation.translation_part), data),
        rpe_translation=_rmse(metrics.RPE(metrics.PoseRelation.translation_part), data),
        rpe_rotation=_rmse(metrics.RPE(metrics.PoseRelation.rotation_angle_deg), data),
        aligned=np.array(found.positions_xyz),
        truth=np.array(reference.positions_xyz),
    )


def _se3(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, translation
    return pose


def _rmse(metric: Any, data: tuple[Any, Any]) -> float:
    metric.process_data(data)
    return float(metric.get_statistic(metrics.StatisticsType.rmse))


def _require_evo() -> None:
    if trajectory is None:
        raise MissingDependencyError('evo', 'evaluate', 'comparing trajectories')
