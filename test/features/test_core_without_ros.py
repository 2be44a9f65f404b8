"""The core works where ROS is not installed, and never asks for it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import mdnet_ros

PACKAGE = Path(mdnet_ros.__file__).parent
ROS = (
    'rclpy', 'rosbag2_py', 'cv_bridge', 'launch', 'launch_ros', 'ament_index_python', 'rosbags',
    'sensor_msgs', 'std_msgs', 'std_srvs', 'geometry_msgs', 'nav_msgs', 'diagnostic_msgs',
    'builtin_interfaces', 'rcl_interfaces', 'lifecycle_msgs', 'message_filters',
)

SCRIPT = """
import sys

class NoRos:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {blocked!r}:
            raise ModuleNotFoundError('blocked: ' + name)

sys.meta_path.insert(0, NoRos())
import numpy as np
from mdnet_ros import FrameTracker, MDNetExtractor, match_mutual_nearest

extract = MDNetExtractor({weights!r}, device='cpu', max_keypoints=200)
image = np.random.default_rng(0).integers(0, 256, (96, 128), np.uint8)
tracker = FrameTracker(verification='none', exact=True)
features = extract(image)
for stamp in (1, 2):
    frame = tracker.update(features, stamp)
assert len(frame.correspondences) == len(features) > 50
assert len(match_mutual_nearest(features, features)) == len(features)
assert not set({blocked!r}) & set(sys.modules)
print('worked')
"""


def test_extract_match_and_track_with_ros_blocked(weights_path: Path) -> None:
    script = SCRIPT.format(blocked=ROS, weights=str(weights_path))
    done = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == 'worked'


def imported(path: Path) -> set[str]:
    """Modules named anywhere in a file, in functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(('.' * node.level) + (node.module or ''))
    return names


def rooms(name: str) -> list[Path]:
    return sorted((PACKAGE / name).rglob('*.py'))


#: Modules that import nothing of ours but errors.
LEAVES = {'mdnet_ros.errors', 'mdnet_ros.files'}


def test_the_core_imports_nothing_of_ros_or_of_other_rooms() -> None:
    assert len(rooms('features')) >= 8
    for path in rooms('features'):
        for name in imported(path):
            assert name.split('.')[0] not in ROS, f'{path.name} imports {name}'
            own = name.startswith('mdnet_ros') and name not in LEAVES
            assert not own or name.startswith('mdnet_ros.features.'), f'{path.name}: {name}'


def test_leaves_import_nothing_of_ours_but_errors() -> None:
    for leaf in LEAVES:
        names = imported(PACKAGE / f'{leaf.rpartition(".")[2]}.py')
        assert {n for n in names if n.startswith('mdnet_ros')} <= {'mdnet_ros.errors'}, leaf


def test_only_the_nodes_import_rclpy() -> None:
    for path in PACKAGE.rglob('*.py'):
        if path.relative_to(PACKAGE).parts[0] != 'nodes':
            assert not any(n.split('.')[0] == 'rclpy' for n in imported(path)), path
