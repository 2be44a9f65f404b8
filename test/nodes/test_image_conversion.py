"""Image messages to pixels: every encoding, and what is wrong with the others."""

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image
from skimage import data

from mdnet_ros.data.image_decoding import decode_bgr, decode_gray
from mdnet_ros.errors import ImageError
from mdnet_ros.nodes.image_conversion import ImageConverter, fill, image_message

RGB = np.ascontiguousarray(data.astronaut()[100:164, 120:220])  # 64 x 100
HEIGHT, WIDTH = RGB.shape[:2]
GRAY = cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY)
BGR = RGB[..., ::-1]


def mosaic(pattern):
    """The colour filter array of an image: what a Bayer sensor of this pattern sees."""
    seen = np.zeros((HEIGHT, WIDTH), np.uint8)
    for place, colour in enumerate(pattern):
        rows, columns = slice(place // 2, None, 2), slice(place % 2, None, 2)
        seen[rows, columns] = RGB[rows, columns, 'rgb'.index(colour)]
    return seen


def studio_yuv():
    """(H, W, 3) Y, U and V of ITU-R BT.601 with the range of video (Y 16 to 235)."""
    matrix = np.array(
        [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]
    )
    return np.rint(RGB / 255.0 @ matrix.T + [16, 128, 128]).astype(np.uint8)


def yuv422(first_luma):
    """Two bytes a pixel: luminance at ``first_luma``, U and V by turns at the other."""
    yuv = studio_yuv()
    packed = np.empty((HEIGHT, WIDTH, 2), np.uint8)
    packed[..., first_luma] = yuv[..., 0]
    packed[:, 0::2, 1 - first_luma] = yuv[:, 0::2, 1]
    packed[:, 1::2, 1 - first_luma] = yuv[:, 0::2, 2]
    return packed


def wide(image):
    return image.astype(np.uint16) * 257


ALPHA = np.full((HEIGHT, WIDTH, 1), 9, np.uint8)
#: Encoding -> pixels and the largest mean difference that the encoding's own loss explains.
CASES = {
    'mono8': (GRAY, 0), '8UC1': (GRAY, 0), 'mono16': (wide(GRAY), 0),
    'bgr8': (BGR, 0), '8UC3': (BGR, 0), 'rgb8': (RGB, 0),
    'bgra8': (np.concatenate([BGR, ALPHA], 2), 0), 'rgba8': (np.concatenate([RGB, ALPHA], 2), 0),
    'rgb16': (wide(RGB), 0.5), 'bgr16': (wide(BGR), 0.5),
    'yuv422': (yuv422(1), 2), 'yuv422_yuy2': (yuv422(0), 2),
    **{f'bayer_{p}8': (mosaic(p), 6) for p in ('rggb', 'bggr', 'gbrg', 'grbg')},
    **{f'bayer_{p}16': (wide(mosaic(p)), 6) for p in ('rggb', 'bggr', 'gbrg', 'grbg')},
}


def message_of(encoding, padding=0, big_endian=False):
    pixels = np.ascontiguousarray(CASES[encoding][0])
    if big_endian:
        pixels = pixels.byteswap()
    rows = pixels.view(np.uint8).reshape(HEIGHT, -1)
    message = Image(
        height=HEIGHT, width=WIDTH, encoding=encoding, is_bigendian=int(big_endian),
        step=rows.shape[1] + padding,
    )
    fill(message, np.pad(rows, ((0, 0), (0, padding)), constant_values=255))
    return message


@pytest.fixture(params=['here', 'opencv'])
def converter(request):
    """What is active on this machine, and our own decoder."""
    made = ImageConverter()
    if request.param == 'opencv':
        made.backend = 'opencv'
    return made


@pytest.mark.parametrize('encoding', CASES)
def test_every_encoding_gives_the_picture(converter, encoding):
    loss = CASES[encoding][1]
    message = message_of(encoding)
    gray = converter.gray(message)
    assert (gray.dtype, gray.shape) == (np.uint8, (HEIGHT, WIDTH))
    # Of YUV the luminance is taken as it is, as cv_bridge does.
    expected = studio_yuv()[..., 0] if encoding.startswith('yuv') else GRAY
    assert np.abs(gray.astype(int) - expected).mean() <= loss
    bgr = converter.bgr(message)
    assert (bgr.dtype, bgr.shape) == (np.uint8, (HEIGHT, WIDTH, 3))
    if encoding in ('mono8', '8UC1', 'mono16'):
        assert (bgr == GRAY[..., None]).all()
    else:
        assert np.abs(bgr.astype(int) - BGR).mean() <= 2 * loss


@pytest.mark.parametrize('encoding', CASES)
def test_padded_rows_and_byte_order_do_not_matter(converter, encoding):
    plain = converter.gray(message_of(encoding))
    np.testing.assert_array_equal(converter.gray(message_of(encoding, padding=6)), plain)
    if np.ascontiguousarray(CASES[encoding][0]).itemsize == 2:
        np.testing.assert_array_equal(converter.gray(message_of(encoding, 0, True)), plain)


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
@pytest.mark.parametrize('colour', [True, False])
def test_compressed_images_are_decoded(converter, suffix, colour):
    message = CompressedImage(format=suffix[1:])
    fill(message, cv2.imencode(suffix, BGR if colour else GRAY)[1])
    loss = 0.6 if suffix == '.png' else 4
    assert np.abs(converter.gray(message).astype(int) - GRAY).mean() < loss
    expected = BGR if colour else np.repeat(GRAY[..., None], 3, 2)
    assert np.abs(converter.bgr(message).astype(int) - expected).mean() < 2 * loss


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'encoding': '32FC1'}, "'32FC1'"),
        ({'encoding': ''}, "''"),
        ({'step': WIDTH}, f'{3 * WIDTH} bytes'),
        ({'height': HEIGHT + 1}, 'bytes of data'),
        ({'height': 0}, '100x0'),
        ({'width': 0}, '0x64'),
        ({'width': 2**31, 'height': 2**31}, 'step'),
        ({'encoding': 'yuv422', 'width': 99, 'step': 300}, 'even width'),
    ],
)
def test_wrong_images_are_named(converter, change, named):
    message = message_of('rgb8')
    for name, value in change.items():
        setattr(message, name, value)
    for convert in (converter.gray, converter.bgr):
        with pytest.raises(ImageError, match=named) as raised:
            convert(message)
        assert '\n' not in str(raised.value)


def test_wrong_compressed_images_are_named(converter):
    whole = cv2.imencode('.png', BGR)[1].tobytes()
    for content in (b'', b'no image', whole[:40]):
        message = CompressedImage(format='png')
        fill(message, content)
        with pytest.raises(ImageError, match="format 'png'"):
            converter.gray(message)


def test_written_images_are_read_back(converter):
    for image in (GRAY, np.ascontiguousarray(BGR)):
        message = image_message(image, Image().header)
        got = converter.gray(message) if image.ndim == 2 else converter.bgr(message)
        np.testing.assert_array_equal(got, image)


def test_parity_with_the_real_cv_bridge():
    pytest.importorskip('cv_bridge')
    converter = ImageConverter()
    if converter.backend != 'cv_bridge':
        pytest.skip(f'cv_bridge does not work here: {converter.reason}')
    for encoding in CASES:
        if encoding in ('8UC1', '8UC3'):
            continue  # no colour formats to cv_bridge
        for padding in (0, 6):
            message = message_of(encoding, padding)
            fields = (encoding, HEIGHT, WIDTH, message.step, 0, message.data)
            np.testing.assert_array_equal(converter.gray(message), decode_gray(*fields))
            np.testing.assert_array_equal(converter.bgr(message), decode_bgr(*fields))
