"""Depth maps in the forms in which drivers and transports publish them."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mdnet_ros.bags.messages import BagTopics, depth_of_message
from mdnet_ros.bags.reader import BagReader
from mdnet_ros.bags.writer import BagWriter
from mdnet_ros.errors import DataError

METRES = np.random.default_rng(0).uniform(0.3, 9.0, (24, 32)).astype(np.float32)
MILLIMETRES = np.rint(METRES * 1000).astype(np.uint16)


def png(image):
    return np.frombuffer(cv2.imencode('.png', image)[1].tobytes(), np.uint8)


def compressed(described, data):
    return SimpleNamespace(format=described, data=data)


def raw(encoding, values, step=None, is_bigendian=False):
    height, width = values.shape
    rows = values.view(np.uint8).reshape(height, -1)
    step = step or rows.shape[1]
    padded = np.pad(rows, ((0, 0), (0, step - rows.shape[1])))
    return SimpleNamespace(
        encoding=encoding, height=height, width=width, step=step, is_bigendian=is_bigendian,
        data=padded.reshape(-1),
    )  # fmt: skip


@pytest.mark.parametrize(
    ('described', 'header'),
    [
        ('16UC1; png compressed ', 0),
        ('16UC1; png compressed', 0),
        ('16UC1; compressedDepth png', 12),
        ('16UC1; compressedDepth', 12),
        ('16uc1;COMPRESSEDDEPTH PNG', 12),
    ],
)
def test_millimetres_in_a_png(described, header):
    data = np.concatenate([np.zeros(header, np.uint8), png(MILLIMETRES)])
    depth = depth_of_message(compressed(described, data))
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, MILLIMETRES / 1000, atol=1e-6)


def test_inverse_depth_of_the_compressed_depth_transport():
    """32FC1: a 16 bit number is a / depth + b; 0 is unknown (compressed_depth_image_transport)."""
    most, steps = 10.0, 100.0
    a = steps * (steps + 1)
    b = 1 - a / most
    codes = np.rint(a / METRES + b).astype(np.uint16)
    codes[0, 0] = 0
    header = np.frombuffer(np.int32(0).tobytes() + np.array([a, b], '<f4').tobytes(), np.uint8)
    depth = depth_of_message(
        compressed('32FC1; compressedDepth png', np.concatenate([header, png(codes)]))
    )
    assert np.isnan(depth[0, 0])
    step = METRES**2 / a  # half a code more or less
    assert (np.abs(depth - METRES) <= step)[1:].all()


@pytest.mark.parametrize('big', [False, True])
def test_raw_depth_with_padded_rows(big):
    order = '>' if big else '<'
    for encoding, values, expected in (
        ('16UC1', MILLIMETRES.astype(order + 'u2'), MILLIMETRES / 1000),
        ('32FC1', METRES.astype(order + 'f4'), METRES),
    ):
        depth = depth_of_message(raw(encoding, values, step=160, is_bigendian=big))
        np.testing.assert_allclose(depth, expected, atol=1e-6)


def test_what_is_written_is_read(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        BagTopics(bag).depth('/depth/compressedDepth', 1, 'camera', METRES)
    with BagReader(tmp_path / 'bag') as bag:
        (message,) = bag.messages('/depth/compressedDepth')
        np.testing.assert_allclose(depth_of_message(message), METRES, atol=6e-4)


def test_other_images_are_no_depth():
    gray = np.zeros((24, 32), np.uint8)
    for described in ('bgr8; jpeg compressed bgr8', 'mono8; png compressed ', 'png', 'jpeg', ''):
        assert depth_of_message(compressed(described, png(gray))) is None
    assert depth_of_message(raw('mono8', gray)) is None


@pytest.mark.parametrize(
    ('message', 'reason'),
    [
        (compressed('16UC1; compressedDepth rvl', png(MILLIMETRES)), 'compression to png'),
        (compressed('16UC1; jpeg compressed ', png(MILLIMETRES)), 'compression to png'),
        (compressed('16UC1; png compressed ', png(MILLIMETRES)[:40]), 'PNG of 16 bit'),
        (compressed('16UC1; compressedDepth png', png(MILLIMETRES)[:5]), 'PNG of 16 bit'),
        (compressed('16UC1; png compressed ', png(np.zeros((4, 4), np.uint8))), 'PNG of 16 bit'),
        (compressed('32FC1; png compressed ', png(MILLIMETRES)), 'compressedDepth transport'),
        (SimpleNamespace(encoding='16UC1', height=4, width=4, step=8, is_bigendian=False,
                         data=np.zeros(31, np.uint8)), 'got step 8 and 31 bytes'),
        (SimpleNamespace(encoding='32FC1', height=4, width=4, step=8, is_bigendian=False,
                         data=np.zeros(32, np.uint8)), 'step of at least 16 bytes'),
    ],
)  # fmt: skip
def test_depth_that_cannot_be_read_is_refused_in_one_line(message, reason):
    with pytest.raises(DataError, match=reason) as caught:
        depth_of_message(message)
    assert '\n' not in str(caught.value)
