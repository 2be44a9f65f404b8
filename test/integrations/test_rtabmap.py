"""The plug-ins, loaded and called as RTAB-Map's C++ does, in an interpreter of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from mdnet_ros.features.extractor import MDNetExtractor
from mdnet_ros.features.matching import match_mutual_nearest
from mdnet_ros.features.network import MDNet, MDNetConfig
from mdnet_ros.features.weights import save_weights
from mdnet_ros.integrations.rtabmap import DETECTOR_PATH, MATCHER_PATH, SET_COLUMNS

HEIGHT, WIDTH, DIM = 120, 160, 32
#: Through Python's C interface, with the formats and types that PyDetector.cpp and PyMatcher.cpp
#: use: files by their names without extension, an image over foreign memory, floats as C floats.
PROGRAM = """
import ctypes, importlib, os, sys
import numpy as np
folder, images, out = sys.argv[1:4]
api = ctypes.pythonapi
api.PyObject_CallFunction.restype = ctypes.py_object
detector_path, matcher_path = sys.argv[4:6]

def load(path):
    sys.path.append(os.path.dirname(path))
    return importlib.import_module(os.path.basename(path).split('.')[0])

detector = load(detector_path)
api.PyObject_CallFunction(ctypes.py_object(detector.init), b'i', ctypes.c_int(1))
height, width = {height}, {width}
results = []
for pixels in np.load(images):
    memory = ctypes.create_string_buffer(pixels.tobytes(), height * width)
    view = np.frombuffer(memory, np.uint8).reshape(height, width)
    results.append(detector.detect(view))
    ctypes.memset(memory, 0, height * width)
assert type(results[0]) is tuple
for arrays in results:
    for array in arrays:
        assert type(array) is np.ndarray and array.dtype.num == 11  # NPY_FLOAT
        assert array.flags.c_contiguous and array.ndim == 2
matcher = load(matcher_path)
(points_a, desc_a), (points_b, desc_b) = results[:2]
api.PyObject_CallFunction(
    ctypes.py_object(matcher.init), b'ifiis', ctypes.c_int(desc_a.shape[1]),
    ctypes.c_double(0.2), ctypes.c_int(20), ctypes.c_int(1), ctypes.c_char_p(b'indoor'),
)
copy = np.ascontiguousarray
matches = matcher.match(
    copy(points_a[:, :2]), copy(points_b[:, :2]), copy(points_a[:, 2]), copy(points_b[:, 2]),
    desc_a.copy(), desc_b.copy(), width, height,
)
# C++ takes int64 and int32 for what they are; it reads uint64 twice.
assert matches.dtype.num in (5, 7) and matches.flags.c_contiguous and matches.shape[1] == 2
np.savez(out, points_a=points_a, desc_a=desc_a, points_b=points_b, desc_b=desc_b,
         matches=matches, blank=results[2][0], blank_desc=results[2][1])
"""


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'random.safetensors'
    save_weights(MDNet(MDNetConfig(dim=DIM, channels=(8, 8, 16, 16))), path, {})
    return path


@pytest.fixture(scope='module')
def images() -> np.ndarray:
    """Two views of a photograph, shifted by (4, 2) pixels, and an image with nothing in it."""
    picture = data.camera()[150:300, 150:350]
    views = [picture[2:, 4:], picture, np.full(picture.shape, 90, np.uint8)]
    return np.stack([view[:HEIGHT, :WIDTH] for view in views])


def call(folder: Path, images: np.ndarray, **environment: str) -> subprocess.CompletedProcess[str]:
    np.save(folder / 'images.npy', images)
    return subprocess.run(
        [sys.executable, '-c', PROGRAM.format(height=HEIGHT, width=WIDTH), str(folder),
         str(folder / 'images.npy'), str(folder / 'out.npz'), str(DETECTOR_PATH),
         str(MATCHER_PATH)],
        cwd=folder, env={**os.environ, 'CUDA_VISIBLE_DEVICES': '', **environment},
        capture_output=True, text=True, timeout=120, check=False,
    )


def test_called_as_rtabmap_does(weights: Path, images: np.ndarray, tmp_path: Path) -> None:
    done = call(
        tmp_path, images, MDNET_WEIGHTS=str(weights), MDNET_MAX_KEYPOINTS='200',
        MDNET_SCORE_THRESHOLD='0.01',
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ''
    got = np.load(tmp_path / 'out.npz')
    extract = MDNetExtractor(weights, 'cpu', 200, score_threshold=0.01)
    first, second = extract(images[0]), extract(images[1])
    assert got['points_a'].shape == (len(first), 3)
    assert got['desc_a'].shape == (len(first), DIM + SET_COLUMNS)
    assert got['blank'].shape[1] == 3
    assert got['blank_desc'].shape == (len(got['blank']), DIM + SET_COLUMNS)
    assert (np.diff(got['points_a'][:, 2]) <= 0).all()  # best first
    order = np.argsort(-first.scores, kind='stable')
    np.testing.assert_array_equal(got['points_a'][:, :2], first.keypoints[order])
    np.testing.assert_array_equal(got['points_a'][:, 2], first.scores[order])
    np.testing.assert_array_equal(got['desc_a'][:, :DIM], first.descriptors[order])
    sets = got['desc_a'][:, DIM:]
    np.testing.assert_array_equal(sets.argmax(1), first.sets[order])
    np.testing.assert_array_equal(sets.sum(1), 1)
    # The matches are those of the library, and where the photograph says they are.
    order_b = np.argsort(-second.scores, kind='stable')
    expected = match_mutual_nearest(first, second, min_similarity=np.float32(0.2)).indices
    places = {tuple(pair) for pair in expected.tolist()}
    assert {(order[i], order_b[j]) for i, j in got['matches'].tolist()} == places
    steps = got['points_b'][got['matches'][:, 1], :2] - got['points_a'][got['matches'][:, 0], :2]
    assert len(steps) > 50
    assert (np.abs(steps - [4, 2]).max(axis=1) < 1).mean() > 0.5


def test_nearest_neighbours_by_distance_stay_inside_the_sets(
    weights: Path, images: np.ndarray, tmp_path: Path
) -> None:
    """What RTAB-Map's own matchers, which know nothing of sets, make of the descriptors."""
    assert call(tmp_path, images, MDNET_WEIGHTS=str(weights)).returncode == 0
    got = np.load(tmp_path / 'out.npz')
    a, b = got['desc_a'], got['desc_b']
    nearest = ((a[:, None] - b[None]) ** 2).sum(2).argmin(1)
    np.testing.assert_array_equal(a[:, DIM:], b[nearest, DIM:])


@pytest.mark.parametrize(
    ('environment', 'complaint'),
    [
        ({'MDNET_WEIGHTS': '/absent.safetensors'}, '/absent.safetensors'),
        ({'MDNET_MAX_KEYPOINTS': 'many'}, "MDNET_MAX_KEYPOINTS: expected a number, got 'many'"),
    ],
)
def test_mistakes_are_raised_for_rtabmap_to_log(
    environment: dict[str, str], complaint: str, images: np.ndarray, tmp_path: Path
) -> None:
    done = call(tmp_path, images, **environment)
    assert done.returncode == 1
    assert complaint in done.stderr.splitlines()[-1]


def test_the_matcher_refuses_other_descriptors() -> None:
    program = (
        'import sys; sys.path.append(sys.argv[1])\n'
        'import mdnet_rtabmap_matcher as m, numpy as np\n'
        'a = np.ones((3, 40), np.float32)\n'
        'm.match(a[:, :2], a[:, :2], a[:, 0], a[:, 0], a, a, 64, 48)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', program, str(MATCHER_PATH.parent)], capture_output=True, text=True,
        timeout=120, check=False,
    )
    assert 'descriptors: expected those of mdnet_rtabmap_detector.py' in done.stderr


def test_the_options_are_printed_and_name_files_that_are_there() -> None:
    printed = subprocess.run(
        [sys.executable, '-m', 'mdnet_ros.integrations.rtabmap'], capture_output=True, text=True,
        timeout=60, check=True,
    ).stdout.split()
    options = dict(zip(printed[::2], printed[1::2], strict=True))
    assert options['--Vis/FeatureType'] == options['--Kp/DetectorStrategy'] == '15'
    for name in ('--PyDetector/Path', '--PyMatcher/Path'):
        assert Path(options[name]).is_file()
        assert Path(options[name]).suffix == '.py'  # RTAB-Map refuses others
