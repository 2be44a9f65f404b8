"""Bags replayed through front ends: tracks, cost, relative poses and visual odometry."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mdnet_ros.bags.reader import BagReader
from mdnet_ros.camera import CameraModel
from mdnet_ros.errors import DataError, ImageError
from mdnet_ros.evaluation.coverage import coverage_of
from mdnet_ros.evaluation.frontend import FrontendSpec
from mdnet_ros.evaluation.ground_truth import load_ground_truth
from mdnet_ros.evaluation.odometry import Odometry
from mdnet_ros.evaluation.pose import (
    direction_error_deg,
    estimate_relative_pose,
    mean_average_accuracy,
    rotation_error_deg,
)
from mdnet_ros.evaluation.sequence import (
    MIN_BASELINE,
    EpipolarTruth,
    SequenceStatistics,
    SequenceSummary,
)
from mdnet_ros.evaluation.trajectory import TrajectoryErrors, compare_trajectories
from mdnet_ros.features.types import TrackedFrame
from mdnet_ros.poses import PoseTrack

#: Frames between the two images of a relative pose.
DISTANCES = (1, 2, 5, 10)


@dataclass(frozen=True)
class ReplaySettings:
    """What decides the figures, besides front ends and bags.

    Attributes:
        max_keypoints: the most keypoints of one image.
        image_topic: None: the bag's only one.
        pose_topic: of the ground truth; None: the bag's only one.
        max_frames: of each bag, from its start; 0: all.
        threshold: inlier threshold of relative poses, pixels.
        odometry: run visual odometry, too.
    """

    max_keypoints: int = 1024
    image_topic: str | None = None
    pose_topic: str | None = None
    max_frames: int = 0
    threshold: float = 1.0
    odometry: bool = True


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


@dataclass(frozen=True)
class BagSequence:
    """What is known of a bag besides its pixels.

    Attributes:
        name: of the bag.
        path: of the bag.
        topic: of the images.
        info_topic: of the camera_info, or None.
        stamps_ns: of the images to replay.
        camera: None without a calibration.
        truth: None without ground truth.
    """

    name: str
    path: Path
    topic: str
    info_topic: str | None
    stamps_ns: np.ndarray
    camera: CameraModel | None
    truth: PoseTrack | None


#: Runs a front end over a bag; appends to the list what it had to leave out.
Runner = Callable[[BagSequence, FrontendSpec, ReplaySettings, list[str]], BagResult]


def evaluate(
    bags: Sequence[Path],
    specs: Sequence[FrontendSpec],
    settings: ReplaySettings,
    ground_truth: Sequence[Path] = (),
    shard: tuple[int, int] = (1, 1),
    runner: Runner | None = None,
) -> ReplayResult:
    """Replay bags through front ends.

    Broken bags and images are left out and named.

    Args:
        bags: rosbag2 folders or files.
        specs: the front ends.
        settings: of the protocol.
        ground_truth: a pose file for each bag; empty: the bags' own topics.
        shard: (i, n): only every n-th bag, from the i-th on; i from 1 to n.
        runner: runs a front end over a bag; None: :func:`replay`, every image in turn.

    Raises:
        DataError: no bag could be measured, or pose files do not go with the bags.
        WeightsError: weights are missing.
        MissingDependencyError: a library is not installed.
    """
    if ground_truth and len(ground_truth) != len(bags):
        raise DataError(
            f'ground truth: expected one file for each of {len(bags)} bags, got {len(ground_truth)}'
        )
    names = [bag.resolve().stem for bag in bags]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"bags: two are called '{name}'; rename one")
    measured: dict[str, list[BagResult]] = {spec.name: [] for spec in specs}
    omitted: list[str] = []
    chosen = list(range(len(bags)))[shard[0] - 1 :: shard[1]]
    for index in chosen:
        truth_file = ground_truth[index] if ground_truth else None
        try:
            sequence = _open(bags[index], names[index], truth_file, settings, omitted)
            for spec in specs:
                measured[spec.name].append((runner or replay)(sequence, spec, settings, omitted))
        except DataError as error:
            omitted.append(str(error))
    if chosen and not any(measured.values()):
        raise DataError(f'bags: none could be measured: {"; ".join(omitted[:3])}')
    return ReplayResult(
        settings,
        tuple(FrontendResult(s.name, s.licence, tuple(measured[s.name])) for s in specs),
        tuple(dict.fromkeys(omitted)),
    )


def _open(
    path: Path,
    name: str,
    truth_file: Path | None,
    settings: ReplaySettings,
    omitted: list[str],
) -> BagSequence:
    """Read all but the images' pixels."""
    with BagReader(path) as reader:
        topic = reader.image_topic(settings.image_topic)
        stamps = [frame.stamp_ns for frame in reader.images(topic)]
        if settings.max_frames:
            stamps = stamps[: settings.max_frames]
        if len(stamps) < 2:
            raise DataError(f"bag '{path}': expected at least 2 images on {topic}")
        info_topic = reader.camera_info_topic(topic)
        camera = reader.camera(info_topic)
        truth = None
        try:
            if truth_file is not None:
                truth = load_ground_truth(truth_file, stamps)
            elif (poses := reader.pose_topic(settings.pose_topic)) is not None:
                truth = reader.poses(poses)
        except DataError as error:
            omitted.append(f'{name}: measured without ground truth: {error}')
    if camera is None:
        omitted.append(f'{name}: no calibrated camera_info: no precision, poses or odometry')
    elif truth is None and truth_file is None:
        omitted.append(f'{name}: no ground truth: no precision or errors of poses')
    return BagSequence(name, path, topic, info_topic, np.array(stamps, np.int64), camera, truth)


def replay(
    sequence: BagSequence, spec: FrontendSpec, settings: ReplaySettings, omitted: list[str]
) -> BagResult:
    """Run one front end over one bag.

    Raises:
        DataError: the bag is damaged.
        WeightsError: weights are missing.
    """
    frontend, meter = spec.create(), BagMeter(sequence, settings)
    milliseconds, stamps = [], []
    count = len(sequence.stamps_ns)
    with BagReader(sequence.path) as reader:
        frames = zip(range(count), reader.images(sequence.topic), strict=False)
        for _, image in tqdm(frames, total=count, desc=f'{sequence.name} {spec.name}'):
            try:
                timed = frontend.track(image.image, image.stamp_ns)
            except ImageError as error:
                omitted.append(f'{sequence.name}: image at {image.stamp_ns} ns: {error}')
                continue
            milliseconds.append(round(timed.milliseconds, 3))
            stamps.append(image.stamp_ns)
            meter.add(timed.frame)
    if not stamps:
        raise DataError(f"bag '{sequence.path}': no image could be used by {spec.name}")
    return meter.result(milliseconds, count_drops(stamps, milliseconds))


class BagMeter:
    """Measures the tracked frames of one bag, wherever they come from.

    Args:
        sequence: the bag.
        settings: of the protocol.
    """

    def __init__(self, sequence: BagSequence, settings: ReplaySettings) -> None:
        self._sequence = sequence
        self._coverage: list[float] = []
        self._relative: _RelativePoses | None = None
        self._odometry: Odometry | None = None
        epipolar = None
        camera, truth = sequence.camera, sequence.truth
        if camera is not None and truth is not None:
            epipolar = EpipolarTruth(camera, truth)
            self._relative = _RelativePoses(camera, truth, settings.threshold)
        if camera is not None and settings.odometry:
            self._odometry = Odometry(camera)
        self._statistics = SequenceStatistics(epipolar)

    def add(self, frame: TrackedFrame) -> None:
        """Take the next frame."""
        self._statistics.add(frame)
        self._coverage.append(coverage_of(frame))
        for part in (self._relative, self._odometry):
            if part is not None:
                part.add(frame)

    def result(self, milliseconds: Sequence[float], dropped: int) -> BagResult:
        """The figures.

        Args:
            milliseconds: what each frame took.
            dropped: how many were lost.
        """
        stamps = self._sequence.stamps_ns
        span = int(stamps[-1] - stamps[0]) / 1e9
        odometry = None
        if self._odometry is not None:
            odometry = _judge(self._odometry, self._sequence.truth, len(self._coverage))
        return BagResult(
            name=self._sequence.name,
            input_rate=(len(stamps) - 1) / span if span > 0 else 0.0,
            summary=self._statistics.summary(),
            coverage=float(np.mean(self._coverage[1:])) if len(self._coverage) > 1 else 0.0,
            milliseconds=tuple(milliseconds),
            dropped=dropped,
            distances=self._relative.results() if self._relative is not None else (),
            odometry=odometry,
        )


def count_drops(stamps_ns: Sequence[int], milliseconds: Sequence[float]) -> int:
    """Frames dropped by a worker that, when it gets free, takes the newest one that waits.

    Args:
        stamps_ns: when each frame comes, rising.
        milliseconds: what each costs.
    """
    free = -np.inf
    waiting: float | None = None
    dropped = 0
    for stamp, cost in zip(stamps_ns, milliseconds, strict=True):
        now = stamp / 1e6
        if waiting is not None and free <= now:
            free, waiting = free + waiting, None
        if free <= now:
            free = now + cost
        else:
            dropped += waiting is not None
            waiting = cost
    return dropped


class _RelativePoses:
    """Relative poses from the tracks that two frames share, against the truth."""

    def __init__(self, camera: CameraModel, truth: PoseTrack, threshold: float) -> None:
        self._camera = camera
        self._truth = truth
        self._threshold = threshold
        self._frames: deque[TrackedFrame] = deque(maxlen=max(DISTANCES))
        self._errors: dict[int, list[tuple[float, float | None] | None]] = {
            distance: [] for distance in DISTANCES
        }

    def add(self, frame: TrackedFrame) -> None:
        """Compare the next frame with the ones before."""
        now = self._truth.at(frame.stamp_ns)
        for distance in DISTANCES:
            if now is None or distance > len(self._frames):
                continue
            earlier = self._frames[-distance]
            then = self._truth.at(earlier.stamp_ns)
            if then is None:
                continue
            motion = now.inverse() @ then
            _, a, b = np.intersect1d(earlier.track_ids, frame.track_ids, return_indices=True)
            k = self._camera.k
            points = [
                self._camera.normalise(f.features.keypoints[rows]) * k[[0, 1], [0, 1]] + k[:2, 2]
                for f, rows in ((earlier, a), (frame, b))
            ]
            fit = estimate_relative_pose(points[0], points[1], k, k, self._threshold)
            if fit is None:
                self._errors[distance].append(None)
                continue
            direction = None
            if np.linalg.norm(motion.translation) >= MIN_BASELINE:
                direction = direction_error_deg(
                    motion.translation, fit.b_from_a.translation, signed=True
                )
            rotation = rotation_error_deg(motion.rotation, fit.b_from_a.rotation)
            self._errors[distance].append((rotation, direction))
        self._frames.append(frame)

    def results(self) -> tuple[DistanceResult, ...]:
        """The figures so far."""
        results = []
        for distance, errors in self._errors.items():
            found = [error for error in errors if error is not None]
            directions = [direction for _, direction in found if direction is not None]
            worse = [max(rotation, direction or 0.0) for rotation, direction in found]
            failed = len(errors) - len(found)
            results.append(
                DistanceResult(
                    distance,
                    len(errors),
                    failed,
                    float(np.median([rotation for rotation, _ in found])) if found else None,
                    float(np.median(directions)) if directions else None,
                    mean_average_accuracy(np.array(worse + [np.inf] * failed)),
                )
            )
        return tuple(results)


def _judge(odometry: Odometry, truth: PoseTrack | None, frames: int) -> OdometryResult:
    path = odometry.path()
    return OdometryResult(
        len(path) / frames,
        odometry.bridged,
        odometry.restarts,
        compare_trajectories(path, truth) if truth is not None else None,
    )
