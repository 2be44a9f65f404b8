"""Photographs for training: folders, tar packs and bags, as one pool of gray images in memory."""

from __future__ import annotations

import hashlib
import logging
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch

from mdnet_ros.data.image_files import decode_image
from mdnet_ros.errors import DataError, ImageError
from mdnet_ros.progress import Progress

SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.tif', '.tiff', '.ppm', '.pgm')
#: Photographs are shrunk to fit this size (width, height), portraits turned by 90 degrees first.
LARGEST_SIZE = (1600, 1200)
#: Images smaller than this on their short side are left out, pixels.
MINIMUM_SIDE = 96
#: How often a photograph is halved: level 5 has a pixel for each 32 x 32 of the photograph.
LEVELS = 6
#: Larger members of a tar pack are no photographs, and are not read into memory, bytes.
LARGEST_FILE = 256 * 1024 * 1024
#: A bag's frame is kept when its thumbnail differs by this from the last one kept (mean of
#: absolute differences, 0 … 255): robots stand still, and copies of a frame add no knowledge.
DUPLICATE_DIFFERENCE = 6.0

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class NamedImage:
    """A gray photograph and where it came from."""

    name: str
    gray: np.ndarray


def _folder(path: Path, wanted: Callable[[str], bool]) -> Iterator[NamedImage]:
    files = sorted(p for p in path.rglob('*') if p.suffix.lower() in SUFFIXES)
    for file in Progress(files, desc=f'read {path.name}', unit='image'):
        name = str(file.relative_to(path))
        gray = decode_image(file.read_bytes()) if wanted(name) else None
        if gray is not None:
            yield NamedImage(name, gray)


def _tar(path: Path, wanted: Callable[[str], bool]) -> Iterator[NamedImage]:
    try:
        with tarfile.open(path) as pack:
            for member in Progress(pack, desc=f'read {path.name}', unit='file'):
                if not member.isfile() or not member.name.lower().endswith(SUFFIXES):
                    continue
                if member.size > LARGEST_FILE or not wanted(member.name):
                    continue
                stream = pack.extractfile(member)
                gray = decode_image(stream.read()) if stream else None
                if gray is not None:
                    yield NamedImage(member.name, gray)
    except tarfile.TarError as error:
        raise DataError(f"images '{path}': not a readable tar pack: {error}") from None


def _thin(frames: Iterator[NamedImage]) -> Iterator[NamedImage]:
    """Leave out frames that show what the last kept one showed."""
    kept: np.ndarray | None = None
    for frame in frames:
        small = cv2.resize(frame.gray, (32, 24), interpolation=cv2.INTER_AREA).astype(np.float32)
        if kept is None or float(np.abs(small - kept).mean()) >= DUPLICATE_DIFFERENCE:
            kept = small
            yield frame


def _bag(
    path: Path, topic: str | None, part: tuple[float, float], wanted: Callable[[str], bool]
) -> Iterator[NamedImage]:
    """Read a part of a bag's frames, one at a time; broken ones are skipped and counted."""
    from mdnet_ros.bags.reader import BagReader
    from mdnet_ros.features.extractor import to_gray

    broken, first_reason = 0, ''
    with BagReader(path) as bag:
        topic = bag.image_topic(topic)
        count = bag.counts[topic]
        first, last = round(part[0] * count), round(part[1] * count)
        # The bar counts what is read: of a robot that stands still, little is kept.
        frames = Progress(
            islice(bag.images(topic), last), desc=f'read {path.name}', total=last, unit='frame'
        )
        for number, frame in enumerate(frames):
            name = f'{path.name}@{frame.stamp_ns}'
            if number < first or not wanted(name):
                continue
            try:
                gray = to_gray(frame.image)
            except ImageError as error:
                broken += 1
                first_reason = first_reason or f'frame {number} at {frame.stamp_ns} ns: {error}'
                continue
            yield NamedImage(name, gray)
    if broken:
        _LOG.warning(
            "bag '%s', topic '%s': %d of %d frames cannot be decoded and were skipped (%s)",
            path, topic, broken, last - first, first_reason,
        )


def read_images(
    path: str | Path,
    topic: str | None = None,
    part: tuple[float, float] = (0.0, 1.0),
    wanted: Callable[[str], bool] = lambda name: True,
) -> Iterator[NamedImage]:
    """Read the gray images of a folder (searched through), a tar pack, or a bag, one by one.

    Args:
        path: what to read.
        topic: the bag's image topic; None takes the only one there is.
        part: part of a bag's frames in order of time, e.g. (0.0, 0.5) the first half.
        wanted: says by an image's name whether to read it; the others are not decoded.

    Raises:
        DataError: missing, unreadable, or without images.
    """
    from mdnet_ros.bags.unfinished import is_bag

    path = Path(path)
    if is_bag(path):
        yield from _thin(_bag(path, topic, part, wanted))
    elif not path.exists():
        raise DataError(f"images '{path}': no such file or folder")
    elif path.is_dir():
        yield from _folder(path, wanted)
    elif tarfile.is_tarfile(path):
        yield from _tar(path, wanted)
    else:
        raise DataError(f"images '{path}': expected a folder, a tar pack or a bag")


def is_held_back(name: str, share: float) -> bool:
    """Whether an image is kept for validation: decided by its name alone, so the same for ever."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], 'big') < share * 2**32


class ImagePool:
    """Photographs of any size with their pyramids, in one flat tensor.

    Level 0 is the photograph. Each further level has half the width and height, every pixel the
    mean of 2 x 2 pixels of the level below; an odd last row or column is dropped, so that pixel x
    of level l always shows pixels x·2^l to (x + 1)·2^l - 1 of the photograph.

    Attributes:
        pixels: (T,) uint8, all levels of all photographs, each row by row.
        offsets: (N, LEVELS) int64, where in ``pixels`` each level begins.
        sizes: (N, LEVELS, 2) int64, width and height of each level, pixels.
        names: where each photograph came from.
    """

    def __init__(self, images: Iterable[NamedImage]) -> None:
        self.names: list[str] = []
        pixels = np.empty(1 << 20, np.uint8)
        used = 0
        offsets: list[list[int]] = []
        sizes: list[list[tuple[int, int]]] = []
        for image in images:
            pyramid = _pyramid(_fit(image.gray))
            needed = used + sum(level.size for level in pyramid)
            if needed > len(pixels):  # grown by half, so that adding stays cheap
                larger = np.empty(needed + needed // 2, np.uint8)
                larger[:used] = pixels[:used]
                pixels = larger
            self.names.append(image.name)
            offsets.append([])
            sizes.append([(level.shape[1], level.shape[0]) for level in pyramid])
            for level in pyramid:
                offsets[-1].append(used)
                pixels[used : used + level.size] = level.reshape(-1)
                used += level.size
        self.pixels = torch.from_numpy(pixels[:used])
        self.offsets = torch.tensor(offsets, dtype=torch.int64).reshape(-1, LEVELS)
        self.sizes = torch.tensor(sizes, dtype=torch.int64).reshape(-1, LEVELS, 2)

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device) -> ImagePool:
        """Move the pixels to a device as a whole (a thousand large photographs: 1.3 GB)."""
        self.pixels = self.pixels.to(device)
        self.offsets, self.sizes = self.offsets.to(device), self.sizes.to(device)
        return self


def _pyramid(gray: np.ndarray) -> list[np.ndarray]:
    """The photograph and its ``LEVELS`` - 1 reductions by area averaging."""
    levels = [gray]
    while len(levels) < LEVELS:
        height, width = (max(1, n // 2) for n in levels[-1].shape)
        even = levels[-1][: 2 * height, : 2 * width]
        levels.append(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA))
    return levels


def _fit(gray: np.ndarray) -> np.ndarray:
    """Turn portrait images by 90 degrees and shrink what is larger than ``LARGEST_SIZE``."""
    if gray.shape[0] > gray.shape[1]:
        gray = cv2.rotate(gray, cv2.ROTATE_90_CLOCKWISE)
    factor = min(LARGEST_SIZE[0] / gray.shape[1], LARGEST_SIZE[1] / gray.shape[0], 1.0)
    if factor == 1.0:
        return gray
    size = (max(1, int(gray.shape[1] * factor)), max(1, int(gray.shape[0] * factor)))
    return cv2.resize(gray, size, interpolation=cv2.INTER_AREA)


@dataclass(frozen=True)
class Pools:
    """What a run trains on and what it is validated on.

    Attributes:
        training: photographs to train on.
        validation: photographs to measure on.
        held_back: how many of the validation's photographs are never trained on: all of them, or
            none where a set is so small that the validation uses photographs trained on.
    """

    training: ImagePool
    validation: ImagePool
    held_back: int


def load_pools(
    paths: list[str | Path],
    held_back: float,
    topic: str | None = None,
    part: tuple[float, float] = (0.0, 1.0),
) -> Pools:
    """Read all sources into a pool to train on and one to validate on.

    Memory grows with the photographs that are kept, not with the length of a bag. A set so small
    that none of its photographs is held back is validated on some that are trained on, and a
    warning says so.

    Raises:
        DataError: a source is missing or unreadable, or there are too few images.
    """
    aside: list[NamedImage] = []
    first: list[NamedImage] = []

    def to_train_on() -> Iterator[NamedImage]:
        for path in paths:
            for image in read_images(path, topic, part):
                if min(image.gray.shape) < MINIMUM_SIDE:
                    continue
                if is_held_back(image.name, held_back):
                    aside.append(NamedImage(image.name, _fit(image.gray)))
                    continue
                if len(first) < 10:
                    first.append(NamedImage(image.name, _fit(image.gray)))
                yield image

    training = ImagePool(to_train_on())
    if len(training) < 2:
        raise DataError(
            f'images {[str(p) for p in paths]}: expected at least 2 images with both sides of '
            f'{MINIMUM_SIDE} px or more to train on, got {len(training)}; frames of a bag that '
            'show the same as the one before are not counted'
        )
    if not aside:
        shared = first[: max(1, min(10, len(training) // 10))]
        _LOG.warning(
            'none of the %d images is held back: validation measures on %d that are trained on',
            len(training), len(shared),
        )
        return Pools(training, ImagePool(shared), 0)
    return Pools(training, ImagePool(aside), len(aside))
