"""Faults provoked for real, over DDS: the tracker serves on, counts, and names the cause once."""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, PointCloud, PointCloud2

from mdnet_ros.bags.reader import BagReader
from mdnet_ros.nodes.executors import spinning
from mdnet_ros.nodes.host import open_files, resident_memory
from mdnet_ros.nodes.image_conversion import fill
from mdnet_ros.nodes.messages import read_tracked, stamp_nanoseconds
from mdnet_ros.nodes.recorder import SUBSCRIBED
from mdnet_ros.tracker.configuration import load_configuration
from mdnet_ros.tracker.engine import Engine
from mdnet_ros.tracker.job import GrayImage, Job
from mdnet_ros.tracker.settings import TrackerSettings

SECOND = 10**9
K = [100.0, 0.0, 79.5, 0.0, 100.0, 59.5, 0.0, 0.0, 1.0]


class Rig:
    """A tracker process, a camera that feeds it, and what the tracker tells of itself."""

    def __init__(self, tracker, client, compressed, weights):
        self.tracker, self.client, self.compressed, self.weights = (
            tracker, client, compressed, weights
        )
        self.stamp = stamp_nanoseconds(client.header())
        self.seen_ids = set()
        client.listen('/diagnostics', DiagnosticArray)
        client.listen('tracks', PointCloud)

    def statuses(self):
        """What this tracker, not another, told on /diagnostics since they were cleared."""
        name = f'{self.client.node.get_namespace().strip("/")}/tracker: tracker'
        every = (s for array in self.client.received['/diagnostics'] for s in array.status)
        return [status for status in every if status.name == name]

    def values(self):
        """What diagnostics count, once every frame received is accounted for."""
        self.client.spin_for(0.3)  # a frame is counted a moment after it is answered
        self.client.received['/diagnostics'].clear()
        values = {}

        def settled():
            told = self.statuses()
            if len(told) < 2:  # the first may have been on its way
                return False
            values.update((v.key, v.value) for v in told[-1].values)
            return int(values['frames received']) == (
                int(values['frames processed']) + int(values['frames dropped'])
            )

        self.client.spin_until(settled, what='counters that add up')
        return values

    def send(self, stamp_ns=None, **fields):
        """Publish an image; the stamp goes on by 50 ms where none is given."""
        self.stamp = self.stamp + SECOND // 20 if stamp_ns is None else stamp_ns
        if not self.compressed:
            return self.client.send(stamp_ns=self.stamp, **fields)
        data = fields.get('data') or jpeg(self.client.picture())
        message = CompressedImage(header=self.client.header(self.stamp), format='jpeg')
        fill(message, data)
        self.client.images.publish(message)
        return self.stamp

    def good(self, **fields):
        """A frame that must be answered; ids of the tracks never come back from the past."""
        for topic in ('correspondences', 'keypoints'):
            self.client.received[topic].clear()
        stamp = self.send(**fields)
        links = self.client.answer(stamp)
        frame = read_tracked(self.client.answer(stamp, 'keypoints'), links, (160, 120))
        new = set(frame.track_ids[frame.ages == 0].tolist())
        assert not new & self.seen_ids, 'an id was used again'
        self.seen_ids |= new
        return frame

    def set(self, name, value, kind):
        field_name = {ParameterType.PARAMETER_STRING: 'string_value',
                      ParameterType.PARAMETER_BOOL: 'bool_value'}[kind]
        parameter = Parameter(
            name=name, value=ParameterValue(type=kind, **{field_name: value})
        )
        answer = self.client.call(
            SetParameters, 'tracker/set_parameters', SetParameters.Request(parameters=[parameter])
        )
        return answer.results[0]


def jpeg(picture):
    return cv2.imencode('.jpg', picture)[1].tobytes()


@pytest.fixture(scope='module')
def rigs(environment, weights, connect, start_shared, tmp_path_factory):
    """One tracker for raw and one for compressed images, started together."""
    own = tmp_path_factory.mktemp('weights') / 'faults.safetensors'
    shutil.copy(weights, own)
    common = {'weights': own, 'vins_layout': 'fusion', 'verification': 'none'}
    made = {}
    started = {
        False: start_shared(namespace='raw', **common),
        True: start_shared(namespace='jpeg', image_transport='compressed', **common),
    }
    for compressed, tracker in started.items():
        client = connect(namespace='jpeg' if compressed else 'raw', compressed=compressed)
        rig = Rig(tracker, client, compressed, own)

        def answered(rig=rig):
            rig.send()
            rig.client.spin_for(0.1)
            received = rig.client.received
            return all(received[t] for t in ('keypoints', 'correspondences'))

        client.spin_until(answered, what='a first output')
        client.spin_for(0.5)
        made[compressed] = rig
    return made


# How each fault is provoked. A function may return, when the frames come again, what must hold.


def broken(times=3, good=True, **fields):
    """Images with some fields wrong, good ones between them."""

    def provoke(rig):
        for _ in range(times):
            rig.send(**fields)
            if good:
                rig.good()

    return provoke


def cut_jpeg(rig):
    for share in (0.9, 0.5, 0.1):
        data = jpeg(rig.client.picture())
        rig.send(data=data[: int(share * len(data))])
        rig.good()


def corrupt_jpeg(rig):
    """The header destroyed, the end there."""
    for _ in range(3):
        data = bytearray(jpeg(rig.client.picture()))
        data[2:200] = bytes(198)
        rig.send(data=bytes(data))
        rig.good()


def corrupt_content(rig):
    """Noise where the picture should be: nobody can tell it from one."""
    for _ in range(3):
        data = bytearray(jpeg(rig.client.picture()))
        data[-1000:-2] = b'\x55' * 998
        rig.good(data=bytes(data))


def nan_camera_info(rig):
    info = CameraInfo(width=160, height=120, distortion_model='plumb_bob', d=[0.0] * 5, k=K)
    rig.client.infos.publish(info)
    rig.client.spin_for(0.3)
    for k in ([float('nan')] * 9, [float('inf'), *K[1:]], [-1.0, *K[1:]]):
        rig.client.infos.publish(
            CameraInfo(width=160, height=120, distortion_model='plumb_bob', d=[0.0] * 5, k=k)
        )
        rig.client.spin_for(0.1)
        rig.good()
    rig.client.received['tracks'].clear()

    def after():
        rig.client.spin_until(lambda: rig.client.received['tracks'], what='tracks by the good one')

    return after


def other_size(rig):
    wide = np.tile(rig.client.picture(), (2, 2, 1))
    rig.good(image=wide)
    rig.good(image=wide)


def backward(rig):
    rig.good(stamp_ns=rig.stamp - 7 * SECOND)


def repeated(rig):
    for _ in range(3):
        rig.good(stamp_ns=rig.stamp)


def far_jump(rig):
    start = rig.stamp
    rig.good(stamp_ns=start + 10**6 * SECOND)
    rig.good(stamp_ns=1)  # a driver whose clock was not set yet
    rig.good(stamp_ns=start + SECOND)


def bag_loop(rig):
    start = rig.stamp + SECOND // 20
    for _ in range(3):
        for index in range(4):
            rig.good(stamp_ns=start + index * SECOND // 20)


def pause(rig):
    """Longer than the diagnostics wait before they call it silence."""
    def silent():
        return any('no image comes in' in status.message for status in rig.statuses())

    rig.client.spin_until(silent, what='the silence in diagnostics')
    rig.stamp += 5 * SECOND


def burst(rig):
    """Two hundred as fast as they go: many times what a camera sends."""
    sent = [rig.send() for _ in range(200)]
    rig.client.answer(sent[-1])
    stamps = [stamp_nanoseconds(m.header) for m in rig.client.received['correspondences']]
    assert stamps == sorted(stamps)


def publisher_restart(rig):
    """The driver dies and comes back; its counting begins anew."""
    client = rig.client
    old, qos = client.images, client.images.qos_profile
    kind, topic = old.msg_type, old.topic_name
    client.node.destroy_publisher(old)
    client.spin_for(0.3)
    client.images = client.node.create_publisher(kind, topic, qos)

    def answered():
        stamp = rig.send()
        client.spin_for(0.1)
        return stamp in [stamp_nanoseconds(m.header) for m in client.received['correspondences']]

    client.spin_until(answered, what='an answer to the new publisher')


def garbage_weights(rig):
    good = rig.weights.read_bytes()
    for content in (b'', bytes(1000), good[: len(good) // 2], b'\xff' * 16 + good[16:]):
        rig.weights.write_bytes(content)
        answer = rig.set('weights', str(rig.weights), ParameterType.PARAMETER_STRING)
        assert not answer.successful
        assert 'not a valid weights file' in answer.reason
        rig.good()
    rig.weights.write_bytes(good)


def clock_jump(rig):
    """Simulated time that leaps on, and back to its beginning."""
    clock = rig.client.node.create_publisher(Clock, '/clock', 10)
    assert rig.set('use_sim_time', True, ParameterType.PARAMETER_BOOL).successful
    rig.client.spin_until(clock.get_subscription_count, what='a listener to the clock')
    for seconds in (100, 10**6, 1, 0):
        message = Clock()
        message.clock.sec = seconds
        clock.publish(message)
        rig.client.spin_for(0.1)
        rig.good()
        rig.values()  # diagnostics go on: their timer is not by this clock
    assert rig.set('use_sim_time', False, ParameterType.PARAMETER_BOOL).successful
    rig.client.node.destroy_publisher(clock)


@dataclass(frozen=True)
class Fault:
    """What is done, what must be counted, and what the log must say.

    Attributes:
        provoke: does it.
        counts: diagnostics key to how much it grows; a range of two where that is not certain.
        told: pattern of the log line; empty: nothing to say.
        compressed: whether it is done to the tracker of compressed images.
    """

    provoke: Callable
    counts: dict = field(default_factory=dict)
    told: str = ''
    compressed: bool = False


BAD = 'dropped: bad image'
FAULTS = {
    'truncated data': Fault(broken(data=b'123'), {BAD: 3}, 'bytes of data'),
    'wrong step': Fault(broken(step=12), {BAD: 3}, 'expected a step of at least 480'),
    'zero size': Fault(broken(height=0, width=0), {BAD: 3}, 'expected pixels, got 0x0'),
    'no data': Fault(broken(data=b'', good=False), {BAD: 3}, 'got 0'),
    'absurd size': Fault(
        broken(height=2**32 - 1, width=2**32 - 1, step=2**32 - 1), {BAD: 3}, 'step of at least'),
    'unknown encoding': Fault(broken(encoding='jpeg2000'), {BAD: 3}, "encoding 'jpeg2000'"),
    'encoding of depth': Fault(broken(encoding='32FC1'), {BAD: 3}, "encoding '32FC1'"),
    'too small': Fault(
        broken(height=20, width=20, step=60, data=bytes(1200)), {BAD: 3}, 'at least 32 px'),
    'NaN camera_info': Fault(nan_camera_info, {'problem: camera_info': 3}, 'camera_info: expected'),
    'resolution change': Fault(
        other_size, {'restarted: image size changed': 2}, 'image size changed to'),
    'stamps backward': Fault(backward, {'restarted: stamp went back': 1}, 'stamp went back by'),
    'stamps repeated': Fault(repeated, {'repeated stamps': 3}, 'same stamp'),
    'far jumps': Fault(
        far_jump, {'restarted: stamp jumped': 2, 'restarted: stamp went back': 1},
        'stamp jumped by'),
    'bag loop': Fault(bag_loop, {'restarted: stamp went back': 2}, 'stamp went back by'),
    'pause': Fault(pause, {'restarted: stamp jumped': 1}, 'stamp jumped by'),
    'burst': Fault(burst, {'dropped: overload': (1, 199)}),
    # Images are sent until one is answered: a slow machine drops some of them.
    'publisher restart': Fault(
        publisher_restart, {'frames lost in transport': 0, 'dropped: overload': (0, 999)}),
    'garbage weights': Fault(garbage_weights),
    'clock jump': Fault(clock_jump),
    'truncated JPEG': Fault(cut_jpeg, {BAD: 3}, 'not whole, truncated', compressed=True),
    'corrupt JPEG': Fault(corrupt_jpeg, {BAD: 3}, 'JPEG or PNG', compressed=True),
    'corrupt JPEG content': Fault(corrupt_content, {BAD: 0}, compressed=True),
    'empty JPEG': Fault(
        broken(data=b'\xff\xd8\xff\xd9'), {BAD: 3}, 'not whole', compressed=True),
    'too small a JPEG': Fault(
        broken(data=jpeg(np.zeros((20, 20), np.uint8))), {BAD: 3}, 'at least 32 px',
        compressed=True),
    'PNG bomb': Fault(
        broken(data=b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR' + b'\x7f\xff\xff\xff' * 2 + b'IEND'),
        {BAD: 3}, 'expected 1 to', compressed=True),
}


@pytest.mark.parametrize('name', FAULTS)
def test_a_fault_is_survived(rigs, name):
    fault = FAULTS[name]
    rig = rigs[fault.compressed]
    for _ in range(2):
        rig.good()
    before, log = rig.values(), rig.tracker.log()
    after_fault = fault.provoke(rig)
    rig.good()  # the very next image
    if after_fault is not None:
        after_fault()
    # Tracking goes on as well, not only answers.
    assert len(rig.good().correspondences)
    after = rig.values()
    assert after['state'] == 'active'
    for key, grown in fault.counts.items():
        low, high = grown if isinstance(grown, tuple) else (grown, grown)
        assert low <= int(after.get(key, 0)) - int(before.get(key, 0)) <= high, key
    dropped = sum(
        sum(grown) if isinstance(grown, tuple) else grown
        for key, grown in fault.counts.items() if key.startswith('dropped: ')
    )
    assert int(after['frames dropped']) - int(before['frames dropped']) <= dropped
    new_log = rig.tracker.log()[len(log):]
    assert 'Traceback' not in new_log
    if fault.told:
        # Not for every frame, and not again where another fault had the same cause just before.
        assert any(re.search(fault.told, v) for k, v in after.items() if k.startswith('last '))
        told = [line for line in rig.tracker.log().splitlines() if re.search(fault.told, line)]
        assert told
        assert 'WARN' in told[0]
        assert len(new_log.splitlines()) <= 3, new_log


def test_two_trackers_on_one_camera_and_one_is_killed(rigs, start_shared):
    """Each serves every frame; what is left of the dead one disturbs nobody."""
    rig = rigs[False]
    second = start_shared('-r', '__node:=second', namespace='raw', vins_layout='none')
    client = rig.client

    def both():
        rig.client.received['correspondences'].clear()
        stamp = rig.send()
        client.spin_for(0.3)
        stamps = [stamp_nanoseconds(m.header) for m in client.received['correspondences']]
        return stamps.count(stamp) == 2

    client.spin_until(both, what='an answer of each tracker')
    second.process.kill()
    second.wait()
    rig.good()  # the very next image
    client.spin_for(0.3)
    for _ in range(3):
        rig.good()
    assert 'Traceback' not in rig.tracker.log()


def recorder(environment, target, *topics):
    return subprocess.Popen(
        [sys.executable, '-m', 'mdnet_ros.nodes.recorder', str(target), *topics],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


def test_where_nothing_can_be_written_recording_is_refused(environment, tmp_path):
    (tmp_path / 'a_file').write_text('')
    places = ('/proc/mdnet_bag', tmp_path / 'a_file' / 'bag')
    for process in [recorder(environment, place, '/raw/keypoints') for place in places]:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 2
        assert err.count('\n') == 1
        assert 'cannot be written' in err


def test_a_recording_that_is_ended_in_the_stream_is_whole(rigs, environment, tmp_path):
    rig, target = rigs[False], tmp_path / 'bag'
    process = recorder(environment, target, '/raw/correspondences', '/raw/image')
    assert process.stdout.readline().strip() == SUBSCRIBED
    rig.client.spin_for(0.5)
    for index in range(20):
        rig.send()
        rig.client.spin_for(0.02)
        if index == 10:
            process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, '')
    assert [path.name for path in tmp_path.iterdir()] == ['bag']
    with BagReader(target) as bag:
        assert bag.counts['/raw/image'] >= 5
        for frame in bag.images('/raw/image'):
            assert frame.image.shape == (120, 160)


def test_overload_is_dropped_and_nothing_piles_up(rigs, connect):
    """Hundreds of images, many more than can be served; then bursts."""
    rig = rigs[False]
    client, pid = rig.client, rig.tracker.process.pid
    large = np.tile(client.picture()[:, :, 0], (4, 4))
    fields = {'image': large, 'encoding': 'mono8', 'step': large.shape[1]}
    for _ in range(5):
        rig.good(**fields)
    memory, files = resident_memory(pid), open_files(pid)
    heard = []
    listener = connect(namespace='raw')
    listener.node.create_subscription(
        PointCloud2, 'correspondences', lambda m: heard.append(stamp_nanoseconds(m.header)), 100
    )

    def burst(count):
        """Which of some images sent one after the other are answered."""
        stamps = [rig.send(**fields) for _ in range(count)]
        client.spin_until(lambda: stamps[-1] in heard, what='the newest image')
        return [stamp in heard for stamp in stamps]

    with spinning(listener.executor):
        client.spin_until(lambda: burst(1)[0], what='the listener')
        before = rig.values()
        bursts = [burst(20) for _ in range(20)]
    after = rig.values()
    assert heard == sorted(heard)
    answered = sum(map(sum, bursts))
    dropped = int(after['dropped: overload']) - int(before.get('dropped: overload', 0))
    lost = int(after['frames lost in transport']) - int(before['frames lost in transport'])
    received = int(after['frames received']) - int(before['frames received'])
    processed = int(after['frames processed']) - int(before['frames processed'])
    # Images that newer ones replaced before the middleware handed them over are not seen here.
    assert dropped + processed == received <= 400 - lost
    assert len(bursts) <= answered <= processed
    assert dropped > answered
    # A queue would serve the last images of each burst one by one. The newest replaces those that
    # wait: in the best burst at most the one in hand when they came, and the last.
    assert min(sum(served[-5:]) for served in bursts) <= 2
    assert resident_memory(pid) < 1.1 * memory
    assert open_files(pid) <= files + 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_a_gpu_without_memory_hands_over_to_the_cpu(weights):
    """The real thing: this process may not take any more of the GPU's memory."""
    settings = TrackerSettings(weights=str(weights), device='cuda', max_keypoints=128)
    picture = np.random.default_rng(0).integers(0, 256, (1200, 1600), np.uint8)
    engine = Engine(load_configuration(settings))
    engine.process(np.ascontiguousarray(picture[:120, :160]), 1)
    try:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1e-4)
        result = engine.process_job(Job(engine.configuration, {0: GrayImage(picture, 2)}))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert result.fell_back
    assert str(engine.configuration.extractor.device) == 'cpu'
    result = engine.process_job(Job(engine.configuration, {0: GrayImage(picture, 3)}))
    assert not result.fell_back
