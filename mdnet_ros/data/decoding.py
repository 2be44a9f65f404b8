"""Pixels of the fields of an image message, without ROS.

The node and the bag reader both decode here, so that what is measured from a bag is what runs on
the robot. The conversions give what the C++ cv_bridge gives for ``mono8`` and ``bgr8``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mdnet_ros.errors import ImageError

#: Larger images are refused before anything is allocated for them: 8192 x 8192.
MAX_PIXELS = 2**26
_PNG, _PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND'
_JPEG, _JPEG_END = b'\xff\xd8', b'\xff\xd9'
#: Start-of-frame markers of a JPEG: they hold its size. The others of 0xC0 … 0xCF do not.
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class _Encoding:
    """How pixels lie in memory and which OpenCV calls convert them (None: nothing to do)."""

    dtype: type[np.generic]
    channels: int
    to_gray: int | None
    to_bgr: int | None


def _bayer(dtype: type[np.generic], opencv_pattern: str) -> _Encoding:
    # OpenCV names a pattern by the second row's second and third pixel, ROS by the first two rows.
    return _Encoding(
        dtype,
        1,
        getattr(cv2, f'COLOR_Bayer{opencv_pattern}2GRAY'),
        getattr(cv2, f'COLOR_Bayer{opencv_pattern}2BGR'),
    )


def _known() -> dict[str, _Encoding]:
    u8, u16 = np.uint8, np.uint16
    known = {
        '8UC1': _Encoding(u8, 1, None, cv2.COLOR_GRAY2BGR),
        '8UC3': _Encoding(u8, 3, cv2.COLOR_BGR2GRAY, None),
        'yuv422': _Encoding(u8, 2, cv2.COLOR_YUV2GRAY_UYVY, cv2.COLOR_YUV2BGR_UYVY),
        'yuv422_yuy2': _Encoding(u8, 2, cv2.COLOR_YUV2GRAY_YUY2, cv2.COLOR_YUV2BGR_YUY2),
    }
    for bits, dtype in (('8', u8), ('16', u16)):
        known |= {
            f'mono{bits}': _Encoding(dtype, 1, None, cv2.COLOR_GRAY2BGR),
            f'bgr{bits}': _Encoding(dtype, 3, cv2.COLOR_BGR2GRAY, None),
            f'rgb{bits}': _Encoding(dtype, 3, cv2.COLOR_RGB2GRAY, cv2.COLOR_RGB2BGR),
            f'bgra{bits}': _Encoding(dtype, 4, cv2.COLOR_BGRA2GRAY, cv2.COLOR_BGRA2BGR),
            f'rgba{bits}': _Encoding(dtype, 4, cv2.COLOR_RGBA2GRAY, cv2.COLOR_RGBA2BGR),
            f'bayer_rggb{bits}': _bayer(dtype, 'BG'),
            f'bayer_bggr{bits}': _bayer(dtype, 'RG'),
            f'bayer_gbrg{bits}': _bayer(dtype, 'GR'),
            f'bayer_grbg{bits}': _bayer(dtype, 'GB'),
        }
    known['uyvy'] = known['yuv422']
    known['yuyv'] = known['yuv422_yuy2']
    return known


_ENCODINGS = _known()
#: Encodings of sensor_msgs/Image that can be decoded.
ENCODINGS = tuple(sorted(_ENCODINGS))
#: Encodings that mostly hold depth: such a topic is not taken for a camera unless it is named.
DEPTH_ENCODINGS = ('16UC1', '32FC1', '64FC1')


def to_8bit(image: np.ndarray) -> np.ndarray:
    """An image of uint8, or of uint16 scaled as cv_bridge does: rint(x · 255 / 65535)."""
    if image.dtype == np.uint16:
        return cv2.convertScaleAbs(image, alpha=255.0 / 65535.0)
    return image


def check_image(
    encoding: str, height: int, width: int, step: int, is_bigendian: bool | int, data: Any
) -> None:
    """Raise what :func:`decode_gray` would, at next to no cost, and without its pixels."""
    _checked(encoding, height, width, step, data)


def check_compressed(format: str, data: Any) -> tuple[int, int]:
    """The (width, height) that a JPEG or PNG tells of itself; nothing is decoded.

    Raises:
        ImageError: unless the data begins and ends as a JPEG or PNG of a size we take. What is
            wrong within only :func:`decode_compressed` can find.
    """
    buffer = _bytes(data)
    content = buffer.tobytes()
    where = f"compressed image, format '{format}': {len(content)} bytes"
    if content.startswith(_PNG):
        whole = _PNG_END in content[-16:]
        size = struct.unpack_from('>II', content, 16) if len(content) >= 24 else None
    elif content.startswith(_JPEG):
        whole = content.rfind(_JPEG_END) > 0
        size = _jpeg_size(content)
    else:
        raise ImageError(f'{where} that are not a readable JPEG or PNG')
    if not whole or size is None:
        raise ImageError(f'{where} of a JPEG or PNG that is not whole, truncated on its way?')
    width, height = size
    if not 0 < width * height <= MAX_PIXELS:
        raise ImageError(f'{where}: expected 1 to {MAX_PIXELS} pixels, got {width}x{height}')
    return width, height


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    """(width, height) by the first start-of-frame segment; None where there is none."""
    at = 2
    while at + 9 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack_from('>HH', content, at + 5)
            return width, height
        length = struct.unpack_from('>H', content, at + 2)[0]
        at += 2 + max(2, length)
    return None


def decode_gray(
    encoding: str, height: int, width: int, step: int, is_bigendian: bool | int, data: Any
) -> np.ndarray:
    """Gray pixels of a ``sensor_msgs/Image``.

    Args:
        encoding: one of :data:`ENCODINGS`.
        height: rows.
        width: columns.
        step: bytes from one row to the next.
        is_bigendian: byte order of 16-bit pixels.
        data: height · step bytes: anything with the buffer protocol (bytes, array, ndarray).

    Returns:
        (H, W) uint8. A view of ``data`` where nothing had to be converted.

    Raises:
        ImageError: unknown encoding, or fields that contradict each other.
    """
    pixels, known = _pixels(encoding, height, width, step, is_bigendian, data)
    return to_8bit(_convert(pixels, known.to_gray, encoding))


def decode_bgr(
    encoding: str, height: int, width: int, step: int, is_bigendian: bool | int, data: Any
) -> np.ndarray:
    """Colour pixels of a ``sensor_msgs/Image``; arguments and errors as :func:`decode_gray`.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    pixels, known = _pixels(encoding, height, width, step, is_bigendian, data)
    return to_8bit(_convert(pixels, known.to_bgr, encoding))


def decode_compressed(format: str, data: Any) -> np.ndarray:
    """Gray pixels of a ``sensor_msgs/CompressedImage``.

    Args:
        format: the message's field, for the error; the content decides what is decoded.
        data: a JPEG or PNG; buffer protocol. Decoders of other formats are not offered to what
            comes over the network.

    Returns:
        (H, W) uint8. A JPEG's luminance is taken as it is stored.

    Raises:
        ImageError: if the data cannot be decoded.
    """
    # An orientation tag must not turn the pixels that camera_info describes.
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    return _decode_file(format, data, flags)


def decode_compressed_bgr(format: str, data: Any) -> np.ndarray:
    """Colour pixels, (H, W, 3) uint8 BGR; otherwise as :func:`decode_compressed`."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    return _decode_file(format, data, flags)


def _decode_file(format: str, data: Any, flags: int) -> np.ndarray:
    check_compressed(format, data)
    buffer = _bytes(data)
    try:
        image = cv2.imdecode(buffer, flags)
    except cv2.error:
        image = None
    if image is None:
        raise ImageError(
            f"compressed image, format '{format}': {buffer.size} bytes that are not a readable "
            'JPEG or PNG'
        )
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageError(
            f"compressed image, format '{format}': expected 8 or 16 bit, got {image.dtype}"
        )
    return to_8bit(image)


def _bytes(data: Any) -> np.ndarray:
    """(N,) uint8 view of any buffer."""
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    try:
        return np.frombuffer(data, np.uint8)
    except (ValueError, TypeError, BufferError):
        return np.frombuffer(bytes(data), np.uint8)  # empty or no buffer at all


def _checked(
    encoding: str, height: int, width: int, step: int, data: Any
) -> tuple[_Encoding, np.ndarray]:
    """What is known of the encoding, and the (N,) bytes, once the fields agree with each other."""
    known = _ENCODINGS.get(encoding)
    if known is None:
        raise ImageError(f"image encoding '{encoding}': expected one of {', '.join(ENCODINGS)}")
    height, width, step = int(height), int(width), int(step)
    if height <= 0 or width <= 0:
        raise ImageError(f'image: expected pixels, got {width}x{height}')
    row = width * known.channels * np.dtype(known.dtype).itemsize
    if step < row:
        raise ImageError(
            f'image {width}x{height} {encoding}: expected a step of at least {row} bytes, '
            f'got {step}'
        )
    if known.channels == 2 and width % 2:
        raise ImageError(f'image {width}x{height} {encoding}: expected an even width')
    buffer = _bytes(data)
    if buffer.size != height * step:
        raise ImageError(
            f'image {width}x{height} {encoding}: expected {height * step} bytes of data '
            f'(height x step), got {buffer.size}'
        )
    if height * width > MAX_PIXELS:
        raise ImageError(f'image: expected at most {MAX_PIXELS} pixels, got {width}x{height}')
    return known, buffer


def _pixels(
    encoding: str, height: int, width: int, step: int, is_bigendian: bool | int, data: Any
) -> tuple[np.ndarray, _Encoding]:
    """(H, W) or (H, W, C) native-endian view of the data."""
    known, buffer = _checked(encoding, height, width, step, data)
    height, width, step = int(height), int(width), int(step)
    itemsize = np.dtype(known.dtype).itemsize
    row = width * known.channels * itemsize
    rows = buffer.reshape(height, step)[:, :row]
    if itemsize == 2:
        rows = np.ascontiguousarray(rows).view('>u2' if is_bigendian else '<u2').astype(np.uint16)
    if known.channels > 1:
        rows = rows.reshape(height, width, known.channels)
    return rows, known


def _convert(pixels: np.ndarray, code: int | None, encoding: str) -> np.ndarray:
    if code is None:
        return pixels
    try:
        return cv2.cvtColor(pixels, code)
    except cv2.error as error:
        reason = ' '.join(str(error).split())[:160]
        raise ImageError(
            f'image {pixels.shape[1]}x{pixels.shape[0]} {encoding}: cannot convert: {reason}'
        ) from None
