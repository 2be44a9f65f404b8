"""What is judged of a long run, on courses made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from mdnet_ros.evaluation.benchmark.endurance import SoakRun, SoakSample

MINUTES = 30
SECONDS = MINUTES * 60


def course(memory_growth=0.0, slower=0.0, more_handles=0, lost=0, silent_after=np.inf):
    """A run that starts to differ after its middle."""
    late = np.arange(SECONDS) > SECONDS / 2
    samples = tuple(
        SoakSample(
            float(s), int(400e6 * (1 + memory_growth * late[s])), 20 + more_handles * int(late[s]),
            30 * s + lost, 20 * s, 10 * s,
        )
        for s in range(SECONDS)
    )
    answered = np.arange(0, SECONDS, 0.05)
    answered = answered[answered < silent_after]
    latencies = np.random.default_rng(0).uniform(20, 30, len(answered))
    latencies[answered > SECONDS / 2] *= 1 + slower
    return SoakRun(samples, answered, latencies, 30 * SECONDS, float(SECONDS))


def failed(run):
    return [check.name.split(',')[0] for check in run.checks() if not check.held]


def test_a_flat_course_holds():
    run = course()
    assert run.held
    assert failed(run) == []
    assert run.spans == ((60.0, 360.0), (1500.0, 1800.0))
    memory, files, latency, answered, _ = run.checks()
    assert memory.first == memory.last == pytest.approx(400e6 / 2**20)
    assert files.first == files.last == 20
    assert 29 < latency.first < 30
    assert answered.last == 6000


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'memory_growth': 0.03}, ['resident memory']),
        ({'slower': 0.3}, ['latency p99']),
        ({'slower': -0.3}, ['latency p99']),
        ({'more_handles': 5}, ['open files']),
        ({'lost': 10}, ['images received']),
        ({'silent_after': 1000}, ['latency p99', 'images answered']),
    ],
)
def test_what_changes_is_named(change, named):
    run = course(**change)
    assert failed(run) == named
    assert not run.held


def test_little_is_forgiven():
    assert course(memory_growth=0.01, slower=0.1, more_handles=1).held


def test_a_short_run_is_compared_in_sixths():
    assert replace(course(), seconds=60.0).spans == ((10.0, 20.0), (50.0, 60.0))


def test_nothing_seen_does_not_hold():
    run = SoakRun((), np.zeros(0), np.zeros(0), 0, 60.0)
    assert not run.held
    assert len(run.windows()) == 12
    run.figure()


def test_windows_json_and_picture():
    run = course()
    rows = run.windows(6)
    assert [row['until_s'] for row in rows] == [300, 600, 900, 1200, 1500, 1800]
    assert rows[0]['served'] == 6000
    assert rows[0]['dropped'] == pytest.approx(3000, abs=20)
    document = run.to_json()
    assert document['held'] is True
    assert len(document['samples']) == SECONDS
    assert len(run.figure().axes) == 4
