"""Output messages through real serialisation and back."""

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import PointCloud, PointCloud2, PointField
from std_msgs.msg import Header

from mdnet_ros.errors import DataError
from mdnet_ros.features.types import Correspondences, Features, TrackedFrame
from mdnet_ros.nodes.messages import (
    correspondences_message,
    keypoints_message,
    read_cloud,
    read_correspondences,
    read_features,
    read_tracked,
    stamp_nanoseconds,
    stereo_message,
    tracks_message,
)
from mdnet_ros.tracker.stereo import StereoMatches
from mdnet_ros.tracker.vins import VinsTracks

STAMP = 1_700_000_000_123_456_789


def header():
    made = Header(frame_id='camera')
    made.stamp.sec, made.stamp.nanosec = STAMP // 10**9, STAMP % 10**9
    return made


def frame(n, m):
    rng = np.random.default_rng(3)
    descriptors = rng.normal(size=(n, 16)).astype(np.float32)
    return TrackedFrame(
        Features(
            rng.uniform(0, 99, (n, 2)).astype(np.float32),
            rng.uniform(0, 1, n).astype(np.float32),
            np.sort(rng.integers(0, 3, n)).astype(np.int32),
            descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True),
            (100, 100),
            3,
        ),
        np.arange(n) + 2**24 + 1,
        rng.integers(0, 5, n).astype(np.int32),
        Correspondences(
            np.arange(m), np.arange(m)[::-1], rng.uniform(0, 99, (m, 2)).astype(np.float32),
            np.full(m, STAMP - 33_333_333), np.ones(m, np.float32), np.arange(m) % 2 == 0,
        ),
        STAMP,
    )


def sent(message):
    return deserialize_message(serialize_message(message), type(message))


@pytest.mark.parametrize(('n', 'm'), [(9, 4), (0, 0)])
def test_a_frame_survives_the_wire(n, m):
    original = frame(n, m)
    keypoints = sent(keypoints_message(original, header()))
    links = sent(correspondences_message(original, header()))
    assert keypoints.header == links.header == header()
    got = read_tracked(keypoints, links, (100, 100))
    assert got.stamp_ns == STAMP
    np.testing.assert_array_equal(got.track_ids, original.track_ids)
    np.testing.assert_array_equal(got.features.keypoints, original.features.keypoints)
    np.testing.assert_array_equal(got.features.descriptors, original.features.descriptors)
    for name in vars(original.correspondences):
        np.testing.assert_array_equal(
            getattr(got.correspondences, name), getattr(original.correspondences, name)
        )
    features = read_features(sent(keypoints_message(original, header(), 'int8')))
    assert len(features) == n


def test_messages_of_different_images_are_not_one_frame():
    other = header()
    other.stamp.nanosec += 1
    with pytest.raises(DataError, match='equal stamps'):
        read_tracked(
            keypoints_message(frame(3, 1), header()), correspondences_message(frame(3, 1), other)
        )


def test_other_point_clouds_are_named():
    message = PointCloud2(
        height=1, width=1, point_step=4, row_step=4, data=[0] * 4,
        fields=[PointField(name='intensity', offset=0, datatype=7, count=1)],
    )
    for read in (read_features, read_correspondences):
        with pytest.raises(DataError, match='missing'):
            read(message)
    message.data = [0]
    with pytest.raises(DataError, match='cannot be read'):
        read_features(message)


@pytest.mark.parametrize(('layout', 'channels'), [('mono', 5), ('fusion', 9)])
def test_tracks_have_the_channels_of_vins(layout, channels):
    tracks = VinsTracks(
        np.array([3, 7]), np.array([[0.1, 0.2], [-0.3, 0.4]]),
        np.array([[10, 20], [30, 40]], np.float32), np.array([[1.0, -1.0], [0.5, 0]]), STAMP,
        np.array([0, 1]),
    )
    message = deserialize_message(tracks_message(tracks, header(), layout, 1), PointCloud)
    assert stamp_nanoseconds(message.header) == STAMP
    assert len(message.channels) == channels
    assert list(message.channels[0].values) == [3, 7]
    assert [p.z for p in message.points] == [1, 1]
    assert message.points[1].x == pytest.approx(-0.3)
    u = message.channels[1 if layout == 'mono' else 2]
    assert list(u.values) == [10, 30]
    if layout == 'fusion':
        assert list(message.channels[1].values) == [1, 1]


def vins_tracks(count, first=0):
    rng = np.random.default_rng(count)
    return VinsTracks(
        np.arange(count) + first, rng.normal(size=(count, 2)),
        rng.uniform(0, 99, (count, 2)).astype(np.float32), rng.normal(size=(count, 2)), STAMP,
        np.arange(count),
    )


@pytest.mark.parametrize('frame_id', ['', 'a', 'ab', 'abc', 'abcd', 'rig/k\N{DEGREE SIGN}mera'])
@pytest.mark.parametrize('count', [0, 1, 50])
def test_tracks_are_serialised_as_ros_does_it(frame_id, count):
    """Strings of all lengths: what follows is aligned anew after each."""
    tracks, where = vins_tracks(count), header()
    where.frame_id = frame_id
    data = tracks_message(tracks, where, 'fusion')
    message = deserialize_message(data, PointCloud)
    assert message.header == where
    np.testing.assert_array_equal(
        np.array([[p.x, p.y, p.z] for p in message.points]).reshape(-1, 3), tracks.points()
    )
    expected = tracks.channels('fusion')
    assert [c.name for c in message.channels] == [name for name, _ in expected]
    for channel, (_, values) in zip(message.channels, expected, strict=True):
        np.testing.assert_array_equal(channel.values, values)
    assert len(data) == len(serialize_message(message))  # nothing is left over at the end


def test_tracks_of_a_pair_have_the_left_camera_first():
    left, right = vins_tracks(5), vins_tracks(3, first=1)
    message = deserialize_message(
        tracks_message(left, header(), 'fusion', right=right), PointCloud
    )
    ids, cameras = (list(channel.values) for channel in message.channels[:2])
    assert ids == [0, 1, 2, 3, 4, 1, 2, 3]
    assert cameras == [0] * 5 + [1] * 3
    assert len(message.points) == 8
    np.testing.assert_allclose(message.channels[2].values[5:], right.pixels[:, 0])


@pytest.mark.parametrize('calibrated', [True, False])
def test_stereo_matches_survive_the_wire(calibrated):
    left, right = frame(6, 2), frame(5, 2)
    matches = StereoMatches(
        np.array([0, 2, 5]), np.array([1, 0, 4]), np.array([0.9, 0.8, 0.7], np.float32),
        np.array([True, False, True]), *(
            np.full((2, 3), np.nan, np.float32) if not calibrated
            else np.array([[12.5, -3, 0.5], [2, np.inf, 50]], np.float32)
        ),
    )
    table = read_cloud(sent(stereo_message(left, right, matches, header())))
    np.testing.assert_array_equal(table['index'], matches.indices)
    np.testing.assert_array_equal(table['index_right'], matches.indices_right)
    np.testing.assert_array_equal(table['x_right'], right.features.keypoints[[1, 0, 4], 0])
    np.testing.assert_array_equal(table['y'], left.features.keypoints[[0, 2, 5], 1])
    np.testing.assert_array_equal(table['track_id'], left.track_ids[[0, 2, 5]])
    np.testing.assert_array_equal(table['inlier'], [1, 0, 1])
    np.testing.assert_array_equal(table['disparity'], matches.disparity)
    np.testing.assert_array_equal(table['depth'], matches.depth)
    seconds, rest = int(table['stamp_right_sec'][0]), int(table['stamp_right_nanosec'][0])
    assert seconds * 10**9 + rest == STAMP
