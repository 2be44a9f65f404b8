"""Every encoding decoded from the fields of its message."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest
from skimage import data

from mdnet_ros.data.image_decoding import (
    ENCODINGS,
    RawValueRange,
    check_compressed,
    decode_bgr,
    decode_compressed,
    decode_compressed_bgr,
    decode_gray,
    to_8bit,
)
from mdnet_ros.errors import ImageError

BGR = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)[100:200, 100:260]
GRAY = cv2.cvtColor(BGR, cv2.COLOR_BGR2GRAY)
#: Colour of the first two rows' first two pixels, as ROS names Bayer patterns.
PATTERNS = ('rggb', 'bggr', 'gbrg', 'grbg')


def mosaic(bgr, pattern):
    """The raw image of a sensor with this pattern."""
    raw = np.empty(bgr.shape[:2], bgr.dtype)
    for i, colour in enumerate(pattern):
        y, x = divmod(i, 2)
        raw[y::2, x::2] = bgr[y::2, x::2, 'bgr'.index(colour)]
    return raw


def message(pixels, padding=0, big_endian=False):
    """The fields (height, width, step, is_bigendian, data), rows padded with rubbish."""
    height, width = pixels.shape[:2]
    if pixels.dtype == np.uint16:
        pixels = pixels.astype('>u2' if big_endian else '<u2')
    rows = np.ascontiguousarray(pixels).reshape(height, -1).view(np.uint8)
    rows = np.concatenate([rows, np.full((height, padding), 0xAB, np.uint8)], axis=1)
    return height, width, rows.shape[1], big_endian, array.array('B', rows.tobytes())


def source(encoding):
    """Pixels of the test picture in an encoding, and the gray and colour they must give."""
    wide = encoding.endswith('16')
    bgr = BGR.astype(np.uint16) * 257 if wide else BGR
    gray = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    name = encoding.removesuffix('16').removesuffix('8')
    if name == 'mono' or encoding == '8UC1':
        return gray, GRAY, np.dstack([GRAY] * 3)
    if name == 'bgr' or encoding == '8UC3':
        return bgr, GRAY, BGR
    if name == 'rgb':
        return bgr[..., ::-1], GRAY, BGR
    alpha = np.full(BGR.shape[:2], 7, bgr.dtype)
    if name == 'bgra':
        return np.dstack([bgr, alpha]), GRAY, BGR
    if name == 'rgba':
        return np.dstack([bgr[..., ::-1], alpha]), GRAY, BGR
    if name.startswith('bayer_'):
        return mosaic(bgr, name.removeprefix('bayer_')), GRAY, BGR
    yuv = cv2.cvtColor(BGR, cv2.COLOR_BGR2YUV)
    first, second = yuv[:, ::2, 1], yuv[:, 1::2, 2]
    chroma = np.stack([first, second], axis=2).reshape(GRAY.shape)
    order = (chroma, yuv[..., 0]) if encoding in ('yuv422', 'uyvy') else (yuv[..., 0], chroma)
    return np.stack(order, axis=2), yuv[..., 0], BGR


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize(
    'encoding', [name for name in ENCODINGS if name not in ('16UC1', 'nv12', 'nv21')]
)
def test_every_encoding(encoding, padding):
    pixels, gray, bgr = source(encoding)
    fields = message(pixels, padding)
    got_gray, got_bgr = decode_gray(encoding, *fields), decode_bgr(encoding, *fields)
    assert got_gray.dtype == got_bgr.dtype == np.uint8
    if encoding.startswith('bayer'):
        inner = slice(2, -2)  # demosaicing guesses two thirds of the colours
        assert np.abs(got_gray.astype(int) - gray)[inner, inner].mean() < 4
        error = np.abs(got_bgr.astype(int) - bgr)[inner, inner].mean(axis=(0, 1))
        assert error.max() < 6
        wrong = np.abs(got_bgr[..., ::-1].astype(int) - bgr)[inner, inner].mean(axis=(0, 1))
        assert wrong.max() > 2 * error.max()
    elif 'yuv' in encoding or 'uyvy' in encoding or 'yuyv' in encoding:
        np.testing.assert_array_equal(got_gray, gray)
        # studio range: 16 is black, 235 white
        luma = cv2.cvtColor(got_bgr, cv2.COLOR_BGR2GRAY).astype(float)
        expected = np.clip((gray.astype(float) - 16) * 255 / 219, 0, 255)
        middle = (gray > 40) & (gray < 210)
        assert np.abs(luma - expected)[middle].mean() < 6
    else:
        assert np.abs(got_gray.astype(int) - gray).max() <= (1 if encoding.endswith('16') else 0)
        np.testing.assert_array_equal(got_bgr, bgr)


def two_planes(encoding):
    """(1.5 H, W) luminance, and below it the two colours by turns at half the resolution."""
    yuv = cv2.cvtColor(BGR, cv2.COLOR_BGR2YUV_I420)
    height, width = GRAY.shape
    u, v = yuv[height:].reshape(2, -1)
    first, second = (u, v) if encoding == 'nv12' else (v, u)
    colours = np.stack([first, second], axis=1).reshape(height // 2, width)
    return np.concatenate([yuv[:height], colours])


@pytest.mark.parametrize('step', ['width', 'padded', 'one and a half'])
@pytest.mark.parametrize('encoding', ['nv12', 'nv21'])
def test_two_planes(encoding, step):
    """Video encoders' formats; drivers do not agree on their step."""
    planes = two_planes(encoding)
    height, width = GRAY.shape
    sent = np.pad(planes, ((0, 0), (0, 6)), constant_values=171) if step == 'padded' else planes
    fields = (
        height, width, width * 3 // 2 if step == 'one and a half' else sent.shape[1], 0,
        sent.tobytes(),
    )
    np.testing.assert_array_equal(decode_gray(encoding, *fields), planes[:height])
    error = np.abs(decode_bgr(encoding, *fields).astype(int) - BGR)
    assert np.median(error) <= 4  # colours at half the resolution
    other = {'nv12': 'nv21', 'nv21': 'nv12'}[encoding]
    assert np.abs(decode_bgr(other, *fields).astype(int) - BGR).mean() > 2 * error.mean()


def test_two_planes_need_even_sides_and_all_their_bytes():
    for height, width, size, reason in (
        (3, 4, 18, 'even height'), (4, 3, 18, 'even width'), (4, 4, 23, 'expected 24 bytes'),
        (4, 4, 16, 'expected 24 bytes'),
    ):
        with pytest.raises(ImageError, match=reason):
            decode_gray('nv12', height, width, width, 0, bytes(size))


RAW = np.random.default_rng(0).normal(30000, 100, (120, 160)).clip(29000, 31000).astype('u2')


@pytest.mark.parametrize('big_endian', [False, True])
def test_raw_values_of_a_thermal_camera_are_scaled_to_their_range(big_endian):
    fields = message(RAW, 4, big_endian)
    got = decode_gray('16UC1', *fields, RawValueRange(29800, 30200))
    expected = np.rint(np.clip((RAW - 29800.0) / 400, 0, 1) * 255)
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(
        decode_bgr('16UC1', *fields, RawValueRange(29800, 30200)), np.dstack([got] * 3)
    )
    low, high = np.percentile(RAW, [1, 99])
    own = decode_gray('16UC1', *fields)
    expected = np.rint(np.clip((RAW - low) / (high - low), 0, 1) * 255)
    assert np.abs(own - expected).max() <= 2
    # A single hot pixel changes nothing; a scale by the largest value would lose everything.
    hot = RAW.copy()
    hot[5, 5] = 65535
    assert np.abs(decode_gray('16UC1', *message(hot)).astype(int) - own)[10:].max() <= 1


def test_a_thermal_image_of_one_temperature_is_black():
    assert not decode_gray('16UC1', *message(np.full((8, 8), 31000, np.uint16))).any()


def png(image):
    return cv2.imencode('.png', image)[1]


@pytest.mark.parametrize('pattern', PATTERNS)
@pytest.mark.parametrize('bits', [8, 16])
def test_compressed_bayer_is_debayered_like_raw_bayer(pattern, bits):
    encoding = f'bayer_{pattern}{bits}'
    raw, _, _ = source(encoding)
    for format in (
        f'{encoding}; png compressed ', f'{encoding}; png compressed {encoding}',
        f'{encoding.upper()};PNG Compressed', f'{encoding}; PNG compressed {encoding.upper()}',
    ):
        np.testing.assert_array_equal(
            decode_compressed(format, png(raw)), decode_gray(encoding, *message(raw))
        )
        np.testing.assert_array_equal(
            decode_compressed_bgr(format, png(raw)), decode_bgr(encoding, *message(raw))
        )


@pytest.mark.parametrize(('format', 'sent', 'gray', 'bgr'), [
    # Converted before it was compressed: the transport says to what.
    ('bayer_rggb8; jpeg compressed bgr8', BGR, GRAY, BGR),
    ('bayer_rggb8; png compressed mono8', GRAY, GRAY, np.dstack([GRAY] * 3)),
    ('bayer_rggb8; png compressed ', BGR, GRAY, BGR),  # ... or only the file does
    ('png', GRAY, GRAY, np.dstack([GRAY] * 3)),
    ('rgb8; png compressed bgr8', BGR, GRAY, BGR),
])
def test_what_was_converted_before_it_was_compressed_is_not_debayered(format, sent, gray, bgr):
    assert np.abs(decode_compressed(format, png(sent)).astype(int) - gray).max() <= 1
    np.testing.assert_array_equal(decode_compressed_bgr(format, png(sent)), bgr)


def test_compressed_raw_values_are_scaled_like_raw_ones():
    for raw_range in (RawValueRange(), RawValueRange(29800, 30200)):
        expected = decode_gray('16UC1', *message(RAW), raw_range)
        got = decode_compressed('16UC1; png compressed', png(RAW), raw_range)
        np.testing.assert_array_equal(got, expected)
        colour = decode_compressed_bgr('16UC1; png compressed', png(RAW), raw_range)
        np.testing.assert_array_equal(colour, np.dstack([expected] * 3))
    np.testing.assert_array_equal(
        decode_compressed('mono16; png compressed ', png(RAW)), to_8bit(RAW)
    )


@pytest.mark.parametrize('pattern', PATTERNS)
def test_bayer_is_what_opencv_gives_for_the_pattern_cv_bridge_names(pattern):
    code = {'rggb': 'BG', 'bggr': 'RG', 'gbrg': 'GR', 'grbg': 'GB'}[pattern]
    raw = mosaic(BGR, pattern)
    expected = cv2.cvtColor(raw, getattr(cv2, f'COLOR_Bayer{code}2GRAY'))
    got = decode_gray(f'bayer_{pattern}8', *message(raw))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize('big_endian', [False, True])
def test_16_bit_is_rounded_not_cut(big_endian):
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    got = decode_gray('mono16', *message(every, 2, big_endian))
    np.testing.assert_array_equal(got, np.rint(every * (255 / 65535)))


def test_gray_is_a_view_without_a_copy():
    fields = message(GRAY, 5)
    got = decode_gray('mono8', *fields)
    fields[-1][0] ^= 0xFF
    assert got[0, 0] == GRAY[0, 0] ^ 0xFF


@pytest.mark.parametrize('extension', ['.png', '.jpg'])
def test_compressed(extension):
    exact = extension == '.png'
    _, colour = cv2.imencode(extension, BGR)
    _, plain = cv2.imencode(extension, GRAY)
    for content in (colour, plain):
        gray = decode_compressed('jpeg', array.array('B', content.tobytes()))
        assert gray.shape == GRAY.shape
        assert np.abs(gray.astype(int) - GRAY).mean() < (0.5 if exact else 4)
    error = np.abs(decode_compressed_bgr('png', colour.tobytes()).astype(int) - BGR).mean()
    assert error == 0 if exact else error < 8


def test_compressed_16_bit():
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    _, content = cv2.imencode('.png', every)
    got = decode_compressed('mono16; png compressed', content)
    np.testing.assert_array_equal(got, np.rint(every * (255 / 65535)))
    np.testing.assert_array_equal(decode_compressed_bgr('png', content)[..., 1], got)


@pytest.mark.parametrize(
    ('change', 'complaint'),
    [
        ({'encoding': 'mono7'}, "encoding 'mono7': expected one of"),
        ({'encoding': '32FC1'}, "encoding '32FC1'"),
        ({'height': 0}, '160x0'),
        ({'width': 0}, '0x100'),
        ({'step': 159}, 'step of at least 160'),
        ({'step': 161}, 'expected 16100 bytes'),
        ({'data': b'abc'}, 'got 3'),
        ({'data': b''}, 'got 0'),
        ({'width': 159, 'encoding': 'yuv422', 'step': 318, 'data': bytes(31800)}, 'even width'),
        ({'height': 2**40}, 'got 16000'),
    ],
)
def test_contradictions_are_named(change, complaint):
    names = ('height', 'width', 'step', 'is_bigendian', 'data')
    fields = {'encoding': 'mono8', **dict(zip(names, message(GRAY), strict=True)), **change}
    for decode in (decode_gray, decode_bgr):
        with pytest.raises(ImageError, match=complaint) as caught:
            decode(**fields)
        assert '\n' not in str(caught.value)


@pytest.mark.parametrize('content', [b'', b'\xff\xd8\xff', b'text', bytes(1000)])
def test_undecodable_files_are_named(content):
    for decode in (decode_compressed, decode_compressed_bgr):
        with pytest.raises(ImageError, match="format 'jpeg'"):
            decode('jpeg', content)


@pytest.mark.parametrize('height', [1, 2, 3])
@pytest.mark.parametrize('width', [1, 2, 3])
def test_tiny_bayer_images_do_no_harm(height, width):
    fields = message(np.zeros((height, width), np.uint8))
    assert decode_gray('bayer_rggb8', *fields).shape == (height, width)


def test_8_bit_stays():
    assert to_8bit(GRAY) is GRAY


@pytest.mark.parametrize('after', [0, 1, 1022, 1023, 1024, 3071, 3072, 5000])
def test_the_end_of_a_jpeg_is_found_wherever_it_lies(after):
    """Some drivers append bytes; a file whose end is missing is refused."""
    jpeg = bytes(cv2.imencode('.jpg', GRAY)[1])
    assert jpeg[-2:] == b'\xff\xd9'
    assert check_compressed('jpeg', jpeg + bytes(after)) == (GRAY.shape[1], GRAY.shape[0])
    with pytest.raises(ImageError, match='not whole'):
        check_compressed('jpeg', jpeg[:-2] + bytes(after))
