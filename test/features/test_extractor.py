"""The MD-Net extractor on photographs of every shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mdnet_ros import Extractor, Features, MDNetExtractor, match_mutual_nearest
from mdnet_ros.errors import ImageError, MDNetError, SettingError
from mdnet_ros.features.extractor import choose_device, to_gray
from mdnet_ros.features.network import MIN_SIDE


@pytest.fixture(scope='module')
def extract(weights_path: Path) -> MDNetExtractor:
    return MDNetExtractor(weights_path, device='cpu', max_keypoints=300)


@pytest.fixture(scope='module')
def plain(extract: MDNetExtractor, photo: np.ndarray) -> Features:
    """Of the photograph as it is."""
    return extract(photo)


def assert_same(a: Features, b: Features, atol: float = 0.0) -> None:
    assert (a.image_size, a.num_sets, len(a)) == (b.image_size, b.num_sets, len(b))
    for name in ('keypoints', 'scores', 'sets', 'descriptors'):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=atol, rtol=0)


def test_promises_of_the_public_api(extract: MDNetExtractor, plain: Features) -> None:
    features = plain
    n = len(features)
    assert 200 < n <= 300
    assert features.keypoints.dtype == features.scores.dtype == np.float32
    assert features.descriptors.dtype == np.float32
    assert features.sets.dtype == np.int32
    assert features.descriptors.shape == (n, extract.dim) == (n, 32)
    assert features.image_size == (451, 300)
    assert features.num_sets == extract.num_sets == 2
    np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-5)
    assert (features.scores >= 0).all()
    assert (features.scores <= 1).all()
    assert (np.diff(features.sets) >= 0).all()
    for s in range(2):
        assert (np.diff(features.scores[features.sets == s]) <= 0).all()
        assert np.count_nonzero(features.sets == s) <= 150
    edge = extract.settings.border - 2  # refinement may move a peak by up to two pixels
    assert (features.keypoints >= edge).all()
    assert (features.keypoints <= np.array([451, 300]) - 1 - edge).all()
    assert isinstance(extract, Extractor)
    assert extract.name == 'untrained'


def test_same_result_twice(
    extract: MDNetExtractor, weights_path: Path, photo: np.ndarray, plain: Features
) -> None:
    assert_same(plain, extract(photo))
    again = MDNetExtractor(weights_path, device='cpu', max_keypoints=300)
    assert_same(plain, again(photo))


def test_gray_equals_colour(extract: MDNetExtractor, photo: np.ndarray, plain: Features) -> None:
    gray = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)
    assert_same(plain, extract(gray))
    assert_same(plain, extract(gray[:, :, None]))
    assert_same(plain, extract(np.repeat(gray[:, :, None], 3, axis=2)))


def test_colour_is_blue_green_red(photo: np.ndarray) -> None:
    np.testing.assert_array_equal(to_gray(photo), cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY))
    blue = np.zeros((40, 40, 3), np.uint8)
    blue[..., 0] = 255
    assert to_gray(blue)[0, 0] == 29  # 0.114 · 255


@pytest.mark.parametrize(
    'view',
    [
        lambda image: np.asfortranarray(image),
        lambda image: np.pad(image, ((0, 0), (0, 13), (0, 0)))[:, :-13],  # a padded step
        lambda image: np.ascontiguousarray(image[:, ::-1])[:, ::-1],  # a negative stride
        lambda image: np.ascontiguousarray(image[::-1])[::-1],
        lambda image: np.ascontiguousarray(image[:, :, ::-1])[:, :, ::-1],
        lambda image: image.repeat(2, axis=0)[::2],
    ],
)
def test_any_memory_layout(
    extract: MDNetExtractor, photo: np.ndarray, plain: Features, view
) -> None:
    assert not view(photo).flags.c_contiguous
    assert_same(plain, extract(view(photo)))
    gray = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)[:, :, None]
    assert_same(plain, extract(view(gray)[:, :, 0]))


def test_a_read_only_image_is_taken_and_left_as_it_is(
    extract: MDNetExtractor, photo: np.ndarray, plain: Features
) -> None:
    image = np.frombuffer(photo.tobytes(), np.uint8).reshape(photo.shape)
    assert not image.flags.writeable
    assert_same(plain, extract(image))
    np.testing.assert_array_equal(image, photo)


@pytest.mark.parametrize('size', [(32, 32), (33, 47), (48, 640), (301, 33), (127, 129)])
def test_odd_sizes(extract: MDNetExtractor, photo: np.ndarray, size: tuple[int, int]) -> None:
    height, width = size
    image = cv2.resize(photo, (width, height))
    features = extract(image)
    assert features.image_size == (width, height)
    assert np.isfinite(features.keypoints).all()
    if len(features):
        assert (features.keypoints >= 0).all()
        assert (features.keypoints <= [width - 1, height - 1]).all()


@pytest.mark.parametrize('value', [0, 128, 255])
def test_an_image_without_content(extract: MDNetExtractor, value: int) -> None:
    features = extract(np.full((96, 128), value, np.uint8))
    assert np.isfinite(features.descriptors).all()
    assert np.isfinite(features.keypoints).all()


@pytest.mark.parametrize(
    ('image', 'named'),
    [
        (np.zeros((MIN_SIDE - 1, 100), np.uint8), '100x31'),
        (np.zeros((100, MIN_SIDE - 1, 3), np.uint8), '31x100'),
        (np.zeros((0, 0), np.uint8), r'\(0, 0\)'),
        (np.zeros((0, 64, 3), np.uint8), r'\(0, 64, 3\)'),
        (np.zeros(100, np.uint8), r'\(100,\)'),
        (np.zeros((64, 64, 2), np.uint8), r'\(64, 64, 2\)'),
        (np.zeros((64, 64, 4), np.uint8), r'\(64, 64, 4\)'),
        (np.zeros((1, 64, 64, 3), np.uint8), r'\(1, 64, 64, 3\)'),
        (np.zeros((64, 64), np.uint16), 'uint16'),
        (np.zeros((64, 64), np.float32), 'float32'),
        (np.zeros((64, 64), bool), 'bool'),
        ([[0] * 64] * 64, 'list'),
        (None, 'NoneType'),
    ],
)
def test_unusable_images_are_named_in_one_line(
    extract: MDNetExtractor, image: object, named: str
) -> None:
    with pytest.raises(ImageError, match=named) as caught:
        extract(image)  # type: ignore[arg-type]
    assert '\n' not in str(caught.value)
    assert isinstance(caught.value, MDNetError)


def test_batch_equals_single(extract: MDNetExtractor, photo: np.ndarray) -> None:
    images = [photo, photo[::-1], cv2.GaussianBlur(photo, (9, 9), 3)]
    for alone, together in zip(map(extract, images), extract.extract_batch(images), strict=True):
        assert_same(alone, together, atol=1e-4)


def test_a_batch_of_different_sizes_is_refused(extract: MDNetExtractor, photo: np.ndarray) -> None:
    with pytest.raises(ImageError, match='one size'):
        extract.extract_batch([photo, photo[:-1]])
    with pytest.raises(ImageError, match='one size'):
        extract.extract_batch([])


def test_budget_and_threshold(weights_path: Path, photo: np.ndarray) -> None:
    few = MDNetExtractor(weights_path, device='cpu', max_keypoints=50)
    best = few(photo)
    assert len(best) == 50
    threshold = float(np.median(best.scores))
    strict = MDNetExtractor(
        weights_path, device='cpu', max_keypoints=50, score_threshold=threshold
    )(photo)
    np.testing.assert_array_equal(strict.scores, best.scores[best.scores >= threshold])
    none = MDNetExtractor(weights_path, device='cpu', score_threshold=1.0)(photo)
    assert len(none) == 0
    assert none.descriptors.shape == (0, 32)


def test_max_side_gives_places_in_the_original_image(
    weights_path: Path, photo: np.ndarray
) -> None:
    """Half-pixel exact: pixel (x, y) of the small image is (s·(x + ½) - ½, …) of the large."""
    large = cv2.resize(to_gray(photo), (904, 600), interpolation=cv2.INTER_CUBIC)
    plain = MDNetExtractor(weights_path, device='cpu', max_keypoints=200)
    limited = MDNetExtractor(weights_path, device='cpu', max_keypoints=200, max_side=226)
    shrunk = cv2.resize(large, (226, 150), interpolation=cv2.INTER_AREA)
    expected = plain(shrunk)
    got = limited(large)
    assert got.image_size == (904, 600)
    np.testing.assert_allclose(got.keypoints, (expected.keypoints + 0.5) * 4 - 0.5, atol=1e-3)
    np.testing.assert_allclose(got.descriptors, expected.descriptors, atol=1e-5)
    assert_same(limited(shrunk), expected)  # small enough already


def test_max_side_scales_each_axis_by_its_own_ratio(weights_path: Path, photo: np.ndarray) -> None:
    """451x300 at most 100 long is 100x67: 4.51 across, 4.478 down."""
    limited = MDNetExtractor(weights_path, device='cpu', max_keypoints=100, max_side=100)
    plain = MDNetExtractor(weights_path, device='cpu', max_keypoints=100)
    expected = plain(cv2.resize(to_gray(photo), (100, 67), interpolation=cv2.INTER_AREA))
    scale = np.array([451 / 100, 300 / 67])
    got = limited(photo)
    assert got.image_size == (451, 300)
    np.testing.assert_allclose(
        got.keypoints, (expected.keypoints + 0.5) * scale - 0.5, atol=1e-3
    )


def test_mask_of_the_region_of_interest(weights_path: Path, photo: np.ndarray) -> None:
    extract = MDNetExtractor(weights_path, device='cpu', max_keypoints=300)
    extract.mask = np.zeros(photo.shape[:2], np.uint8)
    extract.mask[:, 200:] = 255
    features = extract(photo)
    assert len(features) > 50
    assert features.keypoints[:, 0].min() >= 198  # peaks from 200 on, refined by up to 2
    extract.mask = None
    assert extract(photo).keypoints[:, 0].min() < 150


@pytest.mark.parametrize('score_threshold', [0.0, 0.2])
def test_matching_what_came_from_the_network_equals_matching_rows(
    weights_path: Path, photo: np.ndarray, score_threshold: float
) -> None:
    extract = MDNetExtractor(
        weights_path, device='cpu', max_keypoints=300, score_threshold=score_threshold
    )
    a, b = extract(photo), extract(np.roll(photo, 3, axis=1))
    assert a.padded is not None
    assert b.padded is not None
    direct = match_mutual_nearest(a, b)
    rows = match_mutual_nearest(replace(a, padded=None), replace(b, padded=None))
    assert len(rows) > 50
    np.testing.assert_array_equal(direct.indices, rows.indices)
    np.testing.assert_allclose(direct.similarity, rows.similarity, atol=1e-6)
    mixed = match_mutual_nearest(a, replace(b, padded=None))
    np.testing.assert_array_equal(mixed.indices, rows.indices)


@pytest.mark.parametrize('precision', ['bf16', 'fp32'])
def test_precision(weights_path: Path, photo: np.ndarray, precision: str) -> None:
    plain = MDNetExtractor(weights_path, device='cpu', max_keypoints=300, precision='fp32')
    other = MDNetExtractor(weights_path, device='cpu', max_keypoints=300, precision=precision)
    a, b = plain(photo), other(photo)
    assert b.descriptors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(b.descriptors, axis=1), 1, atol=1e-4)
    near = np.linalg.norm(a.keypoints[:, None] - b.keypoints[None], axis=2).min(axis=1) < 2
    assert near.mean() > (0.5 if precision == 'bf16' else 0.999)


@pytest.mark.parametrize(
    ('settings', 'named'),
    [
        ({'max_keypoints': 0}, 'max_keypoints'),
        ({'score_threshold': 1.5}, 'score_threshold'),
        ({'score_threshold': -0.1}, 'score_threshold'),
        ({'score_threshold': float('nan')}, 'score_threshold'),
        ({'max_side': 8}, 'max_side'),
        ({'max_side': -1}, 'max_side'),
        ({'nms_radius': -1}, 'nms_radius'),
        ({'border': -1}, 'border'),
        ({'precision': 'fp8'}, 'precision'),
        ({'device': 'toaster'}, 'device'),
        ({'device': 'meta'}, 'device'),
        ({'device': 'cuda:99'}, 'device'),
    ],
)
def test_settings_out_of_range(weights_path: Path, settings: dict, named: str) -> None:
    with pytest.raises(SettingError, match=named):
        MDNetExtractor(weights_path, **{'device': 'cpu', **settings})


def test_device_auto_is_cuda_where_there_is_one() -> None:
    assert choose_device('auto').type == ('cuda' if torch.cuda.is_available() else 'cpu')
    assert choose_device('cpu') == torch.device('cpu')
