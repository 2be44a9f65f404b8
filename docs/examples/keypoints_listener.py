"""Reads the tracker's `keypoints` topic in Python and prints each frame's longest track."""

import contextlib

import rclpy
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2

from mdnet_ros.nodes.messages import read_cloud, read_features


class Listener(Node):
    def __init__(self):
        super().__init__('listener')
        self.create_subscription(PointCloud2, 'keypoints', self.on_keypoints, 5)

    def on_keypoints(self, message):
        features = read_features(message)  # keypoints, scores, sets, descriptors as arrays
        points = read_cloud(message)  # every field of the message, by name
        if len(points):
            oldest = points[points['age'].argmax()]
            self.get_logger().info(
                f'{len(features)} keypoints; track {oldest["track_id"]} is at '
                f'({oldest["x"]:.1f}, {oldest["y"]:.1f}) and was seen {oldest["age"] + 1} times'
            )


if __name__ == '__main__':
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt):
        rclpy.spin(Listener())
