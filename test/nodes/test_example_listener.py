"""The listener of the documentation, run as a reader of it would."""

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from mdnet_ros import Features, FrameTracker
from mdnet_ros.nodes.messages import keypoints_message

LISTENER = Path(__file__).resolve().parents[2] / 'docs' / 'examples' / 'keypoints_listener.py'


def test_listener_prints_the_longest_track(environment, tmp_path):
    features = Features(
        np.array([[10.25, 20.5], [30.0, 40.0]], np.float32), np.ones(2, np.float32),
        np.array([0, 1], np.int32), np.eye(2, 8, dtype=np.float32), (64, 48), 2,
    )
    tracker = FrameTracker(verification='none')
    for stamp in (1, 2, 3):
        frame = tracker.update(features, stamp)
    context = rclpy.Context()
    rclpy.init(context=context)
    log = tmp_path / 'listener.log'
    with log.open('wb') as out:
        listener = subprocess.Popen(
            [sys.executable, str(LISTENER), '--ros-args', '-r', '__ns:=/example'],
            stdout=out, stderr=subprocess.STDOUT, env=environment,
        )
    try:
        node = rclpy.create_node('publisher', namespace='example', context=context)
        publisher = node.create_publisher(PointCloud2, 'keypoints', 5)
        message = keypoints_message(frame, Header(frame_id='camera'))
        end = time.monotonic() + 60
        while 'keypoints;' not in log.read_text(errors='replace'):
            assert listener.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            publisher.publish(message)
            time.sleep(0.1)
        assert re.search(
            r'2 keypoints; track 0 is at \(10\.2, 20\.5\) and was seen 3 times', log.read_text()
        )
        node.destroy_node()
    finally:
        listener.terminate()
        listener.wait(30)
        rclpy.shutdown(context=context)
