"""The launch files for real, wherever ROS's ``launch`` is installed."""

import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip('launch_ros')
pytest.importorskip('launch.actions')

from sensor_msgs.msg import PointCloud2  # noqa: E402

from mdnet_ros.nodes.messages import stamp_nanoseconds  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
#: What ``ros2 launch mdnet_ros FILE NAME:=VALUE ...`` does.
RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
service = LaunchService()
arguments = [argument.split(':=') for argument in sys.argv[2:]]
source = PythonLaunchDescriptionSource(sys.argv[1])
service.include_launch_description(LaunchDescription([
    IncludeLaunchDescription(source, launch_arguments=arguments)
]))
sys.exit(service.run())
"""


@pytest.fixture
def launch(environment, tmp_path):
    """launch(file, *arguments) -> the process, its log; the package is laid out as colcon does."""
    prefix = tmp_path / 'prefix'
    share = prefix / 'share' / 'mdnet_ros'
    index = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages'
    scripts = prefix / 'lib' / 'mdnet_ros'
    for folder in (share, index, scripts):
        folder.mkdir(parents=True)
    (index / 'mdnet_ros').touch()
    for name in ('launch', 'config'):
        (share / name).symlink_to(ROOT / name)
    for name in ('tracker', 'player', 'recorder'):
        script = scripts / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m mdnet_ros.nodes.{name} "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    env = {**environment, 'AMENT_PREFIX_PATH': str(prefix)}
    started = []

    def start(file, *arguments):
        log = tmp_path / f'launch_{len(started)}.log'
        with log.open('wb') as out:
            process = subprocess.Popen(
                [sys.executable, '-c', RUN, str(share / 'launch' / file), *arguments],
                stdout=out, stderr=subprocess.STDOUT, env=env, cwd=tmp_path,
            )
        started.append(process)
        return process, log

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)


@pytest.mark.parametrize('where', ['argument', 'configuration'])
def test_two_cameras_are_tracked_by_one_process(launch, connect, weights, tmp_path, where):
    config, arguments = tmp_path / 'small.yaml', ['stereo:=true', 'max_stamp_difference:=0']
    named = "    cameras: 'left,right'\n"
    if where == 'argument':
        arguments, named = [*arguments, 'cameras:=left,right'], ''
    config.write_text(
        f'/**:\n  ros__parameters:\n    max_keypoints: 64\n    device: cpu\n{named}'
    )
    process, log = launch(
        'tracker.launch.py', 'namespace:=rig', f'config:={config}', f'weights:={weights}',
        'image:=camera/image', *arguments,
    )
    sides = [connect(namespace=f'rig/{name}') for name in ('left', 'right')]
    cameras = [connect(namespace=f'rig/{name}/camera') for name in ('left', 'right')]
    sides[0].listen('/rig/stereo', PointCloud2)

    def probe():
        stamp = stamp_nanoseconds(sides[0].header())
        for index, camera in enumerate(cameras):
            camera.send(camera.picture(index), stamp_ns=stamp)
        for side in sides:
            side.spin_for(0.1)
        return sides[0].received['/rig/stereo'] and all(s.received['keypoints'] for s in sides)

    sides[0].spin_until(probe, what='an output of both cameras')
    assert all(0 < side.received['keypoints'][-1].width <= 64 for side in sides)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert 'Traceback' not in log.read_text()


def test_a_wrong_configuration_is_named(launch):
    process, log = launch('tracker.launch.py', 'config:=nowhere.yaml')
    assert process.wait(60) != 0
    assert "config 'nowhere.yaml': no such file; shipped: tracker, mono" in log.read_text()


def test_a_bag_is_replayed_and_recorded(launch, weights, tmp_path):
    reader = pytest.importorskip('mdnet_ros.bags.reader')
    messages = pytest.importorskip('mdnet_ros.bags.messages')
    writer = pytest.importorskip('mdnet_ros.bags.writer')
    from skimage import data

    config = tmp_path / 'small.yaml'
    config.write_text(
        '/**:\n  ros__parameters:\n    max_keypoints: 64\n    device: cpu\n'
        f'    weights: {weights}\n'
    )
    picture = data.camera()
    with writer.BagWriter(tmp_path / 'bag') as bag:
        topics = messages.BagTopics(bag)
        for index in range(6):
            image = picture[200:320, 2 * index + 100 : 2 * index + 260]
            topics.image('/camera/image_raw', 10**18 + index * 10**8, 'camera', image)
    out = tmp_path / 'out'
    process, log = launch(
        'replay.launch.py', f'bag:={tmp_path / "bag"}', f'out:={out}', 'lockstep:=true',
        f'config:={config}',
    )
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.2)
    assert process.poll() == 0, log.read_text()
    with reader.BagReader(out) as bag:
        assert bag.counts['/correspondences'] == 6
        stamps = [stamp_nanoseconds(m.header) for m in bag.messages('/correspondences')]
    assert stamps == [10**18 + index * 10**8 for index in range(6)]
