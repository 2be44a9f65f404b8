"""What the node does with frames, without ROS."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from mdnet_ros.camera import CameraModel
from mdnet_ros.errors import ImageError, WeightsError
from mdnet_ros.nodes.engine import Engine, load_extractor, read_mask
from mdnet_ros.nodes.settings import TrackerSettings

SECOND = 10**9
PICTURE = cv2.resize(cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY), (320, 320))


def image(index=0, width=160):
    return np.ascontiguousarray(PICTURE[60:180, 2 * index : 2 * index + width])


@pytest.fixture
def settings(weights):
    return TrackerSettings(weights=str(weights), device='cpu', max_keypoints=128)


@pytest.fixture
def engine(settings):
    return Engine(settings, load_extractor(settings))


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
    engine.apply(replace(settings, max_keypoints=16))
    assert len(engine.process(image(), 2).frame.features) <= 16
    engine.apply(replace(settings, min_similarity=1.0))
    engine.process(image(5), 3)
    assert not len(engine.process(image(25), 4).frame.correspondences)
    threads = torch.get_num_threads()
    engine.apply(replace(settings, threads=1))
    engine.process(image(), 5)
    assert torch.get_num_threads() == 1
    engine.apply(replace(settings, threads=0))
    engine.process(image(), 6)
    assert torch.get_num_threads() == threads


def test_calibration_decides_whether_there_are_tracks(engine, settings):
    engine.apply(replace(settings, vins_layout='mono'))
    done = engine.process(image(), 1)
    assert done.tracks is None
    assert done.calibration_error == 'no camera_info yet'
    k = np.array([[100.0, 0, 80], [0, 100, 60], [0, 0, 1]])
    engine.camera = CameraModel(640, 480, k, np.zeros(5))
    assert '640x480, the image is 160x120' in engine.process(image(), 2).calibration_error
    engine.camera = CameraModel(160, 120, k, np.zeros(5))
    assert engine.process(image(0), 3).tracks is None  # the first is skipped
    done = engine.process(image(1), 4)
    assert not done.calibration_error
    assert len(done.tracks) > 0


class NoMemory:
    """Stands for a GPU whose memory is full."""

    def __init__(self, extractor):
        self.settings, self.max_side, self.mask = extractor.settings, 0, None
        self.fixed_batch = None

    def extract_batch(self, images, masks=None):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory')


def test_a_full_gpu_hands_over_to_the_cpu(engine):
    engine.process(image(0), 1)
    engine.extractor = NoMemory(engine.extractor)
    done = engine.process(image(1), 2)
    assert done.fell_back
    assert len(done.frame.features)
    assert done.restart.cause == 'moved to the CPU'
    assert not engine.process(image(2), 3).fell_back
    assert str(engine.extractor.device) == 'cpu'


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
        load_extractor(replace(settings, weights='/nowhere.safetensors'))
    with pytest.raises(ValueError, match='tpu'):
        load_extractor(replace(settings, device='tpu'))
