"""Conversion of a tracked recording to the files of other systems."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from mdnet_ros.bags.reader import ImageFrame
from mdnet_ros.data.camera import CameraModel
from mdnet_ros.errors import DataError, ImageError
from mdnet_ros.features.types import Features
from mdnet_ros.files import new_folder
from mdnet_ros.integrations.pairs import ImagePair, PairFinder
from mdnet_ros.progress import Progress
from mdnet_ros.tracker.recording import Recording

#: JPEG quality of the images, which dense reconstruction reads.
_JPEG_QUALITY = 95


class Target(Protocol):
    """Writer of images and pairs in one format."""

    def close(self) -> None:
        """Close the files."""
        ...

    def image(self, name: str, features: Features) -> None:
        """Write the features of the next image."""
        ...

    def pair(self, name_a: str, name_b: str, pair: ImagePair, features: tuple[int, int]) -> None:
        """Write a pair of images that were written before, and their numbers of features."""
        ...


class TargetFormat(Protocol):
    """Creates a writer for a folder."""

    def __call__(
        self, folder: Path, camera: CameraModel | None, image_size: tuple[int, int]
    ) -> Target: ...


@dataclass(frozen=True)
class Conversion:
    """Counts of a conversion.

    Attributes:
        images: number of images.
        pictures: number of images with pixels.
        broken: number of images that cannot be decoded.
        keypoints: number of keypoints in all images.
        pairs: number of image pairs that share tracks.
        matches: number of matches in all pairs.
        inliers: number of matches without an outlier step between the images.
        repeated: number of frames left out because an earlier one has the same stamp.
        other_size: number of frames left out because their image has another size than the
            recording's first, which the calibration is for.
    """

    images: int
    pictures: int
    broken: int
    keypoints: int
    pairs: int
    matches: int
    inliers: int
    repeated: int
    other_size: int


def convert(
    recording: Recording,
    out: Path,
    make_target: TargetFormat,
    window: int = 20,
    every: int = 1,
    progress: bool = False,
) -> Conversion:
    """Write a recording's images, features and matches into a new folder.

    Images are named by their stamp in nanoseconds, ``STAMP.jpg``; their pixels are in ``images``
    where the recording has them. ``pairs.txt`` lists the pairs, two images per line.

    Args:
        recording: recording to convert.
        out: new folder; it appears when it is complete.
        make_target: creates the writer of the format.
        window: largest distance of a pair, images.
        every: take every n-th frame only.
        progress: show a progress bar.

    Raises:
        DataError: there is nothing to convert, or the folder exists or cannot be written.
        SettingError: ``window`` or ``every`` is below 1.
    """
    finder = PairFinder(window, every)
    names: list[str] = []
    counts: list[int] = []
    listed: list[str] = []
    stamps: set[int] = set()
    pictures = broken = pairs = matches = inliers = repeated = other_size = 0
    with (
        new_folder(out) as folder,
        closing(make_target(folder, recording.camera, recording.image_size)) as target,
    ):
        for frame, image in Progress(
            recording, 'converting', len(recording), unit='frame', disable=not progress
        ):
            if frame.stamp_ns in stamps:
                repeated += 1
                continue
            stamps.add(frame.stamp_ns)
            if _size(image) not in (None, recording.image_size):
                other_size += 1
                continue
            found = finder.add(frame)
            if found is None:
                continue
            names.append(f'{frame.stamp_ns}.jpg')
            counts.append(len(frame.features))
            target.image(names[-1], frame.features)
            for pair in found:
                a, b = pair.earlier, pair.later
                target.pair(names[a], names[b], pair, (counts[a], counts[b]))
                listed.append(f'{names[a]} {names[b]}\n')
                matches += len(pair.rows)
                inliers += int(pair.inlier.sum())
            pairs += len(found)
            if image is not None:
                try:
                    pixels = image.bgr
                except ImageError:
                    broken += 1
                    continue
                _write_jpeg(folder / 'images' / names[-1], pixels)
                pictures += 1
        if not names:
            raise DataError(f"bag '{recording.tracks.path}': holds no tracked frames")
        (folder / 'pairs.txt').write_text(''.join(listed), encoding='utf-8')
    return Conversion(
        len(names), pictures, broken, sum(counts), pairs, matches, inliers, repeated, other_size
    )


def _size(image: ImageFrame | None) -> tuple[int, int] | None:
    """Return an image's (width, height); None if it cannot be read."""
    try:
        return None if image is None else image.size
    except ImageError:
        return None


def _write_jpeg(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    if not cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]):
        raise DataError(f"output '{path}': cannot be written")
