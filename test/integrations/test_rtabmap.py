"""The plug-ins, loaded and called by a C++ program as RTAB-Map does it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
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
#: A program without Python in which these calls are made one after another, with the types and
#: formats that PyDetector.cpp and PyMatcher.cpp use: an interpreter of its own, a plug-in's folder
#: appended to the path and its name imported, an image over foreign memory, what comes back read
#: as it lies in memory.
PROGRAM = r"""
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#define NPY_NO_DEPRECATED_API NPY_API_VERSION
#include <numpy/arrayobject.h>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

static void fail(const char * what) { PyErr_Print(); std::fprintf(stderr, "%s\n", what); exit(1); }

static PyObject * load(std::string path)
{
  const std::string folder = path.substr(0, path.rfind('/'));
  std::string name = path.substr(path.rfind('/') + 1);
  name = name.substr(0, name.find('.'));
  PyRun_SimpleString(("import sys; sys.path.append('" + folder + "')").c_str());
  PyObject * module = PyImport_ImportModule(name.c_str());
  if (!module) fail("import");
  return module;
}

static PyObject * floats(std::vector<float> & values, npy_intp rows, npy_intp columns)
{
  npy_intp shape[2] = {rows, columns};
  return PyArray_SimpleNewFromData(columns ? 2 : 1, shape, NPY_FLOAT, values.data());
}

struct Seen { int count, dim; std::vector<float> points, descriptors; };

int main(int, char ** argv)
{
  Py_Initialize();
  if (_import_array() < 0) fail("numpy");
  PyObject * detector = load(argv[1]), * matcher = load(argv[2]);
  std::ifstream file(argv[3], std::ios::binary);
  std::vector<unsigned char> images{std::istreambuf_iterator<char>(file), {}};
  const int height = atoi(argv[4]), width = atoi(argv[5]);
  std::ofstream out(argv[6], std::ios::binary);

  PyObject * done = PyObject_CallFunction(PyObject_GetAttrString(detector, "init"), "i", 1);
  if (!done) fail("init of the detector");
  PyObject * detect = PyObject_GetAttrString(detector, "detect");
  std::vector<Seen> seen;
  for (size_t start = 0; start < images.size(); start += height * width) {
    npy_intp shape[2] = {height, width};
    PyObject * image = PyArray_SimpleNewFromData(2, shape, NPY_UBYTE, &images[start]);
    PyObject * result = PyObject_CallFunctionObjArgs(detect, image, nullptr);
    if (!result) fail("detect");
    Py_DECREF(image);
    std::memset(&images[start], 0, height * width);  // RTAB-Map's memory goes its own way
    if (!PyTuple_Check(result) || PyTuple_GET_SIZE(result) != 2) fail("no pair");
    Seen one;
    for (int i : {0, 1}) {
      PyObject * item = PyTuple_GET_ITEM(result, i);
      if (!PyArray_Check(item)) fail("no array");
      PyArrayObject * array = reinterpret_cast<PyArrayObject *>(item);
      if (PyArray_TYPE(array) != NPY_FLOAT || PyArray_NDIM(array) != 2) fail("no floats");
      const int rows = PyArray_SHAPE(array)[0], columns = PyArray_SHAPE(array)[1];
      if (i == 0 && columns != 3) fail("points");
      if (i == 1 && rows != one.count) fail("descriptors");
      one.count = rows;
      one.dim = columns;
      const float * data = reinterpret_cast<float *>(PyArray_DATA(array));
      (i ? one.descriptors : one.points).assign(data, data + rows * columns);
    }
    Py_DECREF(result);
    seen.push_back(one);
    const int head[2] = {one.count, one.dim};
    out.write(reinterpret_cast<const char *>(head), sizeof head);
    out.write(reinterpret_cast<const char *>(one.points.data()), one.points.size() * 4);
    out.write(reinterpret_cast<const char *>(one.descriptors.data()), one.descriptors.size() * 4);
  }

  Seen & a = seen[0], & b = seen[1];
  done = PyObject_CallFunction(
    PyObject_GetAttrString(matcher, "init"), "ifiis", a.dim, 0.2f, 20, 1, "indoor");
  if (!done) fail("init of the matcher");
  std::vector<float> places[2], scores[2];
  for (int i : {0, 1}) {
    for (int k = 0; k < seen[i].count; ++k) {
      places[i].insert(places[i].end(), {seen[i].points[3 * k], seen[i].points[3 * k + 1]});
      scores[i].push_back(seen[i].points[3 * k + 2]);
    }
  }
  PyObject * result = PyObject_CallFunctionObjArgs(
    PyObject_GetAttrString(matcher, "match"), floats(places[0], a.count, 2),
    floats(places[1], b.count, 2), floats(scores[0], a.count, 0), floats(scores[1], b.count, 0),
    floats(a.descriptors, a.count, a.dim), floats(b.descriptors, b.count, b.dim),
    PyLong_FromLong(width), PyLong_FromLong(height), nullptr);
  if (!result || !PyArray_Check(result)) fail("match");
  PyArrayObject * matches = reinterpret_cast<PyArrayObject *>(result);
  // RTAB-Map takes the unsigned of 64 bits too, but reads them twice.
  if (PyArray_TYPE(matches) != NPY_INT64 && PyArray_TYPE(matches) != NPY_INT32) fail("integers");
  if (PyArray_SHAPE(matches)[1] != 2) fail("pairs");
  const size_t size = PyArray_SHAPE(matches)[0] * 2 * PyArray_ITEMSIZE(matches);
  out.write(reinterpret_cast<const char *>(PyArray_DATA(matches)), size);
  return 0;
}
"""


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'random.safetensors'
    save_weights(MDNet(MDNetConfig(dim=DIM, channels=(4, 8, 8, 16, 16))), path, {})
    return path


@pytest.fixture(scope='module')
def images() -> np.ndarray:
    """Two views of a photograph, shifted by (4, 2) pixels, and an image with nothing in it."""
    picture = data.camera()[150:300, 150:350]
    views = [picture[2:, 4:], picture, np.full(picture.shape, 90, np.uint8)]
    return np.stack([view[:HEIGHT, :WIDTH] for view in views])


@pytest.fixture(scope='module')
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program."""
    compiler, config = shutil.which('g++'), sysconfig.get_config_var
    include, library = Path(config('INCLUDEPY')), Path(config('LIBDIR'))
    if not compiler or not (include / 'Python.h').is_file() or not config('Py_ENABLE_SHARED'):
        pytest.skip("needs g++, Python's headers and its shared library")
    folder = tmp_path_factory.mktemp('program')
    (folder / 'main.cpp').write_text(PROGRAM)
    built = subprocess.run(
        [compiler, '-std=c++17', f'-isystem{include}', f'-isystem{np.get_include()}',
         str(folder / 'main.cpp'), '-o', str(folder / 'main'), f'-L{library}',
         f'-Wl,-rpath,{library}', f'-lpython{config("LDVERSION")}'],
        capture_output=True, text=True, timeout=200, check=False,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    return folder / 'main'


@dataclass(frozen=True)
class Results:
    """What the program read."""

    points: list[np.ndarray]
    descriptors: list[np.ndarray]
    matches: np.ndarray


def call(
    program: Path, folder: Path, images: np.ndarray, **environment: str
) -> tuple[subprocess.CompletedProcess[str], Results | None]:
    (folder / 'images').write_bytes(images.tobytes())
    # RTAB-Map's interpreter knows no environment; this is what the how-to tells to set.
    packages = [p for p in sys.path if p.endswith('site-packages')]
    done = subprocess.run(
        [str(program), str(DETECTOR_PATH), str(MATCHER_PATH), str(folder / 'images'),
         str(HEIGHT), str(WIDTH), str(folder / 'out')],
        cwd=folder, capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': '', 'PYTHONHOME': sys.base_prefix,
             'PYTHONPATH': os.pathsep.join(packages), **environment},
    )
    if done.returncode:
        return done, None
    data, at = (folder / 'out').read_bytes(), 0
    points, descriptors = [], []
    for _ in images:
        count, dim = np.frombuffer(data, np.int32, 2, at)
        points.append(np.frombuffer(data, np.float32, count * 3, at + 8).reshape(count, 3))
        at += 8 + 12 * count
        descriptors.append(np.frombuffer(data, np.float32, count * dim, at).reshape(count, dim))
        at += 4 * count * dim
    return done, Results(points, descriptors, np.frombuffer(data[at:], np.int64).reshape(-1, 2))


@pytest.fixture(scope='module')
def results(
    program: Path, weights: Path, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Results:
    done, got = call(
        program, tmp_path_factory.mktemp('results'), images, MDNET_WEIGHTS=str(weights),
        MDNET_MAX_KEYPOINTS='200', MDNET_SCORE_THRESHOLD='0.01',
    )
    assert got is not None, done.stderr
    assert done.stdout == ''
    return got


def test_called_as_rtabmap_does(results: Results, weights: Path, images: np.ndarray) -> None:
    got = results
    extract = MDNetExtractor(weights, 'cpu', 200, score_threshold=0.01)
    features = [extract(image) for image in images]
    orders = [np.argsort(-f.scores, kind='stable') for f in features]
    for points, descriptors, expected, order in zip(
        got.points, got.descriptors, features, orders, strict=True
    ):
        np.testing.assert_array_equal(points[:, :2], expected.keypoints[order])
        np.testing.assert_array_equal(points[:, 2], expected.scores[order])
        assert (np.diff(points[:, 2]) <= 0).all()  # best first
        assert descriptors.shape == (len(expected), DIM + SET_COLUMNS)
        np.testing.assert_array_equal(descriptors[:, :DIM], expected.descriptors[order])
        np.testing.assert_array_equal(
            descriptors[:, DIM:], np.eye(SET_COLUMNS)[expected.sets[order]]
        )
    # The matches are those of the library, and where the photograph says they are.
    found = match_mutual_nearest(*features[:2], min_similarity=np.float32(0.2)).indices
    rows = [order[column] for order, column in zip(orders[:2], got.matches.T, strict=True)]
    assert set(zip(*(r.tolist() for r in rows), strict=True)) == {tuple(p) for p in found.tolist()}
    steps = got.points[1][got.matches[:, 1], :2] - got.points[0][got.matches[:, 0], :2]
    assert len(steps) > 50
    assert (np.abs(steps - [4, 2]).max(axis=1) < 1).mean() > 0.5


def test_nearest_neighbours_by_distance_stay_inside_the_sets(results: Results) -> None:
    """What RTAB-Map's own matchers, which know nothing of sets, make of the descriptors."""
    a, b = results.descriptors[:2]
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
    environment: dict[str, str], complaint: str, program: Path, images: np.ndarray, tmp_path: Path
) -> None:
    done, _ = call(program, tmp_path, images, **environment)
    assert done.returncode == 1
    assert complaint in done.stderr


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
