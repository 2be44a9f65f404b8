"""What users' calibrations and true poses do to ``track``, ``convert``, ``view`` and ``replay``."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from mdnet_ros.bags.reader import CAMERA_INFO, IMAGE, BagReader
from mdnet_ros.bags.writer import BagWriter
from mdnet_ros.cli.main import main
from mdnet_ros.data.colmap import open_database
from mdnet_ros.data.poses import quaternion_of_rotation
from mdnet_ros.demo.recording import write_scene
from mdnet_ros.demo.scene import Scene, SceneSettings
from mdnet_ros.features.network import MDNet, MDNetConfig
from mdnet_ros.features.weights import save_weights

pytest.importorskip('poselib')
pytest.importorskip('evo')
pytest.importorskip('pycolmap')

SCENE = SceneSettings(duration_s=0.5, rate_hz=16, width=192, height=144)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder with a bag ``scene``, its tracks ``tracked`` and weights."""
    folder = tmp_path_factory.mktemp('calibrations')
    write_scene(Scene(SCENE), folder / 'scene')
    torch.manual_seed(0)
    network = MDNet(MDNetConfig(dim=32, channels=(4, 8, 8, 16, 16)))
    save_weights(network, folder / 'random.safetensors', {})
    assert track(folder, 'scene') == 0
    return folder


def with_camera_info(place, name, change):
    """A copy of the scene whose camera_info messages were changed."""
    with BagReader(place / 'scene') as a, BagWriter(place / name, overwrite=True) as b:
        infos = iter(list(a.messages('/camera/camera_info')))
        for raw in a.raw():
            data = raw.data
            if raw.type == CAMERA_INFO:
                info = next(infos)
                info.k, info.p = info.k.copy(), info.p.copy()
                change(info)
                data = b.types[CAMERA_INFO](
                    b.types['std_msgs/msg/Header'](
                        b.types['builtin_interfaces/msg/Time'](
                            info.header.stamp.sec, info.header.stamp.nanosec
                        ), info.header.frame_id,
                    ),
                    info.height, info.width, info.distortion_model, info.d, info.k, info.r, info.p,
                    info.binning_x, info.binning_y,
                    b.types['sensor_msgs/msg/RegionOfInterest'](*(
                        getattr(info.roi, field)
                        for field in ('x_offset', 'y_offset', 'height', 'width', 'do_rectify')
                    )),
                )
            b.write(raw.topic, raw.type, raw.stamp_ns, data)
    return name


def track(place, bag, *more):
    return main([
        'track', '--bag', str(place / bag), '--out', str(place / f'tracked_{bag}'),
        '--weights', str(place / 'random.safetensors'), '--max-keypoints', '128', '--no-pictures',
        '--set', 'threads=1', '--set', 'vins_layout=mono', *more,
    ])


def tracks_of(place, bag):
    """The last message on /tracks, as (N, 5): x, y, id, u, v; None without the topic."""
    with BagReader(place / f'tracked_{bag}' / 'tracks') as reader:
        if '/tracks' not in reader.topics:
            return None
        cloud = list(reader.messages('/tracks'))[-1]
    points = np.array([(p.x, p.y) for p in cloud.points]).reshape(-1, 2)
    return np.column_stack([points, *(channel.values for channel in cloud.channels[:3])])


def colmap_camera_of(place, bag, tmp_path):
    code = main(['convert', '--bag', str(place / 'tracked_scene' / 'tracks'), '--images',
                 str(place / bag), '--to', 'colmap', '--out', str(tmp_path / 'colmap')])
    assert code == 0
    database = open_database(tmp_path / 'colmap' / 'database.db')
    (camera,) = database.read_all_cameras()
    database.close()
    return camera


def replay(place, tmp_path, bag, *more):
    report = tmp_path / 'report.json'
    code = main(['evaluate', 'replay', '--bag', str(place / bag), '--extractors', 'klt',
                 '--max-keypoints', '200', '--no-odometry', '--json', str(report), *more])
    if code:
        return code, None, None
    document = json.loads(report.read_text())
    return code, document['extractors']['klt']['parts'][bag], document['omitted']


def binned(info):
    """The sensor is binned 2x2 to the image."""
    info.width, info.height, info.binning_x, info.binning_y = 384, 288, 2, 2
    info.k[[0, 2, 4, 5]] *= 2
    info.p[[0, 2, 5, 6]] *= 2


def cropped(info):
    info.width, info.height = 300, 200
    info.k[[2, 5]] += (50, 20)
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 50, 20, 192, 144


def only_p(info):
    info.k[:] = 0


@pytest.mark.parametrize('change', [binned, cropped, only_p])
def test_a_binned_cropped_or_rectified_camera_gives_what_the_plain_one_gives(
    place, tmp_path, capsys, change
):
    bag = with_camera_info(place, change.__name__, change)
    assert track(place, bag) == 0
    np.testing.assert_allclose(tracks_of(place, bag), tracks_of(place, 'scene'), atol=1e-6)
    scene, other = (
        json.loads((place / f'tracked_{b}' / 'summary.json').read_text()) for b in ('scene', bag)
    )
    assert other['precision'] == scene['precision']
    (tmp_path / 'a').mkdir()
    (tmp_path / 'b').mkdir()
    np.testing.assert_allclose(
        colmap_camera_of(place, bag, tmp_path / 'a').params,
        colmap_camera_of(place, 'scene', tmp_path / 'b').params,
    )
    _, expected, _ = replay(place, tmp_path, 'scene')
    _, found, left_out = replay(place, tmp_path, bag)
    assert found['summary']['precision'] == expected['summary']['precision']
    assert left_out == []


def t265(info):
    info.distortion_model = 'equidistant'
    info.d = np.array([-0.00217, 0.0376, -0.0364, 0.00594, 0.0])


def test_the_five_numbers_of_a_t265_are_a_fisheye_everywhere(place, tmp_path):
    bag = with_camera_info(place, 't265', t265)
    assert track(place, bag) == 0
    scene, fisheye = tracks_of(place, 'scene'), tracks_of(place, bag)
    np.testing.assert_array_equal(fisheye[:, 2:], scene[:, 2:])
    assert np.linalg.norm(fisheye[:, :2], axis=1).max() > 1.05 * np.linalg.norm(
        scene[:, :2], axis=1
    ).max()
    camera = colmap_camera_of(place, bag, tmp_path)
    assert camera.model.name == 'OPENCV_FISHEYE'
    assert replay(place, tmp_path, bag)[2] == []


def full_size(info):
    """A driver that sends the sensor's calibration with a smaller image."""
    info.width, info.height = 384, 288


def unknown(info):
    info.distortion_model, info.d = 'unified', np.array([0.9, 0, 0, 0, 0])


def uncalibrated(info):
    info.k[:], info.p[:] = 0, 0


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (full_size, 'camera_info is for 384x288, the image is 192x144'),
        (unknown, "distortion model 'unified'"),
        (uncalibrated, 'the camera is uncalibrated'),
    ],
)
def test_an_unusable_calibration_stops_nothing_and_is_said_everywhere(
    place, tmp_path, capsys, change, reason
):
    bag = with_camera_info(place, change.__name__, change)
    assert track(place, bag) == 0
    error = capsys.readouterr().err
    assert f'/tracks was asked for and is not written for {SCENE.frame_count} of' in error
    assert reason in error
    assert tracks_of(place, bag) is None
    with BagReader(place / f'tracked_{bag}' / 'tracks') as reader:
        assert reader.counts['/keypoints'] == SCENE.frame_count
    assert track(place, bag, '--set', 'vins_layout=none') == 0
    assert f'calibration not used: {reason}' in capsys.readouterr().err.replace(
        "camera_info '/camera/camera_info': K and P are zero: ", ''
    ).replace('camera_info: ', '')
    assert colmap_camera_of(place, bag, tmp_path).model.name == 'SIMPLE_RADIAL'
    assert f'{reason}' in capsys.readouterr().err
    page = tmp_path / 'page.html'
    assert main(['view', '--bag', str(place / 'tracked_scene' / 'tracks'), '--images',
                 str(place / bag), '--out', str(page)]) == 0
    assert page.stat().st_size > 10_000
    code, metrics, left_out = replay(place, tmp_path, bag)
    assert code == 0
    assert metrics['summary']['precision'] is None
    (line,) = left_out
    assert reason in line


def pose_file(path, place, offset_ns=0, part=slice(None)):
    with BagReader(place / 'scene') as bag:
        poses = bag.poses(bag.pose_topic())
    path.write_text(''.join(
        f'{int(stamp) + offset_ns} ' + ' '.join(map(str, [*t, *quaternion_of_rotation(r)])) + '\n'
        for stamp, t, r in list(
            zip(poses.stamps_ns, poses.translations, poses.rotations, strict=True)
        )[part]
    ))
    return str(path)


def test_true_poses_of_another_time_give_no_score(place, tmp_path, capsys):
    truth = pose_file(tmp_path / 'later.txt', place, offset_ns=3 * 10**9)
    code, metrics, left_out = replay(place, tmp_path, 'scene', '--ground-truth', truth)
    assert code == 0
    precision = metrics['summary']['precision']
    assert precision['matches'] == 0
    assert set(precision['within'].values()) == {None}
    assert [d['accuracy'] for d in metrics['distances']] == [None] * 4
    (line,) = left_out
    assert 'no image has a true pose: the poses are from' in line
    row = next(line for line in capsys.readouterr().out.splitlines() if ' klt ' in line)
    assert row.split()[-3:] == ['–'] * 3


def test_true_poses_of_half_the_bag_are_said_to_be_so(place, tmp_path):
    truth = pose_file(tmp_path / 'half.txt', place, part=slice(0, 4))
    _, metrics, (line,) = replay(place, tmp_path, 'scene', '--ground-truth', truth)
    assert 'only 4 of 8 images have a true pose' in line
    assert metrics['summary']['precision']['matches'] > 0
    assert [d['pairs'] for d in metrics['distances']] == [3, 2, 0, 0]
    assert metrics['distances'][2]['accuracy'] is None


def test_a_truth_file_that_cannot_be_used_is_an_error(place, tmp_path, capsys):
    broken = tmp_path / 'broken.txt'
    broken.write_text('1 0 0 0 0 0 0 1\n2 0 0\n')
    # Also beside another that can be.
    two = [
        '--bag', str(place / 'tracked_scene' / 'tracks'),
        '--ground-truth', pose_file(tmp_path / 'good.txt', place), '--ground-truth', str(broken),
    ]
    for more in (['--ground-truth', str(broken)], two, ['--pose-topic', '/nope']):
        assert replay(place, tmp_path, 'scene', *more)[0] == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith('mdnet: error: ')
        assert 'line 2: expected 8 numbers' in error or "no topic '/nope'" in error


def said(capsys):
    return ' '.join(capsys.readouterr().err.split())


def test_a_calibration_that_changes_is_said_everywhere(place, tmp_path, capsys):
    count = iter(range(100))

    def zoomed(info):
        if next(count) >= 4:
            info.k[[0, 4]] *= 1.5

    bag = with_camera_info(place, 'zoomed', zoomed)
    assert track(place, bag) == 0
    line = "camera_info '/camera/camera_info' changes: 2 different calibrations, number 1 is used"
    assert line in said(capsys)
    np.testing.assert_allclose(tracks_of(place, bag), tracks_of(place, 'scene'), atol=1e-6)
    colmap_camera_of(place, bag, tmp_path)
    assert line in said(capsys)
    _, _, omitted = replay(place, tmp_path, bag)
    assert any(line in entry for entry in omitted)


def test_the_calibration_that_fits_the_images_is_taken(place, capsys):
    count = iter(range(100))

    def late(info):  # the resolution was changed just before the first image
        if next(count) == 0:
            full_size(info)

    bag = with_camera_info(place, 'late', late)
    assert track(place, bag) == 0
    assert 'number 2 is used' in said(capsys)
    np.testing.assert_allclose(tracks_of(place, bag), tracks_of(place, 'scene'), atol=1e-6)


def renamed(place, name, names, frame_ids=None, extra=(), every_second=False):
    """A copy of the scene's images and camera_info under other names of topics."""
    with BagReader(place / 'scene') as a, BagWriter(place / name, overwrite=True) as b:
        for index, (topic, message) in enumerate(a.typed(list(names))):
            kind = a.topics[topic]
            fields = {f: getattr(message, f) for f in b.types[kind].__dataclass_fields__
                      if f != '__msgtype__'}
            stamp = message.header.stamp
            frame = (frame_ids or {}).get(topic, message.header.frame_id)
            fields['header'] = b.types['std_msgs/msg/Header'](
                b.types['builtin_interfaces/msg/Time'](stamp.sec, stamp.nanosec), frame
            )
            if 'roi' in fields:
                fields['roi'] = b.types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
                fields['d'] = np.array([-0.3, 0.1, 0.0, 0.0, 0.0])
            if every_second and kind == IMAGE and index // 2 % 2:
                height, width = message.height // 2, message.width // 2
                pixels = message.data.reshape(message.height, -1)[:height, :width]
                fields |= {'height': height, 'width': width, 'step': width,
                           'data': np.ascontiguousarray(pixels).reshape(-1)}
            for as_topic in (names[topic], *(extra if kind == IMAGE else ())):
                b.write(as_topic, kind, index, b.types[kind](**fields))
    return name


INFO, PICTURES = '/camera/camera_info', '/camera/image_raw'


@pytest.mark.parametrize(
    ('info', 'frame_ids', 'extra'),
    [
        ('/right/camera_info', None, ['/right/image_raw']),
        ('/depth/camera_info', {INFO: 'depth', PICTURES: 'color'}, []),
    ],
)
def test_the_calibration_of_another_camera_is_not_taken(
    place, tmp_path, capsys, info, frame_ids, extra
):
    bag = renamed(place, 'other', {INFO: info, PICTURES: '/left/image_raw'}, frame_ids, extra)
    assert track(place, bag, '--image-topic', '/left/image_raw') == 0
    assert f"no camera_info of '/left/image_raw', only {info}" in said(capsys)
    assert tracks_of(place, bag) is None
    _, _, omitted = replay(place, tmp_path, bag, '--image-topic', '/left/image_raw')
    assert any(f'only {info}' in entry for entry in omitted)
    assert track(  # named, it is taken
        place, bag, '--image-topic', '/left/image_raw', '--camera-info-topic', info
    ) == 0
    assert tracks_of(place, bag) is not None


def test_the_only_calibration_of_one_camera_is_taken_from_any_namespace(place):
    bag = renamed(place, 'apart', {INFO: '/calibration/camera_info', PICTURES: PICTURES})
    assert track(place, bag) == 0
    assert tracks_of(place, bag) is not None


def test_rectified_images_by_name_with_raw_calibration_are_said(place, capsys):
    bag = renamed(place, 'rect', {INFO: INFO, PICTURES: '/camera/image_rect_color'})
    line = "'/camera/image_rect_color' holds rectified images by its name"
    assert track(place, bag) == 0
    assert line in said(capsys)
    assert track(place, bag, '--set', 'rectified=true') == 0
    assert line not in said(capsys)


def test_images_of_another_size_than_the_first_are_left_out_of_colmap(place, tmp_path, capsys):
    bag = renamed(place, 'sizes', {INFO: INFO, PICTURES: PICTURES}, every_second=True)
    assert track(place, bag) == 0
    capsys.readouterr()
    code = main(['convert', '--bag', str(place / 'tracked_sizes' / 'tracks'), '--images',
                 str(place / bag), '--to', 'colmap', '--out', str(tmp_path / 'colmap')])
    assert code == 0
    assert 'images of another size than 192x144 are left out' in said(capsys)
    database = open_database(tmp_path / 'colmap' / 'database.db')
    images = database.read_all_images()
    database.close()
    assert 0 < len(images) < 8
    sizes = {cv2.imread(str(file)).shape for file in (tmp_path / 'colmap' / 'images').iterdir()}
    assert sizes == {(144, 192, 3)}
