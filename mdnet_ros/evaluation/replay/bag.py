"""A bag to replay: what is known of it besides its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdnet_ros.bags.reader import BagReader
from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.poses import PoseTrack
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.replay.ground_truth import (
    euroc_extrinsics,
    is_euroc,
    load_ground_truth,
    read_extrinsics,
)
from mdnet_ros.evaluation.replay.results import ReplaySettings


@dataclass(frozen=True)
class BagSequence:
    """What is known of a bag besides its pixels.

    Attributes:
        name: of the bag.
        path: of the bag.
        topic: of the images.
        info_topic: of the camera_info, or None.
        first: how many images to pass over.
        stamps_ns: of the images to replay.
        camera: None without a calibration.
        truth: None without ground truth.
    """

    name: str
    path: Path
    topic: str
    info_topic: str | None
    first: int
    stamps_ns: np.ndarray
    camera: CameraModel | None
    truth: PoseTrack | None


def open_bag(
    path: Path,
    name: str,
    truth_file: Path | None,
    extrinsics: Path | None,
    settings: ReplaySettings,
    omitted: list[str],
) -> BagSequence:
    """Read all but the images' pixels.

    Args:
        path: of the bag.
        name: what reports call it.
        truth_file: poses; None: the bag's own topic.
        extrinsics: camera in the body whose poses the truth has, see
            :func:`mdnet_ros.evaluation.replay.ground_truth.read_extrinsics`; None: the truth's
            own, or what lies beside EuRoC's file.
        settings: of the protocol.
        omitted: what had to be left out is appended.

    Raises:
        DataError: the bag is damaged, or has fewer than two images.
    """
    with BagReader(path) as reader:
        topic = reader.image_topic(settings.image_topic)
        stamps = [frame.stamp_ns for frame in reader.images(topic)]
        first = round(settings.start * len(stamps))
        stamps = stamps[first : round(settings.end * len(stamps))]
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
                found = extrinsics or euroc_extrinsics(truth_file, topic)
                if found is not None:
                    truth = truth.seen_from(read_extrinsics(found))
                elif is_euroc(truth_file):
                    omitted.append(
                        f"{name}: poses of '{truth_file.name}' taken for the camera's, not the "
                        "body's: no --extrinsics and no camera's sensor.yaml beside"
                    )
            elif (poses := reader.pose_topic(settings.pose_topic)) is not None:
                truth = reader.poses(poses)
        except DataError as error:
            omitted.append(f'{name}: measured without ground truth: {error}')
    if camera is None:
        omitted.append(f'{name}: no calibrated camera_info: no precision, poses or odometry')
    elif truth is None and truth_file is None:
        omitted.append(f'{name}: no ground truth: no precision or errors of poses')
    return BagSequence(
        name, path, topic, info_topic, first, np.array(stamps, np.int64), camera, truth
    )
