"""OpenVINO gives what PyTorch gives, on real images; skipped where it is not installed."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
from scipy.spatial import cKDTree

from mdnet_ros.errors import SettingError
from mdnet_ros.features.extractor import MDNetExtractor

pytest.importorskip('openvino')

IMAGES = [skimage.data.camera(), skimage.data.coffee()[:, :, ::-1]]


def shared(a: MDNetExtractor, b: MDNetExtractor, image: np.ndarray, distance: float) -> float:
    """Share of a's keypoints that b found as well, in the same set."""
    x, y = a(image), b(image)
    found = 0
    for n in range(x.num_sets):
        here, there = x.keypoints[x.sets == n], y.keypoints[y.sets == n]
        found += int((cKDTree(there).query(here)[0] <= distance).sum())
    return found / len(x)


@pytest.mark.parametrize('image', IMAGES, ids=('gray', 'colour'))
def test_same_keypoints_as_pytorch_in_fp32(image: np.ndarray) -> None:
    torch_, openvino = (
        MDNetExtractor('md2net-light', 'cpu', precision='fp32', runtime=runtime)
        for runtime in ('torch', 'openvino')
    )
    assert shared(torch_, openvino, image, 0.02) > 0.99
    a, b = torch_(image), openvino(image)
    nearest = cKDTree(b.keypoints).query(a.keypoints[:100])[1]
    cosine = (a.descriptors[:100] * b.descriptors[nearest]).sum(1)
    assert np.median(cosine) > 0.9999


def test_bf16_loses_no_more_than_pytorchs_bf16() -> None:
    exact = MDNetExtractor('md2net-light', 'cpu', precision='fp32')
    torch_, openvino = (
        MDNetExtractor('md2net-light', 'cpu', precision='bf16', runtime=runtime)
        for runtime in ('torch', 'openvino')
    )
    assert shared(exact, openvino, IMAGES[0], 1.0) > shared(exact, torch_, IMAGES[0], 1.0) - 0.03


def test_sizes_may_change_from_image_to_image() -> None:
    extract = MDNetExtractor('md2net-light', 'cpu', precision='fp32', runtime='openvino')
    for size in (64, 80, 96, 112, 128, 64):
        features = extract(IMAGES[0][:size, : 2 * size])
        assert features.image_size == (2 * size, size)


def test_what_it_cannot_do_is_told() -> None:
    with pytest.raises(SettingError, match='fp16'):
        MDNetExtractor('md2net-light', 'cpu', precision='fp16', runtime='openvino')
    with pytest.raises(SettingError, match='abacus'):
        MDNetExtractor('md2net-light', 'cpu', runtime='abacus')
