"""What replayed bags give."""

from __future__ import annotations

from dataclasses import dataclass

from mdnet_ros.evaluation.tracks.statistics import SequenceSummary
from mdnet_ros.evaluation.trajectory import TrajectoryErrors


@dataclass(frozen=True)
class ReplaySettings:
    """What decides the figures, besides front ends and bags.

    Attributes:
        max_keypoints: the most keypoints of one image.
        image_topic: None: the bag's only one.
        pose_topic: of the ground truth; None: the bag's only one.
        max_frames: of each bag's part, from its start; 0: all.
        threshold: inlier threshold of relative poses, pixels.
        odometry: run visual odometry, too.
        start, end: part of each bag to replay, as shares of its images.
    """

    max_keypoints: int = 1024
    image_topic: str | None = None
    pose_topic: str | None = None
    max_frames: int = 0
    threshold: float = 1.0
    odometry: bool = True
    start: float = 0.0
    end: float = 1.0


@dataclass(frozen=True)
class DistanceResult:
    """Relative poses, from shared tracks, of images some frames apart.

    Attributes:
        distance: frames apart.
        pairs: with ground truth.
        failed: of these, without an estimate.
        rotation: median error where there is an estimate, degrees; None without any.
        translation: the same of the direction, its sign counted; None without any.
        accuracy: mAA(10°) of the larger error; failed pairs count as wrong. Where the camera
            moved less than 5 mm only the rotation counts.
    """

    distance: int
    pairs: int
    failed: int
    rotation: float | None
    translation: float | None
    accuracy: float


@dataclass(frozen=True)
class OdometryResult:
    """A monocular visual odometry on the tracks.

    Attributes:
        located: share of the frames that got a pose.
        bridged: frames whose pose came from the frame before alone.
        restarts: times the map was lost.
        errors: against the truth; None where they cannot be compared.
    """

    located: float
    bridged: int
    restarts: int
    errors: TrajectoryErrors | None


@dataclass(frozen=True)
class BagResult:
    """One front end on one bag.

    Attributes:
        name: of the bag.
        input_rate: frames per second of the bag, by its stamps.
        summary: of keypoints, matches, tracks and precision.
        coverage: share of the cells of a 10 by 8 grid with a track, mean of the frames.
        milliseconds: of each frame, extraction and tracking; of a live run, from the image
            sent to the answer received.
        dropped: frames a robot would have dropped at the bag's rate, the newest winning; of a
            live run, frames that were dropped.
        distances: without ground truth empty.
        odometry: None without a calibrated camera, or if not asked for.
    """

    name: str
    input_rate: float
    summary: SequenceSummary
    coverage: float
    milliseconds: tuple[float, ...]
    dropped: int
    distances: tuple[DistanceResult, ...]
    odometry: OdometryResult | None


@dataclass(frozen=True)
class FrontendResult:
    """One front end on all bags."""

    name: str
    licence: str
    bags: tuple[BagResult, ...]


@dataclass(frozen=True)
class ReplayResult:
    """A whole evaluation; ``omitted`` names what was left out and why, one line each."""

    settings: ReplaySettings
    frontends: tuple[FrontendResult, ...]
    omitted: tuple[str, ...]
