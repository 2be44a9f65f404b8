"""Find the calibration of the images in a bag, or say why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from mdnet_ros.bags.reader import BagReader
from mdnet_ros.data.camera import CameraModel, camera_of_info, is_calibrated
from mdnet_ros.errors import DataError, ImageError


@dataclass(frozen=True)
class Calibration:
    """The calibration of a bag's images.

    Attributes:
        camera: for the images as they are; None if there is none that can be used.
        problem: why there is none, on one line; empty with a camera.
        image_size: (width, height) in pixels of the first image that can be decoded, else as
            ``camera_info`` says; None: not known.
    """

    camera: CameraModel | None
    problem: str = ''
    image_size: tuple[int, int] | None = None


def read_calibration(
    bag: BagReader,
    image_topic: str | None,
    info_topic: str | None,
    rectified: bool = False,
    images: BagReader | None = None,
) -> Calibration:
    """Read the first calibrated ``camera_info`` of a topic and fit it to the images.

    An unusable calibration is reported in ``problem``, not raised.

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
        return Calibration(None, 'no camera_info', size)
    found = None
    for message in bag.messages(info_topic):
        found = message
        if is_calibrated(message):
            break
    else:
        reason = 'no messages' if found is None else 'K and P are zero: the camera is uncalibrated'
        return Calibration(None, f"camera_info '{info_topic}': {reason}", size)
    try:
        camera = camera_of_info(found, rectified)
        return Calibration(camera if size is None else camera.for_image(size), '', size)
    except DataError as error:
        said = (int(found.width), int(found.height))
        return Calibration(None, str(error), size or (said if all(said) else None))


def _image_size(bag: BagReader, topic: str) -> tuple[int, int] | None:
    """Return (width, height) of the first image that can be decoded, or None."""
    for frame in bag.images(topic):
        try:
            height, width = frame.image.shape
        except ImageError:
            continue
        return width, height
    return None
