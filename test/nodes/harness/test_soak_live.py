"""``mdnet soak`` for some seconds: the real tracker, a short bag round and round."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from mdnet_ros.bags.messages import BagTopics
from mdnet_ros.bags.writer import BagWriter
from mdnet_ros.cli.main import main

pytest.importorskip('rclpy')


@pytest.fixture
def bag(tmp_path):
    """A second of a sliding pattern, ten images."""
    picture = np.random.default_rng(0).integers(0, 256, (120, 200), np.uint8)
    picture = cv2.GaussianBlur(picture, (0, 0), 2)
    with BagWriter(tmp_path / 'bag') as writer:
        topics = BagTopics(writer)
        for index in range(10):
            image = np.ascontiguousarray(picture[:, 2 * index : 2 * index + 160])
            topics.image('/camera/image_raw', 10**18 + index * 10**8, 'camera', image)
    return tmp_path / 'bag'


def soak(folder, bag, weights, *more):
    return subprocess.run(
        [sys.executable, '-m', 'mdnet_ros.cli.main', 'soak', '--bag', str(bag),
         '--weights', str(weights), '--set', 'threads=1', '--json', str(folder / 'soak.json'),
         '--plot', str(folder / 'soak.png'), *more],
        capture_output=True, text=True, timeout=200, check=False, env=dict(os.environ),
    )  # fmt: skip


def test_a_bag_is_played_round_and_round_and_judged(tmp_path, bag, weights):
    done = soak(tmp_path, bag, weights, '--minutes', '0.1')
    assert 'Traceback' not in done.stderr
    document = json.loads((tmp_path / 'soak.json').read_text())
    failed = {check['name'] for check in document['checks'] if not check['held']}
    # In six seconds memory still fills, and latency is that of the machine.
    assert failed <= {'resident memory, MB', 'latency p99, ms'}
    assert document['held'] is not bool(failed)
    assert done.returncode == int(bool(failed)), done.stderr
    assert document['published'] > 20  # more than two rounds
    assert 0 < document['answered'] <= document['published']
    assert len(document['checks']) == 5
    memory = np.array([sample['memory'] for sample in document['samples']])
    assert (memory > 50e6).all()
    assert min(sample['handles'] for sample in document['samples']) > 5
    assert document['samples'][-1]['seconds'] >= 6
    assert 'resident memory' in done.stdout
    height, width = cv2.imread(str(tmp_path / 'soak.png')).shape[:2]
    assert min(height, width) > 400


def test_a_tracker_that_ends_before_its_time_is_told(tmp_path, bag, weights):
    done = soak(tmp_path, bag, weights, '--minutes', '0.1', '--set', 'mask=absent.png')
    assert done.returncode == 2
    assert "mask 'absent.png': no such file" in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'soak.json').exists()


@pytest.mark.parametrize(
    ('options', 'complaint'),
    [
        (('--minutes', '0'), '--minutes: expected more than 0'),
        (('--plot', 'curve.txt'), 'expected a name that ends with .png'),
        (('--weights', 'absent'), "weights 'absent': no such file"),
    ],
)
def test_mistakes_are_named_before_anything_starts(capsys, options, complaint):
    assert main(['soak', *options]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count('\n') == 1
