"""The C++ reader of the documentation, compiled against the real message headers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mdnet_ros.clouds import cloud_fields, keypoint_table
from mdnet_ros.features.tracking import FrameTracker
from mdnet_ros.features.types import Features

ROOT = Path(__file__).resolve().parents[2]
READER = ROOT / 'docs' / 'examples' / 'keypoints_reader.hpp'
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
  for (const Keypoint & k : read_keypoints(cloud)) {{
    std::printf("%.9g %.9g %.9g %d %d %u", k.x, k.y, k.score, k.set, k.age, k.track_id);
    for (int i = 0; i < {dim}; ++i) std::printf(" %.9g", k.descriptor[i]);
    std::printf("\\n");
  }}
}}
"""


def include_folders() -> list[Path]:
    """Where ROS headers lie: of a sourced ROS, or of the wheels."""
    prefixes = [Path(p) for p in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if p]
    for prefix in [*prefixes, Path(sys.prefix)]:
        include = prefix / 'include'
        if (include / 'sensor_msgs' / 'sensor_msgs' / 'point_cloud2_iterator.hpp').is_file():
            return [include, *(folder for folder in include.iterdir() if folder.is_dir())]
    return []


def test_reader_gives_back_what_was_published(tmp_path: Path) -> None:
    compiler, folders = shutil.which('g++'), include_folders()
    if not compiler or not folders:
        pytest.skip('needs g++ and the C++ headers of sensor_msgs')
    rng = np.random.default_rng(0)
    n, dim = 7, 5
    descriptors = rng.normal(size=(n, dim)).astype(np.float32)
    features = Features(
        rng.uniform(0, 500, (n, 2)).astype(np.float32), rng.random(n).astype(np.float32),
        np.array([0, 0, 0, 1, 1, 1, 1], np.int32), descriptors, (640, 480), 2,
    )
    tracker = FrameTracker(verification='none')
    tracker.update(features, 1)
    frame = tracker.update(features, 2)
    table = keypoint_table(frame)
    (tmp_path / 'data').write_bytes(table.tobytes())
    lines = ['sensor_msgs::msg::PointField field;']
    for f in cloud_fields(table.dtype):
        lines.append(
            f'field.name = "{f.name}"; field.offset = {f.offset}; '
            f'field.datatype = {f.datatype}; field.count = {f.count}; '
            'cloud.fields.push_back(field);'
        )
    (tmp_path / 'main.cpp').write_text(
        MAIN.format(
            reader=READER, width=n, step=table.dtype.itemsize, fields='\n  '.join(lines), dim=dim
        )
    )
    program = tmp_path / 'reader'
    built = subprocess.run(
        [compiler, '-std=c++17', '-Wall', *(f'-isystem{folder}' for folder in folders),
         str(tmp_path / 'main.cpp'), '-o', str(program)],
        capture_output=True, text=True, timeout=240, check=False,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    assert not built.stderr
    printed = subprocess.run(
        [str(program), str(tmp_path / 'data')], capture_output=True, text=True, check=True
    ).stdout
    rows = np.array([[float(v) for v in line.split()] for line in printed.splitlines()])
    expected = np.concatenate(
        [
            np.stack([table[name] for name in ('x', 'y', 'score', 'set', 'age', 'track_id')], 1),
            descriptors,
        ],
        axis=1,
    )
    np.testing.assert_allclose(rows, expected, rtol=1e-7)


def test_readme_shows_the_reader_as_it_is() -> None:
    body = READER.read_text().split('#pragma once', 1)[1].strip()
    assert body in (ROOT / 'README.md').read_text()
