"""Parameters that the node declares from the table of settings."""

import pytest
import rclpy
from rclpy.node import Node

from mdnet_ros.errors import SettingError
from mdnet_ros.nodes.declare_parameters import declare_settings
from mdnet_ros.tracker.settings import TrackerSettings


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
