"""Recordings that survive what happens to robots: kills, latched topics, unknown types."""

from __future__ import annotations

import array
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import rclpy
from mcap.reader import make_reader
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from mdnet_ros.bags.qos import TopicQos
from mdnet_ros.bags.reader import BagReader
from mdnet_ros.bags.unfinished import finish_beside
from mdnet_ros.bags.writer import BagWriter
from mdnet_ros.cli.main import main

PATIENCE = 60.0
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
PIXELS = np.random.default_rng(0).integers(0, 255, (120, 160), np.uint8)


@pytest.fixture(scope='module')
def node(environment):
    """A node of this process, spun in a thread."""
    context = rclpy.Context()
    context.init()
    made = Node('driver', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(made)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield made
    executor.shutdown()
    thread.join(PATIENCE)
    made.destroy_node()
    context.try_shutdown()


def start(module, environment, *args):
    return subprocess.Popen(
        [sys.executable, '-m', f'mdnet_ros.nodes.{module}', *map(str, args)], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )


def end(process, number=signal.SIGINT):
    process.send_signal(number)
    return process.communicate(timeout=PATIENCE)


def wait_for(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def image(stamp_ns):
    message = Image(
        height=120, width=160, step=160, encoding='mono8', data=array.array('B', PIXELS.tobytes())
    )
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    return message


class Camera:
    """Publishes images with the time in their stamps, 50 a second, until it is closed."""

    def __init__(self, node, topic):
        self.publisher = node.create_publisher(Image, topic, 50)
        self.sent = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stop.wait(0.02):
            stamp = time.time_ns()
            self.publisher.publish(image(stamp))
            self.sent.append(stamp)

    def close(self):
        self._stop.set()
        self._thread.join(PATIENCE)


@pytest.fixture(scope='module')
def camera(node):
    made = Camera(node, '/camera/image_raw')
    yield made
    made.close()


#: How many recorders are killed; ``KILLS=10`` for ten of them.
KILLS = int(os.environ.get('KILLS', '3'))
#: Where each of them is killed, seconds after all that were started with it have subscribed.
MOMENTS = np.random.default_rng(16).uniform(0.8, 3.0, KILLS)


def test_a_killed_recorder_loses_a_second_at_most(tmp_path, environment, camera, weights, capsys):
    """``kill -9`` at random moments: everything older than a second is there, for every reader."""
    for first in range(0, KILLS, 4):  # as many at once as a small computer records in time
        numbers = range(first, min(first + 4, KILLS))
        for number, killed, subscribed in kill(numbers, tmp_path, environment):
            folder = tmp_path / str(number)
            if number % 4 < 2:  # found by the next recorder in this folder, ...
                (line,) = finish_beside(folder / 'next')
                assert 'was not ended; its' in line
            with BagReader(folder / 'run') as bag:  # ... or by whoever reads it
                stamps = [frame.stamp_ns for frame in bag.images()]
                assert all((frame.image == PIXELS).all() for frame in bag.images())
                assert bag.counts == {'/camera/image_raw': len(stamps)}
            if 'KILLS' in os.environ:
                with capsys.disabled():
                    print(f'\n{storage_of(number)} killed after {MOMENTS[number]:.2f} s: '
                          f'{len(stamps)} images, {(killed - stamps[-1]) / 1e6:.0f} ms lost')
            wanted = [s for s in camera.sent if subscribed + 0.2e9 <= s <= killed - 1e9]
            assert not set(wanted) - set(stamps), f'{killed - stamps[-1]} ns lost'
            assert [p.name for p in folder.iterdir()] == ['run']
            read_by_others(folder / 'run', len(stamps))
            if number < 2:
                read_by_track(folder / 'run', folder / 'out', weights, len(stamps))


def storage_of(number):
    return ('sqlite3', 'mcap')[number % 2]


def kill(numbers, folder, environment):
    """Start recorders and kill each at its moment: (number, when killed, when subscribed), ns."""
    recorders = {
        number: start('recorder', environment, folder / str(number) / 'run', '/camera/image_raw',
                      '--storage', storage_of(number))
        for number in numbers
    }
    for recorder in recorders.values():
        assert recorder.stdout.readline() == 'recorder: subscribed to every topic\n'
    subscribed, killed = time.time_ns(), {}
    for number in sorted(numbers, key=MOMENTS.__getitem__):
        time.sleep(max(0.0, subscribed / 1e9 + MOMENTS[number] - time.time()))
        os.killpg(recorders[number].pid, signal.SIGKILL)
        killed[number] = time.time_ns()
    for number, recorder in recorders.items():
        recorder.communicate(timeout=PATIENCE)
        assert [p.name for p in (folder / str(number)).iterdir()] == ['run.unfinished']
    return [(number, killed[number], subscribed) for number in numbers]


def read_by_others(bag, count):
    """Read a bag as the format of ``ros2 bag`` has it, and with mcap's own reader."""
    with Reader(bag) as reader:
        assert reader.message_count == len(list(reader.messages(reader.connections))) == count
    for path in bag.glob('*.mcap'):
        with path.open('rb') as file:
            reader = make_reader(file, validate_crcs=True)
            assert reader.get_summary().statistics.message_count == count
            assert len(list(reader.iter_messages())) == count


def read_by_track(bag, out, weights, count):
    assert main([
        'track', '--bag', str(bag), '--out', str(out), '--weights', str(weights),
        '--max-keypoints', '64', '--set', 'threads=1', '--no-pictures',
    ]) == 0
    with BagReader(out / 'tracks') as tracks:
        assert tracks.counts['/keypoints'] == count


def test_a_recorder_whose_terminal_is_closed_ends_in_order(tmp_path, environment, camera):
    recorder = start('recorder', environment, tmp_path / 'run', '/camera/image_raw')
    recorder.stdout.readline()
    time.sleep(0.3)
    _, err = end(recorder, signal.SIGHUP)
    assert (recorder.returncode, err) == (0, '')
    assert [p.name for p in tmp_path.iterdir()] == ['run']


def test_a_full_disk_ends_the_recording_and_keeps_what_there_is(tmp_path, environment, camera):
    """A limit on the size of files stands for the disk.

    It is reached after some seconds. What was not yet committed then may be lost.
    """
    code = (
        'import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); '
        'resource.setrlimit(resource.RLIMIT_FSIZE, (2_400_000, 2_400_000)); '
        'from mdnet_ros.nodes.recorder import main; sys.exit(main(sys.argv[1:]))'
    )
    for storage in ('sqlite3', 'mcap'):
        process = subprocess.run(
            [sys.executable, '-c', code, str(tmp_path / storage), '/camera/image_raw',
             '--storage', storage],
            env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )
        assert process.returncode == 2
        (line,) = process.stderr.splitlines()
        assert line.startswith(f"recorder: error: bag '{tmp_path / storage}': cannot be written")
        assert f"what was recorded before is in '{tmp_path / storage}'" in line
        with BagReader(tmp_path / storage) as bag:
            assert len(list(bag.images())) >= 5


def test_latched_messages_sent_before_are_recorded(tmp_path, environment, node):
    """A driver sends its calibration once, transient local, before anybody listens."""
    info = CameraInfo(width=160, height=120, distortion_model='plumb_bob')
    publishers = [
        node.create_publisher(CameraInfo, '/latched/camera_info', LATCHED),
        node.create_publisher(String, '/mixed', LATCHED),
        node.create_publisher(String, '/mixed', QoSProfile(depth=1)),
    ]
    publishers[0].publish(info)
    topics = ('/latched/camera_info', '/mixed')
    recorder = start('recorder', environment, tmp_path / 'run', *topics)
    recorder.stdout.readline()
    wait_for(lambda: all(p.get_subscription_count() for p in publishers), 'no subscription')
    for publisher in publishers[1:]:
        publisher.publish(String(data='live'))
    time.sleep(1.0)
    _, err = end(recorder)
    assert "'/mixed': only 1 of 2 publishers are transient local" in err
    with BagReader(tmp_path / 'run') as bag:
        assert bag.counts == {'/latched/camera_info': 1, '/mixed': 2}
        assert bag.qos('/latched/camera_info').transient_local
        (message,) = bag.messages('/latched/camera_info')
        assert message.width == 160
    for publisher in publishers:
        node.destroy_publisher(publisher)


def test_a_publisher_that_offers_less_later_is_recorded_too(tmp_path, environment, node):
    best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    first = node.create_publisher(String, '/less', LATCHED)
    recorder = start('recorder', environment, tmp_path / 'run', '/less')
    recorder.stdout.readline()
    second = node.create_publisher(String, '/less', best_effort)
    wait_for(second.get_subscription_count, 'no subscription')
    for publisher in (first, second):
        publisher.publish(String(data='x'))
    time.sleep(0.7)
    end(recorder)
    with BagReader(tmp_path / 'run') as bag:
        assert bag.counts['/less'] >= 2
    for publisher in (first, second):
        node.destroy_publisher(publisher)


def test_the_player_latches_what_was_latched(tmp_path, environment, node):
    """A subscriber that comes when everything is over still gets the calibration."""
    with BagWriter(tmp_path / 'bag') as bag:
        t = bag.types
        string = t['std_msgs/msg/String']
        latched = (TopicQos(transient_local=True, depth=1),)
        bag.write('/once', 'std_msgs/msg/String', 10**18, string('kept'), latched)
        bag.write('/plain', 'std_msgs/msg/String', 10**18, string('gone'))
        bag.write('/plain', 'std_msgs/msg/String', 10**18 + 8 * 10**9, string('late'))
    player = start('player', environment, tmp_path / 'bag', '--wait', '0')
    wait_for(lambda: all(map(node.count_publishers, ("/once", "/plain"))), "no player")
    time.sleep(0.5)
    got = []
    for topic in ('/once', '/plain'):
        node.create_subscription(String, topic, lambda m: got.append(m.data), LATCHED
                                 if topic == '/once' else 1)
    wait_for(lambda: 'kept' in got, got)
    out, err = end(player)
    assert 'gone' not in got
    assert err == ''
    player = start(
        'player', environment, tmp_path / 'bag', '--wait', '0', '--ros-args',
        '-p', 'qos_overrides./once.publisher.durability:=volatile',
    )
    wait_for(lambda: node.get_publishers_info_by_topic('/once'), 'no player')
    (publisher,) = node.get_publishers_info_by_topic('/once')
    assert publisher.qos_profile.durability == DurabilityPolicy.VOLATILE
    end(player)


CLOCKED = '''
import sys, time, rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import String
rclpy.init()
node = Node('listener', parameter_overrides=[Parameter('use_sim_time', value=True)])
seen = []
node.create_subscription(
    String, '/plain', lambda m: seen.append((node.get_clock().now().nanoseconds, m.data)), 10)
end = time.monotonic() + 60
while len(seen) < 3 and time.monotonic() < end:
    rclpy.spin_once(node, timeout_sec=0.2)
print([(now, data) for now, data in seen])
'''


def test_the_player_publishes_the_bags_time(tmp_path, environment):
    """A node with use_sim_time sees the recording's time, as from ``ros2 bag play --clock``."""
    start_ns, step = 1_600_000_000_000_000_000, 300_000_000
    with BagWriter(tmp_path / 'bag') as bag:
        string = bag.types['std_msgs/msg/String']
        for i in range(12):
            bag.write('/plain', 'std_msgs/msg/String', start_ns + i * step, string(str(i)))
    listener = subprocess.Popen(
        [sys.executable, '-c', CLOCKED], env=environment, stdout=subprocess.PIPE, text=True
    )
    player = start('player', environment, tmp_path / 'bag', '--clock')
    out, err = player.communicate(timeout=PATIENCE)
    assert (player.returncode, err) == (0, '')
    assert out == 'player: 12 messages, 0 images\n'
    seen = eval(listener.communicate(timeout=PATIENCE)[0])  # noqa: S307 - of our own process
    # The player finds the listener before the listener finds the player: some may be lost first.
    first = int(seen[0][1])
    assert [int(data) for _, data in seen] == [first, first + 1, first + 2]
    for now, data in seen[1:]:
        assert start_ns + (int(data) - 1) * step <= now <= start_ns + (int(data) + 1) * step


def test_a_bag_with_a_type_that_is_not_installed_is_played(tmp_path, environment):
    """That topic is left out with a warning; named alone, it is an error."""
    from rosbags.rosbag2 import Writer
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg('uint32 a\n', 'my_msgs/msg/Status'))
    with Writer(tmp_path / 'bag', version=9) as writer:
        for topic, kind, message in (
            ('/status', 'my_msgs/msg/Status', store.types['my_msgs/msg/Status'](1)),
            ('/plain', 'std_msgs/msg/String', store.types['std_msgs/msg/String']('x')),
        ):
            connection = writer.add_connection(topic, kind, typestore=store)
            writer.write(connection, 10**18, store.serialize_cdr(message, kind))
    player = start('player', environment, tmp_path / 'bag', '--wait', '0')
    out, err = player.communicate(timeout=PATIENCE)
    assert player.returncode == 0
    assert out == 'player: 1 messages, 0 images\n'
    assert "topic '/status' is not played: message type 'my_msgs/msg/Status': expected one" in err
    player = start('player', environment, tmp_path / 'bag', '--wait', '0', '--topics', '/status')
    out, err = player.communicate(timeout=PATIENCE)
    assert player.returncode == 2
    assert "error: message type 'my_msgs/msg/Status'" in err


def test_a_ros1_bag_is_played_and_recorded_as_ros2(tmp_path, environment, node):
    """Converted: what is recorded again is what a ROS 2 driver would have sent."""
    from rclpy.serialization import deserialize_message
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    t, kind = store.types, 'sensor_msgs/msg/Image'
    with Writer(tmp_path / 'ros1.bag') as writer:
        connection = writer.add_connection('/cam/image_raw', kind, typestore=store)
        marker = 'visualization_msgs/msg/Marker'
        writer.add_connection('/marker', marker, typestore=store)
        for i in range(5):
            header = t['std_msgs/msg/Header'](i, t['builtin_interfaces/msg/Time'](9, i), 'cam')
            message = t[kind](header, 120, 160, 'mono8', 0, 160, PIXELS.reshape(-1))
            stamp = 10**18 + i * 10**8
            writer.write(connection, stamp, store.serialize_ros1(message, kind))
    recorder = start('recorder', environment, tmp_path / 'run', '/cam/image_raw')
    player = start('player', environment, tmp_path / 'ros1.bag')
    out, err = player.communicate(timeout=PATIENCE)
    assert player.returncode == 0, err
    assert out == 'player: 5 messages, 5 images\n'
    time.sleep(0.5)
    end(recorder)
    with BagReader(tmp_path / 'run') as bag:
        messages = [deserialize_message(m.data, Image) for m in bag.raw()]
    assert [m.header.stamp.nanosec for m in messages] == [0, 1, 2, 3, 4]
    assert bytes(messages[0].data) == PIXELS.tobytes()
    expected = Image(height=120, width=160, step=160, encoding='mono8',
                     data=array.array('B', PIXELS.tobytes()))
    expected.header.frame_id, expected.header.stamp.sec = 'cam', 9
    assert messages[0] == expected


def test_a_topic_whose_type_is_not_known_costs_only_itself(tmp_path, environment, camera, node):
    """Its definition is not installed where the recorder looks for it."""
    empty = tmp_path / 'prefix'
    empty.mkdir()
    code = (
        'import sys; from mdnet_ros.nodes import recorder; from mdnet_ros.errors import DataError\n'
        'known = recorder.message_class\n'
        'def only_images(name):\n'
        '    if name != "sensor_msgs/msg/Image": raise DataError(f"{name}: not installed")\n'
        '    return known(name)\n'
        'recorder.message_class = only_images; sys.exit(recorder.main(sys.argv[1:]))'
    )
    publisher = node.create_publisher(String, '/strange', LATCHED)
    process = subprocess.Popen(
        [sys.executable, '-c', code, str(tmp_path / 'run'), '/strange', '/camera/image_raw'],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    process.stdout.readline()
    time.sleep(0.5)
    out, err = end(process)
    assert process.returncode == 0
    assert "topic '/strange' is not recorded: std_msgs/msg/String: not installed" in err
    with BagReader(tmp_path / 'run') as bag:
        assert list(bag.topics) == ['/camera/image_raw']
    node.destroy_publisher(publisher)


def test_two_recorders_keep_apart(tmp_path, environment, camera):
    """The second finds the first at work and leaves its folder alone."""
    one = start('recorder', environment, tmp_path / 'one', '/camera/image_raw')
    one.stdout.readline()
    two = start('recorder', environment, tmp_path / 'two', '/camera/image_raw')
    two.stdout.readline()
    again = start('recorder', environment, tmp_path / 'one', '/camera/image_raw')
    _, err = again.communicate(timeout=PATIENCE)
    assert again.returncode == 2
    assert 'another process writes it' in err
    for recorder in (one, two):
        _, err = end(recorder)
        assert (recorder.returncode, err) == (0, '')
    for name in ('one', 'two'):
        with BagReader(tmp_path / name) as bag:
            assert len(list(bag.images())) > 5
    shutil.rmtree(tmp_path / 'one')
