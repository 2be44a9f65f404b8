"""Tracker processes from start to end: lifecycle, inputs of all kinds, signals, exit codes."""

import signal

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud, PointCloud2
from std_msgs.msg import Bool

from mdnet_ros.nodes.image_conversion import ImageConverter, fill
from mdnet_ros.nodes.messages import read_correspondences, read_tracked, stamp_nanoseconds


def state(client):
    return client.call(GetState, 'tracker/get_state', GetState.Request()).current_state.label


def change(client, transition):
    request = ChangeState.Request(transition=Transition(id=transition))
    return client.call(ChangeState, 'tracker/change_state', request).success


def test_lifecycle_goes_round_twice(start_tracker, connect, weights, tmp_path):
    garbage = tmp_path / 'late.safetensors'
    tracker = start_tracker(namespace='managed', autostart=False, weights=garbage)
    client = connect(namespace='managed')
    assert state(client) == 'unconfigured'
    assert not change(client, Transition.TRANSITION_CONFIGURE)
    assert state(client) == 'unconfigured'
    assert 'no such file' in tracker.log()
    garbage.write_bytes(weights.read_bytes())
    for _ in range(2):
        assert change(client, Transition.TRANSITION_CONFIGURE)
        assert state(client) == 'inactive'
        assert client.images.get_subscription_count() == 0
        assert change(client, Transition.TRANSITION_ACTIVATE)
        client.connect()
        stamp = client.node.get_clock().now().nanoseconds
        client.exchange(stamp_ns=stamp)
        later = client.exchange(stamp_ns=stamp + 50_000_000)  # however long the first one took
        assert len(read_correspondences(later))
        assert change(client, Transition.TRANSITION_DEACTIVATE)
        client.spin_until(lambda: client.images.get_subscription_count() == 0)
        assert change(client, Transition.TRANSITION_CLEANUP)
    assert change(client, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert state(client) == 'finalized'
    assert tracker.stop() == 0
    assert 'Traceback' not in tracker.log()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_signals_end_it_cleanly_while_it_works(start_tracker, connect, number):
    namespace = number.name.lower()
    tracker = start_tracker(namespace=namespace)
    client = connect(namespace=namespace).connect()
    for _ in range(5):
        client.send()
    assert tracker.stop(number) == 0, tracker.log()
    assert 'Traceback' not in tracker.log()
    assert '[ERROR]' not in tracker.log()


def test_a_wrong_start_is_one_line_and_a_code(start_tracker, tmp_path):
    garbage = tmp_path / 'garbage.safetensors'
    garbage.write_bytes(bytes(100))
    cases = {
        'not a valid weights file': start_tracker(namespace='wrong', weights=garbage),
        'for example 1.0': start_tracker(namespace='wrong', score_threshold=1),
    }
    for named, tracker in cases.items():
        assert tracker.wait() == 1
        fatal = [line for line in tracker.log().splitlines() if 'FATAL' in line]
        assert len(fatal) == 1
        assert named in fatal[0]
        assert 'Traceback' not in tracker.log()


def test_compressed_images_are_served_and_broken_ones_survived(start_tracker, connect):
    tracker = start_tracker(namespace='jpeg', image_transport='compressed')
    client = connect(namespace='jpeg', compressed=True)

    def send(data, format, stamp=None):
        message = CompressedImage(header=client.header(stamp), format=format)
        fill(message, data)
        client.images.publish(message)
        return stamp_nanoseconds(message.header)

    encoded = [
        cv2.imencode(suffix, client.picture(i))[1].tobytes()
        for i, suffix in enumerate(['.jpg', '.png', '.jpg'])
    ]

    def answered():
        send(encoded[0], 'jpeg')
        client.spin_for(0.1)
        return client.received['correspondences']

    client.spin_until(answered, what='a first output')
    client.answer(send(encoded[1], 'png'))
    assert len(read_correspondences(client.answer(send(encoded[2], 'rgb8; jpeg compressed bgr8'))))
    send(b'', 'jpeg')
    client.spin_for(0.5)
    send(b'\xff\xd8 no picture', 'jpeg')
    tracker.wait_for_log('frame dropped, bad image')
    client.answer(send(encoded[0], 'jpeg'))


def test_a_mismatch_of_quality_is_told_with_its_cure(start_tracker, connect):
    tracker = start_tracker(namespace='picky', qos_reliability='reliable')
    client = connect(namespace='picky', reliable=False)
    tracker.wait_for_log('/picky/image.*RELIABILITY.*qos_reliability:=best_effort')
    client.listen('/diagnostics', DiagnosticArray)

    def told():
        client.send()
        client.spin_for(0.1)
        return any(
            'qos_reliability:=best_effort' in status.message
            for array in client.received['/diagnostics']
            for status in array.status
            if status.name.startswith('picky')
        )

    client.spin_until(told, what='the mismatch in diagnostics')


def test_a_wrong_topic_and_a_wrong_type_are_told_with_their_cure(start_tracker, connect):
    client = connect(namespace='elsewhere')  # publishes /elsewhere/image
    client.node.create_publisher(PointCloud, '/typed/image', 1)
    lost = start_tracker(namespace='nowhere')
    typed = start_tracker(namespace='typed')
    lost.wait_for_log("no publisher on '/nowhere/image'.*image:=/elsewhere/image")
    typed.wait_for_log("'/typed/image' carries sensor_msgs/msg/PointCloud, expected .*Image")


def test_tracks_for_vins_and_an_overlay(start_tracker, connect):
    # A long gap allowed: only the stamps of the restart below jump further.
    start_tracker(
        namespace='vins', vins_layout='fusion', camera_id=1, restart_after=5.0,
        verification='none',
    )
    client = connect(namespace='vins')
    client.listen('tracks', PointCloud)
    client.listen('restart', Bool)
    client.connect()
    info = CameraInfo(
        width=160, height=120, distortion_model='plumb_bob', d=[0.0] * 5,
        k=[100.0, 0.0, 79.5, 0.0, 100.0, 59.5, 0.0, 0.0, 1.0],
    )
    broken = CameraInfo(width=160, height=120, distortion_model='plumb_bob', k=[float('nan')] * 9)
    client.infos.publish(info)
    client.spin_for(0.3)
    client.infos.publish(broken)  # is refused, the good one is kept
    client.spin_for(0.3)
    start = stamp_nanoseconds(client.header())
    client.exchange(client.picture(0), stamp_ns=start)
    client.exchange(client.picture(1), stamp_ns=start + 10**8)
    tracks = client.exchange(client.picture(2), topic='tracks', stamp_ns=start + 2 * 10**8)
    assert stamp_nanoseconds(tracks.header) == start + 2 * 10**8
    assert len(tracks.channels) == 9
    ids, camera, u, v, vx, vy, *truth = (np.array(c.values) for c in tracks.channels)
    assert len(ids) == len(set(ids.tolist())) == len(tracks.points) > 0
    assert (camera == 1).all()
    assert not np.any(truth)
    x, y, z = np.array([(p.x, p.y, p.z) for p in tracks.points]).T
    assert (z == 1).all()
    np.testing.assert_allclose(x, (u - 79.5) / 100, atol=1e-5)
    np.testing.assert_allclose(y, (v - 59.5) / 100, atol=1e-5)
    assert np.median(vx) == pytest.approx(-0.02 / 0.1, abs=0.03)
    assert np.median(vy) == pytest.approx(0.0, abs=0.03)
    client.clear()
    client.exchange(stamp_ns=start + 20 * 10**9)
    client.spin_until(lambda: client.received['restart'], what='the restart')
    assert not client.received['tracks']

    client.listen('overlay', Image)
    client.spin_until(
        lambda: client.node.count_publishers('overlay'), what='the overlay topic'
    )

    def drawn():
        client.send()
        client.spin_for(0.1)
        return client.received['overlay']

    client.spin_until(drawn, what='an overlay')
    client.spin_for(0.5)
    client.clear()
    picture = client.picture()
    overlay = client.exchange(picture, topic='overlay')
    assert (overlay.encoding, overlay.width, overlay.height) == ('bgr8', 160, 120)
    changed = (ImageConverter().bgr(overlay) != picture).any(axis=2)
    assert 0.01 < changed.mean() < 0.95


def test_two_trackers_in_one_domain_do_not_mix(start_tracker, connect):
    for name in ('left', 'right'):
        start_tracker(namespace=name)
    clients = [connect(namespace=name) for name in ('left', 'right')]
    for client in clients:
        client.connect()
    left = clients[0].exchange(frame_id='left')
    right = clients[1].exchange(frame_id='right')
    assert (left.header.frame_id, right.header.frame_id) == ('left', 'right')
    clients[0].clear()
    clients[1].exchange()
    clients[0].spin_for(0.3)
    assert not clients[0].received['correspondences']


def test_an_output_read_as_a_frame_is_what_the_library_gives(start_tracker, connect, weights):
    from mdnet_ros import FrameTracker, MDNetExtractor

    start_tracker(namespace='same')
    client = connect(namespace='same').connect()
    extractor = MDNetExtractor(weights, 'cpu', 256, precision='fp32')
    reference = FrameTracker(exact=True)
    start = stamp_nanoseconds(client.header()) + 10**10  # a jump: both begin anew
    for index in range(3):
        stamp = start + index * 10**8
        client.send(client.picture(index), stamp_ns=stamp)
        got = read_tracked(client.answer(stamp, 'keypoints'), client.answer(stamp), (160, 120))
        expected = reference.update(
            extractor(cv2.cvtColor(client.picture(index), cv2.COLOR_BGR2GRAY)), stamp
        )
        np.testing.assert_allclose(got.features.keypoints, expected.features.keypoints, atol=1e-3)
        np.testing.assert_array_equal(got.ages, expected.ages)
        np.testing.assert_array_equal(
            got.correspondences.indices_prev, expected.correspondences.indices_prev
        )


def test_what_is_wrong_around_its_outputs_is_told(start_tracker, connect):
    tracker = start_tracker(namespace='asked')
    client = connect(namespace='asked')
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    subscription = client.node.create_subscription(
        PointCloud2, 'keypoints', client.received['keypoints'].append, latched
    )
    tracker.wait_for_log(
        rf"'{client.node.get_name()}' gets nothing of '/asked/keypoints': it asks for transient "
        r'local, which is not published; let it ask for volatile'
    )
    client.node.destroy_subscription(subscription)
    other = client.node.create_publisher(PointCloud2, 'correspondences', 1)
    tracker.wait_for_log(r"another node publishes on '/asked/correspondences' too: give each")
    client.node.destroy_publisher(other)
