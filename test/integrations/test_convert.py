"""``mdnet convert``: what pycolmap and h5py read back is what the bag holds."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdnet_ros.bags.messages import BagTopics
from mdnet_ros.bags.reader import BagReader
from mdnet_ros.bags.writer import BagWriter
from mdnet_ros.baselines.precomputed import PrecomputedFeatures
from mdnet_ros.cli.main import main
from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.colmap import colmap_camera
from mdnet_ros.errors import DataError
from mdnet_ros.features.types import TrackedFrame
from mdnet_ros.integrations.pairs import PairFinder
from mdnet_ros.tracker.clouds import correspondence_table, keypoint_table
from mdnet_ros.tracker.recording import find_recording

pycolmap = pytest.importorskip('pycolmap')
h5py = pytest.importorskip('h5py')


def convert(flight, out: Path, to: str, *more: str, images: bool = True) -> int:
    where = ('--images', str(flight.images)) if images else ()
    return main(['convert', '--bag', str(flight.tracks), *where, '--to', to, '--out', str(out),
                 *more])


def shared(a: TrackedFrame, b: TrackedFrame) -> dict[int, int]:
    """Rows of two frames that have the same track, by dictionaries."""
    rows_b = {track: row for row, track in enumerate(b.track_ids.tolist())}
    return {
        row: rows_b[track] for row, track in enumerate(a.track_ids.tolist()) if track in rows_b
    }


def names(flight, every: int = 1) -> list[str]:
    return [f'{flight.stamp(i)}.jpg' for i in range(0, len(flight.frames), every)]


@pytest.fixture(scope='module')
def colmap(flight, tmp_path_factory):
    out = tmp_path_factory.mktemp('out') / 'colmap'
    assert convert(flight, out, 'colmap', '--window', '6') == 0
    return out


def open_database(path: Path):
    kind = pycolmap.Database
    return kind.open(path) if hasattr(kind, 'open') else kind(str(path))


def test_the_database_holds_what_the_bag_holds(flight, colmap):
    database = open_database(colmap / 'database.db')
    images = {image.name: image for image in database.read_all_images()}
    assert sorted(images) == names(flight)
    camera = database.read_camera(images[names(flight)[0]].camera_id)
    assert {image.camera_id for image in images.values()} == {camera.camera_id}
    assert (camera.width, camera.height) == (flight.camera.width, flight.camera.height)
    assert camera.has_prior_focal_length
    assert camera.model.name == 'OPENCV'
    ids = [images[name].image_id for name in names(flight)]
    for frame, image_id in zip(flight.frames, ids, strict=True):
        # COLMAP puts pixel centres at halves.
        np.testing.assert_array_equal(
            np.asarray(database.read_keypoints(image_id))[:, :2], frame.features.keypoints + 0.5
        )
    for a in range(len(ids)):
        for b in range(a + 1, len(ids)):
            expected = shared(flight.frames[a], flight.frames[b]) if b - a <= 6 else {}
            assert database.exists_matches(ids[a], ids[b]) == bool(expected)
            if expected:
                rows = np.asarray(database.read_matches(ids[a], ids[b]))
                assert dict(rows.tolist()) == expected
    database.close()


def test_verdicts_of_the_tracker_are_the_two_view_geometries(flight, colmap):
    database = open_database(colmap / 'database.db')
    ids = {image.name: image.image_id for image in database.read_all_images()}
    rejected = 0
    for index in range(1, len(flight.frames)):
        links = flight.frames[index].correspondences
        before = links.stamps_prev == flight.stamp(index - 1)
        geometry = database.read_two_view_geometry(
            *(ids[f'{flight.stamp(i)}.jpg'] for i in (index - 1, index))
        )
        got = {tuple(pair) for pair in np.asarray(geometry.inlier_matches).tolist()}
        keep = before & links.inlier
        expected = set(
            zip(links.indices_prev[keep].tolist(), links.indices[keep].tolist(), strict=True)
        )
        assert got == expected
        rejected += int((before & ~links.inlier).sum())
    assert rejected > 10
    database.close()


def test_colmap_reconstructs_the_flight(flight, colmap, tmp_path):
    pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = 1
    options.extract_colors = False
    options.ba_refine_focal_length = False
    options.ba_refine_extra_params = False
    models = pycolmap.incremental_mapping(
        colmap / 'database.db', colmap / 'images', tmp_path, options
    )
    model = max(models.values(), key=lambda m: m.num_reg_images())
    assert model.num_reg_images() == len(flight.frames)
    assert model.compute_mean_reprojection_error() < 0.5
    got, order = [], []
    for image_id in model.reg_image_ids():
        image = model.image(image_id)
        got.append(image.projection_center())
        order.append(names(flight).index(image.name))
    # The same shape as the flight, up to scale, turn and place (Umeyama).
    a, b = np.array(got), flight.centres[order]
    a, b = a - a.mean(0), b - b.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    flip = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    aligned = a @ (u @ flip @ vt).T * (s @ np.diag(flip)) / (a**2).sum()
    assert np.linalg.norm(aligned - b, axis=1).max() < 0.05  # of a flight of three metres


def test_colmap_verifies_for_itself_where_it_is_asked_to(flight, colmap, tmp_path):
    path = shutil.copy(colmap / 'database.db', tmp_path)
    database = open_database(path)
    tracker_says = sum(len(g.inlier_matches) for g in database.read_two_view_geometries()[1])
    database.clear_two_view_geometries()
    database.close()
    pycolmap.verify_matches(path, colmap / 'pairs.txt')
    database = open_database(path)
    geometries = database.read_two_view_geometries()[1]
    assert all(g.F is not None for g in geometries if len(g.inlier_matches))
    colmap_says = sum(len(g.inlier_matches) for g in geometries)
    assert colmap_says == pytest.approx(tracker_says, rel=0.1)
    database.close()


def test_images_are_called_by_their_stamp(flight, colmap, capsys):
    found = sorted(path.name for path in (colmap / 'images').iterdir())
    assert found == [name for i, name in enumerate(names(flight)) if i != 5]
    image = cv2.imread(str(colmap / 'images' / names(flight)[3]))
    assert np.abs(image[100, [20, 100]].astype(int) - [(200, 120, 60), (40, 40, 40)]).max() < 6
    assert {path.name for path in colmap.iterdir()} == {'database.db', 'images', 'pairs.txt'}


@pytest.mark.parametrize('every', [1, 3])
def test_h5_files_hold_what_the_bag_holds(flight, tmp_path, every):
    out = tmp_path / 'hloc'
    assert convert(flight, out, 'hloc', '--window', '2', '--every', str(every)) == 0
    frames = flight.frames[::every]
    called = names(flight, every)
    with h5py.File(out / 'features.h5') as features, h5py.File(out / 'matches.h5') as matches:
        assert sorted(features) == called
        for name, frame in zip(called, frames, strict=True):
            group = features[name]
            np.testing.assert_array_equal(group['keypoints'], frame.features.keypoints)
            np.testing.assert_array_equal(group['descriptors'], frame.features.descriptors.T)
            np.testing.assert_array_equal(group['scores'], frame.features.scores)
            assert tuple(group['image_size']) == (320, 240)
        lines = (out / 'pairs.txt').read_text().splitlines()
        expected = [
            (a, b) for b in range(len(frames)) for a in range(max(0, b - 2), b)
            if shared(frames[a], frames[b])
        ]
        assert lines == [f'{called[a]} {called[b]}' for a, b in expected]
        assert sum(len(group) for group in matches.values()) == len(expected)
        for a, b in expected:
            group = matches[called[a]][called[b]]
            partner = group['matches0'][:]
            assert partner.dtype == np.int16
            found = {i: j for i, j in enumerate(partner.tolist()) if j != -1}
            assert found == shared(frames[a], frames[b])
            scores = group['matching_scores0'][:]
            assert ((scores > 0.99) == (partner != -1)).all()  # the descriptors do not change
    assert {path.name for path in out.iterdir()} == {
        'features.h5', 'matches.h5', 'pairs.txt', 'images'
    }
    read = PrecomputedFeatures(out / 'features.h5', 1000).read(out / 'images' / called[0])
    assert read.image_size == (320, 240)
    assert len(read) == len(frames[0].features)


def test_a_false_step_in_between_breaks_a_track(flight):
    """A track is verified from one image to another if each step between was."""
    finder = PairFinder(window=20, every=4)
    pairs = [pair for frame in flight.frames for pair in finder.add(frame) or []]
    assert {(p.earlier, p.later) for p in pairs} >= {(0, 1), (1, 2)}
    for pair in pairs:
        a, b = (flight.frames[4 * i] for i in (pair.earlier, pair.later))
        assert dict(pair.rows.tolist()) == shared(a, b)
        wrong = {
            track
            for frame in flight.frames[4 * pair.earlier + 1 : 4 * pair.later + 1]
            for track in frame.track_ids[
                frame.correspondences.indices[~frame.correspondences.inlier]
            ].tolist()
        }
        expected = [t not in wrong for t in a.track_ids[pair.rows[:, 0]].tolist()]
        assert pair.inlier.tolist() == expected


DISTORTIONS = {
    'PINHOLE': CameraModel(320, 240, np.diag([250.0, 255, 1]), np.zeros(5)),
    'OPENCV': CameraModel(320, 240, np.diag([250.0, 255, 1]), np.array([-0.3, 0.1, 1e-3, 2e-3])),
    'FULL_OPENCV': CameraModel(
        320, 240, np.diag([250.0, 255, 1]),
        np.array([0.2, -0.1, 1e-3, -2e-3, 0.02, 0.25, -0.09, 0.01]), 'rational_polynomial',
    ),
    'OPENCV_FISHEYE': CameraModel(
        320, 240, np.diag([250.0, 255, 1]), np.array([0.02, -0.01, 3e-3, -1e-3]), 'equidistant'
    ),
}


@pytest.mark.parametrize('model', DISTORTIONS)
def test_cameras_project_as_opencv_does_half_a_pixel_on(model):
    camera = DISTORTIONS[model]
    camera.k[:2, 2] = 158.3, 121.1
    converted = colmap_camera(camera, (camera.width, camera.height))
    assert converted.model.name == model
    rays = np.random.default_rng(0).uniform([-0.5, -0.4], [0.5, 0.4], (50, 2))
    points = np.column_stack([rays, np.ones(50)])
    fisheye = camera.distortion_model == 'equidistant'
    project = cv2.fisheye.projectPoints if fisheye else cv2.projectPoints
    zero = np.zeros(3)
    expected = project(points[:, None], zero, zero, camera.k, camera.d)[0].reshape(-1, 2) + 0.5
    got = np.array([np.asarray(converted.img_from_cam(p)).reshape(2) for p in points])
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_rectified_images_have_the_projection_of_their_calibration(flight, tmp_path):
    # BagTopics writes K as P.
    assert convert(flight, tmp_path / 'out', 'colmap', '--rectified', '--every', '9') == 0
    database = open_database(tmp_path / 'out' / 'database.db')
    (camera,) = database.read_all_cameras()
    assert camera.model.name == 'PINHOLE'
    np.testing.assert_allclose(camera.params, [260, 262, 158.8, 121.6])
    database.close()


def test_a_distortion_that_colmap_does_not_know_is_named():
    d = np.r_[np.zeros(8), 0.01, 0, 0, 0]
    camera = CameraModel(320, 240, np.diag([250.0, 250, 1]), d, 'rational_polynomial')
    with pytest.raises(DataError, match='thin prism'):
        colmap_camera(camera, (320, 240))


def test_without_calibration_or_pixels_it_says_so(flight, tmp_path, capsys):
    with BagWriter(tmp_path / 'bag') as bag:
        topics = BagTopics(bag)
        for i, frame in enumerate([*flight.frames[:3], flight.frames[2]]):
            topics.image('/image', flight.stamp(i), 'cam', np.full((240, 320), 9, np.uint8))
            topics.cloud('/keypoints', flight.stamp(min(i, 2)), 'cam', keypoint_table(frame))
            topics.cloud(
                '/correspondences', flight.stamp(min(i, 2)), 'cam', correspondence_table(frame)
            )
    assert main(['convert', '--bag', str(tmp_path / 'bag'), '--to', 'colmap', '--out',
                 str(tmp_path / 'out')]) == 0
    said = capsys.readouterr()
    assert said.out.startswith('3 images, ')
    assert 'no camera_info: the focal length is a guess' in said.err
    assert '1 frames with the stamp of an earlier one' in said.err
    database = open_database(tmp_path / 'out' / 'database.db')
    (camera,) = database.read_all_cameras()
    assert camera.model.name == 'SIMPLE_RADIAL'
    assert not camera.has_prior_focal_length
    database.close()


@pytest.fixture
def first_broken(flight, tmp_path):
    """A recording whose first image is cut short, and no calibration that tells its size."""
    with BagWriter(tmp_path / 'bag') as bag:
        topics = BagTopics(bag)
        for i, frame in enumerate(flight.frames[:4]):
            stamp = flight.stamp(i)
            if i == 0:
                t = bag.types
                time = t['builtin_interfaces/msg/Time'](*divmod(stamp, 10**9))
                bag.write('/image', 'sensor_msgs/msg/Image', stamp, t['sensor_msgs/msg/Image'](
                    t['std_msgs/msg/Header'](time, 'cam'), 240, 320, 'mono8', 0, 320,
                    np.zeros(7, np.uint8)))
            else:
                topics.image('/image', stamp, 'cam', np.full((240, 320), 9, np.uint8))
            topics.cloud('/keypoints', stamp, 'cam', keypoint_table(frame))
            topics.cloud('/correspondences', stamp, 'cam', correspondence_table(frame))
    return tmp_path / 'bag'


def test_a_broken_first_image_does_not_stop_the_conversion(first_broken, tmp_path, capsys):
    assert main(['convert', '--bag', str(first_broken), '--to', 'hloc', '--out',
                 str(tmp_path / 'out')]) == 0
    said = capsys.readouterr()
    assert said.out.startswith('4 images, ')
    assert '1 images cannot be decoded and are left out' in said.err
    assert '--images' not in said.err
    assert len(list((tmp_path / 'out' / 'images').iterdir())) == 3


def test_a_broken_first_image_does_not_stop_the_view(first_broken, tmp_path, capsys):
    assert main(['view', '--bag', str(first_broken), '--out', str(tmp_path / 'out.html')]) == 0
    assert '4 frames, 4 of them as pictures' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('more', 'complaint'),
    [
        ((), 'expected images or a camera_info, to know the size of the images'),
        (('--images', '{images}', '--image-topic', '/nope'), "no topic '/nope'"),
        (('--images', 'absent'), "bag 'absent': no such file or folder"),
        (('--images', '{images}', '--namespace', 'left'), "in the namespace 'left' once"),
        (('--images', '{images}', '--bag', '{images}'), "expected the tracker's keypoints"),
        (('--images', '{images}', '--window', '0'), 'window: expected at least 1, got 0'),
        (('--images', '{images}', '--out', '{images}'), 'is there already, expected nothing'),
    ],
)
def test_mistakes_are_named_in_one_line(flight, tmp_path, capsys, more, complaint):
    options = [option.format(images=flight.images) for option in more]
    assert convert(flight, tmp_path / 'out', 'colmap', *options, images=False) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('mdnet:')]
    (line,) = lines
    assert complaint in line
    assert not list(tmp_path.iterdir())  # nothing half written


@pytest.mark.parametrize(
    ('target', 'complaint'),
    [('colmap', 'COLMAP database: cannot be written'), ('hloc', ".h5': cannot be written")],
)
@pytest.mark.parametrize('blocks', [1, 16, 200])  # of 512 bytes or a kilobyte: earlier, later
def test_a_full_disk_is_named_in_one_line(flight, tmp_path, target, complaint, blocks):
    arguments = ['convert', '--bag', flight.tracks, '--images', flight.images, '--to', target,
                 '--out', tmp_path / 'out']
    done = subprocess.run(  # the limit holds for each file, as a full disk does for all
        ['sh', '-c', f'ulimit -f {blocks}; exec "$@"', 'sh', sys.executable, '-m',
         'mdnet_ros.cli.main', *arguments],
        capture_output=True, text=True,
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith('mdnet:')]
    assert complaint in line
    assert 'Traceback' not in done.stderr
    assert not list(tmp_path.iterdir())


def test_frames_are_given_with_their_images(flight):
    with BagReader(flight.tracks) as tracks, BagReader(flight.images) as images:
        recording = find_recording(tracks, images, namespace='cam')
        assert len(recording) == len(flight.frames)
        pairs = list(recording)
    assert [frame.stamp_ns for frame, _ in pairs] == [f.stamp_ns for f in flight.frames]
    for i, (frame, image) in enumerate(pairs):
        assert (image is None) == (i == 5)
        assert image is None or image.stamp_ns == frame.stamp_ns


def stamps_of(kind):
    """Stamps of six frames, in nanoseconds."""
    start, step = 1_700_000_000_000_000_000, 50_000_000
    regular = [start + i * step for i in range(6)]
    return {
        'never set': [0] * 6,
        'two of each': [start + i // 2 * step for i in range(6)],
        'one far ahead': [*regular[:2], start + 10**13, *regular[3:]],
        'goes back': [*regular[3:], *regular[:3]],
        'starts again': [*regular[:3], *regular[:3]],
    }[kind]


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
@pytest.mark.parametrize(
    'kind', ['never set', 'two of each', 'one far ahead', 'goes back', 'starts again']
)
def test_a_clock_that_stands_still_or_jumps_costs_no_frame_its_image(
    flight, tmp_path, kind, storage
):
    pictures = [np.full((240, 320, 3), 40 * i, np.uint8) for i in range(6)]
    with (
        BagWriter(tmp_path / 'tracks', storage) as tracks,
        BagWriter(tmp_path / 'images', storage) as images,
    ):
        to_tracks, to_images = BagTopics(tracks), BagTopics(images)
        for i, stamp in enumerate(stamps_of(kind)):
            to_images.image('/cam/image', stamp, 'cam', pictures[i])
            if i == 1:  # the tracker dropped this frame
                continue
            table = correspondence_table(flight.frames[i])
            to_tracks.cloud('/cam/correspondences', stamp, 'cam', table)
            to_tracks.cloud('/cam/keypoints', stamp, 'cam', keypoint_table(flight.frames[i]))
    with BagReader(tmp_path / 'tracks') as tracks, BagReader(tmp_path / 'images') as images:
        pairs = list(find_recording(tracks, images))
    seen = [stamp for i, stamp in enumerate(stamps_of(kind)) if i != 1]
    assert [frame.stamp_ns for frame, _ in pairs] == seen
    shown = [int(image.bgr[0, 0, 0]) // 40 for _, image in pairs]
    # Images with one stamp cannot be told apart: frames have the first of them, in their order.
    assert shown == ([0, 1, 2, 3, 4] if kind == 'never set' else [0, 2, 3, 4, 5])
