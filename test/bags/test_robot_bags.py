"""Bags as robots and people leave them: without their end, without metadata, edited, of ROS 1."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import sqlite3

import numpy as np
import pytest
import yaml
from mcap.reader import make_reader
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from mdnet_ros.bags.mcap_ending import complete, missing_ending
from mdnet_ros.bags.messages import BagTopics
from mdnet_ros.bags.qos import TopicQos
from mdnet_ros.bags.reader import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, BagReader
from mdnet_ros.bags.unfinished import finish_beside
from mdnet_ros.bags.writer import STORAGES, BagWriter
from mdnet_ros.errors import DataError

START = 1_700_000_000_000_000_000
STEP = 100_000_000


def write(path, storage='mcap', count=6, noise=False, encoding=None):
    """A bag of a few images on two topics; noisy ones fill several chunks."""
    rng = np.random.default_rng(0)
    with BagWriter(path, storage) as bag:
        topics = BagTopics(bag)
        for i in range(count):
            shape = (480, 640) if noise else (48, 64)
            topics.image('/camera', START + i * STEP, 'camera', rng.integers(0, 9, shape, 'u1'))
            topics.image('/other', START + i * STEP + 5, 'camera', np.full((8, 8), i, 'u1'))
    return path


def stamps(path, topic='/camera'):
    with BagReader(path) as bag:
        return [frame.stamp_ns for frame in bag.images(topic)]


def expected(count):
    return [START + i * STEP for i in range(count)]


@pytest.mark.parametrize('storage', STORAGES)
def test_a_folder_without_metadata_is_read(tmp_path, storage):
    path = write(tmp_path / 'bag', storage)
    (path / 'metadata.yaml').unlink()
    assert stamps(path) == expected(6)


@pytest.mark.parametrize('content', ['', 'no: yaml: at: all', '[]', '- x', 'a: !!python/name:os'])
def test_damaged_metadata_is_done_without(tmp_path, content):
    path = write(tmp_path / 'bag')
    (path / 'metadata.yaml').write_text(content)
    assert stamps(path) == expected(6)


def test_a_renamed_or_missing_file_does_not_cost_the_others(tmp_path, caplog):
    path = write(tmp_path / 'bag')
    (path / 'bag.mcap').rename(path / 'monday.mcap')
    assert stamps(path) == expected(6)
    assert "'bag.mcap' is named in metadata.yaml not there" in caplog.text
    shutil.copy(path / 'monday.mcap', path / 'tuesday.mcap')
    (path / 'tuesday.mcap').write_bytes(b'not mcap')
    assert stamps(path) == expected(6)
    assert "'tuesday.mcap' is left out" in caplog.text


@pytest.mark.parametrize('storage', STORAGES)
def test_a_bag_of_several_files_is_read_in_order_of_time(tmp_path, storage):
    suffix = {'mcap': '.mcap', 'sqlite3': '.db3'}[storage]
    one, two = write(tmp_path / 'one', storage), tmp_path / 'two'
    with BagWriter(two, storage) as bag:
        for i in (8, 6, 7):
            image = np.zeros((8, 8), 'u1')
            BagTopics(bag).image('/camera', START + i * STEP, 'camera', image)
    (tmp_path / 'split').mkdir()
    shutil.copy(next(two.glob(f'*{suffix}')), tmp_path / 'split' / f'a{suffix}')
    shutil.copy(next(one.glob(f'*{suffix}')), tmp_path / 'split' / f'b{suffix}')
    assert stamps(tmp_path / 'split') == expected(9)
    with BagReader(tmp_path / 'split') as bag:
        assert bag.counts == {'/camera': 9, '/other': 6}


@pytest.mark.parametrize('profile', [
    '- history: 1\n  depth: 7\n  reliability: 1\n  durability: 1\n', '- nonsense', ': [', '3',
])
@pytest.mark.parametrize('storage', STORAGES)
def test_edited_quality_of_service_loses_no_message(tmp_path, storage, profile):
    path = write(tmp_path / 'bag', storage)
    document = yaml.safe_load((path / 'metadata.yaml').read_text())
    if 'depth' in profile:
        times = ''.join(
            f'  {name}:\n    sec: 0\n    nsec: 0\n'
            for name in ('deadline', 'lifespan', 'liveliness_lease_duration')
        )
        profile += f'{times}  liveliness: 1\n  avoid_ros_namespace_conventions: false\n'
    for entry in document['rosbag2_bagfile_information']['topics_with_message_count']:
        entry['topic_metadata']['offered_qos_profiles'] = profile
    (path / 'metadata.yaml').write_text(yaml.safe_dump(document))
    assert stamps(path) == expected(6)
    with BagReader(path) as bag:
        wanted = TopicQos(True, True, 7) if 'depth' in profile else None
        assert bag.qos('/camera') == wanted


@pytest.mark.parametrize('mode', ['FILE', 'MESSAGE'])
def test_a_compressed_bag_with_edited_quality_of_service_is_read(tmp_path, mode):
    from rosbags.rosbag2 import CompressionFormat, CompressionMode

    store = get_typestore(Stores.ROS2_JAZZY)
    writer = Writer(tmp_path / 'bag', version=9)
    writer.set_compression(CompressionMode[mode], CompressionFormat.ZSTD)
    t = store.types
    with writer:
        topic = writer.add_connection('/n', 'std_msgs/msg/Int32', typestore=store)
        for i in range(3):
            data = store.serialize_cdr(t['std_msgs/msg/Int32'](i), 'std_msgs/msg/Int32')
            writer.write(topic, START + i, data)
    file = tmp_path / 'bag' / 'metadata.yaml'
    document = yaml.safe_load(file.read_text())
    (entry,) = document['rosbag2_bagfile_information']['topics_with_message_count']
    zero = {'sec': 0, 'nsec': 0}
    entry['topic_metadata']['offered_qos_profiles'] = [{
        'history': 'keep_last', 'depth': 1, 'reliability': 'reliable', 'deadline': zero,
        'durability': 'transient_local', 'lifespan': zero, 'liveliness': 'automatic',
        'liveliness_lease_duration': zero, 'avoid_ros_namespace_conventions': False,
    }]
    file.write_text(yaml.safe_dump(document))
    with BagReader(tmp_path / 'bag') as bag:
        assert [m.data for m in bag.messages('/n')] == [0, 1, 2]
        assert bag.qos('/n') == TopicQos(True, True, 1)
    file.unlink()
    if mode == 'FILE':
        with pytest.raises(DataError, match="compressed .* run 'ros2 bag reindex'"):
            BagReader(tmp_path / 'bag').__enter__()


def cuts(size):
    """Lengths to cut a file to: near its end, and anywhere."""
    near = [size - n for n in (1, 8, 20, 37, 45, 100, 200, 300, 400)]
    return near + [int(size * share) for share in (0.95, 0.9, 0.75, 0.5, 0.3, 0.2)]


def test_an_mcap_without_its_end_is_read(tmp_path, caplog):
    """Whatever its last byte, what is whole is read; the same by three readers."""
    source = write(tmp_path / 'bag', count=30, noise=True) / 'bag.mcap'
    whole = source.read_bytes()
    counts = []
    for length in cuts(len(whole)):
        cut = tmp_path / 'cut.mcap'
        cut.write_bytes(whole[:length])
        found = stamps(cut)
        counts.append(len(found))
        assert found == expected(len(found))
        assert cut.read_bytes() == whole[:length]  # a stranger's file is not changed
        ending = missing_ending(cut)
        complete(cut, ending)
        with cut.open('rb') as file:
            reader = make_reader(file, validate_crcs=True)
            assert reader.get_summary().statistics.message_count >= len(found)
            ours = [m.log_time for _, _, m in reader.iter_messages(topics=['/camera'])]
        assert ours == found
        with Reader(cut) as reader:
            topics = [c for c in reader.connections if c.topic == '/camera']
            assert [stamp for _, stamp, _ in reader.messages(topics)] == found
        assert missing_ending(cut) is None
    # Only the end is missing: nothing is lost. A chunk holds three images.
    assert counts[:9] == [30] * 9
    assert counts[9:] == sorted(counts[9:], reverse=True)
    assert all(abs(n - 30 * share) <= 4 for n, share in zip(
        counts[9:], (0.95, 0.9, 0.75, 0.5, 0.3, 0.2), strict=True))
    assert 'was not closed, reading the part that is whole' in caplog.text


def test_zeros_at_the_end_of_an_mcap_are_not_messages(tmp_path):
    """What a file system leaves where the power failed."""
    source = write(tmp_path / 'bag', count=30, noise=True) / 'bag.mcap'
    whole = source.read_bytes()
    cut = tmp_path / 'cut.mcap'
    half = len(whole) // 2
    cut.write_bytes(whole[:half] + bytes(10_000))
    found = stamps(cut)
    assert 10 <= len(found) <= 15
    assert found == expected(len(found))


@pytest.mark.parametrize('chunked', [True, False])
@pytest.mark.parametrize('compression', ['NONE', 'LZ4', 'ZSTD'])
def test_an_mcap_of_another_writer_without_its_end_is_read(tmp_path, chunked, compression):
    """As ``mcap`` itself writes it: with chunk checksums, compressed, or without chunks."""
    from mcap.writer import CompressionType
    from mcap.writer import Writer as McapWriter

    store = get_typestore(Stores.ROS2_JAZZY)
    kind = 'std_msgs/msg/Int32'
    path = tmp_path / 'other.mcap'
    with path.open('wb') as file:
        writer = McapWriter(
            file, chunk_size=200, compression=CompressionType[compression], use_chunking=chunked
        )
        writer.start('ros2', 'test')
        definition = store.generate_msgdef(kind, ros_version=2)[0].encode()
        schema = writer.register_schema(kind, 'ros2msg', definition)
        channel = writer.register_channel('/n', 'cdr', schema)
        for i in range(200):
            data = bytes(store.serialize_cdr(store.types[kind](i), kind))
            writer.add_message(channel, START + i, data, START + i)
        writer.finish()
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * 0.6)])
    with BagReader(path) as bag:
        values = [m.data for m in bag.messages('/n')]
    assert len(values) > 50
    assert values == list(range(len(values)))


def test_an_mcap_whose_recorder_wrote_no_chunk_says_so(tmp_path):
    source = write(tmp_path / 'bag') / 'bag.mcap'
    cut = tmp_path / 'cut.mcap'
    cut.write_bytes(source.read_bytes()[:200])
    with pytest.raises(DataError, match="cut.mcap': holds no complete chunk of messages"):
        stamps(cut)


def leave_open(path, storage, count=6):
    """What a killed writer leaves: committed, but never closed. Its lock is let go."""
    bag = BagWriter(path, storage)
    bag.__enter__()
    topics = BagTopics(bag)
    for i in range(count):
        topics.image('/camera', START + i * STEP, 'camera', np.full((48, 64), i, 'u1'))
    bag.commit()
    topics.image('/camera', START + count * STEP, 'camera', np.zeros((480, 640), 'u1'))
    bag._lock.close()
    return bag


@pytest.mark.parametrize('name', ['run', 'run.unfinished'])
@pytest.mark.parametrize('storage', STORAGES)
def test_an_unfinished_recording_is_completed_by_its_reader(tmp_path, storage, name, caplog):
    bag = leave_open(tmp_path / 'run', storage)
    assert not (tmp_path / 'run').exists()
    assert stamps(tmp_path / name) == expected(6)
    assert "was not ended; its 6 messages are now in" in caplog.text
    assert [p.name for p in tmp_path.iterdir()] == ['run']
    with Reader(tmp_path / 'run') as reader:  # strict about metadata.yaml
        assert len(list(reader.messages(reader.connections))) == reader.message_count == 6
    document = yaml.safe_load((tmp_path / 'run' / 'metadata.yaml').read_text())
    assert document['rosbag2_bagfile_information']['duration']['nanoseconds'] == 5 * STEP
    bag._writer.abort()


@pytest.mark.parametrize('storage', STORAGES)
def test_an_unfinished_recording_makes_room_for_the_next_of_its_name(tmp_path, storage, caplog):
    bags = [leave_open(tmp_path / 'before', storage)]
    for name in ('run_recovered', 'run_recovered_2'):
        bags.append(leave_open(tmp_path / 'run', storage))
        with BagWriter(tmp_path / 'run', storage) as bag:
            BagTopics(bag).image('/new', START, 'camera', np.zeros((8, 8), 'u1'))
        assert stamps(tmp_path / name) == expected(6)
        assert f"'{tmp_path / name}'" in caplog.text
        shutil.rmtree(tmp_path / 'run')
    assert stamps(tmp_path / 'before') == expected(6)  # another recording beside, completed too
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ['before', 'run_recovered', 'run_recovered_2']
    for bag in bags:
        bag._writer.abort()


def test_what_cannot_be_completed_does_not_stop_the_next_recording(tmp_path):
    (tmp_path / 'run.unfinished' / 'run').mkdir(parents=True)
    (tmp_path / 'run.unfinished' / 'run' / 'run.mcap').write_bytes(b'')
    (line,) = finish_beside(tmp_path / 'run')
    assert "moved to" in line
    with BagWriter(tmp_path / 'run'):
        pass
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ['run', 'run.unreadable']


def test_a_recording_in_progress_is_left_alone(tmp_path):
    with BagWriter(tmp_path / 'run') as bag:
        BagTopics(bag).image('/camera', START, 'camera', np.zeros((8, 8), 'u1'))
        with pytest.raises(DataError, match='is being recorded by another process'):
            stamps(tmp_path / 'run')
        with pytest.raises(DataError, match='another process writes it'):
            BagWriter(tmp_path / 'run').__enter__()
        with BagWriter(tmp_path / 'other'):
            pass
    assert stamps(tmp_path / 'run') == [START]


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_an_unfinished_recording_on_a_medium_that_cannot_be_written_is_read(tmp_path):
    bag = leave_open(tmp_path / 'run', 'mcap')
    tmp_path.chmod(0o555)
    try:
        assert stamps(tmp_path / 'run') == expected(6)
    finally:
        tmp_path.chmod(0o755)
    bag._writer.abort()


def test_a_database_with_a_log_of_its_killed_recorder_is_read(tmp_path):
    """rosbag2's resilient sqlite3 preset keeps committed messages in a log beside it."""
    path = write(tmp_path / 'bag', 'sqlite3')
    database = sqlite3.connect(path / 'bag.db3')
    database.execute('PRAGMA journal_mode=WAL')
    database.execute(
        'INSERT INTO messages (topic_id, timestamp, data) SELECT topic_id, timestamp + 1000000000, '
        "data FROM messages WHERE topic_id = (SELECT id FROM topics WHERE name = '/camera')"
    )
    database.commit()
    copy = tmp_path / 'copy'
    copy.mkdir()
    for part in path.iterdir():
        shutil.copy(part, copy / part.name)
    assert (copy / 'bag.db3-wal').stat().st_size > 0
    database.close()
    with BagReader(copy) as bag:
        assert len(list(bag.raw(['/camera']))) == 12


def test_a_message_that_is_none_costs_only_itself(tmp_path, caplog):
    path = tmp_path / 'bag'
    with BagWriter(path) as bag:
        topics = BagTopics(bag)
        bag.write('/camera', IMAGE, START - 5, b'\x00\x01\x00\x00' + b'\xff' * 20)
        for i in range(3):
            image = np.full((48, 64), i, 'u1')
            topics.image('/camera', START + i * STEP, 'camera', image)
    with BagReader(path) as bag:
        assert bag.image_topic() == '/camera'
        assert [f.stamp_ns for f in bag.images()] == expected(3)
    assert '(1 of 4 messages left out)' in caplog.text


def encoded(bag, topic, encoding, dtype):
    t = bag.types
    header = t['std_msgs/msg/Header'](t['builtin_interfaces/msg/Time'](1, 0), 'camera')
    size = np.dtype(dtype).itemsize
    bag.write(topic, IMAGE, START, t[IMAGE](
        header, 48, 64, encoding, 0, 64 * size, np.zeros(48 * 64 * size, np.uint8)))


def compressed(bag, topic, format):
    t = bag.types
    header = t['std_msgs/msg/Header'](t['builtin_interfaces/msg/Time'](1, 0), 'camera')
    content = np.zeros(8, np.uint8)
    bag.write(topic, COMPRESSED_IMAGE, START, t[COMPRESSED_IMAGE](header, format, content))


def test_depth_is_not_taken_for_a_camera(tmp_path):
    path = tmp_path / 'bag'
    with BagWriter(path) as bag:
        encoded(bag, '/depth/image', '16UC1', np.uint16)
        encoded(bag, '/depth/metres', '32FC1', np.float32)
        compressed(bag, '/depth/image/compressed', '16UC1; png compressed')
        compressed(bag, '/depth/image/compressedDepth', '16UC1; compressedDepth png')
        compressed(bag, '/shout/compressedDepth', '16uc1; COMPRESSEDDEPTH PNG')
        compressed(bag, '/depth/metres/compressedDepth', '32FC1; compressedDepth')
        BagTopics(bag).image('/camera', START, 'camera', np.zeros((48, 64), 'u1'))
    with BagReader(path) as bag:
        assert bag.image_topics() == ['/camera']


def test_a_bag_of_16_bit_images_alone_says_how_to_read_them(tmp_path):
    """A thermal camera's images look like depth: its topic must be named."""
    path = tmp_path / 'bag'
    with BagWriter(path) as bag:
        encoded(bag, '/thermal', '16UC1', np.uint16)
    with BagReader(path) as bag:
        with pytest.raises(DataError, match=r"found none.*'/thermal' holds 16UC1.*name the topic"):
            bag.image_topic()
        assert bag.image_topic('/thermal') == '/thermal'
        (frame,) = bag.images('/thermal')
        assert frame.image.shape == (48, 64)


@pytest.fixture
def ros1(tmp_path):
    """A ROS 1 bag with a latched camera_info, a type of its own and one that ROS 2 changed."""
    store = get_typestore(Stores.ROS1_NOETIC)
    store.register(get_types_from_msg('uint8 a\nstring b\n', 'my_msgs/msg/Status'))
    t = store.types
    path = tmp_path / 'ros1.bag'

    def header(i):
        time = t['builtin_interfaces/msg/Time'](*divmod(START + i * STEP, 10**9))
        return t['std_msgs/msg/Header'](i, time, 'camera')

    with Ros1Writer(path) as bag:
        image = bag.add_connection('/camera/image_raw', IMAGE, typestore=store)
        info = bag.add_connection('/camera/camera_info', CAMERA_INFO, typestore=store, latching=1)
        own = bag.add_connection('/status', 'my_msgs/msg/Status', typestore=store)
        k = np.array([50.0, 0, 32, 0, 50, 24, 0, 0, 1])
        region = t['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
        message = t[CAMERA_INFO](
            header(0), 48, 64, 'plumb_bob', np.zeros(5), k, np.eye(3).ravel(), np.zeros(12), 0, 0,
            region,
        )
        bag.write(info, START, store.serialize_ros1(message, CAMERA_INFO))
        kind = 'my_msgs/msg/Status'
        bag.write(own, START, store.serialize_ros1(t[kind](7, 'seven'), kind))
        for i in range(3):
            pixels = np.full(48 * 64, i, np.uint8)
            message = t[IMAGE](header(i), 48, 64, 'mono8', 0, 64, pixels)
            bag.write(image, START + i * STEP, store.serialize_ros1(message, IMAGE))
    return path


def test_a_ros1_bag_gives_cdr(ros1):
    """Its raw messages are those of ROS 2, so that they can be published as they are."""
    modern = get_typestore(Stores.ROS2_JAZZY)
    with BagReader(ros1) as bag:
        assert bag.is_ros1
        assert bag.qos('/camera/camera_info') == TopicQos(True, True, 1)
        assert bag.qos('/camera/image_raw') is None
        assert stamps(ros1, '/camera/image_raw') == expected(3)
        assert next(bag.messages('/camera/camera_info')).K[0] == 50
        for raw in bag.raw(['/camera/camera_info', '/camera/image_raw']):
            message = modern.deserialize_cdr(raw.data, raw.type)
            assert message.header.frame_id == 'camera'
            assert message.height == 48
        (status,) = bag.messages('/status')
        assert (status.a, status.b) == (7, 'seven')
        assert bag.fields(CAMERA_INFO)['d'] == 'sequence<double>'
        assert bag.fields(CAMERA_INFO)['p'] == 'double[12]'


def test_a_ros1_bag_that_was_not_closed_says_what_to_do(ros1, tmp_path):
    active = tmp_path / 'ros1.bag.active'
    shutil.copy(ros1, active)
    with pytest.raises(DataError, match="run 'rosbag reindex'"):
        stamps(active)
    content = ros1.read_bytes()
    (tmp_path / 'cut.bag').write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r'cut.bag'):
        stamps(tmp_path / 'cut.bag')


def test_quality_of_service_is_kept_in_the_bag(tmp_path):
    latched, plain = TopicQos(True, True, 3), TopicQos(False, False, 5)
    for storage in STORAGES:
        path = tmp_path / storage
        with BagWriter(path, storage) as bag:
            t = bag.types
            text = t['std_msgs/msg/String']('x')
            bag.write('/latched', 'std_msgs/msg/String', START, text, (latched, latched))
            bag.write('/plain', 'std_msgs/msg/String', START, text, (plain,))
            bag.write('/untold', 'std_msgs/msg/String', START, text)
        with BagReader(path) as bag:
            assert bag.qos('/latched') == TopicQos(True, True, 6)  # of both publishers
            assert bag.qos('/plain') == plain
            assert bag.qos('/untold') is None


def test_a_message_type_of_ones_own_can_be_written(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        parts = bag.define('my_msgs/msg/Outer', 'my_msgs/Inner[] inner\nuint8 b\n')
        assert parts == {'my_msgs/msg/Inner'}
        assert bag.define('my_msgs/msg/Inner', 'float64 a\n') == set()
        t = bag.types
        inner = [t['my_msgs/msg/Inner'](1.5)]
        bag.write('/x', 'my_msgs/msg/Outer', START, t['my_msgs/msg/Outer'](inner, 3))
        with pytest.raises(DataError, match="'my_msgs/msg/Bad': its definition"):
            bag.define('my_msgs/msg/Bad', 'float64 :=\n')
    with BagReader(tmp_path / 'bag') as bag:
        (message,) = bag.messages('/x')
        assert message.inner[0].a == 1.5


def test_a_full_disk_keeps_what_was_recorded(tmp_path):
    """Writing fails from some message on; what was committed before is a bag all the same."""
    for storage in STORAGES:
        path = tmp_path / storage
        bag = BagWriter(path, storage)
        bag.__enter__()
        topics = BagTopics(bag)
        for i in range(4):
            topics.image('/camera', START + i * STEP, 'camera', np.zeros((48, 64), 'u1'))
        bag.commit()
        topics.image('/camera', START + 4 * STEP, 'camera', np.zeros((48, 64), 'u1'))
        assert bag.salvage()
        assert not bag.salvage()
        assert stamps(path) == expected(4)
        assert not bag.unfinished.exists()


def test_an_index_that_finds_no_room_is_written_later(tmp_path):
    """The disk is so full that not even the end of the mcap fits: the data waits for room."""
    path = tmp_path / 'bag'
    bag = BagWriter(path, 'mcap')
    bag.__enter__()
    topics = BagTopics(bag)
    for i in range(4):
        topics.image('/camera', START + i * STEP, 'camera', np.zeros((48, 64), 'u1'))
    bag.commit()
    size = (bag.unfinished / 'bag' / 'bag.mcap').stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
    try:
        with pytest.raises(DataError, match='what was written until then is in .*unfinished'):
            bag.salvage()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert bag.unfinished.exists()
    assert stamps(path) == expected(4)
    assert not bag.unfinished.exists()


def test_topics_of_another_encoding_are_left_out(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(tmp_path / 'b', version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        kind = 'std_msgs/msg/Int32'
        good = writer.add_connection('/good', kind, typestore=store)
        other = writer.add_connection(
            '/json', kind, typestore=store, serialization_format='json'
        )
        writer.write(good, START, store.serialize_cdr(store.types[kind](3), kind))
        writer.write(other, START, b'{"data": 3}')
    with BagReader(tmp_path / 'b') as bag:
        assert list(bag.topics) == ['/good']
        assert [m.data for m in bag.messages('/good')] == [3]
    assert "topic '/json' is left out" in caplog.text
