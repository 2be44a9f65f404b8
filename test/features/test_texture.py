"""Keypoints need contrast above the noise of the sensor."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from mdnet_ros import FrameTracker, MDNetExtractor
from mdnet_ros.features.detection import detect
from mdnet_ros.features.texture import find_texture

HEIGHT, WIDTH = 240, 320
RNG = np.random.default_rng(0)
Y, X = np.mgrid[:HEIGHT, :WIDTH]
#: A blank wall: bright in the middle, dark in the corners.
WALL = 150 * (1 - 0.5 * (((X - 160) / 200) ** 2 + ((Y - 120) / 200) ** 2))


def seen(light, sigma=0.0):
    return np.clip(np.rint(light + RNG.normal(0, sigma, (HEIGHT, WIDTH))), 0, 255).astype(np.uint8)


def jpeg(image, quality):
    return cv2.imdecode(cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 0)


#: What a camera sees that sees nothing.
EMPTY = {
    'black': np.zeros((HEIGHT, WIDTH), np.uint8),
    'white': np.full((HEIGHT, WIDTH), 255, np.uint8),
    'lens covered': seen(2, 1),
    'lens covered, high gain': seen(2, 3),
    'wall': seen(WALL),
    **{f'wall, noise {s}': seen(WALL, s) for s in (0.5, 1, 2, 3, 5, 8, 12)},
    'ramp': seen(60 + 0.4 * X),
    'noise of each row': seen(WALL + RNG.normal(0, 1, (HEIGHT, 1)), 4),
    'colour camera, noise 4': cv2.cvtColor(seen(WALL, 4), cv2.COLOR_BayerBG2GRAY),
    'JPEG 90, noise 3': jpeg(seen(WALL, 3), 90),
    'JPEG 90, noise 8': jpeg(seen(WALL, 8), 90),
}


def photograph(name):
    image = getattr(data, name)()
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.ascontiguousarray(gray[:HEIGHT, :WIDTH])


@pytest.fixture(scope='module')
def extract():
    return MDNetExtractor('md2net-light', 'cpu', 512)


def textured(image):
    found = find_texture(torch.from_numpy(image)[None, None], image.shape)
    assert found.shape == (1, 1, *image.shape)
    return found[0, 0].numpy()


@pytest.mark.parametrize('name', EMPTY)
def test_there_are_no_keypoints_where_there_is_nothing(extract, name):
    features = extract(EMPTY[name])
    assert len(features) <= 4
    assert features.descriptors.shape == (len(features), extract.dim)


@pytest.mark.parametrize('quality', [70, 50])
def test_compression_makes_little_texture_of_noise(quality):
    """JPEG takes the fine noise away, by which the coarse noise that it leaves is judged."""
    for sigma in (2, 4, 8):
        assert textured(jpeg(seen(WALL, sigma), quality)).mean() < 0.15


def test_a_covered_lens_gives_no_tracks(extract):
    tracker = FrameTracker(max_gap=2, verification='fundamental')
    for i in range(3):
        frame = tracker.update(extract(seen(2, 2)), i * 10**8)
        assert len(frame.correspondences) == 0


@pytest.mark.parametrize('name', ['camera', 'astronaut', 'coffee', 'brick', 'grass', 'gravel'])
def test_ordinary_images_keep_their_keypoints(extract, name):
    image = photograph(name)
    found = textured(image)
    with torch.inference_mode():
        batch = torch.from_numpy(image)[None, None]
        output = extract.backend.run_network(batch)
        free = detect(output, extract.settings, image.shape)
    points = free.keypoints[free.valid].round().long().numpy()
    assert found[points[:, 1], points[:, 0]].mean() > 0.8


def test_texture_on_a_noisy_wall_is_found():
    """A picture on the wall has keypoints, the wall beside it none."""
    image = seen(WALL, 3)
    image[80:160, 100:220] = photograph('camera')[60:140, 120:240]
    found = textured(image)
    assert found[90:150, 110:210].mean() > 0.8
    beside = np.ones(found.shape, bool)
    beside[60:180, 80:240] = False
    assert found[beside].mean() < 0.01


@pytest.mark.parametrize('size', [(32, 32), (33, 47), (61, 1000), (240, 322)])
def test_every_size(size):
    noise = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    assert textured(noise).mean() > 0.5  # far above any sensor's noise
    assert not textured(np.full(size, 90, np.uint8)).any()


def test_images_of_a_batch_do_not_mix():
    images = np.stack([photograph('camera'), EMPTY['wall, noise 3']])
    both = find_texture(torch.from_numpy(images)[:, None], (HEIGHT, WIDTH))
    for image, found in zip(images, both, strict=True):
        np.testing.assert_array_equal(found[0].numpy(), textured(image))
