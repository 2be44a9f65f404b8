"""Read the tracker's outputs from a bag."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mdnet_ros.bags.reader import BagReader, stamp_of
from mdnet_ros.features.types import TrackedFrame
from mdnet_ros.tracker.clouds import cloud_table, tracked_of_tables


def table_of_message(message: Any) -> np.ndarray:
    """The points of a deserialised PointCloud2 as a (N,) structured array.

    Raises:
        DataError: if the message contradicts itself.
    """
    return cloud_table(
        message.fields, message.width * message.height, message.point_step,
        np.asarray(message.data, np.uint8), message.is_bigendian,
    )


def read_tracks(
    bag: BagReader,
    image_size: tuple[int, int],
    keypoints: str = '/keypoints',
    correspondences: str = '/correspondences',
) -> Iterator[TrackedFrame]:
    """The tracked frames of a bag, in the order they were recorded.

    Frames of which one of the two messages is missing are left out.

    Args:
        bag: open.
        image_size: (width, height) of the images, which the messages do not hold.
        keypoints: topic.
        correspondences: topic.

    Raises:
        DataError: if a topic is not there, or a message is none of the tracker's.
    """
    halves: dict[int, dict[str, Any]] = {}
    for topic, message in bag.typed([keypoints, correspondences]):
        stamp = stamp_of(message)
        pair = halves.setdefault(stamp, {})
        pair[topic] = message
        if len(pair) == 2:
            yield tracked_of_tables(
                table_of_message(pair[keypoints]), table_of_message(pair[correspondences]),
                stamp, image_size,
            )
            # Older frames without their other half will not be completed any more.
            halves = {s: half for s, half in halves.items() if s > stamp}
