"""What ``mdnet track`` and ``mdnet demo`` share: the tracker's settings and the report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from mdnet_ros.errors import DataError, SettingError
from mdnet_ros.tracker.settings import SETTINGS, TrackerSettings

#: Settings that have an option of their own.
_OPTIONS = ('weights', 'max_keypoints', 'device', 'precision')


def add_tracker_arguments(parser: argparse.ArgumentParser, weights: str) -> None:
    """Options for the tracker's settings.

    Args:
        parser: to add them to.
        weights: the default network of the command.
    """
    group = parser.add_argument_group('tracker')
    defaults = TrackerSettings(weights=weights)
    for name in _OPTIONS:
        setting = SETTINGS[name]
        default = getattr(defaults, name)
        group.add_argument(
            f'--{name.replace("_", "-")}', type=type(setting.default), default=default,
            metavar=name.rpartition('_')[2].upper(), help=f'{setting.description} [{default}]',
        )
    group.add_argument(
        '--set', action='append', default=[], metavar='NAME=VALUE',
        help='any other parameter of the tracker node, such as min_similarity=0.6; repeatable',
    )


def tracker_settings(args: argparse.Namespace) -> TrackerSettings:
    """The settings that the options give.

    Raises:
        MDNetError: for an unknown name or a value that is refused.
    """
    values: dict[str, Any] = {name: getattr(args, name) for name in _OPTIONS}
    for assignment in args.set:
        name, equals, text = assignment.partition('=')
        if not equals or name not in SETTINGS:
            raise SettingError(
                f"--set '{assignment}': expected NAME=VALUE with one of {', '.join(SETTINGS)}"
            )
        values[name] = _parsed(text, SETTINGS[name].default)
    return TrackerSettings().changed(values)


def changed_from_default(settings: TrackerSettings) -> dict[str, Any]:
    """The settings that are not what the node would take by itself."""
    default = vars(TrackerSettings())
    return {name: value for name, value in vars(settings).items() if value != default[name]}


def output_folder(path: str) -> Path:
    """The folder of a command's outputs, made if it is not there.

    Raises:
        DataError: if that cannot be.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"output folder '{folder}': {error.strerror}") from None
    return folder


def _parsed(text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return float(value) if isinstance(default, float) and type(value) is int else value
