"""A bag to replay: everything about it except its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdnet_ros.bags.calibration import read_calibration
from mdnet_ros.bags.reader import BagReader
from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.poses import Pose, Trajectory
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.replay.ground_truth import (
    euroc_extrinsics,
    load_ground_truth,
    read_extrinsics,
    read_pose_file,
)
from mdnet_ros.evaluation.replay.results import ReplaySettings
from mdnet_ros.evaluation.tracks.truth import CameraPoses, GroundTruthError, camera_poses


@dataclass(frozen=True)
class BagSequence:
    """A bag's images, calibration and ground truth, without the pixels.

    Attributes:
        name: name of the bag.
        path: path of the bag.
        topic: topic of the images.
        info_topic: topic of the camera_info, or None.
        first: how many images to pass over.
        stamps_ns: (N,) int64, of the images to replay.
        camera: the calibration for these images; None: none that can be used.
        truth: the camera's true poses; None: none that can be used.
    """

    name: str
    path: Path
    topic: str
    info_topic: str | None
    first: int
    stamps_ns: np.ndarray
    camera: CameraModel | None
    truth: Trajectory | None


def open_bag(
    path: Path,
    name: str,
    truth_file: Path | None,
    extrinsics: Path | None,
    settings: ReplaySettings,
    omitted: list[str],
) -> BagSequence:
    """Read everything but the images' pixels.

    Args:
        path: path of the bag.
        name: what reports call it.
        truth_file: the true poses; None: the bag's own topic.
        extrinsics: file with camera-to-body extrinsics, where the ground truth is of the body, see
            :func:`mdnet_ros.evaluation.replay.ground_truth.read_extrinsics`; None: the bag's
            static transforms, or what lies beside EuRoC's file.
        settings: settings of the protocol.
        omitted: a line is appended for everything that has to be left out.

    Raises:
        GroundTruthError: ground truth that was asked for cannot be used.
        DataError: the bag is damaged, or has fewer than two images.
    """
    with BagReader(path) as reader:
        topic = reader.image_topic(settings.image_topic)
        every = np.array([frame.stamp_ns for frame in reader.images(topic)], np.int64)
        first = round(settings.start * len(every))
        stamps = every[first : round(settings.end * len(every))]
        if settings.max_frames:
            stamps = stamps[: settings.max_frames]
        if len(stamps) < 2:
            raise DataError(f"bag '{path}': expected at least 2 images on {topic}")
        info_topic = reader.camera_info_topic(topic, settings.camera_info_topic)
        calibration = read_calibration(reader, topic, info_topic, settings.rectified)
        to_body = _read_extrinsics(extrinsics, topic)
        if truth_file is not None:
            found = _of_file(truth_file, to_body, topic, every)
        else:
            found = camera_poses(reader, topic, settings.pose_topic, to_body)
    truth, notes = found.poses, list(found.notes)
    if calibration.camera is None:
        notes.append(f'{calibration.problem}: no precision, poses or odometry')
    elif truth is None:
        notes.append('no ground truth: no precision or errors of poses')
    elif problem := truth.overlap_problem(stamps):
        notes.append(problem)
    if calibration.note:
        notes.append(calibration.note)
    omitted += [f'{name}: {note}' for note in notes]
    return BagSequence(name, path, topic, info_topic, first, stamps, calibration.camera, truth)


def check_truth_files(files: Sequence[Path], extrinsics: Sequence[Path]) -> None:
    """Read files of ground truth, so that one that cannot be used is reported before the work.

    Raises:
        GroundTruthError: a file cannot be used.
    """
    for file in files:
        read_pose_file(file)
    for file in extrinsics:
        _read_extrinsics(file)


def _read_extrinsics(path: Path | None, image_topic: str | None = None) -> Pose | None:
    try:
        return None if path is None else read_extrinsics(path, image_topic)
    except DataError as error:
        raise GroundTruthError(str(error)) from None


def _of_file(
    path: Path, to_body: Pose | None, image_topic: str, stamps_ns: np.ndarray
) -> CameraPoses:
    """Read the camera's poses from a file."""
    poses = load_ground_truth(path, stamps_ns)
    if to_body is None and poses.body_frame:
        beside = euroc_extrinsics(path, image_topic)
        if beside is None:
            raise GroundTruthError(
                f"ground truth '{path}': the poses of an EuRoC file are those of the body, not of "
                'the camera: expected --extrinsics (an identity T_BS if they are the '
                "camera's), or a cam0/sensor.yaml beside"
            )
        to_body = _read_extrinsics(beside)
    notes = (f"'{path.name}': {poses.left_out}",) if poses.left_out else ()
    return CameraPoses(poses if to_body is None else poses.seen_from(to_body), notes)
