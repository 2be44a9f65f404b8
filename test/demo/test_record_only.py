"""``mdnet demo --record-only``: a bag with exact truth, of any length and speed."""

import numpy as np
import pytest

from mdnet_ros.bags.reader import BagReader
from mdnet_ros.cli.main import main
from mdnet_ros.demo.recording import CAMERA_INFO_TOPIC, IMAGE_TOPIC, POSE_TOPIC
from mdnet_ros.demo.scene import Scene, SceneSettings

pytest.importorskip('rosbags')


def test_the_bag_holds_images_calibration_and_truth(tmp_path, capsys):
    path = tmp_path / 'fast'
    arguments = [
        'demo', '--record-only', str(path), '--frames', '7', '--fps', '10', '--size', '64x48',
        '--speed', '2', '--exposure', '0.02', '--steady-light', '--storage', 'mcap',
    ]  # fmt: skip
    assert main(arguments) == 0
    scene = Scene(
        SceneSettings(
            duration_s=0.7, rate_hz=10, width=64, height=48, speed=2.0, exposure_s=0.02,
            steady_light=True,
        )
    )
    with BagReader(path) as bag:
        assert set(bag.topics) == {IMAGE_TOPIC, CAMERA_INFO_TOPIC, POSE_TOPIC}
        images = list(bag.images(IMAGE_TOPIC))
        truth = bag.poses(POSE_TOPIC)
    assert len(images) == len(truth) == 7
    np.testing.assert_array_equal(images[4].image, scene.frame(4).image)
    np.testing.assert_allclose(truth.translations, scene.poses().translations)
    # A recording is never written over.
    assert main(arguments) == 2
    assert 'is there already' in capsys.readouterr().err
    with BagReader(path) as bag:
        assert bag.counts[IMAGE_TOPIC] == 7


@pytest.mark.parametrize(
    ('options', 'complaint'),
    [
        (('--frames', '0'), '--frames: expected at least 1, got 0'),
        (('--frames', '5', '--fps', '0'), 'expected a duration and rate above 0'),
        (('--speed', '-1'), 'expected a speed above 0, got -1'),
        (('--exposure', '1'), 'expected an exposure from 0 to 0.0333333 s'),
    ],
)
def test_mistakes_are_named(tmp_path, capsys, options, complaint):
    assert main(['demo', '--record-only', str(tmp_path / 'bag'), *options]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / 'bag').exists()
