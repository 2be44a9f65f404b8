"""What the node does with frames, without ROS."""

import platform
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.errors import ImageError, WeightsError
from mdnet_ros.features.extractor import MDNetExtractor
from mdnet_ros.features.matching import mutual_nearest
from mdnet_ros.tracker.configuration import Configuration, load_configuration, read_mask
from mdnet_ros.tracker.engine import Engine
from mdnet_ros.tracker.job import GrayImage, Job
from mdnet_ros.tracker.settings import TrackerSettings

SECOND = 10**9
PICTURE = cv2.resize(cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY), (320, 320))


def image(index=0, width=160):
    return np.ascontiguousarray(PICTURE[60:180, 2 * index : 2 * index + width])


def change(engine, **values):
    """Change some settings of an engine."""
    engine.change_settings(engine.configuration.settings.changed(values))


def process(engine, images):
    """The result of a job of some images by camera number."""
    return engine.process_job(Job(engine.configuration, images))


@pytest.fixture
def settings(weights):
    return TrackerSettings(weights=str(weights), device='cpu', max_keypoints=128)


@pytest.fixture
def engine(settings):
    return Engine(load_configuration(settings))


_THREADS_LEFT = """
import os, sys, time
import cv2, torch
from mdnet_ros.tracker.configuration import load_configuration
from mdnet_ros.tracker.settings import TrackerSettings

def threads():
    return len(os.listdir('/proc/self/task'))

cv2.setNumThreads(0)  # OpenCV keeps threads of its own
torch.set_num_threads(2)
before = threads()
load_configuration(TrackerSettings(weights=sys.argv[1], device='cpu'))
deadline = time.monotonic() + 20
while threads() > before and time.monotonic() < deadline:
    time.sleep(0.01)
print(threads() - before)
"""


@pytest.mark.skipif(platform.system() != 'Linux', reason='counts threads as Linux tells them')
def test_loading_leaves_no_helper_threads_to_slow_the_worker_down(weights):
    command = [sys.executable, '-c', _THREADS_LEFT, str(weights)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == '0'


def test_frames_are_linked_and_restarts_have_a_cause(engine):
    assert engine.process(image(0), SECOND).restart is None
    done = engine.process(image(1), 2 * SECOND)
    assert done.restart is None
    assert len(done.frame.correspondences)
    done = engine.process(image(2), SECOND)
    assert done.restart.cause == 'stamp went back'
    assert not len(done.frame.correspondences)
    done = engine.process(image(3), SECOND)
    assert done.repeated
    assert done.restart is None
    done = engine.process(image(4), 5 * SECOND)
    assert done.restart.cause == 'stamp jumped'
    done = engine.process(image(5, 200), 5 * SECOND + 1)
    assert done.restart.cause == 'image size changed'
    engine.reset()
    assert engine.process(image(6, 200), 5 * SECOND + 2).restart.cause == 'reset asked for'


def test_a_bad_image_leaves_the_tracks_as_they_are(engine):
    engine.process(image(0), SECOND)
    with pytest.raises(ImageError, match='at least 32 px'):
        engine.process(np.zeros((20, 20), np.uint8), SECOND + 1)
    done = engine.process(image(1), SECOND + 2)
    assert done.restart is None
    assert len(done.frame.correspondences)


def test_settings_change_between_frames(engine, settings):
    assert len(engine.process(image(), 1).frame.features) > 16
    change(engine, max_keypoints=16)
    assert len(engine.process(image(), 2).frame.features) <= 16
    change(engine, min_similarity=1.0)
    engine.process(image(5), 3)
    assert not len(engine.process(image(25), 4).frame.correspondences)
    threads = torch.get_num_threads()
    change(engine, threads=1)
    engine.process(image(), 5)
    assert torch.get_num_threads() == 1
    change(engine, threads=0)
    engine.process(image(), 6)
    assert torch.get_num_threads() == threads


def test_calibration_decides_whether_there_are_tracks(engine, settings):
    change(engine, vins_layout='mono')
    done = engine.process(image(), 1)
    assert done.tracks is None
    assert done.calibration_error == 'no camera_info yet'
    k = np.array([[100.0, 0, 80], [0, 100, 60], [0, 0, 1]])
    engine.cameras[0].model = CameraModel(640, 480, k, np.zeros(5))
    assert '640x480, the image is 160x120' in engine.process(image(), 2).calibration_error
    engine.cameras[0].model = CameraModel(160, 120, k, np.zeros(5))
    assert engine.process(image(0), 3).tracks is None  # the first is skipped
    done = engine.process(image(1), 4)
    assert not done.calibration_error
    assert len(done.tracks) > 0


class NoMemory(MDNetExtractor):
    """A network on a GPU whose memory is full."""

    def extract_batch(self, images, masks=None):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory')


def test_a_full_gpu_hands_over_to_the_cpu(engine, settings):
    engine.process(image(0), 1)
    engine.apply(Configuration(settings, NoMemory(settings.weights, 'cpu')))
    result = process(engine, {0: GrayImage(image(1), 2)})
    assert result.fell_back
    assert len(result.cameras[0].frame.features)
    assert result.cameras[0].restart.cause == 'moved to the CPU'
    result = process(engine, {0: GrayImage(image(2), 3)})
    assert not result.fell_back
    assert result.cameras[0].restart is None
    assert str(engine.configuration.extractor.device) == 'cpu'


def test_settings_changed_after_a_job_was_made_survive_its_move_to_the_cpu(engine, settings):
    full = Configuration(settings, NoMemory(settings.weights, 'cpu'))
    engine.apply(full)
    job = Job(engine.configuration, {0: GrayImage(image(0), 1)})
    change(engine, max_keypoints=32)
    assert engine.process_job(job).fell_back
    assert engine.configuration.settings.max_keypoints == 32
    assert not isinstance(engine.configuration.extractor, NoMemory)
    result = process(engine, {0: GrayImage(image(1), 2)})
    assert not result.fell_back
    assert result.cameras[0].restart is None
    assert len(result.cameras[0].frame.features) <= 32


def test_a_network_loaded_after_a_job_was_made_survives_its_move_to_the_cpu(engine, settings):
    loaded = engine.configuration
    engine.apply(Configuration(settings, NoMemory(settings.weights, 'cpu')))
    job = Job(engine.configuration, {0: GrayImage(image(0), 1)})
    engine.apply(loaded)
    assert engine.process_job(job).fell_back
    assert engine.configuration is loaded


@pytest.mark.parametrize('fails', [1, 2, 3], ids=['first camera', 'second camera', 'stereo'])
def test_a_gpu_that_is_full_while_matching_hands_over_too(settings, monkeypatch, fails):
    """The memory runs out in the n-th matching of a stereo pair's second images."""
    engine = stereo_engine(settings)
    process(engine, pair(0))
    calls = []

    def full(*tables):
        calls.append(tables)
        if len(calls) == fails:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')
        return mutual_nearest(*tables)

    monkeypatch.setattr('mdnet_ros.features.matching.mutual_nearest', full)
    result = process(engine, pair(1))
    assert result.fell_back
    assert result.cameras.keys() == {0, 1}
    assert result.stereo is not None
    for done in result.cameras.values():
        assert done.restart.cause == 'moved to the CPU'
        assert not done.repeated
        assert not len(done.frame.correspondences)
    result = process(engine, pair(2))
    assert not result.fell_back
    for done in result.cameras.values():
        assert done.restart is None
        assert len(done.frame.correspondences)


def test_masks_are_checked(tmp_path):
    assert read_mask('') is None
    with pytest.raises(ImageError, match='no such file'):
        read_mask(str(tmp_path / 'none.png'))
    text = tmp_path / 'text.png'
    text.write_text('no image')
    with pytest.raises(ImageError, match='not a readable image'):
        read_mask(str(text))
    black = tmp_path / 'black.png'
    cv2.imwrite(str(black), np.zeros((8, 8), np.uint8))
    with pytest.raises(ImageError, match='black everywhere'):
        read_mask(str(black))


def test_what_cannot_be_loaded_is_named(settings):
    with pytest.raises(WeightsError, match='no such file'):
        load_configuration(replace(settings, weights='/nowhere.safetensors'))
    with pytest.raises(ValueError, match='tpu'):
        load_configuration(replace(settings, device='tpu'))


class Counting(MDNetExtractor):
    """Remembers how many images each pass had."""

    def extract_batch(self, images, masks=None):
        self.passes = [*getattr(self, 'passes', []), len(images)]
        return super().extract_batch(images, masks)


def counting(settings):
    return Counting(settings.weights, 'cpu', settings.max_keypoints)


def test_images_of_several_cameras_take_one_pass_and_give_what_each_gives_alone(settings, engine):
    three = replace(settings, cameras='a,b,c')
    together = Engine(Configuration(three, counting(three)))
    alone = [Engine(load_configuration(settings)) for _ in range(3)]
    for index in (0, 1):
        images = {n: GrayImage(image(index + 5 * n), (1 + index) * SECOND) for n in range(3)}
        group = process(together, images)
        assert not group.refused
        assert group.stereo is None
        for number, one in images.items():
            expected = alone[number].process(one.pixels, one.stamp_ns).frame
            got = group.cameras[number].frame
            np.testing.assert_allclose(
                got.features.keypoints, expected.features.keypoints, atol=1e-3
            )
            np.testing.assert_array_equal(got.track_ids, expected.track_ids)
    assert together.configuration.extractor.passes == [3, 3]


class OneByOne(Counting):
    """As an exported file of one image at a time."""

    fixed_batch = 1


def test_a_file_for_one_image_is_run_once_for_each(settings):
    two = replace(settings, cameras='a,b')
    engine = Engine(Configuration(two, OneByOne(two.weights, 'cpu', two.max_keypoints)))
    group = process(engine, {n: GrayImage(image(n), 1) for n in (0, 1)})
    assert group.cameras.keys() == {0, 1}
    assert engine.configuration.extractor.passes == [1, 1]


def test_other_sizes_take_another_pass_and_a_refused_image_harms_none(settings):
    three = replace(settings, cameras='a,b,c')
    engine = Engine(Configuration(three, counting(three)))
    group = process(engine, {
        0: GrayImage(image(0), 1), 1: GrayImage(image(0, 200), 1), 2: GrayImage(image(1), 1)
    })
    assert sorted(engine.configuration.extractor.passes) == [1, 2]
    assert group.cameras.keys() == {0, 1, 2}
    group = process(engine, {
        0: GrayImage(image(0), 2), 1: GrayImage(np.zeros((20, 20), np.uint8), 2),
        2: GrayImage(image(1), 2),
    })
    assert group.cameras.keys() == {0, 2}
    assert 'at least 32 px' in str(group.refused[1])
    assert len(group.cameras[0].frame.correspondences)
    group = process(engine, {1: GrayImage(image(1, 200), 3)})
    assert group.cameras[1].restart is None
    assert len(group.cameras[1].frame.correspondences)


def test_each_camera_has_its_own_mask_beside_that_of_all(settings):
    two = replace(settings, cameras='a,b')
    engine = Engine(load_configuration(two))
    engine.cameras[1].mask = np.zeros((12, 16), np.uint8)
    engine.cameras[1].mask[:, :8] = 255
    group = process(engine, {0: GrayImage(image(), 1), 1: GrayImage(image(), 1)})
    x = [group.cameras[n].frame.features.keypoints[:, 0] for n in (0, 1)]
    assert x[0].max() > 100
    assert 0 < x[1].max() < 82
    mask = np.zeros((12, 16), np.uint8)
    mask[:, 4:] = 255
    engine.apply(replace(engine.configuration, mask=mask))
    group = process(engine, {0: GrayImage(image(), 2), 1: GrayImage(image(), 2)})
    x = [group.cameras[n].frame.features.keypoints[:, 0] for n in (0, 1)]
    assert x[0].min() > 38
    assert x[0].max() > 100
    assert 38 < x[1].min() <= x[1].max() < 82


def stereo_engine(settings):
    made = replace(settings, cameras='left,right', stereo=True, vins_layout='fusion',
                   min_similarity=0.8, max_error=1.0,
                   precision='fp32')  # an untrained network's descriptors differ by little
    return Engine(load_configuration(made))


def pair(index, disparity=12):
    return {n: GrayImage(image(index + n * disparity // 2), (index + 1) * SECOND // 10)
            for n in (0, 1)}


def test_stereo_says_what_its_matches_are_checked_by(settings):
    engine = stereo_engine(settings)
    stereo = process(engine, pair(0)).stereo
    assert stereo.calibration_error == 'no camera_info yet'
    assert stereo.right_tracks is None
    assert np.isnan(stereo.matches.disparity).all()
    k = np.array([[100.0, 0, 80], [0, 100, 60], [0, 0, 1]])
    for camera in engine.cameras:
        camera.model = CameraModel(160, 120, k, np.zeros(5))
    assert 'in P of the left camera' in process(engine, pair(1)).stereo.calibration_error
    for camera, shift in zip(engine.cameras, (0, -10), strict=True):
        p = np.hstack([k, [[shift], [0], [0]]])
        camera.model = CameraModel(160, 120, k, np.zeros(5), p=p)
    for index in (2, 3, 4):
        group = process(engine, pair(index))
    stereo = group.stereo
    assert not stereo.calibration_error
    matches = stereo.matches
    assert matches.inlier.sum() > 20
    assert np.median(matches.disparity[matches.inlier]) == pytest.approx(12, abs=0.1)
    left, right = group.cameras[0].tracks, stereo.right_tracks
    assert 10 < len(right) <= len(left)
    assert set(right.ids) <= set(left.ids)
    assert process(engine, {0: pair(5)[0]}).stereo is None  # the right image was refused


def test_refinement_moves_positions_and_stays_out_of_the_mask(engine, settings):
    plain = Engine(engine.configuration)
    change(engine, refinement='flow')
    mask = np.full((120, 160), 255, np.uint8)
    mask[:, 80:] = 0
    for index in range(4):
        detected = plain.process(image(index), index * SECOND // 10).frame
        refined = engine.process(image(index), index * SECOND // 10).frame
        assert detected.refined is None
        assert refined.refined is not None
    moved = refined.features.keypoints[refined.correspondences.indices]
    moved -= refined.correspondences.keypoints_prev
    good = refined.refined[refined.correspondences.indices]
    assert good.mean() > 0.3
    assert np.abs(np.median(moved[good], axis=0) - (-2, 0)).max() < 0.05
    assert np.percentile(np.abs(moved[good] - (-2, 0)), 80) < 0.3
    assert (refined.missed > 0).any()
    engine.cameras[0].mask = mask
    masked = engine.process(image(4), 4 * SECOND // 10).frame
    assert (masked.features.keypoints[masked.missed > 0][:, 0] < 80).all()
