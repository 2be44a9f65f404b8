"""True poses in a bag: whose they are, and how they become the camera's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mdnet_ros.bags.messages import BagTopics
from mdnet_ros.bags.reader import BagReader
from mdnet_ros.bags.static_transforms import static_transform
from mdnet_ros.bags.writer import BagWriter
from mdnet_ros.data.poses import Pose, quaternion_of_rotation
from mdnet_ros.evaluation.tracks.truth import GroundTruthError, camera_poses

ODOMETRY = 'nav_msgs/msg/Odometry'
TRANSFORM = 'geometry_msgs/msg/TransformStamped'
TF = 'tf2_msgs/msg/TFMessage'
IMAGES = '/camera/image_raw'
STAMPS = [10**18 + i * 10**8 for i in range(5)]
#: x forward in base_link, z forward in the camera (REP 103), which sits on a tilted mast.
BASE_FROM_MAST = Pose(cv2.Rodrigues(np.array([0, 0.3, 0]))[0], np.array([0.1, 0, 0.8]))
MAST_FROM_CAMERA = Pose(np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]]), np.array([0, 0.05, 0.2]))
BASE_FROM_CAMERA = BASE_FROM_MAST @ MAST_FROM_CAMERA


def camera_pose(index):
    return Pose(cv2.Rodrigues(np.array([0.1, -0.2, 0.3]) * index)[0], np.array([index, 2.0, -1]))


class Messages:
    """Messages of a bag that is being written."""

    def __init__(self, bag):
        self.bag, self.types = bag, bag.types

    def header(self, stamp, frame):
        time = self.types['builtin_interfaces/msg/Time'](stamp // 10**9, stamp % 10**9)
        return self.types['std_msgs/msg/Header'](time, frame)

    def numbers(self, kind, values):
        return self.types[f'geometry_msgs/msg/{kind}'](*(float(v) for v in values))

    def transform(self, stamp, parent, child, pose):
        return self.types[TRANSFORM](
            self.header(stamp, parent), child, self.types['geometry_msgs/msg/Transform'](
                self.numbers('Vector3', pose.translation),
                self.numbers('Quaternion', quaternion_of_rotation(pose.rotation)),
            ),
        )

    def odometry(self, stamp, child, pose):
        g = 'geometry_msgs/msg/'
        zero = self.types[g + 'Twist'](*[self.numbers('Vector3', (0, 0, 0))] * 2)
        return self.types[ODOMETRY](
            self.header(stamp, 'odom'), child,
            self.types[g + 'PoseWithCovariance'](self.types[g + 'Pose'](
                self.numbers('Point', pose.translation),
                self.numbers('Quaternion', quaternion_of_rotation(pose.rotation)),
            ), np.zeros(36)),
            self.types[g + 'TwistWithCovariance'](zero, np.zeros(36)),
        )  # fmt: skip

    def tf(self, topic, stamp, *edges):
        transforms = [self.transform(stamp, *edge) for edge in edges]
        self.bag.write(topic, TF, stamp, self.types[TF](transforms))


@pytest.fixture
def write(tmp_path):
    """A function that writes a bag of images with what another one adds."""

    def make(add, frame='camera'):
        with BagWriter(tmp_path / 'bag', overwrite=True) as bag:
            for index, stamp in enumerate(STAMPS):
                BagTopics(bag).image(IMAGES, stamp, frame, np.zeros((32, 32), np.uint8))
                add(Messages(bag), index, stamp)
        return tmp_path / 'bag'

    return make


def base_pose(index):
    return camera_pose(index) @ BASE_FROM_CAMERA.inverse()


def with_odometry(messages, index, stamp, child='base_link'):
    messages.bag.write('/odom', ODOMETRY, stamp, messages.odometry(stamp, child, base_pose(index)))


def with_static_tf(messages, index, stamp):
    with_odometry(messages, index, stamp)
    if index == 0:  # latched: written once, and both ways round
        messages.tf('/tf_static', stamp, ('base_link', 'mast', BASE_FROM_MAST),
                    ('base_link', 'laser', Pose(np.eye(3), np.ones(3))))
        messages.tf('/tf_static', stamp, ('camera', 'mast', MAST_FROM_CAMERA.inverse()))


def assert_are_the_cameras(found):
    assert len(found) == len(STAMPS)
    for index, stamp in enumerate(STAMPS):
        pose, expected = found.interpolated_at(stamp), camera_pose(index)
        np.testing.assert_allclose(pose.rotation, expected.rotation, atol=1e-9)
        np.testing.assert_allclose(pose.translation, expected.translation, atol=1e-9)


def test_odometry_is_truth_only_when_named(write):
    with BagReader(write(with_static_tf)) as bag:
        unnamed = camera_poses(bag, IMAGES)
        assert unnamed.poses is None
        assert unnamed.notes == (
            '/odom: not taken for ground truth unless named by --pose-topic',
        )
        named = camera_poses(bag, IMAGES, '/odom')
        assert named.notes == ()
        assert_are_the_cameras(named.poses)


def test_odometry_of_another_body_is_refused_or_transformed(write):
    with BagReader(write(with_odometry)) as bag:
        with pytest.raises(GroundTruthError, match="of 'base_link', the images of 'camera'"):
            camera_poses(bag, IMAGES, '/odom')
        assert_are_the_cameras(camera_poses(bag, IMAGES, '/odom', BASE_FROM_CAMERA).poses)


def test_odometry_of_the_camera_itself_is_taken_as_it_is(write):
    def add(messages, index, stamp):
        pose = camera_pose(index)
        messages.bag.write('/vio', ODOMETRY, stamp, messages.odometry(stamp, '/camera', pose))

    with BagReader(write(add)) as bag:
        assert_are_the_cameras(camera_poses(bag, IMAGES, '/vio').poses)


def test_transforms_that_ros_1_repeats_on_tf_are_static_and_moving_ones_are_not(write):
    def add(messages, index, stamp):
        with_odometry(messages, index, stamp)
        messages.tf('/tf', stamp, ('base_link', 'mast', BASE_FROM_MAST))
        messages.tf('/tf', stamp, ('mast', 'camera', MAST_FROM_CAMERA),
                    ('odom', 'base_link', base_pose(index)))

    with BagReader(write(add)) as bag:
        assert_are_the_cameras(camera_poses(bag, IMAGES, '/odom').poses)
        assert static_transform(bag, 'camera', 'odom') is None
        assert static_transform(bag, 'camera', 'nowhere') is None


def test_a_marker_that_motion_capture_follows_is_compared_with_the_camera(write):
    def add(messages, index, stamp):
        with_static_tf(messages, index, stamp)
        messages.bag.write('/vicon/robot', TRANSFORM, stamp, messages.transform(
            stamp, 'world', 'marker', base_pose(index)
        ))

    with BagReader(write(add)) as bag:
        found = camera_poses(bag, IMAGES)  # the only measured one; nothing joins the frames
        assert found.poses is None
        assert "are those of 'marker'" in found.notes[0]
        with pytest.raises(GroundTruthError, match="'marker'"):
            camera_poses(bag, IMAGES, '/vicon/robot')
        assert_are_the_cameras(camera_poses(bag, IMAGES, None, BASE_FROM_CAMERA).poses)


def test_poses_that_name_no_body_are_said_to_be_taken_for_the_cameras(write):
    def add(messages, index, stamp):
        BagTopics(messages.bag).pose('/mocap/pose', stamp, 'world', camera_pose(index))
        BagTopics(messages.bag).pose('/goal_pose', stamp, 'map', Pose(np.eye(3), np.zeros(3)))

    with BagReader(write(add)) as bag:
        found = camera_poses(bag, IMAGES)  # a goal is no pose of the robot
        assert_are_the_cameras(found.poses)
        assert "taken for the camera's" in found.notes[0]


def test_a_goal_alone_is_no_ground_truth(write):
    def add(messages, index, stamp):
        BagTopics(messages.bag).pose('/goal_pose', stamp, 'map', camera_pose(index))

    with BagReader(write(add)) as bag:
        assert camera_poses(bag, IMAGES).poses is None


def test_lost_poses_are_left_out_and_counted(write):
    def add(messages, index, stamp):
        pose = camera_pose(index)
        message = messages.odometry(stamp, 'camera', pose)
        if index == 1:
            message.pose.pose.position.x = float('nan')
        if index == 2:
            message.pose.pose.orientation = messages.numbers('Quaternion', (0, 0, 0, 0))
        messages.bag.write('/vio', ODOMETRY, stamp, message)

    with BagReader(write(add)) as bag:
        found = camera_poses(bag, IMAGES, '/vio')
    assert found.poses.stamps_ns.tolist() == [STAMPS[0], *STAMPS[3:]]
    assert found.notes == ("'/vio': 2 poses are not finite and are left out",)


def test_a_topic_that_is_not_there_is_an_error(write):
    with BagReader(write(with_odometry)) as bag:
        with pytest.raises(GroundTruthError, match="no topic '/nope'"):
            camera_poses(bag, IMAGES, '/nope')
        with pytest.raises(GroundTruthError, match='not poses'):
            camera_poses(bag, IMAGES, IMAGES)
