"""Read image files: always the pixels as they are stored.

An orientation tag (EXIF), as phones write it, would turn them when they are read; calibrations and
homographies are of the stored pixels.
"""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

from mdnet_ros.errors import ImageError

#: Endings of the names of image files, in lower case.
IMAGE_SUFFIXES = frozenset(
    {'.png', '.ppm', '.pgm', '.jpg', '.jpeg', '.webp', '.tif', '.tiff', '.bmp'}
)
#: TIFF's tag for it.
_ORIENTATION = 0x0112


def image_name(name: str) -> str:
    """Drop an image's suffix, and nothing else: names may hold dots (``1305031102.175304.png``).

    Args:
        name: name of a file or of an entry in a data set, perhaps without a suffix.
    """
    stem, dot, suffix = name.rpartition('.')
    return stem if f'{dot}{suffix.lower()}' in IMAGE_SUFFIXES else name


def decode_image(content: bytes, colour: bool = False) -> np.ndarray | None:
    """Decode the content of an image file.

    Args:
        content: content of the file.
        colour: decode colours.

    Returns:
        (H, W) uint8 gray or (H, W, 3) uint8 BGR; None if it is no image.
    """
    flags = cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE
    try:
        buffer = np.frombuffer(_without_tiff_orientation(content), np.uint8)
        return cv2.imdecode(buffer, flags | cv2.IMREAD_IGNORE_ORIENTATION) if content else None
    except cv2.error:
        return None


def read_image(path: Path, colour: bool = False) -> np.ndarray:
    """Read an image file.

    Args:
        path: path of the file.
        colour: read colours.

    Returns:
        (H, W) uint8 gray or (H, W, 3) uint8 BGR.

    Raises:
        ImageError: if the file is missing or not an image.
    """
    try:
        image = decode_image(path.read_bytes(), colour)
    except OSError as error:
        raise ImageError(f"image '{path}': {error.strerror}") from None
    if image is None:
        raise ImageError(f"image '{path}': cannot be read as an image")
    return image


def _without_tiff_orientation(content: bytes) -> bytes:
    """Set a TIFF's orientation to upright: OpenCV obeys it whatever the flags say."""
    order = {b'II*\0': '<', b'MM\0*': '>'}.get(content[:4])
    if order is None or len(content) < 8:
        return content
    (start,) = struct.unpack_from(f'{order}I', content, 4)
    if start + 2 > len(content):
        return content
    (count,) = struct.unpack_from(f'{order}H', content, start)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(content) - 11), 12):
        if struct.unpack_from(f'{order}H', content, entry)[0] == _ORIENTATION:
            upright = struct.pack(f'{order}HH', 1, 0)
            return content[: entry + 8] + upright + content[entry + 12 :]
    return content
