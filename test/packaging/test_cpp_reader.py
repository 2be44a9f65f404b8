"""The C++ readers of the documentation, compiled against the real message headers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mdnet_ros.data.pointcloud import cloud_fields
from mdnet_ros.features.tracking import FrameTracker
from mdnet_ros.features.types import Features, TrackedFrame
from mdnet_ros.tracker.clouds import correspondence_table, keypoint_table

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / 'docs' / 'examples'
DIM = 5
MAIN = """
#include <cstdio>
#include <fstream>
#include <iterator>
#include "{reader}"

int main(int, char ** argv)
{{
  sensor_msgs::msg::PointCloud2 cloud;
  cloud.height = 1;
  cloud.width = {width};
  cloud.point_step = {step};
  cloud.row_step = {step} * {width};
  {fields}
  std::ifstream file(argv[1], std::ios::binary);
  cloud.data.assign(std::istreambuf_iterator<char>(file), {{}});
  {print}
}}
"""
PRINT_KEYPOINTS = """
  for (const Keypoint & k : read_keypoints(cloud)) {
    std::printf("%.9g %.9g %.9g %d %d %u", k.x, k.y, k.score, k.set, k.age, k.track_id);
    for (int i = 0; i < 5; ++i) std::printf(" %.9g", k.descriptor[i]);
    std::printf("\\n");
  }
"""
PRINT_CORRESPONDENCES = """
  for (const Correspondence & c : read_correspondences(cloud)) {
    std::printf("%.9g %.9g %.9g %.9g %.9g", c.x, c.y, c.x_prev, c.y_prev, c.similarity);
    std::printf(" %d %u %d %d %d", c.set, c.track_id, c.inlier, c.index, c.index_prev);
    std::printf(" %lld\\n", static_cast<long long>(c.stamp_prev));
  }
"""


def include_folders() -> list[Path]:
    """Where ROS headers lie: of a sourced ROS, or of the wheels."""
    prefixes = [Path(p) for p in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if p]
    for prefix in [*prefixes, Path(sys.prefix)]:
        include = prefix / 'include'
        if (include / 'sensor_msgs' / 'sensor_msgs' / 'point_cloud2_iterator.hpp').is_file():
            return [include, *(folder for folder in include.iterdir() if folder.is_dir())]
    return []


def tracked() -> TrackedFrame:
    """A frame whose keypoints were all seen before, in another order, one of them wrongly."""
    rng = np.random.default_rng(0)
    n = 7
    descriptors = np.linalg.qr(rng.normal(size=(n, n)))[0][:, :n].astype(np.float32)
    sets = np.array([0, 0, 0, 1, 1, 1, 1], np.int32)
    tracker = FrameTracker(verification='none')
    stamp = 1_700_000_000_123_456_789
    for order in ([0, 1, 2, 3, 4, 5, 6], [2, 0, 1, 6, 5, 4, 3]):
        frame = tracker.update(
            Features(
                rng.uniform(0, 500, (n, 2)).astype(np.float32),
                rng.random(n).astype(np.float32), sets, descriptors[order], (640, 480), 2,
            ),
            stamp,
        )
        stamp += 33_333_333
    frame.correspondences.inlier[3] = False
    return frame


def with_refinement(frame: TrackedFrame) -> TrackedFrame:
    """The same frame with two more fields in its messages, which the readers pass over."""
    count = len(frame.features)
    return replace(frame, refined=np.ones(count, bool), missed=np.zeros(count, np.int32))


def printed(folder: Path, reader: str, print_code: str, table: np.ndarray) -> np.ndarray:
    """What a program that uses a reader prints about a message, as text by row and column."""
    compiler, folders = shutil.which('g++'), include_folders()
    if not compiler or not folders:
        pytest.skip('needs g++ and the C++ headers of sensor_msgs')
    (folder / 'data').write_bytes(table.tobytes())
    lines = ['sensor_msgs::msg::PointField field;']
    for f in cloud_fields(table.dtype):
        lines.append(
            f'field.name = "{f.name}"; field.offset = {f.offset}; '
            f'field.datatype = {f.datatype}; field.count = {f.count}; '
            'cloud.fields.push_back(field);'
        )
    (folder / 'main.cpp').write_text(
        MAIN.format(
            reader=EXAMPLES / reader, width=len(table), step=table.dtype.itemsize,
            fields='\n  '.join(lines), print=print_code,
        )
    )
    program = folder / 'reader'
    built = subprocess.run(
        [compiler, '-std=c++17', '-Wall', *(f'-isystem{include}' for include in folders),
         str(folder / 'main.cpp'), '-o', str(program)],
        capture_output=True, text=True, timeout=240, check=False,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    assert not built.stderr
    output = subprocess.run(
        [str(program), str(folder / 'data')], capture_output=True, text=True, check=True
    ).stdout
    return np.array([line.split() for line in output.splitlines()])


def columns(table: np.ndarray, *names: str) -> np.ndarray:
    return np.stack([table[name] for name in names], axis=1)


@pytest.mark.parametrize('refinement', [False, True])
def test_keypoints_are_read_back(tmp_path: Path, refinement: bool) -> None:
    table = keypoint_table(with_refinement(tracked()) if refinement else tracked())
    assert ('refined' in (table.dtype.names or ())) == refinement
    rows = printed(tmp_path, 'keypoints_reader.hpp', PRINT_KEYPOINTS, table).astype(float)
    plain = columns(table, 'x', 'y', 'score', 'set', 'age', 'track_id')
    expected = np.concatenate([plain, table['descriptor'][:, :DIM]], axis=1)
    np.testing.assert_allclose(rows, expected, rtol=1e-7)


@pytest.mark.parametrize('refinement', [False, True])
def test_correspondences_are_read_back(tmp_path: Path, refinement: bool) -> None:
    table = correspondence_table(with_refinement(tracked()) if refinement else tracked())
    assert ('refined' in (table.dtype.names or ())) == refinement
    assert len(table) == 7
    assert 0 < table['inlier'].sum() < 7
    rows = printed(tmp_path, 'correspondences_reader.hpp', PRINT_CORRESPONDENCES, table)
    expected = columns(
        table, 'x', 'y', 'x_prev', 'y_prev', 'similarity', 'set', 'track_id', 'inlier', 'index',
        'index_prev',
    )
    np.testing.assert_allclose(rows[:, :-1].astype(float), expected, rtol=1e-7)
    assert set(rows[:, -1]) == {'1700000000123456789'}  # too long for a float


def test_readme_shows_the_reader_as_it_is() -> None:
    body = (EXAMPLES / 'keypoints_reader.hpp').read_text().split('#pragma once', 1)[1].strip()
    assert body in (ROOT / 'README.md').read_text()
