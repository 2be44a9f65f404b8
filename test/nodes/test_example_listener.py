"""The listeners of the documentation, run as a reader of it would."""

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from mdnet_ros import Features, FrameTracker
from mdnet_ros.nodes.messages import correspondences_message, keypoints_message

EXAMPLES = Path(__file__).resolve().parents[2] / 'docs' / 'examples'


def tracked():
    """The third frame of two points, the second of which is an outlier."""
    tracker = FrameTracker(verification='none')
    for step in range(3):
        frame = tracker.update(
            Features(
                np.array([[10.25, 20.5], [30.0, 40.0]], np.float32) + [6 * step, -3 * step],
                np.ones(2, np.float32), np.array([0, 1], np.int32),
                np.eye(2, 8, dtype=np.float32), (64, 48), 2,
            ),
            (step + 1) * 10**8,
        )
    frame.correspondences.inlier[1] = False
    return frame


@pytest.mark.parametrize(
    ('script', 'topic', 'message_of', 'expected'),
    [
        ('keypoints_listener.py', 'keypoints', keypoints_message,
         r'2 keypoints; track 0 is at \(22\.2, 14\.5\) and was seen 3 times'),
        ('correspondences_listener.py', 'correspondences', correspondences_message,
         r'1 of 2 correspondences agree; the image moves by \(60, -30\) pixels per second'),
    ],
    ids=['keypoints', 'correspondences'],
)
def test_listeners_print_what_was_published(
    environment, tmp_path, script, topic, message_of, expected
):
    header = Header(frame_id='camera')
    header.stamp.nanosec = 3 * 10**8
    message = message_of(tracked(), header)
    context = rclpy.Context()
    rclpy.init(context=context)
    log = tmp_path / 'listener.log'
    with log.open('wb') as out:
        listener = subprocess.Popen(
            [sys.executable, str(EXAMPLES / script), '--ros-args', '-r', '__ns:=/example'],
            stdout=out, stderr=subprocess.STDOUT, env=environment,
        )
    try:
        node = rclpy.create_node('publisher', namespace='example', context=context)
        publisher = node.create_publisher(PointCloud2, topic, 5)
        end = time.monotonic() + 60
        while 'INFO' not in log.read_text(errors='replace'):
            assert listener.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            publisher.publish(message)
            time.sleep(0.1)
        assert re.search(expected, log.read_text())
        node.destroy_node()
    finally:
        listener.terminate()
        listener.wait(30)
        rclpy.shutdown(context=context)
