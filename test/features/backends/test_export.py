"""Exported files give what PyTorch gives, on photographs, and refuse what they cannot do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from mdnet_ros import Features, MDNetExtractor
from mdnet_ros.cli.main import main
from mdnet_ros.errors import ImageError, MDNetError, SettingError, WeightsError
from mdnet_ros.features.backends.export import export
from mdnet_ros.features.backends.exported import ExportInfo, OnnxBackend
from mdnet_ros.features.detection import DetectionSettings
from mdnet_ros.features.network import MDNetConfig

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

#: No multiple of the network's stride, so that padding is part of the file.
WIDTH, HEIGHT = 157, 120
SETTINGS = DetectionSettings(max_keypoints=200)
FORMATS = {'onnx': '.onnx', 'torchscript': '.torchscript'}
#: One of a few hundred keypoints may change places with one that scores the same.
MIN_SHARE, PIXELS, SCORE, DESCRIPTOR = 0.99, 0.02, 1e-3, 5e-3


@pytest.fixture(scope='module')
def photographs() -> list[np.ndarray]:
    """(120, 157) uint8 gray."""
    images = (skimage.data.camera(), cv2.cvtColor(skimage.data.coffee(), cv2.COLOR_RGB2GRAY))
    return [cv2.resize(i, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for i in images]


@pytest.fixture(scope='module', params=FORMATS)
def exported(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    weights_path: Path,
    photographs: list[np.ndarray],
) -> Path:
    out = tmp_path_factory.mktemp('export') / f'network{FORMATS[request.param]}'
    check = export(
        weights_path, out, request.param, (HEIGHT, WIDTH), photographs, settings=SETTINGS
    )
    assert check.sound
    assert (check.images, check.keypoints) == (2, 400)
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    return out


@pytest.fixture(scope='module')
def plain(weights_path: Path) -> MDNetExtractor:
    return MDNetExtractor(weights_path, 'cpu', SETTINGS.max_keypoints, precision='fp32')


def assert_equal(expected: Features, got: Features) -> None:
    """The same keypoints, up to arithmetic in another order."""
    assert got.image_size == expected.image_size
    assert len(got) == len(expected) > 50
    found = 0
    for s in range(expected.num_sets):
        a, b = (np.nonzero(f.sets == s)[0] for f in (expected, got))
        distance = np.linalg.norm(
            expected.keypoints[a][:, None] - got.keypoints[b][None], axis=2
        )
        row = distance.argmin(axis=1)
        same = distance.min(axis=1) <= PIXELS
        found += int(same.sum())
        a, b = a[same], b[row[same]]
        np.testing.assert_allclose(got.scores[b], expected.scores[a], atol=SCORE)
        np.testing.assert_allclose(got.descriptors[b], expected.descriptors[a], atol=DESCRIPTOR)
    assert found >= MIN_SHARE * len(expected)


def test_the_extractor_runs_the_file_as_it_runs_weights(
    exported: Path, plain: MDNetExtractor, photographs: list[np.ndarray]
) -> None:
    extract = MDNetExtractor(exported, 'cpu', SETTINGS.max_keypoints)
    assert (extract.name, extract.dim, extract.num_sets) == ('network', 32, 2)
    assert (extract.precision, extract.fixed_size) == ('fp32', (HEIGHT, WIDTH))
    for image in photographs:
        assert_equal(plain(image), extract(image))


def test_budget_threshold_mask_and_shrinking(
    exported: Path, plain: MDNetExtractor, photographs: list[np.ndarray]
) -> None:
    image = photographs[0]
    few = MDNetExtractor(exported, 'cpu', max_keypoints=120)
    best = few(image)
    full = plain(image)
    top = np.concatenate([np.sort(full.scores[full.sets == s])[-60:] for s in range(2)])
    np.testing.assert_allclose(np.sort(best.scores), np.sort(top), atol=SCORE)
    threshold = float(np.median(best.scores))
    few.settings = replace(few.settings, score_threshold=threshold)
    strict = few(image)
    np.testing.assert_array_equal(strict.scores, best.scores[best.scores >= threshold])
    few.settings = replace(few.settings, score_threshold=0.0)
    few.mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    few.mask[:, 80:] = 255
    masked = few(image)
    assert 0 < len(masked) < len(best)
    assert masked.keypoints[:, 0].min() > 79
    few.mask = None
    few.max_side = WIDTH
    large = cv2.resize(image, (WIDTH * 2, HEIGHT * 2), interpolation=cv2.INTER_NEAREST)
    got = few(large)
    assert got.image_size == (WIDTH * 2, HEIGHT * 2)
    np.testing.assert_allclose((got.keypoints + 0.5) / 2 - 0.5, best.keypoints, atol=1e-3)


@pytest.mark.parametrize('count', [1, 3, 101])
def test_a_number_that_the_sets_cannot_share_evenly_is_kept_exactly(
    exported: Path, plain: MDNetExtractor, photographs: list[np.ndarray], count: int
) -> None:
    few = MDNetExtractor(exported, 'cpu', count)(photographs[0])
    expected = replace(plain.settings, max_keypoints=count)
    plain_few = MDNetExtractor(plain.info.path, 'cpu', precision='fp32')
    plain_few.settings = expected
    np.testing.assert_array_equal(few.sets, plain_few(photographs[0]).sets)
    assert len(few) == count


@pytest.mark.parametrize('file_format', FORMATS)
def test_a_file_exported_for_an_odd_number_gives_it(
    tmp_path: Path, weights_path: Path, photographs: list[np.ndarray], file_format: str
) -> None:
    out = tmp_path / f'odd{FORMATS[file_format]}'
    check = export(
        weights_path, out, file_format, (HEIGHT, WIDTH), photographs,
        settings=DetectionSettings(max_keypoints=151),
    )
    assert check.keypoints == 2 * 151
    assert np.bincount(MDNetExtractor(out, 'cpu')(photographs[1]).sets).tolist() == [76, 75]


def test_what_the_file_cannot_do_is_told_in_one_line(
    exported: Path, photographs: list[np.ndarray]
) -> None:
    extract = MDNetExtractor(exported, 'cpu')
    with pytest.raises(ImageError, match='takes 1 of 157x120, got 1 of 160x128') as caught:
        extract(np.zeros((128, 160), np.uint8))
    assert '\n' not in str(caught.value)
    with pytest.raises(ImageError, match='takes 1 of 157x120, got 2 of'):
        extract.extract_batch(photographs)
    with pytest.raises(SettingError, match='nms_radius: .* exported with 2, got 3'):
        extract.settings = replace(extract.settings, nms_radius=3)
    assert extract.settings.nms_radius == 2
    with pytest.raises(SettingError, match='border: .* exported with 8, got 4'):
        MDNetExtractor(exported, 'cpu', border=4)
    with pytest.raises(SettingError, match=r"precision 'bf16': .* has fp32"):
        MDNetExtractor(exported, 'cpu', precision='bf16')


def test_provenance(exported: Path, plain: MDNetExtractor) -> None:
    extract = MDNetExtractor(exported, 'cpu')
    about = extract.backend.export  # type: ignore[attr-defined]
    assert about.weights_sha256 == plain.info.sha256 != extract.info.sha256
    assert about.config == extract.info.config == plain.info.config
    assert extract.info.training == plain.info.training == {'steps': 0}
    assert (about.size, about.batch, about.settings) == ((HEIGHT, WIDTH), 1, SETTINGS)
    assert about.torch_version == torch.__version__


@pytest.mark.parametrize('damage', ['cut', 'random', 'empty'])
def test_a_corrupt_file(exported: Path, tmp_path: Path, damage: str) -> None:
    content = exported.read_bytes()
    path = tmp_path / exported.name
    noise = np.random.default_rng(0).bytes(1000)
    path.write_bytes({'cut': content[: len(content) // 2], 'random': noise, 'empty': b''}[damage])
    with pytest.raises(WeightsError, match='network') as caught:
        MDNetExtractor(path, 'cpu')
    assert '\n' not in str(caught.value)


def test_a_file_of_somebody_else(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / exported.name
    if exported.suffix == '.onnx':
        import onnx

        model = onnx.load(exported)
        del model.metadata_props[:]
        onnx.save(model, path)
    else:
        torch.jit.trace(torch.nn.Identity(), torch.zeros(1)).save(str(path))
    with pytest.raises(WeightsError, match='not written by mdnet export'):
        MDNetExtractor(path, 'cpu')
    with pytest.raises(WeightsError, match='no such file'):
        MDNetExtractor(tmp_path / f'missing{exported.suffix}', 'cpu')


def test_metadata_there_and_back() -> None:
    info = ExportInfo(
        'onnx', MDNetConfig(num_sets=3), DetectionSettings(100, 0.25, 1, 4), (480, 640), 2, 'cpu',
        'name', 'ab' * 32, {'steps': 7}, '2.13',
    )
    assert ExportInfo.from_json(info.to_json()) == info
    values = json.loads(info.to_json())
    for broken in ({**values, 'version': 'x'}, {**values, 'format': 'x'}, {**values, 'size': 3},
                   {**values, 'more': 1}, [], {}):
        with pytest.raises(ValueError, match='metadata'):
            ExportInfo.from_json(json.dumps(broken))


def test_batch_of_two_cameras(
    tmp_path: Path, weights_path: Path, plain: MDNetExtractor, photographs: list[np.ndarray]
) -> None:
    out = tmp_path / 'two.torchscript'
    check = export(
        weights_path, out, 'torchscript', (HEIGHT, WIDTH), photographs, settings=SETTINGS, batch=2
    )
    assert check.sound
    extract = MDNetExtractor(out, 'cpu', SETTINGS.max_keypoints)
    for got, image in zip(extract.extract_batch(photographs), photographs, strict=True):
        assert_equal(plain(image), got)


def test_onnx_follows_the_number_of_threads(
    exported: Path, photographs: list[np.ndarray]
) -> None:
    if exported.suffix != '.onnx':
        pytest.skip("torch's own threads")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        backend = OnnxBackend(exported, torch.device('cpu'))
        images = torch.from_numpy(photographs[0])[None, None]
        one = backend.run(images, SETTINGS, None)
        torch.set_num_threads(2)
        two = backend.run(images, SETTINGS, None)
    finally:
        torch.set_num_threads(before)
    assert backend.threads == 2
    torch.testing.assert_close(one.scores, two.scores, atol=SCORE, rtol=0)


def test_the_command(
    tmp_path: Path, weights_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'network.torchscript'
    command = ['export', str(weights_path), '--format', 'torchscript', '--size', '160x128']
    assert main([*command, '--max-keypoints', '100', '--out', str(out)]) == 0
    assert 'against PyTorch: ' in capsys.readouterr().out
    assert MDNetExtractor(out, 'cpu').fixed_size == (128, 160)
    for wrong, named in (
        (['--out', str(tmp_path / 'x.onnx')], 'ends in .torchscript'),
        (['--out', str(out), '--size', '16x128'], 'at least 32'),
        (['--out', str(out), '--batch', '0'], 'batch'),
        (['--out', str(out), '--max-keypoints', '0'], 'max-keypoints'),
        (['--out', str(out), '--border', '-1'], 'border'),
        (['--out', str(out), '--images', str(weights_path)], 'cannot be read as an image'),
    ):
        assert main([*command, *wrong]) == 2
        error = capsys.readouterr().err
        assert named in error
        assert error.count('\n') == 1


def test_an_export_that_disagrees_leaves_nothing_behind(
    tmp_path: Path, weights_path: Path, photographs: list[np.ndarray]
) -> None:
    """A flat image has no keypoints to compare, which proves nothing."""
    flat = [np.zeros((HEIGHT, WIDTH), np.uint8)]
    strict = replace(SETTINGS, score_threshold=1.0)
    with pytest.raises(MDNetError, match='differs from PyTorch'):
        export(weights_path, tmp_path / 'x.torchscript', 'torchscript', (HEIGHT, WIDTH), flat,
               settings=strict)
    assert not list(tmp_path.iterdir())


def test_tensorrt_where_it_is_not_installed(tmp_path: Path, weights_path: Path) -> None:
    import onnxruntime

    if 'TensorrtExecutionProvider' in onnxruntime.get_available_providers():
        pytest.skip('TensorRT is installed')
    image = [np.zeros((HEIGHT, WIDTH), np.uint8)]
    with pytest.raises(MDNetError, match='TensorRT is not installed'):
        export(weights_path, tmp_path / 'x.onnx', 'tensorrt', (HEIGHT, WIDTH), image)
