"""Reads the tracker's outputs from a bag, together with the images they were computed from."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mdnet_ros.bags.calibration import read_calibration
from mdnet_ros.bags.reader import BagReader, ImageFrame
from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.headers import stamp_nanoseconds
from mdnet_ros.data.pointcloud import read_cloud
from mdnet_ros.errors import DataError
from mdnet_ros.features.types import TrackedFrame
from mdnet_ros.tracker.clouds import tracked_of_tables

_POINT_CLOUD2 = 'sensor_msgs/msg/PointCloud2'


def read_tracks(
    bag: BagReader,
    image_size: tuple[int, int],
    keypoints: str = '/keypoints',
    correspondences: str = '/correspondences',
) -> Iterator[TrackedFrame]:
    """Read the tracked frames of a bag, in the order they were recorded.

    Frames without one of the two messages are left out.

    Args:
        bag: the open bag.
        image_size: (width, height) of the images, which the messages do not hold.
        keypoints: topic of the keypoints.
        correspondences: topic of the correspondences.

    Raises:
        DataError: if a topic is missing, or a message is not one of the tracker's.
    """
    halves: dict[int, dict[str, Any]] = {}
    for topic, message in bag.typed([keypoints, correspondences]):
        stamp = stamp_nanoseconds(message.header)
        pair = halves.setdefault(stamp, {})
        pair[topic] = message
        if len(pair) == 2:
            yield tracked_of_tables(
                read_cloud(pair[keypoints]), read_cloud(pair[correspondences]),
                stamp, image_size,
            )
            # The other message of older frames will not come any more.
            halves = {s: half for s, half in halves.items() if s > stamp}


@dataclass(frozen=True)
class Recording:
    """Tracked frames with their images, if there are any; :func:`find_recording` makes it.

    Attributes:
        tracks: open bag with the tracker's outputs.
        namespace: namespace of the outputs, such as ``/left``; empty: none.
        source: open bag with the images; may be the same; None: there are no images.
        image_topic: topic of the images in ``source``.
        camera: calibration for the images as they are; None: none that can be used.
        calibration_problem: why there is no calibration, on one line; empty with one.
        image_size: (width, height) in pixels.
        calibration_note: what may be wrong with the calibration, on one line; or empty.
    """

    tracks: BagReader
    namespace: str
    source: BagReader | None
    image_topic: str | None
    camera: CameraModel | None
    calibration_problem: str
    image_size: tuple[int, int]
    calibration_note: str = ''

    def __len__(self) -> int:
        """Return how many frames there are at most."""
        return self.tracks.counts[f'{self.namespace}/keypoints']

    def __iter__(self) -> Iterator[tuple[TrackedFrame, ImageFrame | None]]:
        """Yield the frames as they were recorded, each with the image of the same stamp.

        The clock may go back or stand still: of several images with one stamp, a frame has the
        first that no earlier frame has passed.
        """
        places: dict[int, deque[int]] = {}
        for place, stamp in enumerate(image.stamp_ns for image in self._images()):
            places.setdefault(stamp, deque()).append(place)
        images = enumerate(self._images())
        reached = -1
        frames = read_tracks(
            self.tracks, self.image_size, f'{self.namespace}/keypoints',
            f'{self.namespace}/correspondences',
        )
        for frame in frames:
            waiting = places.get(frame.stamp_ns, deque())
            while waiting and waiting[0] <= reached:
                waiting.popleft()
            if not waiting:
                yield frame, None
                continue
            while reached < waiting[0]:
                reached, image = next(images)
            yield frame, image

    def _images(self) -> Iterator[ImageFrame]:
        if self.source is None or self.image_topic is None:
            return iter(())
        return self.source.images(self.image_topic)


def find_recording(
    tracks: BagReader,
    source: BagReader | None = None,
    image_topic: str | None = None,
    camera_info_topic: str | None = None,
    namespace: str | None = None,
    rectified: bool = False,
) -> Recording:
    """Find the topics that belong together.

    Args:
        tracks: open bag with ``keypoints`` and ``correspondences``.
        source: open bag with the images and the calibration; None: ``tracks``, if it has them.
        image_topic: topic of the images; None: the only one.
        camera_info_topic: topic of the calibration; None: the one beside the images.
        namespace: namespace of the outputs; None: the only one.
        rectified: whether the images are rectified already, so that P of the calibration holds.

    Raises:
        DataError: if topics are missing, the choice is not clear, or no image and no calibration
            tells how large the images are.
    """
    found_namespace = _namespace(tracks, namespace)
    # An overlay is not an image of the camera.
    beside = [topic for topic in tracks.image_topics() if not topic.endswith('/overlay')]
    if source is None and (beside or image_topic is not None):
        source = tracks
        image_topic = beside[0] if image_topic is None and len(beside) == 1 else image_topic
    topic = None if source is None else source.image_topic(image_topic)
    calibrated = source or tracks
    info_topic = calibrated.camera_info_topic(topic or '', camera_info_topic)
    calibration = read_calibration(calibrated, topic, info_topic, rectified)
    camera, size = calibration.camera, calibration.image_size or (0, 0)
    if camera is not None and not all(size):
        size = (camera.width, camera.height)
    if not all(size):
        raise DataError(
            f"bag '{tracks.path}': expected images or a camera_info, to know the size of the "
            'images; name the bag that has them'
        )
    return Recording(
        tracks, found_namespace, source, topic, camera, calibration.problem, size, calibration.note
    )


def _namespace(tracks: BagReader, requested: str | None) -> str:
    """Return the namespace that has both outputs of the tracker."""
    found = [
        topic.removesuffix('/keypoints')
        for topic, kind in tracks.topics.items()
        if kind == _POINT_CLOUD2 and topic.endswith('/keypoints')
        and tracks.topics.get(topic.removesuffix('keypoints') + 'correspondences') == _POINT_CLOUD2
    ]
    if requested is not None:
        wanted = f'/{requested.strip("/")}'.rstrip('/')
        found = [name for name in found if name == wanted]
    if len(found) != 1:
        listed = ', '.join(f"'{name or '/'}'" for name in found) or 'none'
        where = '' if requested is None else f" in the namespace '{requested}'"
        raise DataError(
            f"bag '{tracks.path}': expected the tracker's keypoints and correspondences{where} "
            f'once, found {listed} among {", ".join(tracks.topics) or "no topics"}'
            + ('; name a namespace' if len(found) > 1 else '')
        )
    return found[0]
