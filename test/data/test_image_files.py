"""Image files as phones and cameras write them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from mdnet_ros.data.image_decoding import decode_compressed, decode_compressed_bgr
from mdnet_ros.data.image_files import decode_image, image_name, read_image
from mdnet_ros.errors import ImageError
from mdnet_ros.tracker.configuration import read_mask
from mdnet_ros.training.images import read_images

RGB = np.ascontiguousarray(data.astronaut()[:96, :160])


def write(path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(path, quality=97, exif=exif)
    return path


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.tiff'])
@pytest.mark.parametrize('orientation', range(2, 9))
def test_pixels_are_read_as_they_are_stored(tmp_path, suffix, orientation):
    """An orientation tag would turn them away from calibration and homographies."""
    upright = write(tmp_path / f'upright{suffix}', 1)
    turned = write(tmp_path / f'turned{suffix}', orientation)
    for colour in (False, True):
        expected = read_image(upright, colour)
        assert expected.shape[:2] == (96, 160)
        np.testing.assert_array_equal(read_image(turned, colour), expected)
        np.testing.assert_array_equal(decode_image(turned.read_bytes(), colour), expected)
    np.testing.assert_array_equal(read_mask(str(turned)), read_image(upright))
    if suffix in ('.jpg', '.png'):
        content = np.frombuffer(turned.read_bytes(), np.uint8)
        np.testing.assert_array_equal(decode_compressed('', content), read_image(upright))
        colours = decode_compressed_bgr('', content)
        np.testing.assert_array_equal(colours, read_image(upright, True))


def test_training_reads_pixels_as_they_are_stored(tmp_path):
    write(tmp_path / 'turned.jpg', 6)
    (image,) = read_images(tmp_path)
    assert image.gray.shape == (96, 160)


def test_colours_are_those_of_the_file(tmp_path):
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), RGB[..., ::-1])
    np.testing.assert_array_equal(read_image(path, colour=True), RGB[..., ::-1])


def test_what_is_no_image_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"absent.png': No such file"):
        read_image(tmp_path / 'absent.png')
    (tmp_path / 'text.png').write_text('text')
    with pytest.raises(ImageError, match=r"text.png': cannot be read as an image"):
        read_image(tmp_path / 'text.png')
    assert decode_image(b'') is None


@pytest.mark.parametrize(('name', 'expected'), [
    ('1305031102.175304.png', '1305031102.175304'), ('1305031102.175304', '1305031102.175304'),
    ('a.b.c.JPEG', 'a.b.c'), ('v1.2/1.ppm', 'v1.2/1'), ('plain', 'plain'), ('.png', ''),
])
def test_only_an_images_suffix_goes(name, expected):
    assert image_name(name) == expected
