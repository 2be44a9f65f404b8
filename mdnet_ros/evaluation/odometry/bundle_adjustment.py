"""Bundle adjustment of a short window of views, by pycolmap (Ceres)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mdnet_ros.data.poses import Pose
from mdnet_ros.errors import MissingDependencyError
from mdnet_ros.evaluation.odometry.views import Observations, View, observations

try:
    import pycolmap
except ImportError:
    pycolmap = None  # type: ignore[assignment]

#: Iterations of Levenberg-Marquardt at most; the start is good, so that few are needed.
_ITERATIONS = 8
#: The adjustment ends when the cost falls by less than this share in an iteration.
_TOLERANCE = 1e-4
#: Share of the landmarks in an adjustment that each view may claim.
_SHARE = 0.2


@dataclass(frozen=True)
class Adjusted:
    """Result of a bundle adjustment.

    Attributes:
        poses: camera to map, for each view.
        points: id to (3,) point in the map of the landmarks that were adjusted.
        errors: id to its largest reprojection error, pixels; infinite behind a camera.
    """

    poses: tuple[Pose, ...]
    points: dict[int, np.ndarray]
    errors: dict[int, float]


def adjust(
    views: Sequence[View],
    points: Mapping[int, np.ndarray],
    fixed: int,
    focal: float,
    loss_scale: float,
    max_points: int,
    min_points: int,
) -> Adjusted | None:
    """Minimise the reprojection errors (Huber loss) over poses and points.

    The result does not depend on the number of processors: Ceres runs on one thread.

    Args:
        views: the views with poses.
        points: the landmarks' points in the map. If they are more than ``max_points``, every view
            gets its share of them, the newest first.
        fixed: number of views at the start whose poses stay as they are. With one, the distance
            to the second view along one axis stays, too, because nothing else holds the scale.
        focal: focal length that turns errors on the plane z = 1 into pixels.
        loss_scale: error from which on the loss is linear, pixels.
        max_points: the most landmarks to adjust.
        min_points: a view that observes fewer of the landmarks stays as it is.

    Returns:
        The poses and points, or None where too little is shared to adjust anything.

    Raises:
        MissingDependencyError: if pycolmap is not installed.
    """
    if pycolmap is None:
        raise MissingDependencyError('pycolmap', 'evaluate', 'visual odometry')
    seen = _choose(views, points, max_points)
    counts = np.bincount(seen.views, minlength=len(views))
    free = [i for i in range(fixed, len(views)) if counts[i] >= min_points]
    if not free:
        return None
    scene = pycolmap.Reconstruction()
    scene.add_camera_with_trivial_rig(
        pycolmap.Camera(
            camera_id=1, model='SIMPLE_PINHOLE', width=1, height=1, params=[focal, 0, 0]
        )
    )
    config = pycolmap.BundleAdjustmentConfig()
    config.set_constant_cam_intrinsics(1)
    for i, view in enumerate(views):
        assert view.pose is not None
        inverse = view.pose.inverse()
        image = pycolmap.Image(
            name=str(i), camera_id=1, image_id=i + 1, keypoints=focal * view.rays[:, :2]
        )
        rotation = pycolmap.Rotation3d(inverse.rotation)
        scene.add_image_with_trivial_frame(
            image, pycolmap.Rigid3d(rotation, inverse.translation)
        )
        config.add_image(i + 1)
        if i not in free:
            config.set_constant_rig_from_world_pose(i + 1)
    if len(free) == len(views) - 1:
        config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    keys = _add_points(scene, seen, points)
    pycolmap.create_default_bundle_adjuster(_options(loss_scale), config, scene).solve()
    poses = tuple(_pose_of(scene.images[i + 1].cam_from_world()) for i in range(len(views)))
    found = np.stack([scene.points3D[key].xyz for key in keys])
    cameras = [pose.inverse() for pose in poses]
    errors = focal * seen.largest_errors(
        found,
        np.stack([pose.rotation for pose in cameras]),
        np.stack([pose.translation for pose in cameras]),
    )
    ids = seen.ids.tolist()
    return Adjusted(
        tuple(
            poses[i] if i in free else view.pose
            for i, view in enumerate(views)
            if view.pose is not None
        ),
        dict(zip(ids, found, strict=True)),
        dict(zip(ids, errors.tolist(), strict=True)),
    )


def _choose(
    views: Sequence[View], points: Mapping[int, np.ndarray], max_points: int
) -> Observations:
    """Choose the landmarks to adjust and return their observations.

    Every view, the newest first, gets its share of the landmarks, those that are seen most often;
    the places left go to those seen most often of all. By their number of observations alone,
    the old landmarks would take every place: in a fast turn the newest views, whose poses are
    known least, see none of them.
    """
    seen = observations(views, np.fromiter(points, np.int64, len(points)))
    if len(seen.ids) <= max_points:
        return seen
    counts = np.diff(seen.starts)
    landmark = np.repeat(np.arange(len(counts)), counts)
    order = np.argsort(-counts, kind='stable')
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    chosen = np.zeros(len(counts), bool)
    for view in reversed(range(len(views))):
        candidates = landmark[seen.views == view]
        missing = min(_SHARE * max_points - chosen[candidates].sum(), max_points - chosen.sum())
        candidates = candidates[~chosen[candidates]]
        chosen[candidates[np.argsort(rank[candidates])[: max(int(missing), 0)]]] = True
    chosen[order[~chosen[order]][: max_points - int(chosen.sum())]] = True
    return observations(views, seen.ids[chosen])


def _add_points(
    scene: pycolmap.Reconstruction, seen: Observations, points: Mapping[int, np.ndarray]
) -> list[int]:
    """Add the landmarks to a reconstruction; returns its ids of them, in the same order."""
    images, rows = (seen.views + 1).tolist(), seen.rows.tolist()
    keys = []
    for position, landmark in enumerate(seen.ids.tolist()):
        part = range(seen.starts[position], seen.starts[position + 1])
        track = pycolmap.Track([pycolmap.TrackElement(images[i], rows[i]) for i in part])
        keys.append(scene.add_point3D(points[landmark], track))
    return keys


def _options(loss_scale: float) -> pycolmap.BundleAdjustmentOptions:
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_focal_length = options.refine_extra_params = False
    options.refine_sensor_from_rig = options.print_summary = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.HUBER
    options.ceres.loss_function_scale = loss_scale
    solver = options.ceres.solver_options
    solver.num_threads = 1
    solver.max_num_iterations = _ITERATIONS
    solver.function_tolerance = _TOLERANCE
    return options


def _pose_of(camera_from_map: pycolmap.Rigid3d) -> Pose:
    """Return the pose, camera to map."""
    rotation = np.array(camera_from_map.rotation.matrix())
    return Pose(rotation, np.array(camera_from_map.translation)).inverse()
