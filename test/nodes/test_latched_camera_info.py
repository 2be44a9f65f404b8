"""A camera_info is received whether its publisher latches it (transient local) or not."""

import numpy as np
import pytest

pytest.importorskip('rclpy')

from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import CameraInfo, PointCloud  # noqa: E402

from mdnet_ros.nodes.events import PublisherEventCallbacks  # noqa: E402

WIDTH, HEIGHT = 160, 120
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def calibration(focal):
    k = np.array([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1.0]])
    return CameraInfo(
        width=WIDTH, height=HEIGHT, distortion_model='plumb_bob', d=[0.0] * 5,
        k=k.ravel().tolist(), r=np.eye(3).ravel().tolist(),
        p=np.column_stack([k, np.zeros(3)]).ravel().tolist(),
    )  # fmt: skip


def focal_length(tracks):
    """The focal length with which the tracks of a message were normalised."""
    rays = np.array([point.x for point in tracks.points])
    return np.polyfit(rays, np.array(tracks.channels[1].values), 1)[0]


def test_latched_or_not_it_is_received_and_no_publisher_warns(start_tracker, connect):
    client = connect(namespace='calibrated')
    node = client.node
    node.destroy_publisher(client.infos)
    client.listen('tracks', PointCloud)
    driver = node.create_publisher(CameraInfo, 'camera_info', LATCHED)
    driver.publish(calibration(100.0))  # once, before there is a tracker

    tracker = start_tracker(namespace='calibrated', vins_layout='mono')
    tracks = client.connect().received['tracks']
    stamp = node.get_clock().now().nanoseconds

    def send():
        nonlocal stamp
        stamp += 10**8
        client.exchange(stamp_ns=stamp)
        return bool(tracks)

    client.spin_until(send, what='tracks with the latched calibration')
    assert focal_length(tracks[-1]) == pytest.approx(100, rel=1e-3)

    # The driver is replaced by one that does not latch: its own log would show each
    # subscription that asks for more than it offers.
    node.destroy_publisher(driver)
    topic = node.resolve_topic_name('camera_info')
    client.spin_until(
        lambda: all(
            info.qos_profile.durability == DurabilityPolicy.VOLATILE
            for info in node.get_subscriptions_info_by_topic(topic)
        ),
        what='the end of the transient local subscription',
    )
    warnings = []
    driver = node.create_publisher(
        CameraInfo, topic, 10,
        event_callbacks=PublisherEventCallbacks(incompatible_qos=warnings.append),
    )

    def replaced():
        driver.publish(calibration(200.0))
        send()
        return abs(focal_length(tracks[-1]) - 200) < 0.2

    client.spin_until(replaced, what='tracks with the new calibration')
    assert warnings == []
    assert 'QoS' not in tracker.log()
