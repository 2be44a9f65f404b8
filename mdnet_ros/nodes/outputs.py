"""The tracker's publishers: what is written to which topic, only where somebody listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image, PointCloud, PointCloud2
from std_msgs.msg import Bool, Header

from mdnet_ros.nodes.events import PublisherEventCallbacks
from mdnet_ros.nodes.images import image_message
from mdnet_ros.nodes.inputs import topic_below
from mdnet_ros.nodes.messages import (
    correspondences_message,
    keypoints_message,
    stereo_message,
    tracks_message,
)
from mdnet_ros.tracker.camera import Processed
from mdnet_ros.tracker.drawing import TrackDrawer
from mdnet_ros.tracker.engine import StereoProcessed
from mdnet_ros.tracker.settings import TrackerSettings

#: Topic -> message type and queue length. Reliable, so that a subscriber of either kind matches.
_CAMERA_TOPICS = {
    'correspondences': (PointCloud2, 5),
    'keypoints': (PointCloud2, 5),
    'tracks': (PointCloud, 5),
    'restart': (Bool, 5),
    'overlay': (Image, 1),
}
_PAIR_TOPICS = {
    'stereo': (PointCloud2, 5),
    'tracks': (PointCloud, 5),
    'restart': (Bool, 5),
}


class _Publishers:
    """Publishers of some topics; what nobody listens to is not even built.

    Args:
        node: which owns them.
        camera: name below which they lie; empty: none.
        topics: message type and queue length of each.
    """

    def __init__(
        self, node: LifecycleNode, camera: str, topics: Mapping[str, tuple[type, int]]
    ) -> None:
        self._node = node
        self._profiles = {topic: QoSProfile(depth=depth) for topic, (_, depth) in topics.items()}
        self._publishers = {
            topic: node.create_lifecycle_publisher(
                kind, topic_below(camera, topic), self._profiles[topic],
                event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            for topic, (kind, _) in topics.items()
        }

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()

    def trouble(self) -> str:
        """What is wrong around our topics and what to change, on one line; empty if nothing."""
        for topic, publisher in list(self._publishers.items()):
            if self._node.count_publishers(publisher.topic_name) > 1:
                return (
                    f"another node publishes on '{publisher.topic_name}' too: give each tracker a "
                    'namespace of its own'
                )
            for subscriber in self._node.get_subscriptions_info_by_topic(publisher.topic_name):
                ours, asked = self._profiles[topic], subscriber.qos_profile
                if asked.durability == DurabilityPolicy.TRANSIENT_LOCAL != ours.durability:
                    wish, cure = 'transient local', 'let it ask for volatile'
                elif asked.reliability == ReliabilityPolicy.RELIABLE != ours.reliability:
                    wish, cure = 'reliable', (
                        f'set qos_overrides.{publisher.topic_name}.publisher.reliability:=reliable'
                    )
                else:
                    continue
                return (
                    f"'{subscriber.node_name}' gets nothing of '{publisher.topic_name}': "
                    f'it asks for {wish}, which is not published; {cure}'
                )
        return ''

    def wanted(self, topic: str) -> bool:
        """Whether somebody listens."""
        publisher = self._publishers.get(topic)
        return publisher is not None and publisher.get_subscription_count() > 0

    def __call__(self, topic: str, message: Callable[[], object]) -> None:
        """Publish the message, or its serialised bytes, that a function makes, if one listens."""
        publisher = self._publishers.get(topic)
        if publisher is not None and self.wanted(topic):
            publisher.publish(message())


class Outputs:
    """Publishes what came of a camera's frames.

    Args:
        node: which owns the publishers.
        camera: name below which the topics lie; empty: none.
    """

    def __init__(self, node: LifecycleNode, camera: str = '') -> None:
        self._drawer = TrackDrawer()
        self._last_overlay = -np.inf
        self._publish = _Publishers(node, camera, _CAMERA_TOPICS)

    def destroy(self) -> None:
        """Take the topics away."""
        self._publish.destroy()

    def trouble(self) -> str:
        """What is wrong around our topics and what to change, on one line; empty if nothing."""
        return self._publish.trouble()

    def publish_links(self, done: Processed, header: Header, settings: TrackerSettings) -> None:
        """Publish what odometry waits for: correspondences, restart and tracks.

        Args:
            done: what came of the frame.
            header: of the image, taken over as it is.
            settings: what to publish.
        """
        self._publish('correspondences', lambda: correspondences_message(done.frame, header))
        layout, tracks = settings.vins_layout, done.tracks
        if layout == 'none':
            return
        if done.restart is not None:
            self._publish('restart', lambda: Bool(data=True))
        if tracks is not None:
            self._publish(
                'tracks', lambda: tracks_message(tracks, header, layout, settings.camera_id)
            )

    def publish_keypoints(
        self, done: Processed, header: Header, settings: TrackerSettings
    ) -> None:
        """Publish the keypoints; arguments as of :meth:`publish_links`."""
        self._publish(
            'keypoints',
            lambda: keypoints_message(done.frame, header, settings.descriptor_encoding),
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
        if not settings.overlay or not self._publish.wanted('overlay'):
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
        self._publish(
            'overlay', lambda: image_message(self._drawer(image(), done.frame), header)
        )


class PairOutputs:
    """Publishes what came of a left and a right image together, without a camera's name.

    Args:
        node: which owns the publishers.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._publish = _Publishers(node, '', _PAIR_TOPICS)

    def destroy(self) -> None:
        """Take the topics away."""
        self._publish.destroy()

    def trouble(self) -> str:
        """As :meth:`Outputs.trouble`."""
        return self._publish.trouble()

    def publish(
        self,
        left: Processed,
        right: Processed | None,
        stereo: StereoProcessed | None,
        header: Header,
        settings: TrackerSettings,
    ) -> None:
        """Publish the matches, and the tracks of both in VINS-Fusion's layout.

        Args:
            left: what came of the left image.
            right: of the right one, if it could be used.
            stereo: of both, if both could be used.
            header: of the left image, taken over as it is.
            settings: what to publish.
        """
        if stereo is not None and right is not None:
            self._publish(
                'stereo', lambda: stereo_message(left.frame, right.frame, stereo.matches, header)
            )
        if settings.vins_layout != 'fusion':
            return
        if left.restart is not None:
            self._publish('restart', lambda: Bool(data=True))
        if (tracks := left.tracks) is not None:
            others = stereo.right_tracks if stereo is not None else None
            self._publish(
                'tracks', lambda: tracks_message(tracks, header, 'fusion', right=others)
            )
