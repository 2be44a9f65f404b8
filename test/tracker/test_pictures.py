"""Pictures and video of a run: an extra that never costs the run."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mdnet_ros.features.tracking import FrameTracker
from mdnet_ros.features.types import Features
from mdnet_ros.tracker.pictures import RunPictures


def frame():
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(5, 8)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    features = Features(
        rng.uniform(5, 40, (5, 2)).astype(np.float32), np.ones(5, np.float32),
        np.zeros(5, np.int64), descriptors, (64, 48), 1,
    )
    return FrameTracker().update(features, 0)


def draw(folder, fps, size=(48, 64)):
    with RunPictures(folder, 6, fps) as pictures:
        for i in range(6):
            pictures.add(np.full((*size, 3), 20 * i, np.uint8), frame())
    return pictures


@pytest.mark.parametrize(('fps', 'written'), [
    (100.12321, 100.1),  # a camera's measured rate: no fraction that the format can hold
    (29.97002997, 30.0),
    (1 / 3600, 1.0),  # a time lapse
    (500_000.0, 120.0),  # a bag written in one go
    (float('1e-300'), 1.0),
    (7.5, 7.5),
])
def test_a_video_is_written_at_every_rate(tmp_path, fps, written):
    pictures = draw(tmp_path, fps)
    assert pictures.problems == []
    video = cv2.VideoCapture(str(tmp_path / 'tracks.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 6
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(written, rel=1e-3)
    assert (tmp_path / 'contact_sheet.png').is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ['contact_sheet.png', 'tracks.mp4']


@pytest.mark.parametrize('size', [(1, 1), (1, 5), (3000, 1)])
def test_odd_sizes_cost_nothing(tmp_path, size):
    draw(tmp_path, 10.0, size)
    assert (tmp_path / 'contact_sheet.png').is_file()


def test_what_cannot_be_written_is_told_and_the_run_goes_on(tmp_path):
    """A folder has the video's name, and the folder of the sheet is gone."""
    (tmp_path / 'tracks.mp4').mkdir()
    (tmp_path / 'tracks.mp4' / 'mine').touch()
    (tmp_path / 'contact_sheet.png').mkdir()
    pictures = draw(tmp_path, 10.0)
    assert len(pictures.problems) == 2
    assert pictures.problems[0].startswith(f"no video '{tmp_path}/tracks.mp4': ")
    assert pictures.problems[1].startswith('no contact sheet: ')
    assert (tmp_path / 'tracks.mp4' / 'mine').exists()
