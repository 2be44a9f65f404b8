"""The tracker's subscriptions to one camera, and why no images are received."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any, Protocol

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mdnet_ros.nodes.events import SubscriptionEventCallbacks
from mdnet_ros.nodes.executors import QuickGroup
from mdnet_ros.nodes.node_camera import NodeCamera
from mdnet_ros.nodes.outputs import topic_below
from mdnet_ros.tracker.settings import TrackerSettings

_IMAGE, _COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'


#: Policies of the camera_info subscriptions that ``qos_overrides`` parameters may change.
_OVERRIDABLE = (
    QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)
#: Seconds between two looks for publishers that latch camera_info.
_LOOK_PERIOD = 0.5


class Receiver(Protocol):
    """Handles the messages of the cameras."""

    def on_image(self, camera: NodeCamera, message: Image | CompressedImage) -> None:
        """Handle an image."""
        ...

    def on_camera_info(self, camera: NodeCamera, message: CameraInfo) -> None:
        """Handle a calibration."""
        ...

    def on_mask(self, camera: NodeCamera, message: Image) -> None:
        """Handle a region of interest."""
        ...


class Inputs:
    """Subscribes to the topics of a camera.

    A calibration that was sent before, latched (reliable and transient local), is received too:
    while a publisher of camera_info latches, there is a second subscription that asks for the same.
    It does not exist otherwise, because each publisher that does not latch would log a warning
    about it.

    Images that were published but not received are counted in the camera's statistics, where the
    middleware numbers the messages and there is one publisher.

    Args:
        node: owns the subscriptions.
        settings: transport and quality of service.
        camera: the camera.
        receiver: handles the messages.

    Attributes:
        camera: the camera.
        topic: the topic on which images are expected.
    """

    def __init__(
        self, node: Node, settings: TrackerSettings, camera: NodeCamera, receiver: Receiver
    ) -> None:
        self._node = node
        self.camera = camera
        self._receiver = receiver
        self._mismatch = ''
        self._compressed = settings.image_transport == 'compressed'
        self._image = topic_below(camera.name, 'image')
        self._mask = topic_below(camera.name, 'mask')
        self._info = node.resolve_topic_name(topic_below(camera.name, 'camera_info'))
        base = node.resolve_topic_name(self._image)
        self.topic = node.resolve_topic_name(f'{base}/compressed' if self._compressed else base)
        camera.image_topic = self.topic
        reliability = (
            ReliabilityPolicy.RELIABLE if settings.qos_reliability == 'reliable'
            else ReliabilityPolicy.BEST_EFFORT
        )
        take: Any = self._take  # rclpy's annotation lacks callbacks that take the message's info
        self._sequence: int | None = None
        self._subscriptions = [
            node.create_subscription(
                CompressedImage if self._compressed else Image, self.topic, take,
                QoSProfile(depth=settings.qos_depth, reliability=reliability),
                # A slow parameter or service callback must not delay images.
                callback_group=QuickGroup(),
                event_callbacks=SubscriptionEventCallbacks(
                    incompatible_qos=self._incompatible, use_default_callbacks=False
                ),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            ),
            self._subscribe_to_calibration(
                ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE
            ),
            node.create_subscription(
                Image, self._mask, partial(receiver.on_mask, camera),
                QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
                callback_group=MutuallyExclusiveCallbackGroup(),
                event_callbacks=SubscriptionEventCallbacks(
                    incompatible_qos=self._incompatible_mask, use_default_callbacks=False
                ),
                qos_overriding_options=QoSOverridingOptions(
                    (QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
                ),
            ),
        ]
        self._changing = threading.Lock()
        self._latched: Subscription | None = None
        self._ended = False
        self._look_for_latched()
        self._timer = node.create_timer(
            _LOOK_PERIOD, self._look_for_latched,
            callback_group=MutuallyExclusiveCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    def destroy(self) -> None:
        """End the subscriptions."""
        self._node.destroy_timer(self._timer)
        with self._changing:
            self._ended = True
            if self._latched is not None:
                self._subscriptions.append(self._latched)
                self._latched = None
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def problem(self) -> str:
        """Return why no images are received and what to change, on one line; empty: unknown."""
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        expected = _COMPRESSED if self._compressed else _IMAGE
        types = {info.topic_type for info in publishers}
        if not types:
            return f"no publisher on '{self.topic}': {self._advice()}"
        if expected not in types:
            return (
                f"'{self.topic}' carries {', '.join(sorted(types))}, expected {expected}: "
                f'{self._advice()}'
            )
        return self._mismatch

    def _advice(self) -> str:
        names = self._node.get_topic_names_and_types()
        own = self._node.get_name()
        images = sorted(
            name for name, types in names
            if _IMAGE in types and name != self.topic and not name.endswith('/overlay')
            and self._node.count_publishers(name)
        )
        compressed = sorted(
            name for name, types in names
            if _COMPRESSED in types and name != self.topic and self._node.count_publishers(name)
        )
        if not self._compressed and not images and compressed:
            if f'{self.topic}/compressed' in compressed:
                return 'compressed images are there, set image_transport:=compressed'
            return (
                f'set image_transport:=compressed and remap {self._image} to '
                f"{compressed[0].removesuffix('/compressed')}"
            )
        found = [n.removesuffix('/compressed') for n in compressed] if self._compressed else images
        if found:
            return f"remap it, for example -r {self._image}:={found[0]} (node '{own}')"
        if self._compressed and images:
            return f'raw images are on {images[0]}, set image_transport:=raw'
        return f'start the camera, or remap {self._image} to its topic'

    def _subscribe_to_calibration(
        self,
        reliability: ReliabilityPolicy,
        durability: DurabilityPolicy,
        entity_id: str | None = None,
    ) -> Subscription:
        return self._node.create_subscription(
            CameraInfo, topic_below(self.camera.name, 'camera_info'),
            partial(self._receiver.on_camera_info, self.camera),
            QoSProfile(depth=1, reliability=reliability, durability=durability),
            callback_group=QuickGroup(),
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            qos_overriding_options=QoSOverridingOptions(_OVERRIDABLE, entity_id=entity_id),
        )

    def _look_for_latched(self) -> None:
        """Create or destroy the transient local subscription, following the publishers."""
        # DDS sends what was published before only where both sides are reliable.
        wanted = (ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)
        latched = any(
            (publisher.qos_profile.reliability, publisher.qos_profile.durability) == wanted
            for publisher in self._node.get_publishers_info_by_topic(self._info)
        )
        with self._changing:
            if self._ended or latched == (self._latched is not None):
                return
            if self._latched is None:
                self._latched = self._subscribe_to_calibration(*wanted, 'latched')
            else:
                self._node.destroy_subscription(self._latched)
                self._latched = None

    def _take(self, message: Any, info: Any) -> None:
        sequence, last = info.get('publication_sequence_number'), self._sequence
        self._sequence = sequence
        if sequence is not None and last is not None and sequence > last + 1 and (
            self._node.count_publishers(self.topic) == 1
        ):
            self.camera.diagnostics.lost(sequence - last - 1)
        self._receiver.on_image(self.camera, message)

    def _incompatible(self, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        if policy == 'RELIABILITY':
            advice = (
                'the publisher is best effort, the tracker asks for reliable: '
                'set qos_reliability:=best_effort'
            )
        else:
            advice = f'set qos_overrides.{self.topic}.subscription.{policy.lower()}'
        self._mismatch = f"no images from a publisher of '{self.topic}': {policy} differs; {advice}"
        self.camera.report('subscription', self._mismatch)

    def _incompatible_mask(self, event: Any) -> None:
        topic = self._node.resolve_topic_name(self._mask)
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        self.camera.report(
            'subscription',
            f"no mask from a publisher of '{topic}': {policy} differs; publish it reliable and "
            f'transient local (latched), or set qos_overrides.{topic}.subscription.'
            f'{policy.lower()}',
        )
