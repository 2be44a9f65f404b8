"""The odometry node of the documentation, fed by the real tracker over DDS, against the truth."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('pycolmap')
pytest.importorskip('poselib')
pytest.importorskip('evo')
pytest.importorskip('skimage')

from nav_msgs.msg import Odometry, Path as PathMessage  # noqa: E402, I001
from sensor_msgs.msg import CameraInfo, PointCloud  # noqa: E402

from mdnet_ros.data.poses import Trajectory, rotation_of_quaternion  # noqa: E402
from mdnet_ros.demo.scene import Scene, SceneSettings  # noqa: E402
from mdnet_ros.evaluation.trajectory_errors import compare_trajectories  # noqa: E402
from mdnet_ros.nodes.messages import stamp_nanoseconds  # noqa: E402

EXAMPLE = Path(__file__).resolve().parents[2] / 'docs' / 'examples' / 'odometry_node.py'
FLIGHT = SceneSettings(
    duration_s=3.0, rate_hz=10, width=320, height=240, exposure_s=0.003, speed=1.5
)
#: From the optical axes of a camera to x forward, y left, z up.
TO_ROS = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])


def trajectory(stamped):
    """Return the Trajectory of (stamp in nanoseconds, geometry_msgs/Pose) pairs."""
    stamps, poses = zip(*stamped, strict=True)
    return Trajectory(
        np.array(stamps, np.int64),
        np.array([rotation_of_quaternion(q.x, q.y, q.z, q.w)
                  for q in (pose.orientation for pose in poses)]),
        np.array([(p.x, p.y, p.z) for p in (pose.position for pose in poses)]),
    )  # fmt: skip


@pytest.mark.parametrize('layout', ['mono', 'fusion'])
def test_the_trajectory_is_the_true_one(environment, start_tracker, connect, tmp_path, layout):
    tracker = start_tracker(
        namespace=layout, weights='md2net-light', vins_layout=layout, max_keypoints=800
    )
    log = tmp_path / 'odometry.log'
    with log.open('wb') as out:
        node = subprocess.Popen(
            [sys.executable, str(EXAMPLE), '--ros-args', '-r', f'__ns:=/{layout}',
             '-p', 'focal_length:=256.0'],
            stdout=out, stderr=subprocess.STDOUT, env=environment,
        )  # fmt: skip
    try:
        scene = Scene(FLIGHT)
        client = connect(namespace=layout)
        for topic, kind in (('odometry', Odometry), ('path', PathMessage), ('tracks', PointCloud)):
            client.listen(topic, kind)
        client.connect()
        client.spin_until(
            lambda: client.node.count_subscribers('tracks') == 2 and 'waiting' in log.read_text(),
            what='the odometry node',
        )
        # Each image whose stamp goes back restarts the tracker. Once the node hears of it, the
        # tracker knows the node's subscriptions, and no tracks are lost.
        back = iter(range(scene.stamp(0) - 10**10, 0, -(10**9)))

        def heard():
            client.exchange(stamp_ns=next(back))
            return 'the tracker restarted' in log.read_text()

        client.spin_until(heard, what='the restart at the odometry node')
        camera = scene.camera
        info = CameraInfo(
            width=camera.width, height=camera.height, distortion_model='plumb_bob',
            d=[0.0] * 5, k=camera.k.ravel().tolist(), r=np.eye(3).ravel().tolist(),
            p=np.column_stack([camera.k, np.zeros(3)]).ravel().tolist(),
        )  # fmt: skip
        odometry, paths = client.received['odometry'], client.received['path']
        for frame in scene:
            info.header = client.header(frame.stamp_ns)
            client.infos.publish(info)
            client.exchange(frame.image, stamp_ns=frame.stamp_ns)
            client.spin_for(0.1)
            if odometry:  # one frame at a time, so that no queue overflows on a busy machine
                client.answer(frame.stamp_ns, 'odometry')
        last = frame.stamp_ns
        client.spin_until(
            lambda: paths and stamp_nanoseconds(paths[-1].header) == last, what='the last path'
        )
        truth = scene.poses()
        online = [(stamp_nanoseconds(m.header), m.pose.pose) for m in odometry]
        poses = paths[-1].poses
        path = [(stamp_nanoseconds(m.header), m.pose) for m in poses]
        for stamped in (online, path):
            assert len(stamped) > 0.7 * FLIGHT.frame_count  # the rest came before the map
            errors = compare_trajectories(trajectory(stamped), truth)
            assert errors.length > 3.0
            assert errors.ate < 0.03 * errors.length
            assert errors.rpe_rotation < 1.0
        # The first camera looks along x of the map, with its x axis to the right.
        np.testing.assert_allclose(trajectory(path).rotations[0], TO_ROS, atol=1e-9)
        message = odometry[-1]
        assert (message.header.frame_id, message.child_frame_id) == ('map', 'camera_optical')

        # The stamps jump back: the tracker restarts, and the node starts a new map.
        told = log.read_text().count('the tracker restarted')
        for index in range(3):
            client.exchange(scene.frame(index).image, stamp_ns=scene.stamp(index) - 10**10)
        end = time.monotonic() + 30
        while log.read_text().count('the tracker restarted') == told:
            assert time.monotonic() < end, log.read_text()
            client.spin_for(0.1)
    finally:
        node.send_signal(signal.SIGINT)
        assert node.wait(30) == 0, log.read_text()
    assert 'Traceback' not in log.read_text()
    tracker.stop()
