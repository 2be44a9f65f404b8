"""The tracker's publishers: what is written to which topic, only where somebody listens."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image, PointCloud, PointCloud2
from std_msgs.msg import Bool, Header

from mdnet_ros.drawing import TrackDrawer
from mdnet_ros.nodes.engine import Processed
from mdnet_ros.nodes.images import image_message
from mdnet_ros.nodes.messages import (
    correspondences_message,
    keypoints_message,
    tracks_message,
)
from mdnet_ros.nodes.settings import TrackerSettings

#: Topic -> message type and queue length. Reliable, so that a subscriber of either kind matches.
_TOPICS = {
    'correspondences': (PointCloud2, 5),
    'keypoints': (PointCloud2, 5),
    'tracks': (PointCloud, 5),
    'restart': (Bool, 5),
    'overlay': (Image, 1),
}


class Outputs:
    """Publishes what came of a frame.

    Args:
        node: which owns the publishers.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._drawer = TrackDrawer()
        self._last_overlay = -np.inf
        self._publishers = {
            topic: node.create_lifecycle_publisher(
                kind, topic, QoSProfile(depth=depth),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            for topic, (kind, depth) in _TOPICS.items()
        }

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()

    def publish(self, done: Processed, header: Header, settings: TrackerSettings) -> None:
        """Publish all but the overlay.

        Args:
            done: what came of the frame.
            header: of the image, taken over as it is.
            settings: what to publish.
        """
        if self._wanted('correspondences'):
            self._publish('correspondences', correspondences_message(done.frame, header))
        if self._wanted('keypoints'):
            self._publish(
                'keypoints', keypoints_message(done.frame, header, settings.descriptor_encoding)
            )
        if settings.vins_layout == 'none':
            return
        if done.restart is not None:
            self._publish('restart', Bool(data=True))
        if done.tracks is not None and self._wanted('tracks'):
            self._publish(
                'tracks',
                tracks_message(done.tracks, header, settings.vins_layout, settings.camera_id),
            )

    def publish_overlay(
        self,
        done: Processed,
        header: Header,
        settings: TrackerSettings,
        image: Callable[[], np.ndarray],
    ) -> None:
        """Draw and publish the overlay if it is wanted and due.

        Args:
            done: what came of the frame.
            header: of the image.
            settings: how to draw.
            image: gives the (H, W, 3) uint8 BGR image; called only if it is drawn on.
        """
        if not settings.overlay or not self._wanted('overlay'):
            self._drawer.reset()
            return
        self._drawer.length = settings.overlay_trail
        self._drawer.colour_by = settings.overlay_colour_by
        if done.restart is not None:
            self._drawer.reset()
        now = time.monotonic()
        rate = settings.overlay_max_rate
        if rate and now - self._last_overlay < 1.0 / rate:
            self._drawer.update(done.frame)  # the trails go on
            return
        self._last_overlay = now
        self._publish('overlay', image_message(self._drawer(image(), done.frame), header))

    def _wanted(self, topic: str) -> bool:
        publisher = self._publishers.get(topic)
        return publisher is not None and publisher.get_subscription_count() > 0

    def _publish(self, topic: str, message: object) -> None:
        publisher = self._publishers.get(topic)
        if publisher is not None:
            publisher.publish(message)
