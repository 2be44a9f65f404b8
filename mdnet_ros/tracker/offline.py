"""Tracks every image of a bag in order, without ROS, with the same engine as the node."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mdnet_ros.bags.messages import BagTopics
from mdnet_ros.bags.reader import BagReader, ImageFrame
from mdnet_ros.errors import DataError, ImageError
from mdnet_ros.features.types import TrackedFrame
from mdnet_ros.progress import Progress
from mdnet_ros.tracker.clouds import correspondence_table, keypoint_table
from mdnet_ros.tracker.engine import Engine

#: Cause that the node counts unusable images under, too.
BAD_IMAGE = 'bad image'


@dataclass(frozen=True)
class OfflineRun:
    """Counts and times of a tracked bag.

    Attributes:
        frames_in: number of images in the bag.
        frames_processed: number of images tracked.
        drops: number of images that could not be used, by cause.
        problem: why the first of them could not be used, or empty.
        seconds: (N,) time from the message to its outputs, for each processed frame.
        uncalibrated: frames without ``/tracks``, although asked for, for want of a calibration.
        calibration_error: the reason of the first of them, or empty.
        without_ray: observations left out of ``/tracks``: the calibration has no ray for them.
    """

    frames_in: int
    frames_processed: int
    drops: dict[str, int]
    problem: str
    seconds: np.ndarray
    uncalibrated: int = 0
    calibration_error: str = ''
    without_ray: int = 0


def track_bag(
    bag: BagReader,
    image_topic: str,
    engine: Engine,
    topics: BagTopics | None = None,
    on_frame: Callable[[ImageFrame, TrackedFrame], None] | None = None,
    progress: bool = False,
) -> OfflineRun:
    """Track every image of a bag, in order.

    Args:
        bag: the open bag.
        image_topic: topic of the images, see :meth:`BagReader.image_topic`.
        engine: the node's engine; the calibration of its first camera is used as it is.
        topics: writes ``/keypoints``, ``/correspondences`` and ``/tracks``; None: not written.
        on_frame: called with each image and its tracked frame.
        progress: show a progress bar.

    Raises:
        DataError: if there are no images, none of them can be used, or the bag is damaged.
    """
    settings = engine.configuration.settings
    drops: Counter[str] = Counter()
    problem = calibration_error = ''
    uncalibrated = without_ray = 0
    seconds: list[float] = []
    total = bag.counts[image_topic]
    images = bag.images(image_topic, settings.raw_range)
    for frame in Progress(images, 'tracking', total, unit='frame', disable=not progress):
        begin = time.perf_counter()
        try:
            done = engine.process(frame.image, frame.stamp_ns)
        except ImageError as error:
            drops[BAD_IMAGE] += 1
            problem = problem or str(error)
            continue
        if done.calibration_error:
            uncalibrated += 1
            calibration_error = calibration_error or done.calibration_error
        if done.tracks is not None:
            without_ray += done.tracks.without_ray
        if topics is not None:
            stamp, name = frame.stamp_ns, frame.frame_id
            topics.cloud('/correspondences', stamp, name, correspondence_table(done.frame))
            table = keypoint_table(done.frame, settings.descriptor_encoding)
            topics.cloud('/keypoints', stamp, name, table)
            if done.tracks is not None and settings.vins_layout != 'none':
                topics.points(
                    '/tracks', stamp, name, done.tracks.points(),
                    done.tracks.channels(settings.vins_layout, settings.camera_id),
                )
        seconds.append(time.perf_counter() - begin)
        if on_frame is not None:
            on_frame(frame, done.frame)
    frames_in = len(seconds) + sum(drops.values())
    if not frames_in:
        raise DataError(f"bag '{bag.path}': topic '{image_topic}' holds no messages")
    if not seconds:
        raise DataError(
            f"bag '{bag.path}': none of the {frames_in} images of '{image_topic}' can be used: "
            f'{problem}'
        )
    return OfflineRun(
        frames_in, len(seconds), dict(drops), problem, np.array(seconds),
        uncalibrated, calibration_error, without_ray,
    )
