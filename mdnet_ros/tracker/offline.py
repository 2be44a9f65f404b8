"""The tracker over a bag, without ROS: the node's own engine, every frame, in order."""

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

#: Cause under which the node, too, counts images it cannot use.
BAD_IMAGE = 'bad image'


@dataclass(frozen=True)
class OfflineRun:
    """What happened to the frames of a bag.

    Attributes:
        frames_in: images in the bag.
        frames_processed: of these, tracked.
        drops: cause to number of images that could not be used.
        problem: what was wrong with the first of them, or empty.
        seconds: (N,) from the message to its outputs, each processed frame.
    """

    frames_in: int
    frames_processed: int
    drops: dict[str, int]
    problem: str
    seconds: np.ndarray


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
        bag: open.
        image_topic: as :meth:`BagReader.image_topic` gives it.
        engine: the node's engine; the calibration of its first camera is used as it is.
        topics: where ``/keypoints``, ``/correspondences`` and ``/tracks`` are written.
        on_frame: told of each tracked frame.
        progress: show a bar.

    Raises:
        DataError: if there are no images, none of them can be used, or the bag is damaged.
    """
    settings = engine.configuration.settings
    drops: Counter[str] = Counter()
    problem = ''
    seconds: list[float] = []
    total = bag.counts[image_topic]
    images = bag.images(image_topic, settings.counts)
    for frame in Progress(images, 'tracking', total, unit='frame', disable=not progress):
        begin = time.perf_counter()
        try:
            done = engine.process(frame.image, frame.stamp_ns)
        except ImageError as error:
            drops[BAD_IMAGE] += 1
            problem = problem or str(error)
            continue
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
    return OfflineRun(frames_in, len(seconds), dict(drops), problem, np.array(seconds))
