"""The table of parameters, and the parameters declared from it."""

from dataclasses import fields
from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.node import Node

from mdnet_ros.errors import SettingError
from mdnet_ros.nodes.parameters import declare_settings
from mdnet_ros.nodes.settings import (
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
        ('score_threshold', float('nan'), '0 to 1'),
        ('weights', 5, 'a string'),
        ('overlay', 'yes', 'true or false'),
        ('vins_layout', 'okvis', 'none, mono, fusion'),
        ('max_side', 16, '0 or at least 32'),
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


def test_cameras_have_names():
    assert TrackerSettings().camera_names == ('',)
    assert TrackerSettings(cameras='left, right').camera_names == ('left', 'right')
    assert TrackerSettings(cameras='/rig/front/').camera_names == ('rig/front',)
    assert TrackerSettings().changed({'cameras': 'a,b', 'stereo': True}).stereo


@pytest.fixture
def declare(environment):
    """declare(**overrides) -> the settings a node with these parameters gets."""
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = []

    def make(**overrides):
        node = Node(
            'declared', context=context,
            parameter_overrides=[rclpy.Parameter(n, value=v) for n, v in overrides.items()],
        )
        nodes.append(node)
        return declare_settings(node)

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_declared_parameters_take_what_the_user_set(declare):
    assert declare() == TrackerSettings()
    assert declare(max_gap=5, device='cpu').max_gap == 5


@pytest.mark.parametrize(
    ('overrides', 'named'),
    [
        ({'max_gap': -1}, 'max_gap: expected 0 to 100, got -1'),
        ({'max_gap': 'two'}, "max_gap: expected an integer, got 'two'"),
        ({'min_similarity': 1}, 'min_similarity: expected a number, for example 1.0, got 1'),
        ({'precision': 'fp8'}, 'precision: expected one of auto, fp32, fp16, bf16'),
    ],
)
def test_a_wrong_override_is_named(declare, overrides, named):
    with pytest.raises(SettingError) as raised:
        declare(**overrides)
    assert named in str(raised.value)


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
