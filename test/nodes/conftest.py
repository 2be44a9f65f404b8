"""Real nodes in processes of their own, on a ROS domain nobody else uses, on this machine only."""

import os
import re
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from skimage import data

from mdnet_ros.nodes.environment import ros_environment

rclpy = pytest.importorskip('rclpy')
domain_coordinator = pytest.importorskip('domain_coordinator')

from builtin_interfaces.msg import Time  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2  # noqa: E402

from mdnet_ros.nodes.image_conversion import fill, image_message  # noqa: E402
from mdnet_ros.nodes.messages import stamp_nanoseconds  # noqa: E402

#: Nothing here takes this long unless something is broken.
PATIENCE = 60.0
WIDTH, HEIGHT = 160, 120


@pytest.fixture(scope='session')
def environment(tmp_path_factory):
    """The environment of node processes; also put into this process."""
    with domain_coordinator.domain_id() as domain:
        logs = tmp_path_factory.mktemp('ros_logs')
        made = ros_environment(os.environ, domain_id=int(domain), localhost=True, log_dir=logs)
        made['ROS_PYTHON_CHECK_FIELDS'] = '1'
        before = dict(os.environ)
        os.environ.update(made)
        yield made
        os.environ.clear()
        os.environ.update(before)


class TrackerProcess:
    """The tracker executable, its log and its end."""

    def __init__(self, arguments, environment, log):
        self.log_path = log
        with log.open('wb') as out:
            self.process = subprocess.Popen(
                [sys.executable, '-m', 'mdnet_ros.nodes.tracker', '--ros-args', *arguments],
                stdout=out, stderr=subprocess.STDOUT, env=environment,
            )

    def log(self):
        return self.log_path.read_text(errors='replace')

    def wait_for_log(self, pattern, patience=PATIENCE):
        end = time.monotonic() + patience
        while not re.search(pattern, self.log()):
            assert time.monotonic() < end, f'{pattern!r} not in:\n{self.log()}'
            assert self.process.poll() is None, f'ended without {pattern!r}:\n{self.log()}'
            time.sleep(0.05)

    def wait(self, patience=PATIENCE):
        return self.process.wait(patience)

    def stop(self, number=signal.SIGINT):
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()


def _starter(environment, weights, folder, started):
    def start(*arguments, namespace='cam', **parameters):
        values = {'weights': str(weights), 'device': 'cpu', 'max_keypoints': 256,
                  'diagnostics_period': 0.2, 'threads': 1,
                  'precision': 'fp32',  # random weights' descriptors differ by little
                  **parameters}
        listed = ['-r', f'__ns:=/{namespace}']
        for name, value in values.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            listed += ['-p', f'{name}:={text}']
        log = folder / f'tracker_{len(started)}.log'
        started.append(TrackerProcess([*listed, *arguments], environment, log))
        return started[-1]

    return start


def _stop_all(started):
    for tracker in started:
        if tracker.process.poll() is None:
            tracker.process.send_signal(signal.SIGTERM)
    for tracker in started:
        tracker.wait()


@pytest.fixture
def start_tracker(environment, weights, tmp_path):
    """start_tracker(*more arguments, namespace=..., **parameters) -> TrackerProcess."""
    started = []
    yield _starter(environment, weights, tmp_path, started)
    _stop_all(started)


@pytest.fixture(scope='module')
def start_shared(environment, weights, tmp_path_factory):
    """As start_tracker, for trackers that all tests of a module share."""
    started = []
    yield _starter(environment, weights, tmp_path_factory.mktemp('shared'), started)
    _stop_all(started)


@pytest.fixture(scope='module')
def shared_tracker(start_shared):
    """One tracker in the namespace /cam for all tests of a module."""
    return start_shared()


class Client:
    """A camera that publishes, and a listener that keeps what comes back."""

    def __init__(self, context, namespace='cam', compressed=False, reliable=True):
        self.node = rclpy.create_node(
            f'client_{time.monotonic_ns()}', namespace=namespace, context=context
        )
        self.executor = rclpy.executors.SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        qos = QoSProfile(depth=10, reliability=reliability)
        kind, topic = (CompressedImage, 'image/compressed') if compressed else (Image, 'image')
        self.images = self.node.create_publisher(kind, topic, qos)
        self.infos = self.node.create_publisher(CameraInfo, 'camera_info', qos)
        self.received = {}
        self.listen('correspondences', PointCloud2)
        self.listen('keypoints', PointCloud2)
        picture = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)
        self._picture = cv2.resize(picture, (320, 320), interpolation=cv2.INTER_AREA)
        self._next = 0

    def listen(self, topic, kind, depth=100):
        self.received.setdefault(topic, [])
        return self.node.create_subscription(
            kind, topic, self.received[topic].append, QoSProfile(depth=depth)
        )

    def spin_until(self, done, patience=PATIENCE, what='what was waited for'):
        end = time.monotonic() + patience
        while not done():
            assert time.monotonic() < end, f'{what} did not come'
            self.executor.spin_once(timeout_sec=0.05)

    def spin_for(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def connect(self):
        """Wait until the tracker listens to us and we to it."""
        self.spin_until(
            lambda: self.images.get_subscription_count()
            and self.node.count_publishers('correspondences')
            and self.node.count_publishers('keypoints'),
            what='the tracker',
        )
        # Its publishers must know of our subscriptions too: send until something comes back.
        last = self.node.get_clock().now().nanoseconds // 10**9 - 1000

        def probe():
            nonlocal last
            last += 0.1
            self.send(stamp_ns=int(last * 1e9))
            self.spin_for(0.1)
            return all(self.received[t] for t in ('keypoints', 'correspondences'))

        self.spin_until(probe, what='a first output')
        self.spin_for(0.3)
        self.clear()
        return self

    def clear(self):
        for messages in self.received.values():
            messages.clear()

    def picture(self, index=None):
        """(H, W, 3) BGR, one step further to the right each time."""
        if index is None:
            index, self._next = self._next, self._next + 1
        x = 2 * (index % 60)
        return np.ascontiguousarray(self._picture[60 : 60 + HEIGHT, x : x + WIDTH])

    def send(self, image=None, stamp_ns=None, frame_id='camera_optical', **fields):
        """Publish an image; returns its stamp in nanoseconds."""
        header = self.header(stamp_ns, frame_id)
        message = image_message(self.picture() if image is None else image, header)
        for name, value in fields.items():
            if name == 'data':
                fill(message, value)
            else:
                setattr(message, name, value)
        self.images.publish(message)
        return stamp_nanoseconds(header)

    def header(self, stamp_ns=None, frame_id='camera_optical'):
        stamp_ns = self.node.get_clock().now().nanoseconds if stamp_ns is None else stamp_ns
        header = Image().header
        header.frame_id = frame_id
        header.stamp = Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        return header

    def exchange(self, image=None, topic='correspondences', **how):
        """Publish an image and wait for its output on a topic."""
        stamp = self.send(image, **how)
        return self.answer(stamp, topic)

    def answer(self, stamp, topic='correspondences'):
        def found():
            return [m for m in self.received[topic] if stamp_nanoseconds(m.header) == stamp]

        self.spin_until(found, what=f'{topic} of stamp {stamp}')
        return found()[0]

    def call(self, kind, service, request):
        client = self.node.create_client(kind, service)
        assert client.wait_for_service(PATIENCE), service
        future = client.call_async(request)
        self.spin_until(future.done, what=f'an answer of {service}')
        self.node.destroy_client(client)
        return future.result()

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()


@pytest.fixture(scope='module')
def connect(environment):
    """connect(namespace=..., compressed=..., reliable=...) -> Client."""
    context = rclpy.Context()
    rclpy.init(context=context)
    clients = []

    def make(**how):
        clients.append(Client(context, **how))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
    rclpy.shutdown(context=context)
