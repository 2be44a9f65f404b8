"""Visual odometry on the tracker's `tracks` topic, as a VIO back end would use it.

Subscribes to `tracks` (sensor_msgs/PointCloud, vins_layout mono or fusion) and `restart`
(std_msgs/Bool). Publishes `odometry` (nav_msgs/Odometry) for every frame that is located and
`path` (nav_msgs/Path) twice a second. One camera gives no scale: the mean of the first steps has
length 1. The map has x forward, y left and z up at the first camera.
"""

import signal
import threading

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, PoseStamped, Quaternion
from geometry_msgs.msg import Pose as PoseMessage
from nav_msgs.msg import Odometry as OdometryMessage
from nav_msgs.msg import Path
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import PointCloud
from std_msgs.msg import Bool, Header

from mdnet_ros.data.poses import Pose, quaternion_of_rotation
from mdnet_ros.evaluation.odometry.odometry import Odometry
from mdnet_ros.nodes.messages import stamp_nanoseconds

# A camera has x right, y down and z forward; ROS maps have x forward, y left and z up (REP 103).
MAP_FROM_FIRST_CAMERA = Pose(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.zeros(3))
# The odometry may be slower than the camera for a while: frames wait instead of being lost.
QUEUE = 200
PATH_POSES = 2000


def pose_message(pose: Pose) -> PoseMessage:
    x, y, z = pose.translation.tolist()
    qx, qy, qz, qw = quaternion_of_rotation(pose.rotation)
    return PoseMessage(
        position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw)
    )


class OdometryNode(Node):
    def __init__(self) -> None:
        super().__init__('odometry')
        # The focal length only turns errors into pixels. VINS assumes 460 for every camera.
        focal = self.declare_parameter('focal_length', 460.0).value
        self.map_frame = self.declare_parameter('map_frame', 'map').value
        self.odometry = Odometry(focal)
        self.restarts = 0
        self.odometry_publisher = self.create_publisher(OdometryMessage, 'odometry', QUEUE)
        self.path_publisher = self.create_publisher(Path, 'path', 1)
        self.create_subscription(PointCloud, 'tracks', self.on_tracks, QUEUE)
        self.create_subscription(Bool, 'restart', self.on_restart, QUEUE)
        self.create_timer(0.5, self.publish_path)
        self.get_logger().info('waiting for tracks')

    def on_tracks(self, message: PointCloud) -> None:
        ids = np.array(message.channels[0].values, np.float64).astype(np.int64)
        rays = np.array([(point.x, point.y) for point in message.points]).reshape(-1, 2)
        if len(message.channels) > 5:  # vins_layout fusion: camera_id 0 is the left camera
            left = np.array(message.channels[1].values) == 0
            ids, rays = ids[left], rays[left]
        pose = self.odometry.add(ids, rays, stamp_nanoseconds(message.header))
        if self.odometry.restarts > self.restarts:
            self.restarts = self.odometry.restarts
            self.get_logger().warning('map lost: too few tracks go on; a new one starts')
        if pose is None:
            return
        answer = OdometryMessage(
            header=Header(stamp=message.header.stamp, frame_id=self.map_frame),
            child_frame_id=message.header.frame_id,
        )
        answer.pose.pose = pose_message(MAP_FROM_FIRST_CAMERA @ pose)
        self.odometry_publisher.publish(answer)

    def on_restart(self, message: Bool) -> None:
        if message.data:
            self.get_logger().warning('the tracker restarted: a new map starts')
            self.odometry.restart()

    def publish_path(self) -> None:
        path = self.odometry.path()
        if not len(path):
            return
        poses = []
        for index in range(max(0, len(path) - PATH_POSES), len(path)):
            seconds, nanoseconds = divmod(int(path.stamps_ns[index]), 10**9)
            header = Header(
                stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=self.map_frame
            )
            pose = pose_message(MAP_FROM_FIRST_CAMERA @ path[index])
            poses.append(PoseStamped(header=header, pose=pose))
        self.path_publisher.publish(Path(header=poses[-1].header, poses=poses))


if __name__ == '__main__':
    # Ctrl-C only asks for the end: an exception in the middle of rclpy would leave a traceback.
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = OdometryNode()
    while not stopped.is_set():
        rclpy.spin_once(node, timeout_sec=0.2)
