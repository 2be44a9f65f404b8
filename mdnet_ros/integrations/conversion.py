"""A tracked recording as files of other systems."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.errors import DataError, ImageError
from mdnet_ros.features.types import Features
from mdnet_ros.files import new_folder
from mdnet_ros.integrations.pairs import ImagePair, PairFinder
from mdnet_ros.progress import Progress
from mdnet_ros.tracker.recording import Recording

#: Of the images, which dense reconstruction reads.
_JPEG_QUALITY = 95


class Target(Protocol):
    """Files that take images and pairs in turn."""

    def close(self) -> None:
        """Close the files."""
        ...

    def image(self, name: str, features: Features) -> None:
        """Take the next image's features."""
        ...

    def pair(self, name_a: str, name_b: str, pair: ImagePair, features: tuple[int, int]) -> None:
        """Take a pair of images that were given before, and how many features each has."""
        ...


class TargetFormat(Protocol):
    """Makes a target in a folder."""

    def __call__(
        self, folder: Path, camera: CameraModel | None, image_size: tuple[int, int]
    ) -> Target: ...


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        images: how many.
        pictures: of these, with their pixels.
        broken: of these, with an image that cannot be decoded.
        keypoints: of all images.
        pairs: of images that share tracks.
        matches: of all pairs.
        inliers: of these, with no false step between.
        repeated: frames left out because their stamp had been there before.
    """

    images: int
    pictures: int
    broken: int
    keypoints: int
    pairs: int
    matches: int
    inliers: int
    repeated: int


def convert(
    recording: Recording,
    out: Path,
    make_target: TargetFormat,
    window: int = 20,
    every: int = 1,
    progress: bool = False,
) -> Conversion:
    """Write a recording's images, features and matches into a new folder.

    Images are called by their stamp in nanoseconds, ``STAMP.jpg``; their pixels lie in ``images``
    where the recording has them. ``pairs.txt`` names the pairs, two images a line.

    Args:
        recording: to read.
        out: the folder; it appears when it is complete.
        make_target: of the format wanted.
        window: pairs are at most this many images apart.
        every: take each such frame only.
        progress: show a bar.

    Raises:
        DataError: if there is nothing to convert, or the folder is there or cannot be written.
        SettingError: if ``window`` or ``every`` is below 1.
    """
    finder = PairFinder(window, every)
    names: list[str] = []
    counts: list[int] = []
    listed: list[str] = []
    stamps: set[int] = set()
    pictures = broken = pairs = matches = inliers = repeated = 0
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
    return Conversion(len(names), pictures, broken, sum(counts), pairs, matches, inliers, repeated)


def _write_jpeg(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    if not cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]):
        raise DataError(f"output '{path}': cannot be written")
