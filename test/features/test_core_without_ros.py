"""The core works where ROS is not installed, and never asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


