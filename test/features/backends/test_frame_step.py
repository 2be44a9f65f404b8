"""The pass of fixed shapes gives what extraction and matching one after the other give."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from mdnet_ros import FrameTracker, match_mutual_nearest
from mdnet_ros.evaluation.benchmark.device_check import TOLERANCES
from mdnet_ros.features.backends.frame_step import FrameSteps
from mdnet_ros.features.backends.pytorch import WeightsBackend
from mdnet_ros.features.extractor import MDNetExtractor
from mdnet_ros.features.types import Features

CUDA = pytest.param(
    'cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
)


def frames(
    photo: np.ndarray, count: int = 4, size: tuple[int, int] = (160, 208)
) -> list[np.ndarray]:
    """Crops of a photograph that move by a few pixels."""
    height, width = size
    gray = photo[..., 1]
    return [
        np.ascontiguousarray(gray[y : y + height, x : x + width])
        for y, x in ((20 + 2 * i, 30 + 3 * i) for i in range(count))
    ]


def extractor(device: str, steps: bool, budget: int = 300) -> MDNetExtractor:
    """md2net-light in float32, with or without the pass."""
    made = MDNetExtractor('md2net-light', device, budget, precision='fp32')
    backend = made.backend
    assert isinstance(backend, WeightsBackend)
    backend.steps = None
    if steps:
        backend.steps = FrameSteps(
            backend.network, backend.device, capture=device == 'cuda'
        )
    return made


@pytest.fixture(params=['cpu', CUDA])
def both(request: pytest.FixtureRequest) -> tuple[MDNetExtractor, MDNetExtractor]:
    """The plain extractor and the one with the pass."""
    return extractor(request.param, False), extractor(request.param, True)


def same(a: Features, b: Features, exact: bool, precision: str = 'fp32') -> None:
    """Fail unless two features are equal, to the bit or to what the precision explains.

    In a graph cuDNN may use other kernels than outside, which round differently: of nearly equal
    maxima another one may win.
    """
    if not exact:
        assert len(a) == len(b)
        distance = np.abs(a.keypoints[:, None] - b.keypoints[None]).max(2)
        near = distance.min(1) <= 0.1
        assert 1.0 - near.mean() <= TOLERANCES[precision]
        partner = b.descriptors[distance.argmin(1)]
        cosines = (a.descriptors * partner).sum(1)[near]
        assert np.median(cosines) > 0.99
        return
    for name in ('keypoints', 'scores', 'sets', 'descriptors'):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def test_features_and_matches_are_those_of_the_plain_way(
    photo: np.ndarray, both: tuple[MDNetExtractor, MDNetExtractor]
) -> None:
    plain, with_steps = both
    exact = plain.device.type == 'cpu'
    before: tuple[Features, Features] | None = None
    for image in frames(photo):
        a, b = plain(image), with_steps(image)
        same(b, a, exact)
        assert b.padded is not None
        assert b.padded.matches
        if before is not None:
            expected = match_mutual_nearest(a, before[0])
            got = match_mutual_nearest(b, before[1])
            assert len(got) > 100
            if exact:
                np.testing.assert_array_equal(got.indices, expected.indices)
                np.testing.assert_array_equal(got.similarity, expected.similarity)
            else:
                assert abs(len(got) - len(expected)) <= 0.02 * len(expected)
        before = a, b


def test_the_matches_of_the_pass_are_used(
    photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract = extractor('cpu', True)
    a, b = (extract(image) for image in frames(photo, 2))
    called = []
    monkeypatch.setattr(
        'mdnet_ros.features.matching.mutual_nearest',
        lambda *args: called.append(args),
    )
    assert len(match_mutual_nearest(b, a)) > 100
    assert not called


def test_matches_to_another_image_are_sought_anew(photo: np.ndarray) -> None:
    plain, with_steps = extractor('cpu', False), extractor('cpu', True)
    images = frames(photo, 3)
    expected = [plain(image) for image in images]
    got = [with_steps(image) for image in images]
    np.testing.assert_array_equal(
        match_mutual_nearest(got[2], got[0]).indices,
        match_mutual_nearest(expected[2], expected[0]).indices,
    )
    np.testing.assert_array_equal(
        match_mutual_nearest(got[0], got[1]).indices,
        match_mutual_nearest(expected[0], expected[1]).indices,
    )


@pytest.mark.parametrize('device', ['cpu', CUDA])
def test_sizes_settings_and_batches_change_without_a_lost_frame(
    photo: np.ndarray, device: str
) -> None:
    plain, with_steps = extractor(device, False), extractor(device, True)
    small, large = frames(photo, 3), frames(photo, 3, (128, 256))
    for budget, images in ((300, small), (200, small), (200, large), (300, small)):
        for made in (plain, with_steps):
            made.settings = type(made.settings)(budget)
        for image in images:
            same(with_steps(image), plain(image), device == 'cpu')
    pairs = list(zip(small, reversed(small), strict=True))
    for left, right in pairs:
        for got, expected in zip(
            with_steps.extract_batch([left, right]), plain.extract_batch([left, right]),
            strict=True,
        ):
            same(got, expected, device == 'cpu')
    assert with_steps.backend.steps is not None  # type: ignore[attr-defined]
    assert len(with_steps.backend.steps) == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize('device', ['cpu', CUDA])
def test_masks_hold_in_the_pass(photo: np.ndarray, device: str) -> None:
    plain, with_steps = extractor(device, False), extractor(device, True)
    image = frames(photo, 1)[0]
    for rows in (60, 100):
        mask = np.zeros(image.shape, np.uint8)
        mask[:rows] = 255
        got = with_steps.extract_batch([image], [mask])[0]
        same(got, plain.extract_batch([image], [mask])[0], device == 'cpu')
        assert got.keypoints[:, 1].max() < rows + 1  # refined by a part of a pixel


def test_tracks_are_the_same(photo: np.ndarray) -> None:
    results = []
    for steps in (False, True):
        extract, tracker = extractor('cpu', steps), FrameTracker(exact=True)
        results.append([
            tracker.update(extract(image), stamp) for stamp, image in enumerate(frames(photo, 5))
        ])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a.track_ids, b.track_ids)
        np.testing.assert_array_equal(a.correspondences.inlier, b.correspondences.inlier)


def test_old_images_are_not_kept_in_memory(photo: np.ndarray) -> None:
    extract = extractor('cpu', True)
    features = [extract(image) for image in frames(photo, 3)]
    assert features[2].padded is not None
    latest = features[2].padded.matches[0]
    assert latest.previous is not None
    assert latest.previous() is not None
    del features[:2]
    gc.collect()
    assert latest.previous() is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
def test_cuda_is_waited_for_once(photo: np.ndarray) -> None:
    extract = MDNetExtractor('md2net-light', 'cuda')
    image = frames(photo, 1)[0]
    expected = extract(image)
    torch.cuda.synchronize()
    waits: list[str] = []
    original = torch.cuda.Stream.synchronize

    def counted(stream: torch.cuda.Stream) -> None:
        waits.append('synchronize')
        torch.cuda.set_sync_debug_mode('default')
        original(stream)
        torch.cuda.set_sync_debug_mode('error')

    torch.cuda.Stream.synchronize = counted  # type: ignore[method-assign]
    torch.cuda.set_sync_debug_mode('error')
    try:
        got = extract(image)
    finally:
        torch.cuda.set_sync_debug_mode('default')
        torch.cuda.Stream.synchronize = original  # type: ignore[method-assign]
    assert waits == ['synchronize']
    same(got, expected, exact=False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
@pytest.mark.parametrize('precision', ['fp16', 'bf16', 'fp32'])
def test_graph_and_single_kernels_agree(
    photo: np.ndarray, precision: str
) -> None:
    extract = MDNetExtractor('md2net-light', 'cuda', 300, precision=precision)
    backend = extract.backend
    assert isinstance(backend, WeightsBackend)
    image = frames(photo, 1)[0]
    graph = [extract(image) for _ in range(3)][-1]
    backend.steps = None
    eager = extract(image)
    same(graph, eager, exact=False, precision=precision)
