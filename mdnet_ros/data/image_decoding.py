"""Decode the pixels of image messages from their fields, without ROS.

The node and the bag reader both decode here, so that what is measured from a bag is what runs on
the robot. The conversions give what the C++ cv_bridge gives for ``mono8`` and ``bgr8``.

``16UC1`` holds raw 16-bit values, mostly of a thermal camera; a :class:`RawValueRange` makes 8 bits
of them. Depth is not handled in this module.
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


#: Percentiles of an image that become black and white where no range is given.
_PERCENTILES = (1.0, 99.0)


@dataclass(frozen=True)
class RawValueRange:
    """The raw values of a ``16UC1`` image that become black and white.

    Attributes:
        low: becomes 0.
        high: becomes 255. If it is not above ``low``, the 1st and the 99th percentile of each
            image are used instead.
    """

    low: int = 0
    high: int = 0

    def to_8bit(self, raw: np.ndarray) -> np.ndarray:
        """Scale (H, W) uint16 raw values to uint8, rounded and clamped."""
        low, high = self.low, self.high
        if high <= low:
            cumulated = np.cumsum(np.bincount(raw.reshape(-1)))
            shares = np.array(_PERCENTILES) / 100.0 * cumulated[-1]
            low, high = (int(i) for i in np.searchsorted(cumulated, shares))
        scale = 255.0 / max(1, high - low)
        clamped = np.clip(raw, low, max(low + 1, high)) - np.uint16(low)
        return cv2.convertScaleAbs(clamped, alpha=scale)


@dataclass(frozen=True)
class _Encoding:
    """How pixels lie in memory and which OpenCV calls convert them (None: nothing to do).

    Attributes:
        dtype: type of one value, in the byte order of the message.
        channels: values per pixel.
        to_gray: OpenCV's conversion to gray.
        to_bgr: OpenCV's conversion to colour.
        planes: a plane of luminance is followed by one of colours at half the resolution.
        raw_values: values are scaled by a :class:`RawValueRange`.
    """

    dtype: type[np.generic]
    channels: int
    to_gray: int | None
    to_bgr: int | None
    planes: bool = False
    raw_values: bool = False


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
    known['16UC1'] = _Encoding(u16, 1, None, cv2.COLOR_GRAY2BGR, raw_values=True)
    known['nv12'] = _Encoding(u8, 1, None, cv2.COLOR_YUV2BGR_NV12, planes=True)
    known['nv21'] = _Encoding(u8, 1, None, cv2.COLOR_YUV2BGR_NV21, planes=True)
    known['uyvy'] = known['yuv422']
    known['yuyv'] = known['yuv422_yuy2']
    return known


_ENCODINGS = _known()
#: Encodings of sensor_msgs/Image that can be decoded.
ENCODINGS = tuple(sorted(_ENCODINGS))
#: Encodings that mostly hold depth: such a topic is not taken for a camera unless it is named.
DEPTH_ENCODINGS = ('16UC1', '32FC1', '64FC1')


_BY_LOWER_CASE = {name.lower(): name for name in (*DEPTH_ENCODINGS, *ENCODINGS)}


def parts_of_format(format: str) -> tuple[str, str]:
    """Split the ``format`` of a CompressedImage, such as ``bayer_rggb8; png compressed``.

    Returns:
        The encoding before compression, as ROS spells it if it is known, and what stands after
        the semicolon, in lower case.
    """
    encoding, _, how = (part.strip() for part in format.partition(';'))
    return _BY_LOWER_CASE.get(encoding.lower(), encoding), how.lower()


def to_8bit(image: np.ndarray) -> np.ndarray:
    """Scale uint16 as cv_bridge does, rint(x · 255 / 65535); uint8 is returned as it is."""
    if image.dtype == np.uint16:
        return cv2.convertScaleAbs(image, alpha=255.0 / 65535.0)
    return image


def check_image(
    encoding: str, height: int, width: int, step: int, is_bigendian: bool | int, data: Any
) -> None:
    """Raise the error that :func:`decode_gray` would raise, without decoding any pixels."""
    _checked(encoding, height, width, step, data)


def check_compressed(format: str, data: Any) -> tuple[int, int]:
    """Read the (width, height) from the header of a JPEG or PNG, without decoding it.

    Raises:
        ImageError: unless the data begins and ends as a JPEG or PNG of an accepted size. Damage
            within it is found by :func:`decode_compressed` only.
    """
    content = _bytes(data).data  # a view: every image is checked twice
    where = f"compressed image, format '{format}': {len(content)} bytes"
    if content[: len(_PNG)] == _PNG:
        whole = _PNG_END in content[-16:].tobytes()
        size = struct.unpack_from('>II', content, 16) if len(content) >= 24 else None
    elif content[: len(_JPEG)] == _JPEG:
        whole = _holds_from_the_end(content, _JPEG_END)
        size = _jpeg_size(content)
    else:
        raise ImageError(f'{where} that are not a readable JPEG or PNG')
    if not whole or size is None:
        raise ImageError(f'{where} of a JPEG or PNG that is not whole, truncated on its way?')
    width, height = size
    if not 0 < width * height <= MAX_PIXELS:
        raise ImageError(f'{where}: expected 1 to {MAX_PIXELS} pixels, got {width}x{height}')
    return width, height


def _holds_from_the_end(content: memoryview, mark: bytes, block: int = 1024) -> bool:
    """Search two bytes from the end, where they are found at once unless data is missing."""
    end = len(content)
    while end > 0:
        start = max(0, end - block)
        if mark in content[start : end + 1].tobytes():  # one more: it may lie across two blocks
            return True
        end, block = start, 2 * block
    return False


def _jpeg_size(content: memoryview) -> tuple[int, int] | None:
    """Read (width, height) from the first start-of-frame segment; None without one."""
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
    encoding: str,
    height: int,
    width: int,
    step: int,
    is_bigendian: bool | int,
    data: Any,
    raw_range: RawValueRange = RawValueRange(),  # noqa: B008 - it cannot be changed
) -> np.ndarray:
    """Decode the gray pixels of a ``sensor_msgs/Image``.

    Args:
        encoding: one of :data:`ENCODINGS`.
        height: rows.
        width: columns.
        step: bytes from one row to the next.
        is_bigendian: byte order of 16-bit pixels.
        data: height · step bytes (half as many more for ``nv12`` and ``nv21``): anything with the
            buffer protocol (bytes, array, ndarray).
        raw_range: range of the raw values of ``16UC1``.

    Returns:
        (H, W) uint8. A view of ``data`` where nothing had to be converted.

    Raises:
        ImageError: unknown encoding, or fields that contradict each other.
    """
    pixels, known = _pixels(encoding, height, width, step, is_bigendian, data)
    if known.raw_values:
        return raw_range.to_8bit(pixels)
    if known.planes:
        return pixels[:height]
    return to_8bit(_convert(pixels, known.to_gray, encoding))


def decode_bgr(
    encoding: str,
    height: int,
    width: int,
    step: int,
    is_bigendian: bool | int,
    data: Any,
    raw_range: RawValueRange = RawValueRange(),  # noqa: B008
) -> np.ndarray:
    """Decode the colours of a ``sensor_msgs/Image``; arguments, errors as :func:`decode_gray`.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    pixels, known = _pixels(encoding, height, width, step, is_bigendian, data)
    if known.raw_values:
        pixels = raw_range.to_8bit(pixels)
    return to_8bit(_convert(pixels, known.to_bgr, encoding))


def decode_compressed(
    format: str, data: Any, raw_range: RawValueRange = RawValueRange()  # noqa: B008
) -> np.ndarray:
    """Decode the gray pixels of a ``sensor_msgs/CompressedImage``.

    Args:
        format: the message's field. ``bayer_rggb8; png compressed`` says that the file holds the
            raw image of a sensor with a Bayer filter, ``16UC1; png compressed`` that it holds
            raw values; otherwise the content decides.
        data: a JPEG or PNG; buffer protocol. Decoders of other formats are not offered to what
            comes over the network.
        raw_range: range of the raw values of ``16UC1``.

    Returns:
        (H, W) uint8. A JPEG's luminance is returned as it is stored.

    Raises:
        ImageError: if the data cannot be decoded.
    """
    raw = _decode_raw(format, data, raw_range, bgr=False)
    if raw is not None:
        return raw
    return _decode_file(format, data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)


def decode_compressed_bgr(
    format: str, data: Any, raw_range: RawValueRange = RawValueRange()  # noqa: B008
) -> np.ndarray:
    """Decode the colours, (H, W, 3) uint8 BGR; otherwise as :func:`decode_compressed`."""
    raw = _decode_raw(format, data, raw_range, bgr=True)
    if raw is not None:
        return raw
    return _decode_file(format, data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)


def _decode_raw(
    format: str, data: Any, raw_range: RawValueRange, bgr: bool
) -> np.ndarray | None:
    """Decode a file that holds a sensor's raw values, to gray or BGR; None if it holds others.

    compressed_image_transport writes ``ENCODING; png compressed TARGET``. With a target such as
    ``bgr8`` the image was converted before it was compressed.
    """
    encoding, how = parts_of_format(format)
    known = _ENCODINGS.get(encoding)
    if known is None or not (known.raw_values or encoding.startswith('bayer_')):
        return None
    _, _, target = how.partition('compressed')
    if target.strip() not in ('', encoding.lower()):
        return None
    # The number of channels shows whether an older transport converted it without saying so.
    pixels = _decode_file(format, data, cv2.IMREAD_UNCHANGED, scale=False)
    if pixels.ndim != 2:
        return None
    if known.raw_values:
        if pixels.dtype != np.uint16:
            return None
        pixels = raw_range.to_8bit(pixels)
    elif pixels.shape[0] < 2 or pixels.shape[1] < 2:
        return None
    return to_8bit(_convert(pixels, known.to_bgr if bgr else known.to_gray, encoding))


def _decode_file(format: str, data: Any, flags: int, scale: bool = True) -> np.ndarray:
    check_compressed(format, data)
    buffer = _bytes(data)
    try:
        # An orientation tag must not turn the pixels that camera_info describes.
        image = cv2.imdecode(
            buffer,
            flags if flags == cv2.IMREAD_UNCHANGED else flags | cv2.IMREAD_IGNORE_ORIENTATION,
        )
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
    return to_8bit(image) if scale else image


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
    """Look the encoding up and check that the fields agree; returns it with the (N,) bytes."""
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
    if (known.channels == 2 or known.planes) and width % 2:
        raise ImageError(f'image {width}x{height} {encoding}: expected an even width')
    if known.planes and height % 2:
        raise ImageError(f'image {width}x{height} {encoding}: expected an even height')
    buffer = _bytes(data)
    if known.planes:
        # Some drivers count the bytes of a pixel of both planes in the step: one and a half.
        expected = height * (step if step == row * 3 // 2 else step * 3 // 2)
    else:
        expected = height * step
    if buffer.size != expected:
        raise ImageError(
            f'image {width}x{height} {encoding}: expected {expected} bytes of data '
            f'(height x step{" of both planes" if known.planes else ""}), got {buffer.size}'
        )
    if height * width > MAX_PIXELS:
        raise ImageError(f'image: expected at most {MAX_PIXELS} pixels, got {width}x{height}')
    return known, buffer


def _pixels(
    encoding: str, height: int, width: int, step: int, is_bigendian: bool | int, data: Any
) -> tuple[np.ndarray, _Encoding]:
    """View the data as (H, W) or (H, W, C), or as (1.5 H, W) with a plane of colours below."""
    known, buffer = _checked(encoding, height, width, step, data)
    height, width, step = int(height), int(width), int(step)
    itemsize = np.dtype(known.dtype).itemsize
    row = width * known.channels * itemsize
    if known.planes:
        height = height * 3 // 2
        step = buffer.size // height
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
