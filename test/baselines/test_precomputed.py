"""Features computed elsewhere, in the three layouts that are around."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from mdnet_ros.baselines.precomputed import PrecomputedFeatures
from mdnet_ros.errors import DataError

RNG = np.random.default_rng(0)
KEYPOINTS = RNG.uniform(0, 90, (12, 2)).astype(np.float32)
DESCRIPTORS = RNG.normal(size=(12, 8)).astype(np.float32)
SCORES = RNG.uniform(size=12).astype(np.float32)


def write_hloc(path: Path, names: list[str]) -> Path:
    with h5py.File(path / 'feats.h5', 'w') as file:
        for name in names:
            group = file.create_group(name)
            group['keypoints'] = KEYPOINTS
            group['descriptors'] = DESCRIPTORS.T.astype(np.float16)
            group['scores'] = SCORES
            group['image_size'] = np.array([100, 80])
    return path / 'feats.h5'


def write_imb(path: Path, names: list[str]) -> Path:
    for kind, array in (('keypoints', KEYPOINTS), ('descriptors', DESCRIPTORS), ('scores', SCORES)):
        with h5py.File(path / f'{kind}.h5', 'w') as file:
            for name in names:
                file[name] = array
    return path


def write_npz(path: Path, names: list[str]) -> Path:
    for name in names:
        target = path / f'{name}.d2-net'
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, 'wb') as file:
            scales = np.ones((12, 1), np.float32)
            np.savez(file, keypoints=np.hstack([KEYPOINTS, scales]), scores=SCORES,
                     descriptors=DESCRIPTORS)
    return path


def check(extractor: PrecomputedFeatures, image: Path, tolerance: float = 1e-6) -> None:
    found = extractor.read(image)
    order = np.argsort(-SCORES)[:10]
    np.testing.assert_allclose(found.keypoints, KEYPOINTS[order])
    np.testing.assert_allclose(found.scores, SCORES[order])
    expected = DESCRIPTORS[order] / np.linalg.norm(DESCRIPTORS[order], axis=1, keepdims=True)
    np.testing.assert_allclose(found.descriptors, expected, atol=tolerance)


def test_hloc(tmp_path: Path) -> None:
    extractor = PrecomputedFeatures(write_hloc(tmp_path, ['v_bark/1.ppm', 'v_graf/1.ppm']), 10)
    check(extractor, Path('/data/hpatches/v_bark/1.ppm'), 1e-3)
    check(extractor, Path('/data/hpatches/v_graf/1.png'), 1e-3)
    assert extractor.read(Path('v_bark/1.ppm')).image_size == (100, 80)
    assert extractor.name == 'feats'
    for missing in ('v_bark/2.ppm', '1.ppm'):
        with pytest.raises(DataError, match='no features of'):
            extractor.read(Path(missing))


def test_image_matching_benchmark(tmp_path: Path) -> None:
    extractor = PrecomputedFeatures(write_imb(tmp_path, ['0001', '0002']), 10)
    check(extractor, Path('/data/fountain/set_100/images/0002.jpg'))
    assert extractor.read(Path('0001.jpg')).image_size == (0, 0)


def test_d2_net(tmp_path: Path) -> None:
    extractor = PrecomputedFeatures(write_npz(tmp_path, ['v_bark/1.ppm', 'v_graf/1.ppm']), 10)
    check(extractor, Path('/data/v_graf/1.ppm'))


def test_live_images_cannot_be(tmp_path: Path) -> None:
    extractor = PrecomputedFeatures(write_imb(tmp_path, ['0001']), 10)
    with pytest.raises(DataError, match='not of live images'):
        extractor(np.zeros((80, 100), np.uint8))


@pytest.mark.parametrize(
    'arrays',
    [
        {'keypoints': KEYPOINTS},
        {'keypoints': KEYPOINTS, 'descriptors': DESCRIPTORS[:5]},
        {'keypoints': KEYPOINTS[:, 0], 'descriptors': DESCRIPTORS},
        {'keypoints': KEYPOINTS, 'descriptors': DESCRIPTORS, 'scores': SCORES[:3]},
        {'keypoints': KEYPOINTS * np.nan, 'descriptors': DESCRIPTORS},
    ],
)
def test_malformed_features_are_named(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    with open(tmp_path / '1.png.x', 'wb') as file:
        np.savez(file, **arrays)
    with pytest.raises(DataError, match='precomputed') as caught:
        PrecomputedFeatures(tmp_path, 10).read(Path('1.png'))
    assert '\n' not in str(caught.value)


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / 'text.h5').write_text('not h5')
    for path in (tmp_path / 'none', tmp_path, tmp_path / 'text.h5'):
        with pytest.raises(DataError):
            PrecomputedFeatures(path, 10)


def test_no_keypoints_in_an_image(tmp_path: Path) -> None:
    with open(tmp_path / '1.png.x', 'wb') as file:
        np.savez(file, keypoints=np.zeros((0, 2)), descriptors=np.zeros((0, 8)), scores=np.zeros(0))
    assert len(PrecomputedFeatures(tmp_path, 10).read(Path('1.png'))) == 0


TUM = ('1305031102.175304.png', '1305031102.211214.png')


@pytest.mark.parametrize('write', [write_hloc, write_imb, write_npz])
@pytest.mark.parametrize('stored', [TUM, tuple(name.removesuffix('.png') for name in TUM)])
def test_image_names_with_dots_stay_apart(tmp_path: Path, write, stored) -> None:
    """TUM RGB-D names images by their stamp in seconds."""
    path = write(tmp_path, list(stored))
    extractor = PrecomputedFeatures(path, 10)
    for name in TUM:
        check(extractor, Path('rgb') / name, 1e-3)
    with pytest.raises(DataError, match='no features of'):
        extractor.read(Path('rgb/1305031102.png'))


@pytest.mark.parametrize('write', [write_hloc, write_imb, write_npz])
def test_two_entries_for_one_image_are_an_error(tmp_path: Path, write) -> None:
    path = write(tmp_path, ['a/1.png', 'a/1.jpg'] if write is not write_imb else ['1.png', '1.jpg'])
    with pytest.raises(DataError, match=r"one entry for each image, found '.*1.jpg' and '.*1.png'"):
        PrecomputedFeatures(path, 10)
