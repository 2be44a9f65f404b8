"""``mdnet track`` over a short bag: every frame, the same twice, and one line for each mistake."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from mdnet_ros.bags.messages import BagTopics
from mdnet_ros.bags.reader import BagReader
from mdnet_ros.bags.writer import BagWriter
from mdnet_ros.cli.main import main
from mdnet_ros.data.camera import CameraModel
from mdnet_ros.demo.recording import IMAGE_TOPIC, write_scene
from mdnet_ros.demo.scene import Scene, SceneSettings
from mdnet_ros.features.network import MDNet, MDNetConfig
from mdnet_ros.features.weights import save_weights
from mdnet_ros.tracker.recording import read_tracks

SCENE = SceneSettings(duration_s=0.4, rate_hz=20, width=192, height=144)
METRICS = {
    'frames_in', 'frames_processed', 'frames_dropped', 'fps', 'latency_ms', 'keypoints_per_frame',
    'matches_per_frame', 'track_length', 'inlier_ratio', 'precision',
}  # fmt: skip


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder with a bag ``scene`` and weights ``random.safetensors``."""
    folder = tmp_path_factory.mktemp('track')
    write_scene(Scene(SCENE), folder / 'scene', 'mcap')
    torch.manual_seed(0)
    network = MDNet(MDNetConfig(dim=32, channels=(4, 8, 8, 16, 16)))
    save_weights(network, folder / 'random.safetensors', {})
    return folder


def track(place, *more, out, bag='scene', weights='random.safetensors'):
    return main([
        'track', '--bag', str(place / bag), '--out', str(place / out),
        '--weights', str(place / weights), '--max-keypoints', '128', '--set', 'threads=1', *more,
    ])


def contents(path):
    """Hash of all messages with topics and stamps."""
    digest = hashlib.sha256()
    with BagReader(path) as bag:
        for m in bag.raw():
            digest.update(f'{m.topic} {m.type} {m.stamp_ns}'.encode() + m.data)
    return digest.hexdigest()


def test_every_frame_in_order_and_the_same_twice(place, capsys):
    assert track(place, '--json', str(place / 'one.json'), out='one') == 0
    assert 'frames processed' in capsys.readouterr().out
    # The second time without ROS, in another process, into the other storage.
    program = (
        'import sys; sys.modules["rclpy"] = None; sys.modules["sensor_msgs"] = None\n'
        'from mdnet_ros.cli.main import main; sys.exit(main(sys.argv[1:]))'
    )
    subprocess.run(
        [sys.executable, '-c', program, 'track', '--bag', place / 'scene', '--out', place / 'two',
         '--weights', place / 'random.safetensors', '--max-keypoints', '128',
         '--set', 'threads=1', '--storage', 'mcap', '--no-pictures'],
        check=True, capture_output=True,
    )
    assert contents(place / 'one' / 'tracks') == contents(place / 'two' / 'tracks')
    document = json.loads((place / 'one.json').read_text())
    assert document == json.loads((place / 'one' / 'summary.json').read_text())
    assert set(document) >= METRICS
    assert set(document['latency_ms']) == {'p50', 'p95', 'p99'}
    assert set(document['track_length']) == {'mean', 'median', 'p90'}
    assert set(document['precision']) == {'1px', '2px', '3px'}
    assert document['precision_kind'] == 'position'  # the scene has depth
    assert document['frames_in'] == document['frames_processed'] == SCENE.frame_count == 8
    assert document['frames_dropped'] == 0
    with BagReader(place / 'scene') as scene, BagReader(place / 'one' / 'tracks') as tracks:
        stamps = [frame.stamp_ns for frame in scene.images(IMAGE_TOPIC)]
        frames = list(read_tracks(tracks, (192, 144)))
        assert [f.stamp_ns for f in frames] == stamps
        assert tracks.counts == {'/correspondences': 8, '/keypoints': 8}
    mean = np.mean([len(f.features) for f in frames])
    assert document['keypoints_per_frame'] == pytest.approx(mean)
    links = sum(len(f.correspondences) for f in frames)
    assert document['matches_per_frame'] == pytest.approx(links / 7)
    sheet = cv2.imread(str(place / 'one' / 'contact_sheet.png'))
    assert sheet.shape == (2 * 360, 4 * 480, 3)
    video = cv2.VideoCapture(str(place / 'one' / 'tracks.mp4'))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 8
    names = {p.name for p in (place / 'one').iterdir()}
    assert names == {'tracks', 'summary.json', 'contact_sheet.png', 'tracks.mp4'}
    assert {p.name for p in (place / 'two').iterdir()} == {'tracks', 'summary.json'}


def test_refined_tracks_in_the_bag(place):
    assert track(place, '--refinement', 'flow', '--no-pictures', out='refined') == 0
    assert track(place, '--no-pictures', out='plain') == 0
    read = []
    for out in ('refined', 'plain'):
        with BagReader(place / out / 'tracks') as bag:
            read.append(list(read_tracks(bag, (192, 144))))
    for refined, plain in zip(*read, strict=True):
        assert plain.refined is None
        detected = refined.missed == 0
        assert detected.sum() == len(plain.features)
        kept = detected & ~refined.refined
        assert np.isin(refined.features.keypoints[kept], plain.features.keypoints).all()
    assert any(frame.refined.any() for frame in read[0])
    assert json.loads((place / 'refined' / 'summary.json').read_text())['about']['settings'][
        'refinement'] == 'flow'



def test_settings_of_the_node_are_options(place):
    more = ('--no-pictures', '--set', 'descriptor_encoding=none', '--set', 'vins_layout=fusion',
            '--set', 'min_similarity=1')
    assert track(place, *more, out='set') == 0
    with BagReader(place / 'set' / 'tracks') as bag:
        assert bag.topics['/tracks'] == 'sensor_msgs/msg/PointCloud'
        frames = list(read_tracks(bag, (192, 144)))
        cloud = next(bag.messages('/tracks'))
    assert frames[0].features.descriptors.shape[1] == 0
    assert sum(len(f.correspondences) for f in frames) == 0  # none is that similar
    assert len(cloud.channels) == 9
    assert json.loads((place / 'set' / 'summary.json').read_text())['about']['settings'][
        'min_similarity'] == 1.0


def test_rectified_images_have_no_distortion(place):
    k = np.array([[150.0, 0, 95.5], [0, 150.0, 71.5], [0, 0, 1]])
    info = CameraModel(192, 144, k, np.array([-0.3, 0.1, 0, 0, 0.0]))
    with BagWriter(place / 'rectified', overwrite=True) as bag:
        topics = BagTopics(bag)
        for frame in Scene(SCENE):
            topics.camera_info('/camera_info', frame.stamp_ns, 'camera', info)
            topics.image('/image', frame.stamp_ns, 'camera', frame.image)
    for rectified in (True, False):
        more = ('--no-pictures', '--set', 'vins_layout=mono', '--set', f'rectified={rectified}')
        assert track(place, *more, out='rectified-out', bag='rectified') == 0
        with BagReader(place / 'rectified-out' / 'tracks') as bag:
            cloud = list(bag.messages('/tracks'))[-1]
        u, v = (channel.values for channel in cloud.channels[1:3])
        x, y = np.array([(p.x, p.y) for p in cloud.points]).T
        off = np.abs([x - (u - 95.5) / 150, y - (v - 71.5) / 150]).max()
        assert off < 1e-5 if rectified else off > 1e-3


def test_unusable_images_are_counted_and_the_others_tracked(place, capsys):
    with BagWriter(place / 'gaps', overwrite=True) as bag:
        topics = BagTopics(bag)
        for i, frame in enumerate(Scene(SCENE)):
            image = frame.image if i != 3 else frame.image[:16, :16]
            topics.image('/image', frame.stamp_ns, 'camera', image)
    assert track(place, '--no-pictures', out='gaps-out', bag='gaps') == 0
    assert '1 of 8 images cannot be used, the first: image: expected' in capsys.readouterr().err
    document = json.loads((place / 'gaps-out' / 'summary.json').read_text())
    assert (document['frames_in'], document['frames_processed']) == (8, 7)
    assert document['drops'] == {'bad image': 1}
    assert 'precision' not in document


@pytest.fixture(scope='module')
def broken(place):
    """Inputs that cannot be used, beside the good ones."""
    (place / 'text.mcap').write_text('no bag')
    (place / 'text.safetensors').write_text('no weights')
    good = (place / 'random.safetensors').read_bytes()
    (place / 'cut.safetensors').write_bytes(good[: len(good) // 2])
    with BagWriter(place / 'tiny', overwrite=True) as bag:
        BagTopics(bag).image('/image', 0, 'camera', np.zeros((16, 16), np.uint8))
    (place / 'file').write_text('')
    return place


@pytest.mark.parametrize(
    ('options', 'more', 'complaint'),
    [
        ({'bag': 'absent'}, (), "absent': no such file or folder"),
        ({'bag': 'text.mcap'}, (), "text.mcap': cannot be read"),
        ({}, ('--image-topic', '/nope'), "no topic '/nope', it has /camera/camera_info"),
        ({}, ('--image-topic', '/camera/camera_info'), 'CameraInfo, not images'),
        ({}, ('--camera-info-topic', '/nope'), "no topic '/nope'"),
        ({}, ('--pose-topic', IMAGE_TOPIC), 'Image, not poses'),
        ({'weights': 'absent'}, (), "absent': no such file"),
        ({'weights': 'text.safetensors'}, (), "text.safetensors': not a valid weights file"),
        ({'weights': 'cut.safetensors'}, (), "cut.safetensors': not a valid weights file"),
        ({'bag': 'tiny'}, (), "none of the 1 images of '/image' can be used: image: expected both"),
        ({}, ('--set', 'nonsense=1'), "--set 'nonsense=1': expected NAME=VALUE with one of"),
        ({}, ('--set', 'max_gap=many'), 'max_gap: expected an integer'),
        ({}, ('--max-keypoints', '0'), 'max_keypoints: expected 1 to'),
        ({}, ('--device', 'toaster'), "device 'toaster'"),
        ({'out': 'file'}, (), 'file'),
    ],
)
def test_mistakes_are_named_in_one_line(broken, capsys, options, more, complaint):
    assert track(broken, *more, '--no-pictures', **{'out': 'none', **options}) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.replace('\r', '\n').splitlines() if 'tracking:' not in line]
    (line,) = [line for line in lines if line.strip()]
    assert line.startswith('mdnet: error: ')
    assert complaint in line
    assert not (broken / 'none' / 'tracks').exists()


def test_a_mistake_ends_the_process_with_code_2(place):
    done = subprocess.run(
        [sys.executable, '-m', 'mdnet_ros.cli.main', 'track', '--bag', 'absent', '--out', 'no'],
        capture_output=True, text=True, cwd=place, check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "mdnet: error: bag 'absent': no such file or folder\n"
    assert not (place / 'no').exists()


@pytest.mark.parametrize(('name', 'step'), [
    ('hz100', 9_987_715), ('at_once', 2_000), ('hourly', 3_600_000_000_000),
])
def test_every_rate_of_images_gives_tracks_and_a_video(place, name, step):
    """A camera of 100.12 Hz, a bag that a script wrote in one go, a time lapse."""
    with BagWriter(place / name) as bag:
        for i in range(4):
            image = np.random.default_rng(i).integers(0, 255, (64, 96), np.uint8)
            BagTopics(bag).image('/image', 10**18 + i * step, 'cam', image)
    assert track(place, out=f'{name}-out', bag=name) == 0
    names = {p.name for p in (place / f'{name}-out').iterdir()}
    assert names == {'tracks', 'summary.json', 'tracks.mp4', 'contact_sheet.png'}


def test_a_video_that_cannot_be_written_costs_only_itself(place, capsys):
    (place / 'no-video' / 'tracks.mp4' / 'mine').mkdir(parents=True)
    assert track(place, out='no-video') == 0
    assert "mdnet track: no video '" in capsys.readouterr().err
    with BagReader(place / 'no-video' / 'tracks') as bag:
        assert bag.counts['/keypoints'] == 8
    assert json.loads((place / 'no-video' / 'summary.json').read_text())['frames_processed'] == 8


def test_a_thermal_camera_is_tracked_when_it_is_named(place, capsys):
    """16UC1 holds raw values; a fixed range and the image's own both give tracks."""
    rng = np.random.default_rng(0)
    counts = (30000 + 200 * cv2.GaussianBlur(rng.normal(size=(120, 160)), (0, 0), 2)).astype('u2')
    with BagWriter(place / 'thermal') as bag:
        t = bag.types
        for i in range(4):
            seen = np.roll(counts, i, axis=1)
            time = t['builtin_interfaces/msg/Time'](100, i * 10**8)
            message = t['sensor_msgs/msg/Image'](
                t['std_msgs/msg/Header'](time, 'cam'), 120, 160, '16UC1', 0, 320,
                seen.reshape(-1).view(np.uint8),
            )
            bag.write('/thermal', 'sensor_msgs/msg/Image', 10**18 + i * 10**8, message)
    assert track(place, '--no-pictures', out='unnamed', bag='thermal') == 2
    assert 'depth or a thermal camera: name the topic' in capsys.readouterr().err
    found = []
    for name, more in (
        ('own', ()), ('fixed', ('--set', 'count_low=29800', '--set', 'count_high=30200')),
        ('wrong', ('--set', 'count_low=1', '--set', 'count_high=2')),
    ):
        out = f'thermal-{name}'
        assert track(
            place, '--image-topic', '/thermal', '--no-pictures', *more, out=out, bag='thermal'
        ) == 0
        found.append(json.loads((place / out / 'summary.json').read_text()))
    own, fixed, wrong = (s['keypoints_per_frame'] for s in found)
    assert own > 0
    assert fixed > 0
    assert wrong == 0  # white everywhere


def test_a_recording_of_the_user_is_never_replaced(place, tmp_path, capsys):
    shutil.copytree(place / 'scene', tmp_path / 'tracks')  # the input itself, or another recording
    files = {path: path.read_bytes() for path in (tmp_path / 'tracks').iterdir()}
    for bag in (tmp_path / 'tracks', place / 'scene'):
        code = main(['track', '--bag', str(bag), '--out', str(tmp_path), '--weights',
                     str(place / 'random.safetensors'), '--no-pictures'])
        assert code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert 'is another recording (/camera/camera_info)' in line
    assert {path: path.read_bytes() for path in (tmp_path / 'tracks').iterdir()} == files


def test_an_unfinished_recording_of_the_user_is_completed_beside(place, tmp_path, caplog):
    (tmp_path / 'tracks.unfinished').mkdir()
    shutil.copytree(place / 'scene', tmp_path / 'tracks.unfinished' / 'tracks')
    assert track(place, '--no-pictures', out=tmp_path) == 0
    with BagReader(tmp_path / 'tracks_recovered') as bag, BagReader(place / 'scene') as scene:
        assert bag.counts == scene.counts
    assert track(place, '--no-pictures', out=tmp_path) == 0  # its own outputs it does replace
