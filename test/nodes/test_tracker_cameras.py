"""One tracker process with a stereo pair over DDS: both sides, their matches, and what is lost."""

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud, PointCloud2

from mdnet_ros.nodes.image_conversion import image_message
from mdnet_ros.nodes.messages import read_cloud, read_tracked, stamp_nanoseconds

WIDTH, HEIGHT, FOCAL, BASELINE = 160, 120, 200.0, 0.1
DISPARITY = 12
STEP = 50_000_000


def latched():
    return QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Rig:
    """Two cameras side by side that look at a picture, and a listener."""

    def __init__(self, connect):
        self.sides = connect(namespace='rig/left'), connect(namespace='rig/right')
        self.left, self.right = self.sides
        self.left.listen('/rig/stereo', PointCloud2)
        self.left.listen('/rig/tracks', PointCloud)
        self.left.listen('/diagnostics', DiagnosticArray)
        self.stamp = self.left.node.get_clock().now().nanoseconds
        self.index = 0
        self.masks = self.left.node.create_publisher(Image, 'mask', latched())

    def views(self):
        """The next left and right image: the right one sees all DISPARITY pixels further left."""
        self.index += 1
        x = 2 * (self.index % 40)
        picture = self.left._picture[100 : 100 + HEIGHT]
        return [np.ascontiguousarray(picture[:, a : a + WIDTH]) for a in (x, x + DISPARITY)]

    def calibrate(self):
        """Publish camera_info on both sides."""
        for client, shift in zip(self.sides, (0.0, -FOCAL * BASELINE), strict=True):
            info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model='plumb_bob')
            info.k = [FOCAL, 0.0, 80.0, 0.0, FOCAL, 60.0, 0.0, 0.0, 1.0]
            info.p = [FOCAL, 0.0, 80.0, shift, 0.0, FOCAL, 60.0, 0.0, 0.0, 0.0, 1.0, 0.0]
            info.r = np.eye(3).ravel().tolist()
            info.d = [0.0] * 5
            client.infos.publish(info)

    def send(self, later_ns=0, **right):
        """Publish a pair; returns the left stamp. ``right`` goes to the right image."""
        self.stamp += STEP
        left_view, right_view = self.views()
        self.left.send(left_view, stamp_ns=self.stamp, frame_id='left_optical')
        self.right.send(right_view, stamp_ns=self.stamp + later_ns, **right)
        return self.stamp

    def answer(self, stamp, topic, side=0):
        return self.sides[side].answer(stamp, topic)

    def connect(self):
        """Send until everything has come back once."""
        topics = [(c, t) for c in self.sides for t in ('keypoints', 'correspondences')]
        topics += [(self.left, '/rig/stereo'), (self.left, '/rig/tracks')]

        def probe():
            self.calibrate()
            self.send()
            for client in self.sides:
                client.spin_for(0.1)
            # Tracks need the left camera's calibration alone, disparities both.
            stereo = self.left.received['/rig/stereo']
            return all(client.received[topic] for client, topic in topics) and (
                np.isfinite(read_cloud(stereo[-1])['disparity']).all()
            )

        self.left.spin_until(probe, what='a first output of everything')
        self.settle()
        return self

    def settle(self):
        """Forget what came, and begin at the picture's left edge."""
        self.index = 0
        for client in self.sides:
            client.spin_for(0.3)
            client.clear()

    def diagnostics(self):
        """The next status of each camera."""
        self.left.received['/diagnostics'].clear()
        self.left.spin_until(lambda: self.left.received['/diagnostics'], what='diagnostics')
        return {
            status.name.split(': ')[1]: status
            for status in self.left.received['/diagnostics'][-1].status
        }

    def status(self):
        """The values of each camera, knowing what was answered before."""
        self.left.spin_for(0.5)
        return {
            camera: {value.key: value.value for value in status.values}
            for camera, status in self.diagnostics().items()
        }

    def set(self, name, value):
        value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
        request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])
        result = self.left.call(SetParameters, '/rig/tracker/set_parameters', request).results[0]
        assert result.successful, result.reason


@pytest.fixture(scope='module')
def process(start_shared):
    return start_shared(namespace='rig', cameras='left,right', stereo=True, vins_layout='fusion',
                        min_similarity=0.8, max_error=1.0)


@pytest.fixture(scope='module')
def rig(process, connect):
    return Rig(connect).connect()


def dropped(before, after, camera, cause):
    key = f'dropped: {cause}'
    return int(after[camera].get(key, 0)) - int(before[camera].get(key, 0))


def test_each_camera_has_its_own_tracks(rig):
    for side, name in enumerate(('left', 'right')):
        rig.answer(rig.send(), 'keypoints', side)
        stamp = rig.send(frame_id='right_optical')
        keypoints = rig.answer(stamp, 'keypoints', side)
        assert keypoints.header.frame_id == f'{name}_optical'
        last = read_tracked(keypoints, rig.answer(stamp, 'correspondences', side))
        assert (last.ages > 0).sum() > 20
        links = last.correspondences
        moves = last.features.keypoints[links.indices] - links.keypoints_prev
        np.testing.assert_allclose(np.median(moves, axis=0), [-2, 0], atol=0.2)
        rig.settle()


def test_left_and_right_are_matched_with_the_disparity_they_have(rig):
    stamp = rig.send()
    message = rig.answer(stamp, '/rig/stereo')
    assert message.header.frame_id == 'left_optical'
    table = read_cloud(message)
    sides = [
        read_tracked(rig.answer(stamp, 'keypoints', i), rig.answer(stamp, 'correspondences', i))
        for i in (0, 1)
    ]
    inlier = table['inlier'] == 1
    assert inlier.sum() > 30
    np.testing.assert_allclose(np.median(table['disparity'][inlier]), DISPARITY, atol=0.1)
    assert np.abs(table['y'] - table['y_right'])[inlier].max() <= 1.0
    np.testing.assert_allclose(
        table['depth'][inlier], FOCAL * BASELINE / table['disparity'][inlier], rtol=1e-4
    )
    left, right = (side.features for side in sides)
    np.testing.assert_array_equal(
        np.stack([table['x'], table['y']], 1), left.keypoints[table['index']]
    )
    np.testing.assert_array_equal(
        np.stack([table['x_right'], table['y_right']], 1), right.keypoints[table['index_right']]
    )
    np.testing.assert_array_equal(table['track_id'], sides[0].track_ids[table['index']])
    np.testing.assert_array_equal(table['set'], right.sets[table['index_right']])
    assert len(np.unique(table['index_right'])) == len(table)
    assert int(rig.status()['left']['stereo inliers']) > 30
    assert rig.status()['left']['stereo check'] == 'calibrated'


def test_vins_fusion_finds_both_cameras_under_one_id(rig):
    for _ in range(3):
        stamp = rig.send()
        message = rig.answer(stamp, '/rig/tracks')
    assert [c.name for c in message.channels][:2] == ['feature_id', 'camera_id']
    assert len(message.channels) == 9
    assert all(p.z == 1 for p in message.points)
    columns = np.array([c.values for c in message.channels])
    seen = {}
    for row, (track, camera, u, v) in enumerate(columns[:4].T):
        point = message.points[row]
        np.testing.assert_allclose([point.x, point.y], [(u - 80) / FOCAL, (v - 60) / FOCAL],
                                   atol=1e-5)
        seen.setdefault(track, []).append((camera, u))
    pairs = [both for both in seen.values() if len(both) == 2]
    assert len(pairs) > 20
    assert {tuple(camera for camera, _ in both) for both in seen.values()} <= {(0, 1), (0,)}
    np.testing.assert_allclose(
        np.median([left - right for (_, left), (_, right) in pairs]), DISPARITY, atol=0.1
    )
    velocity = columns[4][columns[1] == 1]
    expected = -2 / FOCAL / (STEP * 1e-9)
    np.testing.assert_allclose(np.median(velocity[velocity != 0]), expected, rtol=0.1)


def test_an_image_without_its_partner_is_dropped_and_counted(rig, process):
    rig.answer(rig.send(), '/rig/stereo')
    before = rig.status()
    rig.stamp += STEP
    rig.left.send(rig.views()[0], stamp_ns=rig.stamp)  # the right camera missed this one
    alone = rig.stamp
    rig.answer(rig.send(), '/rig/stereo')
    after = rig.status()
    assert dropped(before, after, 'left', 'no partner') == 1
    assert dropped(before, after, 'right', 'no partner') == 0
    assert alone not in [stamp_nanoseconds(m.header) for m in rig.left.received['keypoints']]
    assert 'left: frame dropped, no partner: no image of right with the same stamp' in process.log()
    for values in after.values():
        counted = int(values['frames processed']) + int(values['frames dropped'])
        assert counted == int(values['frames received'])


def test_a_camera_that_stays_away_is_named_by_the_others(rig):
    def told():
        rig.stamp += STEP
        rig.left.send(rig.views()[0], stamp_ns=rig.stamp)
        return rig.diagnostics()['left'].message == 'not served: no images of right'

    rig.left.spin_until(told, what='a word on the right camera')
    assert rig.diagnostics()['left'].level == DiagnosticStatus.ERROR
    stamp = rig.send()
    rig.answer(stamp, '/rig/stereo')  # and the pair is served as soon as it is back
    rig.left.spin_until(
        lambda: 'not served' not in rig.diagnostics()['left'].message, what='its return'
    )


def test_stamps_within_a_difference_belong_together(rig):
    rig.set('max_stamp_difference', 0.01)
    stamp = rig.send(later_ns=4_000_000)
    table = read_cloud(rig.answer(stamp, '/rig/stereo'))
    seconds = table['stamp_right_sec'].astype(np.int64)
    assert set(seconds * 10**9 + table['stamp_right_nanosec']) == {stamp + 4_000_000}
    rig.answer(stamp + 4_000_000, 'keypoints', 1)
    rig.set('max_stamp_difference', 0.0)


def test_a_broken_image_of_one_camera_leaves_the_other_served(rig):
    rig.answer(rig.send(), '/rig/stereo')
    before = rig.status()
    stamp = rig.send(encoding='jpeg2000')
    rig.answer(stamp, 'correspondences')
    rig.answer(rig.send(), '/rig/stereo')
    after = rig.status()
    assert dropped(before, after, 'right', 'bad image') == 1
    assert dropped(before, after, 'left', 'no partner') == 0
    assert stamp not in [stamp_nanoseconds(m.header) for m in rig.left.received['/rig/stereo']]


def test_a_mask_as_a_topic_is_for_its_camera_alone(rig):
    mask = np.zeros((60, 80), np.uint8)
    mask[:, 40:] = 255

    def lefts():
        stamp = rig.send()
        return [
            read_cloud(rig.answer(stamp, 'keypoints', side))['x'].min() for side in (0, 1)
        ]

    assert max(lefts()) < 60
    rig.masks.publish(image_message(mask, rig.left.header()))
    rig.left.spin_until(lambda: lefts()[0] > 76, what='the mask')
    assert lefts()[1] < 60
    rig.masks.publish(Image())  # none any more
    rig.left.spin_until(lambda: lefts()[0] < 60, what='the end of the mask')


def test_images_of_different_sizes_are_served(rig):
    stamp = rig.send(height=100, data=rig.views()[1][:100])
    assert read_cloud(rig.answer(stamp, 'keypoints'))['y'].max() > 100
    assert read_cloud(rig.answer(stamp, 'keypoints', 1))['y'].max() < 100
    assert read_cloud(rig.answer(stamp, '/rig/stereo')).dtype.names


def test_a_mask_published_before_the_tracker_is_there_holds(start_tracker, connect):
    client = connect(namespace='early')
    mask = np.zeros((60, 80), np.uint8)
    mask[:, 40:] = 255
    client.node.create_publisher(Image, 'mask', latched()).publish(
        image_message(mask, client.header())
    )
    tracker = start_tracker(namespace='early')
    client.connect()
    assert read_cloud(client.exchange(topic='keypoints'))['x'].min() > 76
    # What cannot be an image is told, and the last good one is kept.
    broken = image_message(mask, client.header())
    broken.step = 3
    client.node.create_publisher(Image, 'mask', latched()).publish(broken)
    client.spin_until(lambda: 'the last good one is kept' in tracker.log(), what='a line on it')
    assert read_cloud(client.exchange(topic='keypoints'))['x'].min() > 76
    # Somebody who does not latch it is told so.
    client.node.create_publisher(Image, 'mask', QoSProfile(depth=1))
    tracker.wait_for_log(r"no mask from a publisher of '/early/mask': DURABILITY differs")
