"""Learned baselines: random weights for the interface, the authors' where a folder has them."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnx.helper
import pytest
import skimage.data
import torch

from mdnet_ros import Extractor
from mdnet_ros.baselines import edgepoint2
from mdnet_ros.baselines.alike import CONFIGS, AlikeNetwork, suppress
from mdnet_ros.baselines.hardnet import HardNetExtractor
from mdnet_ros.baselines.r2d2 import R2D2Extractor, R2D2Network
from mdnet_ros.baselines.registry import baseline_info, create_extractor
from mdnet_ros.errors import ImageError, WeightsError

kornia_feature = pytest.importorskip('kornia.feature')

DIMS = {
    'alike-t': 64, 'alike-s': 96, 'alike-n': 128, 'alike-l': 128, 'r2d2': 128, 'r2d2-ms': 128,
    'hardnet': 128, 'disk': 128, 'aliked-t16': 64, 'aliked-n32': 128, 'xfeat': 64,
    'superpoint': 256, **{name: config.dim for name, config in edgepoint2.CONFIGS.items()},
}  # fmt: skip
REFERENCE = os.environ.get('MDNET_PEER_WEIGHTS', '')


def lively(network: torch.nn.Module) -> torch.nn.Module:
    """Random weights with some spread, so that score maps are not flat."""
    torch.manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith('running_mean'):
            tensor.normal_(0, 0.1)
        elif name.endswith('weight') and tensor.ndim == 4:
            torch.nn.init.kaiming_normal_(tensor)
    return network


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints of random weights under the authors' file names."""
    folder = tmp_path_factory.mktemp('peers')
    for name, config in CONFIGS.items():
        torch.save(lively(AlikeNetwork(config)).state_dict(), folder / f'{name}.pth')
    state = lively(R2D2Network()).state_dict()
    state['clf.bias'] = torch.tensor([-9.0, 9.0])  # reliable everywhere
    state['sal.bias'] = torch.tensor([9.0])
    torch.save(
        {'net': 'any', 'state_dict': {f'module.{k}': v for k, v in state.items()}},
        folder / 'r2d2_WASF_N16.pt',
    )
    torch.save(
        {'state_dict': lively(kornia_feature.HardNet(pretrained=False)).state_dict()},
        folder / 'HardNet++.pth',
    )
    torch.save({'extractor': kornia_feature.DISK().state_dict()}, folder / 'depth-save.pth')
    for name in ('aliked-t16', 'aliked-n32'):
        aliked = lively(kornia_feature.ALIKED(name)).state_dict()
        del aliked['dkd.hw_grid']  # kornia's own, not in the authors' files
        torch.save(aliked, folder / f'{name}.pth')
    for name, config in edgepoint2.CONFIGS.items():
        network = lively(edgepoint2.EdgePoint2Network(config))
        torch.save(network.state_dict(), folder / baseline_info(name).weights[0])
    xfeat = lively(kornia_feature.XFeat().net).state_dict()
    torch.save(xfeat, folder / 'xfeat.pt')
    try:
        from transformers import SuperPointConfig, SuperPointForKeypointDetection
    except ImportError:
        return folder
    config = SuperPointConfig(keypoint_threshold=0.0)
    SuperPointForKeypointDetection(config).save_pretrained(folder / 'superpoint')
    return folder


@pytest.fixture(scope='module')
def photo() -> np.ndarray:
    return cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR)[0:160, 128:320].copy()


@pytest.mark.parametrize('name', DIMS)
def test_contract(name: str, weights: Path, photo: np.ndarray) -> None:
    if name == 'superpoint':
        pytest.importorskip('transformers')
    extractor = create_extractor(name, 60, 'cpu', weights_dir=weights)
    assert isinstance(extractor, Extractor)
    assert extractor.name == name
    image = photo[:117, :101]  # no multiple of any stride
    found = extractor(image)
    assert 0 < len(found) <= 60
    assert found.image_size == (101, 117)
    assert found.descriptors.shape == (len(found), DIMS[name])
    assert found.descriptors.dtype == found.keypoints.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1.0, atol=1e-4)
    assert (np.diff(found.scores) <= 0).all()
    assert (found.keypoints >= -0.5).all()
    assert (found.keypoints < np.array([100.5, 116.5])).all()
    gray = image[:, :, 1].copy()
    colour = cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)
    np.testing.assert_allclose(
        extractor(gray).keypoints, extractor(colour).keypoints, atol=1e-3
    )
    with pytest.raises(ImageError):
        extractor(gray.astype(np.float32))


@pytest.mark.parametrize(
    ('name', 'file'),
    [('alike-t', 'alike-t.pth'), ('r2d2', 'r2d2_WASF_N16.pt'), ('disk', 'depth-save.pth'),
     ('hardnet', 'HardNet++.pth'), ('aliked-t16', 'aliked-t16.pth'), ('xfeat', 'xfeat.pt'),
     ('edgepoint2-s64', 'S64.pth')],
)  # fmt: skip
def test_wrong_checkpoints_are_refused_in_one_line(
    name: str, file: str, weights: Path, tmp_path: Path
) -> None:
    other = {'alike-t.pth': 'alike-n.pth', 'S64.pth': 'E64.pth'}.get(file, 'alike-t.pth')
    for content in (b'', b'not a checkpoint', (weights / other).read_bytes()):
        (tmp_path / file).write_bytes(content)
        with pytest.raises(WeightsError) as caught:
            create_extractor(name, 10, 'cpu', weights_dir=tmp_path)
        for part in (name, file, baseline_info(name).source):
            assert part in str(caught.value)
        assert '\n' not in str(caught.value)


def test_checkpoints_cannot_run_code(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / 'harmed',))

    torch.save({'state_dict': Harmful()}, tmp_path / 'alike-t.pth')
    with pytest.raises(WeightsError):
        create_extractor('alike-t', 10, 'cpu', weights_dir=tmp_path)
    assert not (tmp_path / 'harmed').exists()


def test_superpoint_folder_must_hold_the_model(tmp_path: Path) -> None:
    pytest.importorskip('transformers')
    (tmp_path / 'superpoint').mkdir()
    with pytest.raises(WeightsError, match='superpoint'):
        create_extractor('superpoint', 10, 'cpu', weights_dir=tmp_path)


def test_alike_suppression_against_loops() -> None:
    scores = torch.rand(20, 24, generator=torch.Generator().manual_seed(1))

    def is_peak(values: np.ndarray, y: int, x: int) -> bool:
        window = values[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        return bool(values[y, x] == window.max())

    values = scores.numpy()
    chosen = {(y, x) for y in range(20) for x in range(24) if is_peak(values, y, x)}
    for _ in range(2):
        near = {
            (y, x)
            for y in range(20)
            for x in range(24)
            if any(abs(y - v) <= 2 and abs(x - u) <= 2 for v, u in chosen)
        }
        rest = values.copy()
        for y, x in near:
            rest[y, x] = 0.0
        chosen |= {
            (y, x) for y in range(20) for x in range(24)
            if (y, x) not in near and is_peak(rest, y, x)
        }
    kept = {tuple(row) for row in suppress(scores, 2).nonzero().tolist()}
    assert kept == chosen


def test_edgepoint2_has_the_published_sizes() -> None:
    """14 networks; the smallest and the largest have the parameters of their checkpoints."""
    assert len(edgepoint2.CONFIGS) == 14
    for name, count in (('edgepoint2-t32', 27_524), ('edgepoint2-e64', 154_628)):
        network = edgepoint2.EdgePoint2Network(edgepoint2.CONFIGS[name])
        assert sum(p.numel() for p in network.parameters()) == count
        with torch.inference_mode():
            scores, descriptors = network.eval()(torch.rand(1, 1, 64, 96))
        assert scores.shape == (1, 64, 96)
        assert descriptors.shape == (1, edgepoint2.CONFIGS[name].dim, 16, 24)


def test_edgepoint2_puts_keypoints_back_corner_on_corner(photo: np.ndarray) -> None:
    """The network sees 96x96 pixels of an image of 101x117: corner pixels stay corner pixels."""

    class Corners(edgepoint2.EdgePoint2Network):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            scores, descriptors = super().forward(image)
            assert scores.shape == (1, 96, 96)
            scores[:] = -9.0
            scores[0, 91, 91], scores[0, 4, 4], scores[0, 3, 50] = 2.0, 1.0, 3.0
            scores[0, 40, 40], scores[0, 42, 42] = 0.0, 0.5  # the lower of two in a window
            return scores, descriptors

    network = Corners(edgepoint2.CONFIGS['edgepoint2-t32'])
    extractor = edgepoint2.EdgePoint2Extractor('corners', network, 10, 'cpu')
    found = extractor(photo[:117, :101])
    scale = np.array([100 / 95, 116 / 95])
    np.testing.assert_allclose(
        found.keypoints, [scale * 91, scale * 4, scale * 42], rtol=1e-6
    )
    np.testing.assert_array_equal(found.scores, [2.0, 1.0, 0.5])


def test_r2d2_keeps_the_size_and_sees_several_scales() -> None:
    network = R2D2Network().eval()
    with torch.inference_mode():
        descriptors, reliability, repeatability = network(torch.rand(1, 3, 37, 50))
    assert descriptors.shape == (1, 128, 37, 50)
    assert reliability.shape == repeatability.shape == (1, 37, 50)
    assert 0 <= float(reliability.min()) <= float(reliability.max()) <= 1
    sizes = R2D2Extractor('r2d2-ms', network, 10, 'cpu', multiscale=True)._sizes(480, 640)
    assert sizes[0] == (480, 640)
    assert max(sizes[-1]) >= 256
    ratio = sizes[0][1] / sizes[1][1]
    assert ratio == pytest.approx(2**0.25, rel=0.01)


def test_hardnet_patches_turn_with_the_image(photo: np.ndarray) -> None:
    """The patch of a keypoint looks the same in an image turned by a quarter."""
    gray = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)
    turned = cv2.rotate(gray, cv2.ROTATE_90_CLOCKWISE)
    network = kornia_feature.HardNet(pretrained=False)
    extractor = HardNetExtractor('hardnet', network, 10, 'cpu')
    sizes, x, y = np.array([6.0]), 90.0, 80.0
    here = extractor.patches(gray, np.array([[x, y]], np.float32), sizes, np.array([30.0]))
    there = np.array([[gray.shape[0] - 1 - y, x]], np.float32)
    right = extractor.patches(turned, there, sizes, np.array([120.0]))
    wrong = extractor.patches(turned, there, sizes, np.array([30.0]))
    assert here.shape == (1, 1, 32, 32)

    def alike(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(np.corrcoef(a.numpy().ravel(), b.numpy().ravel())[0, 1])

    assert alike(here, right) > 0.99
    assert alike(here, wrong) < 0.9


def test_hardnet_patch_covers_twelve_sigma() -> None:
    """A disc of radius 6 sigma = 3 sizes touches the edges of its patch."""
    image = np.zeros((101, 101), np.uint8)
    cv2.circle(image, (50, 50), 24, 255, -1)
    network = kornia_feature.HardNet(pretrained=False)
    patch = HardNetExtractor('hardnet', network, 1, 'cpu').patches(
        image, np.array([[50, 50]], np.float32), np.array([8.0]), np.array([0.0])
    )[0, 0]
    assert patch[16, 1] > 0.8
    assert patch[16, 30] > 0.8
    assert patch[1, 1] < 0.2


def test_xfeat_runs_from_onnx(tmp_path: Path, photo: np.ndarray) -> None:
    """Any ONNX file with the network's three outputs, found by their channels."""
    pytest.importorskip('onnxruntime')
    rng = np.random.default_rng(0)
    initializers, nodes, outputs = [], [], []
    for name, count, gain in (('reliability', 1, 0.5), ('logits', 65, 3.0), ('features', 64, 1.0)):
        kernel = (rng.normal(size=(count, 3, 8, 8)) * gain).astype(np.float32)
        initializers.append(onnx.numpy_helper.from_array(kernel, f'w_{name}'))
        raw = f'raw_{name}' if name == 'reliability' else name
        nodes.append(
            onnx.helper.make_node('Conv', ['image', f'w_{name}'], [raw], strides=[8, 8])
        )
        if raw != name:
            nodes.append(onnx.helper.make_node('Sigmoid', [raw], [name]))
        outputs.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, count, 'h', 'w'])
        )
    image = onnx.helper.make_tensor_value_info(
        'image', onnx.TensorProto.FLOAT, [1, 3, 'height', 'width']
    )
    graph = onnx.helper.make_graph(nodes, 'xfeat', [image], outputs, initializers)
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid('', 17)], ir_version=8
    )
    onnx.save(model, tmp_path / 'xfeat.onnx')
    found = create_extractor('xfeat', 40, 'cpu', weights_dir=tmp_path)(photo)
    assert 0 < len(found) <= 40
    assert found.descriptors.shape == (len(found), 64)
    (tmp_path / 'xfeat.onnx').write_bytes(b'not onnx')
    with pytest.raises(WeightsError, match='not an ONNX model'):
        create_extractor('xfeat', 40, 'cpu', weights_dir=tmp_path)


#: The authors' own code on the photo below, 200 keypoints (ALIKE, EdgePoint2) or all (R2D2, at its
#: own scale): the three best keypoints, their scores, and four numbers of the best descriptor.
EXPECTED = {
    'alike-t': (
        [[78.016, 139.463], [114.465, 140.504], [55.533, 149.025]],
        [0.9947, 0.9931, 0.9682],
        [-0.0205, -0.1720, 0.0360, -0.1572],
    ),
    'alike-n': (
        [[117.079, 98.997], [86.445, 129.003], [75.632, 138.656]],
        [0.9953, 0.9700, 0.9602],
        [-0.1949, -0.0223, 0.0959, -0.1993],
    ),
    'alike-l': (
        [[114.501, 139.991], [55.908, 152.641], [33.002, 69.618]],
        [0.9845, 0.9421, 0.9244],
        [-0.0822, 0.0738, 0.0791, 0.0047],
    ),
    'edgepoint2-s64': (
        [[86.0, 129.0], [75.0, 138.0], [115.0, 140.0]],
        [2.9768, 2.8212, 2.4431],
        [-0.0636, -0.0828, -0.1750, 0.0248],
    ),
    'edgepoint2-e64': (
        [[86.0, 129.0], [115.0, 140.0], [75.0, 138.0]],
        [3.0929, 2.9635, 2.7964],
        [-0.1573, 0.1081, 0.0412, -0.0036],
    ),
    'r2d2': (
        [[77.0, 141.0], [111.0, 142.0], [65.0, 38.0]],
        [0.9993, 0.9993, 0.9992],
        [-0.0040, -0.0260, 0.0102, 0.0313],
    ),
}


@pytest.mark.parametrize('name', EXPECTED)
def test_reference_output(name: str, photo: np.ndarray) -> None:
    try:
        extractor = create_extractor(name, 200, 'cpu', weights_dir=Path(REFERENCE or '/nowhere'))
    except WeightsError as error:
        pytest.skip(str(error))
    keypoints, scores, descriptor = EXPECTED[name]
    found = extractor(photo)
    assert len(found) == 200
    np.testing.assert_allclose(found.keypoints[:3], keypoints, atol=2e-3)
    np.testing.assert_allclose(found.scores[:3], scores, atol=2e-4)
    np.testing.assert_allclose(found.descriptors[0, :4], descriptor, atol=2e-4)
