"""Reads the tracker's `correspondences` topic in Python and prints how the image moves."""

import contextlib

import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2

from mdnet_ros.nodes.messages import read_cloud, read_correspondences, stamp_nanoseconds


class Listener(Node):
    def __init__(self):
        super().__init__('listener')
        self.create_subscription(PointCloud2, 'correspondences', self.on_correspondences, 5)

    def on_correspondences(self, message):
        links = read_correspondences(message)  # rows, earlier positions and stamps, inlier …
        points = read_cloud(message)  # every field of the message, by name
        good = np.nonzero(links.inlier)[0]
        if len(good):
            now = np.stack([points['x'], points['y']], axis=1)[good]
            seconds = (stamp_nanoseconds(message.header) - links.stamps_prev[good]) * 1e-9
            speed = (now - links.keypoints_prev[good]) / seconds[:, None]
            x, y = np.median(speed, axis=0)
            self.get_logger().info(
                f'{len(good)} of {len(links)} correspondences agree; '
                f'the image moves by ({x:.0f}, {y:.0f}) pixels per second'
            )


if __name__ == '__main__':
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt):
        rclpy.spin(Listener())
