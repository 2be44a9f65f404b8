"""The tracker's subscriptions to one camera, and why nothing comes in on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mdnet_ros.nodes.events import SubscriptionEventCallbacks
from mdnet_ros.nodes.executors import QuickGroup
from mdnet_ros.tracker.settings import TrackerSettings

_IMAGE, _COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'


def topic_below(camera: str, topic: str) -> str:
    """The relative name of a topic of a camera; a camera without a name has it as it is."""
    return f'{camera}/{topic}' if camera else topic


class Inputs:
    """Subscribes to a camera.

    Args:
        node: which owns the subscriptions.
        settings: transport and quality of service.
        camera: its name, below which the topics lie; empty: none.
        on_image: takes each image message.
        on_camera_info: takes each calibration.
        on_mask: takes each region of interest; the last one published before is sent again.
        on_lost: takes how many images were published but never came: the middleware's sequence
            numbers tell, where there is one publisher and the distribution hands them out.
        report: takes one line on trouble with the subscription, as soon as it is known.
    """

    def __init__(
        self,
        node: Node,
        settings: TrackerSettings,
        camera: str,
        on_image: Callable[[Any], None],
        on_camera_info: Callable[[CameraInfo], None],
        on_mask: Callable[[Image], None],
        on_lost: Callable[[int], None],
        report: Callable[[str], None],
    ) -> None:
        self._node = node
        self._on_lost = on_lost
        self._report = report
        self._mismatch = ''
        self._compressed = settings.image_transport == 'compressed'
        self._image = topic_below(camera, 'image')
        self._mask = topic_below(camera, 'mask')
        base = node.resolve_topic_name(self._image)
        #: The topic images are expected on.
        self.topic = f'{base}/compressed' if self._compressed else base
        self.topic = node.resolve_topic_name(self.topic)
        self._asked = settings.qos_reliability
        reliability = (
            ReliabilityPolicy.RELIABLE if self._asked == 'reliable'
            else ReliabilityPolicy.BEST_EFFORT
        )
        self._on_image = on_image
        take: Any = self._take  # rclpy's annotation forgets callbacks that take the message's info
        self._sequence: int | None = None
        # A slow parameter or service callback must not hold images up.
        self._subscriptions = [
            node.create_subscription(
                CompressedImage if self._compressed else Image, self.topic, take,
                QoSProfile(depth=settings.qos_depth, reliability=reliability),
                callback_group=QuickGroup(),
                event_callbacks=SubscriptionEventCallbacks(
                    incompatible_qos=self._incompatible, use_default_callbacks=False
                ),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            ),
            node.create_subscription(
                CameraInfo, topic_below(camera, 'camera_info'), on_camera_info,
                QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
                callback_group=QuickGroup(),
                event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            ),
            node.create_subscription(
                Image, self._mask, on_mask,
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

    def destroy(self) -> None:
        """End the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def trouble(self) -> str:
        """Why no images come in and what to change, on one line; empty if nothing is found."""
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

    def _take(self, message: Any, info: Any) -> None:
        sequence, last = info.get('publication_sequence_number'), self._sequence
        self._sequence = sequence
        if sequence is not None and last is not None and sequence > last + 1 and (
            self._node.count_publishers(self.topic) == 1
        ):
            self._on_lost(sequence - last - 1)
        self._on_image(message)

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
        self._report(self._mismatch)

    def _incompatible_mask(self, event: Any) -> None:
        topic = self._node.resolve_topic_name(self._mask)
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        self._report(
            f"no mask from a publisher of '{topic}': {policy} differs; publish it reliable and "
            f'transient local (latched), or set qos_overrides.{topic}.subscription.'
            f'{policy.lower()}'
        )
