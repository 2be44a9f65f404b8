"""A bag played onto live topics and recorded again, over DDS between processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from mdnet_ros.bags.messages import BagTopics
from mdnet_ros.bags.reader import BagReader
from mdnet_ros.bags.writer import BagWriter
from mdnet_ros.data.camera import CameraModel
from mdnet_ros.errors import DataError
from mdnet_ros.nodes.player import BagPlayer, PlaySettings
from mdnet_ros.nodes.raw import header_stamp, message_class
from mdnet_ros.tracker.clouds import CORRESPONDENCE_DTYPE

START = 1_700_000_000_123_456_789
STEP = 20_000_000


@pytest.fixture
def bag(tmp_path):
    """Ten frames with camera_info and depth, 50 a second."""
    rng = np.random.default_rng(0)
    camera = CameraModel(64, 48, np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]), np.zeros(5))
    with BagWriter(tmp_path / 'source', 'mcap') as writer:
        topics = BagTopics(writer)
        for i in range(10):
            stamp = START + i * STEP
            topics.camera_info('/camera/camera_info', stamp, 'camera', camera)
            image = rng.integers(0, 256, (48, 64), np.uint8)
            topics.image('/camera/image_raw', stamp, 'camera', image)
            topics.depth('/camera/depth/compressedDepth', stamp, 'camera', image + 1.0)
    return tmp_path / 'source'


def start(module, environment, *args):
    return subprocess.Popen(
        [sys.executable, '-m', f'mdnet_ros.nodes.{module}', *map(str, args)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


def finish(process, timeout=60):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def stop(process, number):
    process.send_signal(number)
    return finish(process)


def test_what_is_played_is_recorded_byte_for_byte(tmp_path, bag, environment):
    target = tmp_path / 'copy'
    recorder = start('recorder', environment, target, '/robot/image', '/camera/camera_info')
    player = start(
        'player', environment, bag, '--ros-args', '-r', '/camera/image_raw:=/robot/image'
    )
    code, out, err = finish(player)
    assert (code, err) == (0, ''), err
    assert '30 messages, 10 images' in out
    assert not target.exists()  # still being written, under another name
    time.sleep(0.5)
    code, out, err = stop(recorder, signal.SIGINT)
    assert (code, err) == (0, ''), err
    with BagReader(bag) as before, BagReader(target) as after:
        assert after.topics['/robot/image'] == 'sensor_msgs/msg/Image'
        sent = [m.data for m in before.raw(['/camera/image_raw'])]
        got = [m.data for m in after.raw(['/robot/image'])]
        assert got == sent
        stamps = [frame.stamp_ns for frame in after.images('/robot/image')]
    assert stamps == [START + i * STEP for i in range(10)]
    information = yaml.safe_load((target / 'metadata.yaml').read_text())
    assert information['rosbag2_bagfile_information']['version'] == 8
    assert list(tmp_path.glob('*.unfinished')) == []


ANSWERER = '''
import sys, rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image, PointCloud2
rclpy.init()
node = Node('answerer')
publisher = node.create_publisher(PointCloud2, 'correspondences', 10)
seen = []
def answer(image):
    seen.append(image.header.stamp.nanosec)
    publisher.publish(PointCloud2(header=image.header))
node.create_subscription(Image, '/camera/image_raw', answer, 1)
while len(seen) < int(sys.argv[1]):
    rclpy.spin_once(node, timeout_sec=0.2)
print(len(set(seen)))
'''


def answerer(environment, count):
    """A node that answers images, and after some says how many different ones there were."""
    return subprocess.Popen(
        [sys.executable, '-c', ANSWERER, str(count)], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


def test_lockstep_waits_for_the_answer(bag, environment):
    """At a thousand times the speed into a queue of one, no frame is lost."""
    partner = answerer(environment, 10)
    player = start('player', environment, bag, '--lockstep', '--rate', '1000')
    code, out, err = finish(player)
    assert (code, err) == (0, ''), err
    assert '10 images' in out
    assert finish(partner)[1].strip() == '10'


def test_a_player_without_subscribers_says_so(bag, environment):
    code, _, err = finish(start('player', environment, bag, '--wait', '0.3'))
    assert code == 2
    assert err == 'player: error: nobody subscribed to /camera/image_raw within 0.3 s\n'


def test_what_cannot_be_played_is_named(tmp_path, bag):
    with pytest.raises(DataError, match='rate: expected more than 0'):
        PlaySettings(rate=0.0)
    with BagReader(bag) as reader, pytest.raises(DataError, match="no topic '/nope', it has"):
        BagPlayer(None, reader, PlaySettings(topics=('/nope',)))
    with BagWriter(tmp_path / 'empty'):
        pass
    with BagReader(tmp_path / 'empty') as reader, pytest.raises(DataError, match='no topics'):
        BagPlayer(None, reader, PlaySettings())
    with pytest.raises(DataError, match="'my_msgs/msg/Thing': expected one whose ROS package"):
        message_class('my_msgs/msg/Thing')


def test_a_looping_player_goes_on_until_a_signal(bag, environment):
    partner = answerer(environment, 25)
    player = start('player', environment, bag, '--loop', '--rate', '3')
    assert int(finish(partner)[1]) <= 10  # 25 images, but no more than 10 different ones
    assert player.poll() is None
    code, out, err = stop(player, signal.SIGTERM)
    assert (code, err) == (0, ''), err


def test_the_recorder_does_not_overwrite(bag, environment):
    code, _, err = finish(start('recorder', environment, bag, '/x'))
    assert code == 2
    assert 'is there already' in err


def test_a_recorder_that_hears_nothing_leaves_an_empty_bag(tmp_path, environment):
    recorder = start('recorder', environment, tmp_path / 'none', '/x')
    while not list(tmp_path.glob('none.unfinished')):
        time.sleep(0.05)
    code, out, err = stop(recorder, signal.SIGTERM)
    assert (code, err) == (0, ''), err
    assert '/x 0' in out
    with BagReader(tmp_path / 'none') as bag:
        assert list(bag.raw()) == []


def test_correspondences_are_clouds_with_the_image_stamp(tmp_path):
    """The player reads stamps of serialised messages without deserialising them."""
    with BagWriter(tmp_path / 'bag') as writer:
        BagTopics(writer).cloud('/c', START, 'camera', np.zeros(3, CORRESPONDENCE_DTYPE))
    with BagReader(tmp_path / 'bag') as reader:
        (message,) = reader.raw()
    assert header_stamp(message.data) == START
