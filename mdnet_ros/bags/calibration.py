"""Find the calibration of the images in a bag, or say why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mdnet_ros.bags.reader import CAMERA_INFO, BagReader
from mdnet_ros.data.camera import CameraModel, camera_of_info, is_calibrated, rectified_by_name
from mdnet_ros.errors import DataError, ImageError

#: More calibrations of one topic are not looked for.
_MOST_DISTINCT = 1000


@dataclass(frozen=True)
class Calibration:
    """The calibration of a bag's images.

    Attributes:
        camera: for the images as they are; None if there is none that can be used.
        problem: why there is none, on one line; empty with a camera.
        image_size: (width, height) in pixels of the first image that can be decoded, else as
            ``camera_info`` says; None: not known.
        note: what may be wrong with the camera, on one line; or empty.
    """

    camera: CameraModel | None
    problem: str = ''
    image_size: tuple[int, int] | None = None
    note: str = ''


def read_calibration(
    bag: BagReader,
    image_topic: str | None,
    info_topic: str | None,
    rectified: bool = False,
    images: BagReader | None = None,
) -> Calibration:
    """Read the first ``camera_info`` of a topic that fits the images.

    An unusable calibration is reported in ``problem``, not raised. A topic on which the
    calibration changes is reported in ``note``.

    Args:
        bag: open, with the ``camera_info``.
        image_topic: topic of the images; None: there are none.
        info_topic: topic of the ``camera_info``; None: there is none.
        rectified: the images are rectified already, so that its P holds for them.
        images: open bag with the images; None: ``bag``.

    Raises:
        DataError: if the bag is damaged or a topic is not in it.
    """
    size = None if image_topic is None else _image_size(images or bag, image_topic)
    if info_topic is None:
        others = [topic for topic, kind in bag.topics.items() if kind == CAMERA_INFO]
        beside = f" of '{image_topic}', only {', '.join(others)}" if others and image_topic else ''
        return Calibration(None, f'no camera_info{beside}', size)
    distinct, empty = _distinct(bag, info_topic)
    if not distinct:
        reason = 'K and P are zero: the camera is uncalibrated' if empty else 'no messages'
        return Calibration(None, f"camera_info '{info_topic}': {reason}", size)
    problem = ''
    for message in distinct:
        try:
            camera = camera_of_info(message, rectified)
            camera = camera if size is None else camera.for_image(size)
        except DataError as error:
            problem = problem or str(error)
            continue
        notes = (
            _changes(distinct, message, info_topic),
            rectified_by_name(camera, image_topic, rectified),
        )
        return Calibration(camera, '', size, '; '.join(filter(None, notes)))
    said = (int(distinct[0].width), int(distinct[0].height))
    return Calibration(None, problem, size or (said if all(said) else None))


def _distinct(bag: BagReader, topic: str) -> tuple[list[Any], bool]:
    """Return the calibrated messages that differ from all before, and whether there are others."""
    found: dict[tuple[Any, ...], Any] = {}
    empty = False
    for message in bag.messages(topic):
        if is_calibrated(message):
            found.setdefault(_content(message), message)
        else:
            empty = True
        if len(found) == _MOST_DISTINCT:
            break
    return list(found.values()), empty


def _content(message: Any) -> tuple[Any, ...]:
    """Return the calibration of a message, of ROS 1 or 2, rounded so that it can be compared."""
    numbers = [
        tuple(float(f'{value:.6g}') for value in getattr(message, name, getattr(
            message, name.upper(), ()
        )))
        for name in 'kdrp'
    ]
    region = getattr(message, 'roi', None)
    return (
        message.width, message.height, message.distortion_model, *numbers,
        *(getattr(message, name, 0) for name in ('binning_x', 'binning_y')),
        *(getattr(region, name, 0) for name in ('x_offset', 'y_offset', 'width', 'height')),
    )


def _changes(distinct: Sequence[Any], used: Any, topic: str) -> str:
    if len(distinct) == 1:
        return ''
    place = next(i for i, message in enumerate(distinct) if message is used)
    return (
        f"camera_info '{topic}' changes: {len(distinct)} different calibrations, "
        f'number {place + 1} is used for all images'
    )


def _image_size(bag: BagReader, topic: str) -> tuple[int, int] | None:
    """Return (width, height) of the first image that can be decoded, or None."""
    for frame in bag.images(topic):
        try:
            height, width = frame.image.shape
        except ImageError:
            continue
        return width, height
    return None
