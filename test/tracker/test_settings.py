"""The table of settings: defaults, ranges, the shipped configurations, the page of parameters."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from mdnet_ros.errors import SettingError
from mdnet_ros.tracker.settings import (
    SETTINGS,
    TrackerSettings,
    settings_markdown,
)

CONFIG = Path(__file__).resolve().parents[2] / 'config'


def test_every_default_is_allowed():
    defaults = {name: setting.default for name, setting in SETTINGS.items()}
    assert TrackerSettings().changed(defaults) == TrackerSettings()
    assert set(SETTINGS) == {f.name for f in fields(TrackerSettings)}
    assert all(len(s.description) > 20 and s.description.endswith('.') for s in SETTINGS.values())


@pytest.mark.parametrize(
    ('name', 'value', 'named'),
    [
        ('max_keypoints', 0, '1 to 65536'),
        ('max_keypoints', 10.0, 'an integer'),
        ('max_keypoints', True, 'an integer'),
        ('score_threshold', 1, 'a number, for example 1.0'),
        ('score_threshold', 'abc', "a number, got 'abc'"),
        ('score_threshold', 'nan', "a number, got 'nan'"),
        ('score_threshold', None, 'a number, got None'),
        ('score_threshold', float('nan'), '0 to 1'),
        ('weights', 5, 'a string'),
        ('overlay', 'yes', 'true or false'),
        ('vins_layout', 'okvis', 'none, mono, fusion'),
        ('max_side', 16, '0 or at least 32'),
        ('max_keypoints', -5, '1 to 65536'),
        ('nms_radius', 99, '0 to 7'),
        ('warn_latency', 5.0, 'error_latency'),
        ('cameras', 'left,left', 'different names'),
        ('cameras', 'left,', 'different names'),
        ('cameras', 'left,ri ght', "letters, digits and underscores, got 'ri ght'"),
        ('cameras', '1st', 'letters'),
        ('stereo', True, 'two names in cameras'),
    ],
)
def test_wrong_values_are_refused_with_what_was_expected(name, value, named):
    with pytest.raises(SettingError, match=named) as raised:
        TrackerSettings().changed({name: value})
    assert name in str(raised.value)
    with pytest.raises(SettingError, match=named):
        TrackerSettings(**{name: value})


def test_cameras_have_names():
    assert TrackerSettings().camera_names == ('',)
    assert TrackerSettings(cameras='left, right').camera_names == ('left', 'right')
    assert TrackerSettings(cameras='/rig/front/').camera_names == ('rig/front',)
    assert TrackerSettings().changed({'cameras': 'a,b', 'stereo': True}).stereo


@pytest.mark.parametrize('name', ['tracker', 'mono', 'stereo', 'low_power'])
def test_shipped_configurations_are_valid(name):
    content = yaml.safe_load((CONFIG / f'{name}.yaml').read_text())
    assert '/**' in content
    for node in content.values():
        TrackerSettings().changed(node['ros__parameters'])


def test_the_default_configuration_says_the_defaults():
    content = yaml.safe_load((CONFIG / 'tracker.yaml').read_text())['/**']['ros__parameters']
    assert TrackerSettings().changed(content) == TrackerSettings()


def test_the_page_of_parameters_is_up_to_date():
    page = settings_markdown()
    rows = [line for line in page.splitlines() if line.startswith('| `')]
    assert [row.split('`')[1] for row in rows] == list(SETTINGS)
    assert {row.count(' | ') for row in rows} == {5}
    assert '| `qos_depth` | integer | `5` | 1 to 100 | no |' in page
    assert page == (CONFIG.parent / 'docs' / 'parameters.md').read_text()
