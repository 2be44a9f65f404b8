"""Bags written and read back, and what is said of broken ones."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import Writer

from mdnet_ros.bags.calibration import read_calibration
from mdnet_ros.bags.reader import BagReader
from mdnet_ros.bags.writer import STORAGES, BagWriter
from mdnet_ros.data.poses import Trajectory, quaternion_of_rotation, rotation_of_quaternion
from mdnet_ros.errors import DataError

IMAGE = 'sensor_msgs/msg/Image'
INFO = 'sensor_msgs/msg/CameraInfo'
POSE = 'geometry_msgs/msg/PoseStamped'
ODOMETRY = 'nav_msgs/msg/Odometry'
TRANSFORM = 'geometry_msgs/msg/TransformStamped'


def header(types, stamp_ns, frame_id='camera'):
    time = types['builtin_interfaces/msg/Time'](stamp_ns // 10**9, stamp_ns % 10**9)
    return types['std_msgs/msg/Header'](time, frame_id)


def image(types, stamp_ns, pixels, encoding='mono8'):
    height, width = pixels.shape[:2]
    step = width * pixels.itemsize * (pixels.shape[2] if pixels.ndim == 3 else 1)
    data = np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)
    return types[IMAGE](header(types, stamp_ns), height, width, encoding, 0, step, data)


def camera_info(types, stamp_ns):
    roi = types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    k = np.array([50.0, 0, 20, 0, 51, 15, 0, 0, 1])
    return types[INFO](
        header(types, stamp_ns), 30, 40, 'plumb_bob', np.array([0.1, 0, 0, 0, 0]), k,
        np.eye(3).ravel(), np.zeros(12), 0, 0, roi,
    )  # fmt: skip


def pose(types, x, quaternion=(0.0, 0.0, 0.0, 1.0)):
    return types['geometry_msgs/msg/Pose'](
        types['geometry_msgs/msg/Point'](x, 2.0, 3.0),
        types['geometry_msgs/msg/Quaternion'](*quaternion),
    )


def frames(count=4):
    return np.random.default_rng(1).integers(0, 256, (count, 30, 40), np.uint8)


def write_camera(path, storage='sqlite3', topic='/camera/image_raw', count=4):
    with BagWriter(path, storage) as bag:
        for i, pixels in enumerate(frames(count)):
            stamp = 1_700_000_000_123_456_789 + i
            bag.write(topic, IMAGE, stamp + 5, image(bag.types, stamp, pixels))
            bag.write('/camera/camera_info', INFO, stamp + 5, camera_info(bag.types, stamp))
    return path


@pytest.mark.parametrize('storage', STORAGES)
def test_what_was_written_is_read(tmp_path, storage):
    path = write_camera(tmp_path / 'bag', storage)
    metadata = yaml.safe_load((path / 'metadata.yaml').read_text())
    information = metadata['rosbag2_bagfile_information']
    assert information['version'] == 8
    assert information['storage_identifier'] == storage
    assert (path / information['relative_file_paths'][0]).is_file()
    with BagReader(path) as bag:
        assert bag.counts == {'/camera/camera_info': 4, '/camera/image_raw': 4}
        assert bag.topics['/camera/image_raw'] == IMAGE
        read = list(bag.images())
        info_topic = bag.camera_info_topic('/camera/image_raw')
        camera = read_calibration(bag, '/camera/image_raw', info_topic).camera
        raw = list(bag.raw(['/camera/image_raw']))
    assert [f.stamp_ns for f in read] == [1_700_000_000_123_456_789 + i for i in range(4)]
    assert [m.stamp_ns for m in raw] == [1_700_000_000_123_456_794 + i for i in range(4)]
    assert all((f.image == pixels).all() for f, pixels in zip(read, frames(), strict=True))
    assert read[0].bgr.shape == (30, 40, 3)
    assert read[0].frame_id == 'camera'
    assert (camera.width, camera.height, camera.distortion_model) == (40, 30, 'plumb_bob')
    assert camera.k[1, 2] == 15.0
    assert camera.d[0] == 0.1


@pytest.mark.parametrize('storage', STORAGES)
def test_raw_bytes_survive_a_second_bag(tmp_path, storage):
    path = write_camera(tmp_path / 'bag')
    with BagReader(path) as bag:
        messages = list(bag.raw())
    with BagWriter(tmp_path / 'copy', storage) as copy:
        for m in messages:
            copy.write(m.topic, m.type, m.stamp_ns, m.data)
    with BagReader(tmp_path / 'copy') as bag:
        assert list(bag.raw()) == messages


@pytest.mark.parametrize('pattern', ['*.mcap', '*.db3'])
def test_a_single_file_is_a_bag(tmp_path, pattern):
    path = write_camera(tmp_path / 'bag', 'mcap' if pattern == '*.mcap' else 'sqlite3')
    (file,) = path.glob(pattern)
    with BagReader(file) as bag:
        assert len(list(bag.images())) == 4


def test_a_bag_appears_only_when_complete(tmp_path):
    path = tmp_path / 'bag'
    bag = BagWriter(path)
    with bag:
        bag.write('/image', IMAGE, 0, image(bag.types, 0, frames()[0]))
        assert not path.exists()
    assert [p.name for p in tmp_path.iterdir()] == ['bag']

    def fail_halfway():
        with BagWriter(tmp_path / 'other') as bag:
            bag.write('/image', IMAGE, 0, image(bag.types, 0, frames()[0]))
            raise RuntimeError('halfway')

    with pytest.raises(RuntimeError, match='halfway'):
        fail_halfway()
    assert [p.name for p in tmp_path.iterdir()] == ['bag']


def test_a_bag_is_replaced_only_when_asked(tmp_path):
    path = write_camera(tmp_path / 'bag')
    with pytest.raises(DataError, match='is there already'):
        BagWriter(path)
    with BagWriter(path, 'mcap', overwrite=True) as bag:
        bag.write('/image', IMAGE, 0, image(bag.types, 0, frames()[0]))
    with BagReader(path) as bag:
        assert bag.counts == {'/image': 1}
    assert [p.name for p in tmp_path.iterdir()] == ['bag']
    (tmp_path / 'precious').mkdir()
    with pytest.raises(DataError, match='expected a bag or nothing'):
        BagWriter(tmp_path / 'precious', overwrite=True)


def test_the_image_topic_is_found(tmp_path):
    path = tmp_path / 'bag'
    with BagWriter(path) as bag:
        bag.write('/depth', IMAGE, 0, image(bag.types, 0, np.ones((4, 4), np.float32), '32FC1'))
        bag.write('/left/image', IMAGE, 0, image(bag.types, 0, frames()[0]))
        compressed = bag.types['sensor_msgs/msg/CompressedImage'](
            header(bag.types, 0), 'jpeg', np.zeros(3, np.uint8)
        )
        bag.write('/left/image/compressed', 'sensor_msgs/msg/CompressedImage', 0, compressed)
        bag.write('/left/camera_info', INFO, 0, camera_info(bag.types, 0))
        bag.write('/right/camera_info', INFO, 0, camera_info(bag.types, 0))
    with BagReader(path) as bag:
        assert bag.image_topic() == '/left/image'
        assert bag.camera_info_topic('/left/image/compressed') == '/left/camera_info'
        assert bag.camera_info_topic('/elsewhere/image') is None
        with pytest.raises(DataError, match="no topic '/nope', it has /depth, /left"):
            bag.image_topic('/nope')
        with pytest.raises(DataError, match='CameraInfo, not images'):
            bag.image_topic('/left/camera_info')


def test_several_image_topics_are_listed(tmp_path):
    path = tmp_path / 'bag'
    with BagWriter(path) as bag:
        for topic in ('/left', '/right'):
            bag.write(topic, IMAGE, 0, image(bag.types, 0, frames()[0]))
    with BagReader(path) as bag, pytest.raises(DataError, match='found /left, /right; name one'):
        bag.image_topic()


def test_poses_of_every_type(tmp_path):
    rng = np.random.default_rng(0)
    quaternion = rng.normal(size=4)
    quaternion /= np.linalg.norm(quaternion)
    with BagWriter(tmp_path / 'bag') as bag:
        t = bag.types
        covariance = np.zeros(36)
        for stamp in (30, 10, 20):  # out of order
            h = header(t, stamp, 'world')
            p = pose(t, stamp / 10, quaternion)
            twist = t['geometry_msgs/msg/TwistWithCovariance'](
                t['geometry_msgs/msg/Twist'](
                    t['geometry_msgs/msg/Vector3'](0.0, 0.0, 0.0),
                    t['geometry_msgs/msg/Vector3'](0.0, 0.0, 0.0),
                ),
                covariance,
            )
            with_covariance = t['geometry_msgs/msg/PoseWithCovariance'](p, covariance)
            transform = t['geometry_msgs/msg/Transform'](
                t['geometry_msgs/msg/Vector3'](stamp / 10, 2.0, 3.0), p.orientation
            )
            bag.write('/pose', POSE, stamp, t[POSE](h, p))
            bag.write('/odom', ODOMETRY, stamp, t[ODOMETRY](h, 'camera', with_covariance, twist))
            bag.write('/tf', TRANSFORM, stamp, t[TRANSFORM](h, 'camera', transform))
    with BagReader(tmp_path / 'bag') as bag:
        assert bag.pose_topic() is None  # three: not clear which
        for topic in ('/pose', '/odom', '/tf'):
            track = bag.poses(topic)
            assert track.stamps_ns.tolist() == [10, 20, 30]
            assert track.translations[:, 0].tolist() == [1.0, 2.0, 3.0]
            assert track.frame_id == 'world'
            np.testing.assert_allclose(track.rotations[0] @ track.rotations[0].T, np.eye(3),
                                       atol=1e-12)
            back = np.array(quaternion_of_rotation(track.rotations[2]))
            np.testing.assert_allclose(back * np.sign(quaternion[3]), quaternion, atol=1e-9)


def test_poses_of_two_bodies_on_one_topic_are_refused(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        t = bag.types
        for stamp, body in ((10, 'camera'), (10, 'drone'), (20, 'camera')):
            transform = t['geometry_msgs/msg/Transform'](
                t['geometry_msgs/msg/Vector3'](1.0, 2.0, 3.0),
                t['geometry_msgs/msg/Quaternion'](0.0, 0.0, 0.0, 1.0),
            )
            bag.write(
                '/mocap', TRANSFORM, stamp, t[TRANSFORM](header(t, stamp, 'world'), body, transform)
            )
    with BagReader(tmp_path / 'bag') as bag, pytest.raises(
        DataError, match="poses of one body, got those of 'camera' and 'drone'"
    ):
        bag.poses('/mocap')


def test_poses_between_stamps_are_interpolated():
    turn = np.array([0.0, 0.0, np.sin(0.25), np.cos(0.25)])  # 0.5 rad about z
    track = Trajectory(
        np.array([100, 200, 10**10]),
        np.stack([np.eye(3), rotation_of_quaternion(*turn), np.eye(3)]),
        np.array([[0.0, 0, 0], [4, 0, 0], [0, 0, 0]]),
    )
    between = track.interpolated_at(125)
    np.testing.assert_allclose(between.translation, [1, 0, 0])
    half = rotation_of_quaternion(0, 0, np.sin(0.0625), np.cos(0.0625))
    np.testing.assert_allclose(between.rotation, half, atol=1e-12)
    assert track.interpolated_at(200).translation[0] == 4
    assert track.interpolated_at(99) is None
    assert track.interpolated_at(10**10 + 1) is None
    assert track.interpolated_at(5 * 10**9) is None  # too far from both neighbours


def test_broken_bags_are_named_in_one_line(tmp_path):
    def message(path):
        with pytest.raises(DataError) as caught, BagReader(path) as bag:
            list(bag.raw())
        assert '\n' not in str(caught.value)
        assert path.name in str(caught.value)
        return str(caught.value)

    assert 'no such file' in message(tmp_path / 'absent')
    (tmp_path / 'empty').mkdir()
    message(tmp_path / 'empty')
    (tmp_path / 'text.mcap').write_text('not a bag at all\n' * 50)
    message(tmp_path / 'text.mcap')
    (tmp_path / 'text.db3').write_text('not a bag at all\n' * 50)
    message(tmp_path / 'text.db3')
    for storage in STORAGES:
        path = write_camera(tmp_path / f'cut-{storage}', storage, count=40)
        (file,) = (p for p in path.iterdir() if p.suffix in ('.db3', '.mcap'))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
        message(path)


def test_damaged_messages_are_named_in_one_line(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write('/image', IMAGE, 0, b'\x00\x01\x00\x00' + b'\xff' * 20)
    with BagReader(tmp_path / 'bag') as bag, pytest.raises(DataError, match='cannot be read'):
        list(bag.images('/image'))


def test_writing_says_what_is_wrong(tmp_path):
    with pytest.raises(DataError, match='sqlite3 or mcap'):
        BagWriter(tmp_path / 'bag', 'tape')
    with pytest.raises(DataError, match='unknown message type'), BagWriter(tmp_path / 'a') as bag:
        bag.write('/x', 'my_msgs/msg/Thing', 0, b'')
    with BagWriter(tmp_path / 'b') as bag:
        bag.write('/x', IMAGE, 0, image(bag.types, 0, frames()[0]))
        with pytest.raises(DataError, match='holds'):
            bag.write('/x', INFO, 0, camera_info(bag.types, 0))
    (tmp_path / 'file').write_text('')
    with (
        pytest.raises(DataError, match='cannot be written'),
        BagWriter(tmp_path / 'file' / 'bag'),
    ):
        pass


def test_rosbags_agrees_on_a_bag_with_the_latest_metadata(tmp_path):
    """A bag of metadata version 9, as newer ROS writes it, is read too."""
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(tmp_path / 'nine', version=9) as writer:
        connection = writer.add_connection('/image', IMAGE, typestore=store)
        message = image(store.types, 77, frames()[0])
        writer.write(connection, 77, store.serialize_cdr(message, IMAGE))
    with BagReader(tmp_path / 'nine') as bag:
        (frame,) = bag.images()
    assert frame.stamp_ns == 77
    assert (frame.image == frames()[0]).all()
