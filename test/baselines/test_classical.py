"""Hand-crafted baselines: what they give, and that it lies where it says."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data

from mdnet_ros import Extractor, match_mutual_nearest
from mdnet_ros.baselines.common import binary_to_float
from mdnet_ros.baselines.registry import create_extractor
from mdnet_ros.errors import ImageError

NAMES = ['sift', 'rootsift', 'upright-sift', 'upright-rootsift', 'surf', 'orb', 'akaze']
DIMS = {'surf': 64, 'orb': 256, 'akaze': 486}
TURNING = ['sift', 'rootsift', 'surf', 'orb', 'akaze']


@pytest.fixture(scope='module')
def photo() -> np.ndarray:
    return cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR)[0:288, 96:416].copy()


@pytest.mark.parametrize('name', NAMES)
def test_contract(name: str, photo: np.ndarray) -> None:
    extractor = create_extractor(name, 150, 'cpu')
    assert isinstance(extractor, Extractor)
    assert extractor.name == name
    found = extractor(photo)
    assert 50 < len(found) <= 150
    assert found.image_size == (320, 288)
    assert found.descriptors.shape == (len(found), DIMS.get(name, 128))
    assert found.descriptors.dtype == found.keypoints.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1.0, atol=1e-5)
    assert (np.diff(found.scores) <= 0).all()
    assert (found.keypoints >= -0.5).all()
    assert (found.keypoints < np.array([319.5, 287.5])).all()
    assert (found.sets == 0).all()
    again = extractor(photo)
    np.testing.assert_array_equal(found.keypoints, again.keypoints)
    np.testing.assert_array_equal(found.descriptors, again.descriptors)


@pytest.mark.parametrize('name', NAMES)
def test_gray_flat_and_strided_images(name: str, photo: np.ndarray) -> None:
    extractor = create_extractor(name, 100, 'cpu')
    gray = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)
    np.testing.assert_array_equal(extractor(gray).keypoints, extractor(photo).keypoints)
    flat = extractor(np.full((120, 160, 3), 77, np.uint8))
    assert len(flat) == 0
    assert flat.descriptors.shape == (0, DIMS.get(name, 128))
    turned = gray[::-1, ::-1]
    np.testing.assert_array_equal(
        extractor(turned).keypoints, extractor(turned.copy()).keypoints
    )
    with pytest.raises(ImageError):
        extractor(gray.astype(np.float32))


@pytest.mark.parametrize('name', TURNING)
def test_integer_coordinates_are_pixel_centres(name: str, photo: np.ndarray) -> None:
    """A half turn maps x to W - 1 - x; an offset of the convention would show twice."""
    extractor = create_extractor(name, 600, 'cpu')
    a, b = extractor(photo), extractor(photo[::-1, ::-1].copy())
    matches = match_mutual_nearest(a, b)
    there = np.array([319, 287]) - b.keypoints[matches.indices[:, 1]]
    difference = a.keypoints[matches.indices[:, 0]] - there
    right = np.linalg.norm(difference, axis=1) < 3
    assert right.sum() > 50
    np.testing.assert_allclose(np.median(difference[right], axis=0), 0.0, atol=0.05)
    np.testing.assert_allclose(difference[right].mean(axis=0), 0.0, atol=0.12)


def test_sift_finds_blobs_where_they_are() -> None:
    y, x = np.mgrid[:128, :128]
    extractor = create_extractor('sift', 10, 'cpu')
    for cx, cy, sigma in ((40.0, 50.0, 3.0), (61.3, 70.7, 5.0), (80.5, 33.25, 4.0)):
        blob = 40 + 180 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2))
        found = extractor(blob.astype(np.uint8))
        np.testing.assert_allclose(found.keypoints[0], [cx, cy], atol=0.1)


def test_rootsift_is_the_root_of_sift(photo: np.ndarray) -> None:
    sift = create_extractor('sift', 80, 'cpu')(photo)
    root = create_extractor('rootsift', 80, 'cpu')(photo)
    np.testing.assert_array_equal(sift.keypoints, root.keypoints)
    expected = np.sqrt(sift.descriptors / sift.descriptors.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(root.descriptors, expected, atol=1e-5)


def test_upright_sift_ignores_orientation(photo: np.ndarray) -> None:
    found = create_extractor('upright-sift', 400, 'cpu')(photo)
    reference = cv2.SIFT.create()
    gray = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)
    unique = {(k.pt, k.size) for k in reference.detect(gray, None)}
    assert len(found) == min(400, len(unique))
    turned = create_extractor('upright-sift', 400, 'cpu')(photo[::-1, ::-1].copy())
    oriented = create_extractor('sift', 400, 'cpu')
    lost = len(match_right(found, turned))
    kept = len(match_right(oriented(photo), oriented(photo[::-1, ::-1].copy())))
    assert lost < 0.1 * kept


def match_right(a, b) -> np.ndarray:
    matches = match_mutual_nearest(a, b).indices
    there = np.array([319, 287]) - b.keypoints[matches[:, 1]]
    return np.nonzero(np.linalg.norm(a.keypoints[matches[:, 0]] - there, axis=1) < 3)[0]


@pytest.mark.parametrize('bits', [256, 486])
def test_cosine_of_binary_descriptors_follows_hamming(bits: int) -> None:
    packed = np.random.default_rng(0).integers(0, 256, (20, (bits + 7) // 8), dtype=np.uint8)
    floats = binary_to_float(packed, bits)
    unpacked = np.unpackbits(packed, axis=1, bitorder='little')[:, :bits].astype(int)
    hamming = np.abs(unpacked[:, None] - unpacked[None]).sum(axis=2)
    np.testing.assert_allclose(floats @ floats.T, 1.0 - 2.0 * hamming / bits, atol=1e-5)


def test_akaze_uses_all_its_bits(photo: np.ndarray) -> None:
    _, packed = cv2.AKAZE.create().detectAndCompute(photo, None)
    bits = np.unpackbits(packed, axis=1, bitorder='little')
    assert bits.shape[1] == 488
    assert bits[:, :486].any(axis=0).all()
    assert not bits[:, 486:].any()
