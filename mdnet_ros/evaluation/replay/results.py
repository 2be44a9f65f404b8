"""Results of replayed bags.

There are no averages over bags: errors of different places and speeds do not average.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet_ros.evaluation.reports.results import EvaluationResult, ExtractorResult
from mdnet_ros.evaluation.tracks.statistics import SequenceSummary
from mdnet_ros.evaluation.trajectory_errors import TrajectoryErrors


@dataclass(frozen=True)
class ReplaySettings:
    """Everything that decides the results besides front ends and bags.

    Attributes:
        max_keypoints: the most keypoints of one image.
        image_topic: topic of the images; None: the bag's only one.
        pose_topic: topic of the ground truth; None: the bag's only one called so.
        max_frames: the most frames of each bag; 0: all.
        threshold: inlier threshold of relative poses, pixels.
        odometry: number of runs of the visual odometry, each with another seed; 0: none.
        start: where in each bag the replay starts, as a share of its images in [0, 1].
        end: where it ends.
        rectified: the images are rectified already, so that P of the calibration holds for them.
        camera_info_topic: topic of the calibration; None: the one beside the images.
        max_tracks: the odometry reads at most so many tracks of a frame, those that a VINS
            estimator would get (:mod:`mdnet_ros.tracker.vins`); 0: the tracks of all keypoints.
    """

    max_keypoints: int = 1024
    image_topic: str | None = None
    pose_topic: str | None = None
    max_frames: int = 0
    threshold: float = 1.0
    odometry: int = 1
    start: float = 0.0
    end: float = 1.0
    rectified: bool = False
    camera_info_topic: str | None = None
    max_tracks: int = 0


@dataclass(frozen=True)
class DistanceResult:
    """Relative poses of images some frames apart, estimated from the tracks they share.

    Attributes:
        distance: frames from one image to the other.
        pairs: number of image pairs with ground truth.
        failed: number of these without an estimate.
        rotation: median rotation error of the estimates, degrees; None without any.
        translation: median error of the translation direction, degrees in [0, 180]; None
            without any.
        accuracy: mAA(10°) of the larger error; failed pairs count as wrong. Where the camera
            moved less than 5 mm only the rotation counts. None without pairs.
    """

    distance: int
    pairs: int
    failed: int
    rotation: float | None
    translation: float | None
    accuracy: float | None


@dataclass(frozen=True)
class OdometryResult:
    """Monocular visual odometry from the tracks, one run.

    Attributes:
        seed: seed of its robust fits.
        located: share of the frames that got a pose.
        bridged: number of frames whose pose came from the frame before alone.
        restarts: number of times the map was lost.
        errors: errors of the trajectory; None where it cannot be compared with the truth.
    """

    seed: int
    located: float
    bridged: int
    restarts: int
    errors: TrajectoryErrors | None


@dataclass(frozen=True)
class BagResult:
    """One front end on one bag.

    Attributes:
        name: name of the bag.
        input_rate: frames per second of the bag, by its stamps.
        summary: keypoints, matches, tracks and precision.
        coverage: share of the cells of a 10 by 8 grid with a track, mean over the frames.
        milliseconds: time of each frame: extraction and tracking; in a live run, from the image
            sent to the answer received.
        dropped: number of frames a robot would have dropped at the bag's rate, the newest
            winning; in a live run, number of frames that were dropped.
        distances: errors of relative poses; empty without ground truth.
        odometry: the runs of the visual odometry; empty without a calibrated camera.
    """

    name: str
    input_rate: float
    summary: SequenceSummary
    coverage: float
    milliseconds: tuple[float, ...]
    dropped: int
    distances: tuple[DistanceResult, ...]
    odometry: tuple[OdometryResult, ...]

    def trajectory_errors(self) -> list[TrajectoryErrors]:
        """Return the errors of the odometry's runs that can be compared with the truth."""
        return [run.errors for run in self.odometry if run.errors is not None]


ReplayResult = EvaluationResult[ReplaySettings, ExtractorResult[BagResult]]

#: Percentiles of the latency that are given.
PERCENTILES = (50, 90, 99)


def latency_percentiles(bag: BagResult) -> dict[int, float]:
    """Percentiles of the time of a frame, milliseconds."""
    values = np.percentile(bag.milliseconds, PERCENTILES)
    return {p: float(value) for p, value in zip(PERCENTILES, values, strict=True)}


def mean_rate(bag: BagResult) -> float:
    """Frames per second that the front end could process."""
    mean = float(np.mean(bag.milliseconds))
    return 1e3 / mean if mean > 0 else 0.0


def bag_metrics(bag: BagResult) -> dict[str, Any]:
    """Averages over the frames of one bag, as the JSON shows them."""
    latency = latency_percentiles(bag)
    return {'hz': mean_rate(bag), 'latency_ms': {f'p{p}': v for p, v in latency.items()}}
