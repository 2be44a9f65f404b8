"""Diagnostics: counts, thresholds and causes."""

from dataclasses import replace

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from mdnet_ros.features.types import Correspondences, Features, TrackedFrame
from mdnet_ros.nodes.diagnostics import STEP, CameraDiagnostics, Reporter
from mdnet_ros.nodes.host import host_facts, open_files, resident_memory, temperature
from mdnet_ros.tracker.job import CameraResult, Restart
from mdnet_ros.tracker.settings import TrackerSettings


def frame(inliers, matches=40):
    rows = np.arange(matches)
    features = Features(
        np.zeros((matches, 2), np.float32), np.ones(matches, np.float32),
        np.zeros(matches, np.int32), np.zeros((matches, 8), np.float32), (10, 10),
    )  # fmt: skip
    return TrackedFrame(
        features, rows, np.zeros(matches, np.int32),
        Correspondences(
            rows, rows, np.zeros((matches, 2), np.float32), rows, np.ones(matches, np.float32),
            rows < inliers,
        ),
        0,
    )


def told(diagnostics, settings=None, silence_reason=''):
    status = diagnostics.status(settings or TrackerSettings(), {'device': 'cpu'}, silence_reason)
    return status.level, status.message, {v.key: v.value for v in status.values}


def serve(diagnostics, inliers=30, times=3, restarted=''):
    result = CameraResult(frame(inliers), restart=Restart(restarted) if restarted else None)
    for _ in range(times):
        diagnostics.done(result, diagnostics.arrival(), 0.02, 0.05)


def test_a_working_tracker_is_ok():
    diagnostics = CameraDiagnostics()
    serve(diagnostics)
    level, message, values = told(diagnostics)
    assert level == DiagnosticStatus.OK
    assert message.startswith('tracking at')
    assert values['frames received'] == values['frames processed'] == '3'
    assert (values['matches'], values['inliers']) == ('40', '30')
    assert values['device'] == 'cpu'
    assert values[STEP] == '20.00 / 20.00 / 20.00'
    assert values['age of stamp p50/p95/p99 (ms)'] == '50.00 / 50.00 / 50.00'


def test_each_threshold_names_its_cause():
    settings = TrackerSettings()
    diagnostics = CameraDiagnostics()
    serve(diagnostics, inliers=3)
    level, message, _ = told(diagnostics)
    assert level == DiagnosticStatus.WARN
    assert '3 inlier matches, expected 20' in message
    assert told(diagnostics, replace(settings, warn_matches=2))[0] == DiagnosticStatus.OK

    diagnostics = CameraDiagnostics()
    serve(diagnostics)
    diagnostics.arrival()
    diagnostics.drop('bad image', 'step of 3')
    level, message, values = told(diagnostics, replace(settings, warn_drops=0.2))
    assert level == DiagnosticStatus.WARN
    assert '25% of the frames dropped (bad image 1)' in message
    assert values['dropped: bad image'] == '1'
    assert values['last problem'] == 'step of 3'

    diagnostics = CameraDiagnostics()
    diagnostics.done(CameraResult(frame(30)), diagnostics.arrival() - 3.0, 2.0, 0.0)
    level, message, _ = told(diagnostics)
    assert level == DiagnosticStatus.ERROR
    assert 'latency 3' in message
    assert told(diagnostics, replace(settings, error_latency=9.0))[0] == DiagnosticStatus.WARN
    relaxed = replace(settings, error_latency=9.0, warn_latency=8.0)
    assert told(diagnostics, relaxed)[0] == DiagnosticStatus.OK
    level, message, _ = told(diagnostics, replace(relaxed, expected_rate=30.0))
    assert level == DiagnosticStatus.WARN
    assert 'expected 30' in message


def test_silence_and_its_reason():
    diagnostics = CameraDiagnostics()
    assert told(diagnostics)[:2] == (DiagnosticStatus.WARN, 'no image comes in')
    level, message, _ = told(diagnostics, silence_reason="no publisher on '/image'")
    assert level == DiagnosticStatus.ERROR
    assert message == "no publisher on '/image'"


def test_restarts_are_counted_by_cause():
    diagnostics = CameraDiagnostics()
    serve(diagnostics, times=2, restarted='stamp went back')
    serve(diagnostics, times=1, restarted='stamp jumped')
    values = told(diagnostics)[2]
    assert values['restarts'] == '3'
    assert values['restarted: stamp went back'] == '2'


def test_each_cause_is_told_once_in_a_while():
    lines = []
    report = Reporter(lines.append, period=1000.0)
    for index in range(5):
        report('bad image', f'bad image {index}')
        report('overload', 'too fast')
    assert lines == ['bad image 0', 'too fast']
    impatient = Reporter(lines.append, period=0.0)
    impatient('x', 'one')
    impatient('x', 'two')
    assert lines[2:] == ['one', 'two']


def test_something_else_under_the_same_cause_is_told_soon(monkeypatch):
    now, lines, noted = [100.0], [], []
    monkeypatch.setattr('mdnet_ros.nodes.diagnostics.time.monotonic', lambda: now[0])
    report = Reporter(lines.append, period=10.0, note=lambda *what: noted.append(what))
    for wait, text in ((0, 'step 3'), (1, 'step 4'), (1, 'encoding'), (0.1, 'step 5'), (9, 'step')):
        now[0] += wait
        report('bad image', text)
    assert lines == ['step 3', 'encoding (1 more times before)', 'step (1 more times before)']
    assert [text for _, text in noted] == ['step 3', 'step 4', 'encoding', 'step 5', 'step']


def test_problems_that_drop_no_frame_are_counted_too():
    diagnostics = CameraDiagnostics()
    report = Reporter(lambda line: None, note=diagnostics.problem)
    report('camera_info', 'nine finite numbers')
    report('camera_info', 'nine finite numbers')
    diagnostics.drop('bad image', 'step of 3')
    report('bad image', 'step of 3')
    values = told(diagnostics)[2]
    assert values['problem: camera_info'] == '2'
    assert values['last camera_info'] == 'nine finite numbers'
    assert values['last bad image'] == values['last problem'] == 'step of 3'
    assert 'problem: bad image' not in values  # counted as a drop


def test_the_machine_is_told(tmp_path):
    before = float(told(CameraDiagnostics())[2]['memory (MB)'])
    held = np.ones(2**24)  # 128 MB
    values = told(CameraDiagnostics())[2]
    assert float(values['memory (MB)']) > before + 100
    before = int(values['open files'])
    with (tmp_path / 'a').open('w'), (tmp_path / 'b').open('w'):
        assert int(told(CameraDiagnostics())[2]['open files']) == before + 2
    assert len(held) == 2**24


def test_the_hottest_zone_counts(tmp_path, monkeypatch):
    monkeypatch.setattr('mdnet_ros.nodes.host._THERMAL', tmp_path)
    assert temperature() is None
    assert 'temperature (C)' not in host_facts('cpu')
    for zone, text in enumerate(('41000', '57900', 'off')):
        (tmp_path / f'thermal_zone{zone}').mkdir()
        (tmp_path / f'thermal_zone{zone}' / 'temp').write_text(text)
    assert host_facts('cpu')['temperature (C)'] == '58'


def test_a_process_that_is_gone_holds_nothing():
    assert resident_memory(2**22 + 1) == open_files(2**22 + 1) == 0
    assert resident_memory() > 2**20
