"""Photographs for training: folders, tar packs and bags, as one pool of gray images in memory."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from mdnet_ros.data.image_files import decode_image
from mdnet_ros.errors import DataError
from mdnet_ros.progress import Progress

SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.tif', '.tiff', '.ppm', '.pgm')
#: Every photograph is shrunk to fit this canvas (width, height), turned upright if needed.
CANVAS = (608, 416)
#: Images smaller than this on their short side teach nothing.
MINIMUM_SIDE = 96
#: Larger members of a tar pack are no photographs, and are not read into memory, bytes.
LARGEST_FILE = 256 * 1024 * 1024
#: A bag's frame is kept when its thumbnail differs by this from the last one kept (mean of
#: absolute differences, 0 … 255): robots stand still, and copies of a frame add no knowledge.
DUPLICATE_DIFFERENCE = 6.0


@dataclass(frozen=True)
class NamedImage:
    """A gray photograph and where it came from."""

    name: str
    gray: np.ndarray


def _folder(path: Path) -> Iterator[NamedImage]:
    for file in sorted(p for p in path.rglob('*') if p.suffix.lower() in SUFFIXES):
        gray = decode_image(file.read_bytes())
        if gray is not None:
            yield NamedImage(str(file.relative_to(path)), gray)


def _tar(path: Path) -> Iterator[NamedImage]:
    try:
        with tarfile.open(path) as pack:
            for member in pack:
                if not member.isfile() or not member.name.lower().endswith(SUFFIXES):
                    continue
                if member.size > LARGEST_FILE:
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


def _bag(path: Path, topic: str | None) -> Iterator[NamedImage]:
    from mdnet_ros.bags.reader import BagReader
    from mdnet_ros.features.extractor import to_gray

    with BagReader(path) as bag:
        for frame in bag.images(topic):
            yield NamedImage(f'{path.name}@{frame.stamp_ns}', to_gray(frame.image))


def _is_bag(path: Path) -> bool:
    return (path / 'metadata.yaml').is_file() or path.suffix in ('.mcap', '.db3')


def read_images(
    path: str | Path,
    topic: str | None = None,
    part: tuple[float, float] = (0.0, 1.0),
) -> Iterator[NamedImage]:
    """Gray images of a folder (searched through), a tar pack, or a bag.

    Args:
        path: what to read.
        topic: the bag's image topic; None takes the only one there is.
        part: of a bag's frames in order of time, e.g. (0.0, 0.5) the first half.

    Raises:
        DataError: missing, unreadable, or without images.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"images '{path}': no such file or folder")
    if _is_bag(path):
        frames = list(_bag(path, topic))
        cut = slice(round(part[0] * len(frames)), round(part[1] * len(frames)))
        yield from _thin(iter(frames[cut]))
    elif path.is_dir():
        yield from _folder(path)
    elif tarfile.is_tarfile(path):
        yield from _tar(path)
    else:
        raise DataError(f"images '{path}': expected a folder, a tar pack or a bag")


def is_held_back(name: str, share: float) -> bool:
    """Whether an image is kept for validation: decided by its name alone, so the same for ever."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], 'big') < share * 2**32


class ImagePool:
    """Photographs on one canvas size, with a half-size copy, as uint8 tensors.

    Attributes:
        photos: (N, 1, H, W) uint8, each in the top left corner of the canvas.
        halves: (N, 1, H/2, W/2) uint8.
        sizes: (N, 2) int64, width and height of each photograph.
        names: where each came from.
    """

    def __init__(self, images: list[NamedImage]) -> None:
        width, height = CANVAS
        count = len(images)
        photos = np.zeros((count, 1, height, width), np.uint8)
        halves = np.zeros((count, 1, height // 2, width // 2), np.uint8)
        sizes = np.zeros((count, 2), np.int64)
        for i, image in enumerate(images):
            gray = _fit(image.gray)
            h, w = gray.shape
            # Repeat the edge, so that interpolation never mixes in the empty canvas.
            canvas = np.pad(gray, ((0, height - h), (0, width - w)), mode='edge')
            photos[i, 0] = canvas
            halves[i, 0] = cv2.resize(
                canvas, (width // 2, height // 2), interpolation=cv2.INTER_AREA
            )
            sizes[i] = w, h
        self.photos = torch.from_numpy(photos)
        self.halves = torch.from_numpy(halves)
        self.sizes = torch.from_numpy(sizes)
        self.names = [image.name for image in images]

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device) -> ImagePool:
        """Move the pixels to a device (a few hundred MB for thousands of photographs)."""
        self.photos, self.halves = self.photos.to(device), self.halves.to(device)
        return self


def _fit(gray: np.ndarray) -> np.ndarray:
    """Turn portrait images by 90 degrees and shrink to fit the canvas."""
    if gray.shape[0] > gray.shape[1]:
        gray = cv2.rotate(gray, cv2.ROTATE_90_CLOCKWISE)
    factor = min(CANVAS[0] / gray.shape[1], CANVAS[1] / gray.shape[0], 1.0)
    if factor == 1.0:
        return gray
    size = (max(1, int(gray.shape[1] * factor)), max(1, int(gray.shape[0] * factor)))
    return cv2.resize(gray, size, interpolation=cv2.INTER_AREA)


def load_pools(
    paths: list[str | Path],
    held_back: float,
    topic: str | None = None,
    part: tuple[float, float] = (0.0, 1.0),
) -> tuple[ImagePool, ImagePool]:
    """Read all sources into a pool to train on and one to validate on.

    Raises:
        DataError: a source is missing or unreadable, or there are too few images.
    """
    training: list[NamedImage] = []
    validation: list[NamedImage] = []
    for path in paths:
        images = read_images(path, topic, part)
        for image in Progress(images, desc=f'read {Path(path).name}', unit=''):
            if min(image.gray.shape) < MINIMUM_SIDE:
                continue
            chosen = validation if is_held_back(image.name, held_back) else training
            chosen.append(NamedImage(image.name, _fit(image.gray)))
    if len(training) < 2:
        raise DataError(
            f'images {[str(p) for p in paths]}: expected at least 2 images with both sides of '
            f'{MINIMUM_SIDE} px or more, got {len(training)}'
        )
    if not validation:  # a tiny set: validate on warps of what is trained on, and say so nowhere
        validation = training[: max(1, len(training) // 10)]
    return ImagePool(training), ImagePool(validation)
