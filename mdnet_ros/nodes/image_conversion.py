"""Convert image messages to pixels: with cv_bridge where it works, else with our decoder."""

from __future__ import annotations

import array
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from mdnet_ros.data import image_decoding
from mdnet_ros.errors import ImageError
from mdnet_ros.features.network import MIN_SIDE

#: Encodings that cv_bridge does not convert to mono8 and bgr8, at least in some versions.
_NOT_BY_CV_BRIDGE = ('8UC1', '8UC3', '16UC1', 'uyvy', 'yuyv', 'nv12', 'nv21')
_CV_BRIDGE_ENCODINGS = frozenset(image_decoding.ENCODINGS) - frozenset(_NOT_BY_CV_BRIDGE)


def check(message: Image | CompressedImage) -> None:
    """Check a message without decoding it.

    Raises:
        ImageError: if its fields contradict each other, or the image is too small.
    """
    if isinstance(message, CompressedImage):
        width, height = image_decoding.check_compressed(message.format, message.data)
    else:
        width, height = message.width, message.height
        image_decoding.check_image(*_fields(message))
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f'image: expected both sides at least {MIN_SIDE} px, got {width}x{height}'
        )


def fill(message: Image | CompressedImage, data: np.ndarray | bytes) -> None:
    """Set the ``data`` of a message in the form that rclpy takes without checking each byte."""
    view = memoryview(data) if isinstance(data, bytes) else np.ascontiguousarray(data).data
    buffer = array.array('B')
    buffer.frombytes(view.cast('B') if view.nbytes else b'')
    message.data = buffer


def image_message(image: np.ndarray, header: object) -> Image:
    """Make a ``bgr8`` or ``mono8`` message of an (H, W, 3) or (H, W) uint8 image."""
    message = Image(
        header=header,
        height=int(image.shape[0]),
        width=int(image.shape[1]),
        encoding='mono8' if image.ndim == 2 else 'bgr8',
        is_bigendian=0,
        step=int(np.prod(image.shape[1:])),
    )
    fill(message, image)
    return message


@dataclass(frozen=True)
class ReceivedImage:
    """An image message on its way through the node; decoded when it is needed.

    Attributes:
        message: the message.
        stamp_ns: stamp of its header in nanoseconds.
        received: when it was received, monotonic seconds.
        converter: decodes it.
    """

    message: Image | CompressedImage
    stamp_ns: int
    received: float
    converter: ImageConverter

    def gray(self) -> np.ndarray:
        """Return the pixels as :meth:`ImageConverter.gray` does."""
        return self.converter.gray(self.message)

    def bgr(self) -> np.ndarray:
        """Return the pixels as :meth:`ImageConverter.bgr` does."""
        return self.converter.bgr(self.message)


class ImageConverter:
    """Turns image messages into pixels.

    Attributes:
        backend: ``cv_bridge`` or ``opencv`` (our own decoder).
        reason: why it is not cv_bridge; empty if it is.
    """

    def __init__(self, raw_range: image_decoding.RawValueRange | None = None) -> None:
        self._raw_range = raw_range or image_decoding.RawValueRange()
        self.backend, self.reason = 'cv_bridge', ''
        try:
            from cv_bridge import CvBridge

            self._bridge = CvBridge()
            self._probe()
        except Exception as error:  # an apt cv_bridge fails in many ways beside a pip NumPy
            self.backend = 'opencv'
            self.reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:160]

    def gray(self, message: Image | CompressedImage) -> np.ndarray:
        """Decode gray pixels, (H, W) uint8; may be a view of the message's data.

        Raises:
            ImageError: naming what is wrong with the message.
        """
        if isinstance(message, CompressedImage):
            return image_decoding.decode_compressed(message.format, message.data, self._raw_range)
        if self._uses_bridge(message):
            return self._bridged(message, 'mono8')
        return image_decoding.decode_gray(*_fields(message), self._raw_range)

    def bgr(self, message: Image | CompressedImage) -> np.ndarray:
        """Decode colours, (H, W, 3) uint8 BGR; errors as :meth:`gray`."""
        if isinstance(message, CompressedImage):
            return image_decoding.decode_compressed_bgr(
                message.format, message.data, self._raw_range
            )
        if self._uses_bridge(message):
            return self._bridged(message, 'bgr8')
        return image_decoding.decode_bgr(*_fields(message), self._raw_range)

    def _uses_bridge(self, message: Image) -> bool:
        return self.backend == 'cv_bridge' and message.encoding in _CV_BRIDGE_ENCODINGS

    def _bridged(self, message: Image, encoding: str) -> np.ndarray:
        # With wrong fields cv_bridge reads beyond the data, or gives an unclear reason.
        image_decoding.check_image(*_fields(message))
        try:
            return np.asarray(self._bridge.imgmsg_to_cv2(message, encoding))
        except Exception as error:
            reason = ' '.join(str(error).split())[:160]
            raise ImageError(
                f'image {message.width}x{message.height} {message.encoding}: '
                f'cv_bridge: {reason}'
            ) from None

    def _probe(self) -> None:
        """Convert a tiny padded colour image; raises unless the result is right."""
        message = Image(height=2, width=2, encoding='rgb8', step=8)
        fill(message, bytes(range(16)))
        for encoding in ('mono8', 'bgr8'):
            got = np.asarray(self._bridge.imgmsg_to_cv2(message, encoding))
            if encoding == 'mono8':
                expected = image_decoding.decode_gray(*_fields(message))
            else:
                expected = image_decoding.decode_bgr(*_fields(message))
            if not np.array_equal(got, expected):
                raise ImageError(f'a probe conversion to {encoding} gave wrong pixels')


def _fields(message: Image) -> tuple[str, int, int, int, int, object]:
    return (
        message.encoding, message.height, message.width, message.step,
        message.is_bigendian, message.data,
    )
