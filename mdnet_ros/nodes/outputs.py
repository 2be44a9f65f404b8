"""The tracker's publishers; a message is built only where somebody subscribes to it."""

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
from mdnet_ros.nodes.image_conversion import image_message
from mdnet_ros.nodes.messages import (
    correspondences_message,
    keypoints_message,
    stereo_message,
    tracks_message,
)
from mdnet_ros.tracker.drawing import TrackDrawer
from mdnet_ros.tracker.job import CameraResult, ImageT, JobResult
from mdnet_ros.tracker.settings import TrackerSettings

#: Topic -> message type and queue length. Reliable publishers match subscribers of either kind.
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


def topic_below(camera: str, topic: str) -> str:
    """Return the relative name of a topic of a camera; a camera without a name adds nothing."""
    return f'{camera}/{topic}' if camera else topic


class _Publishers:
    """Publishers of some topics.

    Args:
        node: owns the publishers.
        camera: namespace of the topics; empty: none.
        topics: message type and queue length of each topic.
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
        """End the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()

    def problem(self) -> str:
        """Return what is wrong with our topics and what to change, on one line; empty: nothing."""
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
        """Return whether somebody subscribes to a topic."""
        publisher = self._publishers.get(topic)
        return publisher is not None and publisher.get_subscription_count() > 0

    def __call__(self, topic: str, message: Callable[[], object]) -> None:
        """Publish what a function builds, a message or its bytes, if somebody subscribes to it."""
        publisher = self._publishers.get(topic)
        if publisher is not None and self.wanted(topic):
            publisher.publish(message())


class Outputs:
    """Publishes the results of a camera's frames.

    Args:
        node: owns the publishers.
        camera: namespace of the topics; empty: none.
    """

    def __init__(self, node: LifecycleNode, camera: str = '') -> None:
        self._drawer = TrackDrawer()
        self._last_overlay = -np.inf
        self._publish = _Publishers(node, camera, _CAMERA_TOPICS)

    def destroy(self) -> None:
        """End the publishers."""
        self._publish.destroy()

    def problem(self) -> str:
        """Return what is wrong with our topics and what to change, on one line; empty: nothing."""
        return self._publish.problem()

    def publish_tracks(
        self, done: CameraResult, header: Header, settings: TrackerSettings
    ) -> None:
        """Publish what odometry waits for: correspondences, restart and tracks.

        Args:
            done: the result for the image.
            header: header of the image; the messages get the same.
            settings: settings of the job.
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
        self, done: CameraResult, header: Header, settings: TrackerSettings
    ) -> None:
        """Publish the keypoints; arguments as for :meth:`publish_tracks`."""
        self._publish(
            'keypoints',
            lambda: keypoints_message(done.frame, header, settings.descriptor_encoding),
        )

    def publish_overlay(
        self,
        done: CameraResult,
        header: Header,
        settings: TrackerSettings,
        image: Callable[[], np.ndarray],
    ) -> None:
        """Draw and publish the overlay if somebody subscribes to it and it is due.

        Args:
            done: the result for the image.
            header: header of the image.
            settings: settings of the job.
            image: returns the (H, W, 3) uint8 BGR image; called only if it is drawn on.
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
            self._drawer.update(done.frame)  # its trails must not miss a frame
            return
        self._last_overlay = now
        self._publish(
            'overlay', lambda: image_message(self._drawer(image(), done.frame), header)
        )


class PairOutputs:
    """Publishes the results of a stereo pair, on topics without a camera's name.

    Args:
        node: owns the publishers.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._publish = _Publishers(node, '', _PAIR_TOPICS)

    def destroy(self) -> None:
        """End the publishers."""
        self._publish.destroy()

    def problem(self) -> str:
        """Return what is wrong with our topics and what to change; see :meth:`Outputs.problem`."""
        return self._publish.problem()

    def publish(self, result: JobResult[ImageT], header: Header) -> None:
        """Publish the matches, and the tracks of both images in VINS-Fusion's layout.

        Args:
            result: the result of a job whose left image (camera 0) could be used.
            header: header of the left image; the messages get the same.
        """
        left, stereo = result.cameras[0], result.stereo
        if stereo is not None:
            right = result.cameras[1]
            self._publish(
                'stereo', lambda: stereo_message(left.frame, right.frame, stereo.matches, header)
            )
        if result.job.configuration.settings.vins_layout != 'fusion':
            return
        if left.restart is not None:
            self._publish('restart', lambda: Bool(data=True))
        if (tracks := left.tracks) is not None:
            others = stereo.right_tracks if stereo is not None else None
            self._publish(
                'tracks', lambda: tracks_message(tracks, header, 'fusion', right=others)
            )
