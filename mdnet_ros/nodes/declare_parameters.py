"""Declares the tracker's settings as ROS parameters of a node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from mdnet_ros.tracker.settings import SETTINGS, Setting, TrackerSettings


def descriptor_of(setting: Setting) -> ParameterDescriptor:
    """Return what ``ros2 param describe`` and tools like rqt show for a setting."""
    descriptor = ParameterDescriptor(
        description=setting.description,
        additional_constraints=f'one of {setting.range}' if setting.choices else '',
        read_only=setting.read_only,
    )
    if setting.low is not None and setting.high is not None:
        if isinstance(setting.default, int):
            descriptor.integer_range = [
                IntegerRange(from_value=int(setting.low), to_value=int(setting.high), step=0)
            ]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(
                    from_value=float(setting.low), to_value=float(setting.high), step=0.0
                )
            ]
    return descriptor


def declare_settings(node: Node) -> TrackerSettings:
    """Declare every parameter and return the values that the user set.

    Raises:
        SettingError: for a value of the wrong type or out of range.
    """
    values: dict[str, Any] = {}
    for setting in SETTINGS.values():
        try:
            declared = node.declare_parameter(
                setting.name, setting.default, descriptor_of(setting)
            )
        except ParameterException:
            # rclpy does not always say what was expected; our own check does.
            override = node._parameter_overrides.get(setting.name)
            setting.check(override.value if override is not None else None)
            raise
        values[setting.name] = declared.value
    return TrackerSettings().changed(values)


def changed_values(parameters: Iterable[Parameter]) -> dict[str, Any]:
    """Return the values of those parameters that are the tracker's settings."""
    return {p.name: p.value for p in parameters if p.name in SETTINGS}
