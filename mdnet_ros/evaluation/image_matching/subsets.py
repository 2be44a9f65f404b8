"""Multiview metrics of the Image Matching Benchmark: subsets reconstructed by COLMAP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mdnet_ros.data.poses import Pose
from mdnet_ros.evaluation.image_matching.pairs import ViewFeatures, relative_pose
from mdnet_ros.evaluation.image_matching.reconstruction import (
    Reconstruction,
    ReconstructionInput,
    reconstruct,
)
from mdnet_ros.evaluation.pose import mean_average_accuracy, pose_errors
from mdnet_ros.evaluation.trajectory_errors import align_similarity

#: The fewest registered cameras that determine a similarity.
MIN_CAMERAS = 3


@dataclass(frozen=True)
class SubsetResult:
    """Metrics of one reconstructed subset.

    Attributes:
        size: images in the subset.
        registered: images in the largest model; 0: the reconstruction failed.
        matches: matches of an image pair given to COLMAP, mean (NM).
        verified: of these, inliers of COLMAP's two-view geometry, mean.
        landmarks: triangulated points (NL).
        track_length: images that a point is seen in, mean (TL).
        accuracy: mAA(10°) over all pairs of the subset; pairs not registered count as wrong.
        ate: root mean square distance of the registered camera centres from the truth after
            Sim(3) alignment, in the truth's units; None with fewer than three cameras.
    """

    size: int
    registered: int
    matches: float
    verified: float
    landmarks: int
    track_length: float
    accuracy: float
    ate: float | None


def measure_subset(
    names: Sequence[str],
    views: Mapping[str, ViewFeatures],
    matches: Mapping[tuple[str, str], np.ndarray],
    known_intrinsics: bool = False,
    seed: int = 0,
) -> SubsetResult:
    """Reconstruct a subset and compare it with the truth.

    Args:
        names: names of the images of the subset.
        views: features of at least these images, by name.
        matches: (M, 2) rows of every pair of the subset, in the order of ``names``.
        known_intrinsics: give COLMAP the calibration; the benchmark does not.
        seed: seed of COLMAP's random sampling.

    Raises:
        MissingDependencyError: pycolmap is not installed.
    """
    images = [
        ReconstructionInput(
            name,
            views[name].features.image_size,
            views[name].features.keypoints,
            views[name].view.intrinsics if known_intrinsics else None,
        )
        for name in names
    ]
    rows = {
        (i, j): matches[names[i], names[j]] for i, j in combinations(range(len(names)), 2)
    }
    model = reconstruct(images, rows, seed)
    errors = []
    for i, j in combinations(names, 2):
        a, b = (model.world_to_camera.get(name) for name in (i, j))
        found = b @ a.inverse() if a is not None and b is not None else None
        errors.append(max(pose_errors(relative_pose(views[i].view, views[j].view), found)))
    return SubsetResult(
        size=len(names),
        registered=len(model.world_to_camera),
        matches=float(np.mean([len(pair) for pair in rows.values()])),
        verified=float(np.mean(model.verified_matches)),
        landmarks=model.num_landmarks,
        track_length=model.mean_track_length,
        accuracy=mean_average_accuracy(np.array(errors)),
        ate=_ate(model, {name: views[name].view.world_to_camera for name in names}),
    )


def _ate(model: Reconstruction, truth: Mapping[str, Pose]) -> float | None:
    registered = sorted(model.world_to_camera)
    if len(registered) < MIN_CAMERAS:
        return None
    found = np.stack([model.world_to_camera[name].inverse().translation for name in registered])
    true = np.stack([truth[name].inverse().translation for name in registered])
    aligned = align_similarity(found, true)
    if aligned is None:
        return None
    return float(np.sqrt(np.mean(np.sum((aligned - true) ** 2, axis=1))))
