"""``mdnet demo`` from end to end: the real tracker over DDS, against the scene's own truth."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from mdnet_ros.bags.reader import BagReader
from mdnet_ros.demo.recording import IMAGE_TOPIC
from mdnet_ros.tracker.recording import read_tracks

pytest.importorskip('rclpy')


def demo(folder, weights, *more):
    """Run the command in a process and on a ROS domain of its own."""
    return subprocess.run(
        [sys.executable, '-m', 'mdnet_ros.cli.main', 'demo', '--out', str(folder / 'out'),
         '--json', str(folder / 'demo.json'), '--size', '160x120', '--weights', str(weights),
         '--max-keypoints', '128', '--set', 'threads=1', *more],
        capture_output=True, text=True, timeout=200, check=False, env=dict(os.environ),
    )


@pytest.mark.parametrize('lockstep', [True, False])
def test_no_frame_is_lost_uncounted_and_stamps_are_kept(tmp_path, weights, lockstep):
    options = ('--lockstep',) if lockstep else ()
    done = demo(tmp_path, weights, '--duration', '1', '--fps', '20', *options)
    assert done.returncode == 0, done.stderr
    assert 'Traceback' not in done.stderr
    document = json.loads((tmp_path / 'demo.json').read_text())
    about = document['about']
    assert document['frames_in'] == 20
    assert document['frames_processed'] + document['frames_dropped'] == 20
    assert about['frames_uncounted'] == 0
    assert about['frames_answered'] == document['frames_processed'] > 0
    assert about['answers_with_a_foreign_stamp'] == 0
    if lockstep:
        assert document['frames_processed'] == 20
    assert document['precision_kind'] == 'position'
    assert document['latency_ms']['p50'] > 0
    with BagReader(tmp_path / 'out' / 'scene') as bag:
        sent = [frame.stamp_ns for frame in bag.images(IMAGE_TOPIC)]
    with BagReader(tmp_path / 'out' / 'tracks') as bag:
        frames = list(read_tracks(bag, (160, 120)))
    got = [frame.stamp_ns for frame in frames]
    assert got == sorted(got)
    assert set(got) <= set(sent)
    assert len(got) == document['frames_processed']
    names = {p.name for p in (tmp_path / 'out').iterdir()}
    assert names == {'scene', 'tracks', 'summary.json', 'contact_sheet.png', 'tracks.mp4'}


@pytest.mark.parametrize(
    ('options', 'complaint'),
    [
        (('--weights', 'absent'), "weights 'absent': no such file"),
        (('--size', 'big'), "--size 'big': expected WIDTHxHEIGHT"),
        (('--duration', '0'), 'expected a duration and rate above 0'),
    ],
)
def test_mistakes_are_named_before_anything_starts(tmp_path, monkeypatch, capsys, options,
                                                   complaint):  # fmt: skip
    from mdnet_ros.cli.main import main

    monkeypatch.chdir(tmp_path)
    assert main(['demo', '--weights', 'md2net-light', *options]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count('\n') == 1
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_cannot_start_is_told(tmp_path, weights):
    """The node refuses what only it can check: the last line of its log is passed on."""
    done = demo(tmp_path, weights, '--duration', '0.1', '--set', 'mask=absent.png')
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    last = done.stderr.replace('\r', '\n').strip().splitlines()[-1]
    assert last.startswith('mdnet: error: the tracker ended with code 1')
    assert "mask 'absent.png': no such file" in last
    assert not list((tmp_path / 'out').glob('*unfinished*'))  # no half of a bag
