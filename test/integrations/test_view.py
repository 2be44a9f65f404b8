"""``mdnet view``: the page holds what the bag holds, and nothing of it lies elsewhere."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdnet_ros.cli.main import main
from mdnet_ros.evaluation.tracks.statistics import SequenceStatistics, coverage_of


def view(flight, out: Path, *more: str, images: bool = True) -> int:
    where = ('--images', str(flight.images)) if images else ()
    return main(['view', '--bag', str(flight.tracks), *where, '--out', str(out), *more])


def data_of(page: Path) -> dict:
    (text,) = re.findall(r'^const data = (\{.*\});$', page.read_text('utf-8'), re.MULTILINE)
    assert '<' not in text
    return json.loads(text)


def decoded(picture: str) -> np.ndarray:
    kind, _, content = picture.partition(',')
    assert kind == 'data:image/jpeg;base64'
    return cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_COLOR)


@pytest.fixture(scope='module')
def page(flight, tmp_path_factory):
    path = tmp_path_factory.mktemp('page') / 'tracks.html'
    assert view(flight, path, '--trail', '3') == 0
    return path


def test_figures_are_those_of_the_frames(flight, page):
    data = data_of(page)
    statistics = SequenceStatistics()
    for frame in flight.frames:
        statistics.add(frame)
    assert data['summary'] == statistics.summary().to_json()
    assert data['keypoints'] == [len(f.features) for f in flight.frames]
    assert data['matches'] == [len(f.correspondences) for f in flight.frames]
    assert data['inliers'] == [int(f.correspondences.inlier.sum()) for f in flight.frames]
    np.testing.assert_allclose(data['coverage'], [coverage_of(f) for f in flight.frames], atol=1e-4)
    np.testing.assert_allclose(data['seconds'], 0.05 * np.arange(len(flight.frames)))
    assert data['stamps'][1] == '1700000000.050000000'
    seen: dict[int, int] = {}
    for frame in flight.frames:
        for track in frame.track_ids.tolist():
            seen[track] = seen.get(track, 0) + 1
    for bin_ in data['lengths']:
        low, high = map(int, bin_['frames'].split('–'))
        assert bin_['tracks'] == sum(low <= n <= high for n in seen.values())
    assert sum(bin_['tracks'] for bin_ in data['lengths']) == sum(n > 1 for n in seen.values())
    assert np.sum(data['cells']) == sum(int((f.ages > 0).sum()) for f in flight.frames)


def test_pictures_are_the_images_with_tracks_drawn(flight, page, capsys):
    data = data_of(page)
    assert data['shown'] == list(range(len(flight.frames)))
    for index, picture in enumerate(data['pictures']):
        image = decoded(picture)
        assert image.shape == (240, 320, 3)
        expected = np.full((240, 320, 3), 40, np.uint8)
        expected[:, : 10 * (index + 1)] = (200, 120, 60)
        if index == 5:  # its image was lost
            expected[:] = 0
        far = np.abs(image.astype(int) - expected).max(axis=2) > 60
        assert 0.01 < far.mean() < 0.5
        x, y = np.rint(flight.frames[index].features.keypoints).astype(int).T
        assert far[y, x].mean() > 0.7


def test_the_page_asks_for_nothing_else(page):
    text = page.read_text('utf-8')
    assert set(re.findall(r'https?://[^\s\'"]+', text)) == {'http://www.w3.org/2000/svg'}
    assert not re.search(r'<(link|iframe)|@import|fetch\(|XMLHttp|\bsrc="|url\(', text)


@pytest.mark.parametrize(
    ('more', 'shown'),
    [
        (('--max-frames', '5'), range(0, 14, 3)),
        (('--every', '4'), range(0, 14, 4)),
        (('--every', '2', '--max-frames', '3'), range(0, 14, 5)),
    ],
)
def test_pictures_are_bounded_and_charts_whole(flight, tmp_path, more, shown):
    assert view(flight, tmp_path / 'page.html', '--width', '160', *more) == 0
    data = data_of(tmp_path / 'page.html')
    assert data['shown'] == list(shown)
    assert len(data['pictures']) == len(shown)
    assert decoded(data['pictures'][0]).shape == (120, 160, 3)
    assert len(data['keypoints']) == len(flight.frames)


def test_without_images_tracks_lie_on_black(flight, tmp_path, capsys):
    from mdnet_ros.bags.messages import BagTopics
    from mdnet_ros.bags.reader import BagReader
    from mdnet_ros.bags.writer import BagWriter

    name = 'a<b>&"c'  # may neither end a tag nor a string
    with BagReader(flight.tracks) as old, BagWriter(tmp_path / name) as new:
        BagTopics(new).camera_info('/cam/camera_info', 1, 'cam', flight.camera)
        for message in old.raw():
            new.write(message.topic, message.type, message.stamp_ns, message.data)
    out = tmp_path / 'page.html'
    assert main(['view', '--bag', str(tmp_path / name), '--out', str(out)]) == 0
    assert '14 pictures without an image' in capsys.readouterr().err
    assert np.median(decoded(data_of(out)['pictures'][4])) == 0
    title = f'{tmp_path.name}/{name}'
    assert f'<title>{html.escape(title)}: tracks</title>' in out.read_text('utf-8')
    assert data_of(out)['title'] == title


@pytest.mark.parametrize(
    ('more', 'complaint'),
    [
        (('--max-frames', '0'), 'max_frames: expected 1 to'),
        (('--quality', '200'), 'quality: expected 1 to 100, got 200'),
        (('--out', '/proc/none/page.html'), "output '/proc/none/page.html'"),
    ],
)
def test_mistakes_are_named_in_one_line(flight, tmp_path, capsys, more, complaint):
    assert view(flight, tmp_path / 'page.html', *more) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith('mdnet:')]
    assert complaint in line
    assert not list(tmp_path.iterdir())


KEYS = """<script>
const seen = [];
const look = () => document.querySelector('#now td:last-child').textContent;
seen.push(look());
for (const key of ['ArrowRight', 'ArrowRight', 'ArrowLeft', 'End', 'ArrowRight', 'Home']) {
  document.dispatchEvent(new KeyboardEvent('keydown', { key }));
  seen.push(look());
}
document.getElementById('next').click();
seen.push(look());
document.dispatchEvent(new KeyboardEvent('keydown', { key: ' ' }));
setTimeout(() => {
  document.body.innerHTML = '';
  document.title = seen.join('; ') + ' | ' + current;
}, 3000);
</script></body>"""


def test_it_plays_in_a_browser(page, tmp_path):
    browser = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser',
                                                   'google-chrome'))), None)
    if browser is None:
        pytest.skip('needs Chromium')
    copy = tmp_path / 'page.html'
    copy.write_text(page.read_text('utf-8').replace('</body>', KEYS), 'utf-8')
    done = subprocess.run(
        [browser, '--headless', '--no-sandbox', '--disable-gpu', '--virtual-time-budget=10000',
         f'--user-data-dir={tmp_path / "profile"}', '--dump-dom', copy.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )
    (title,) = re.findall(r'<title>(.*?)</title>', done.stdout)
    frames, last = title.split(' | ')
    steps = [1, 2, 3, 2, 14, 14, 1, 2]
    assert frames.split('; ') == [f'{n} of 14' for n in steps]
    assert last == '13'  # it has played to the end
