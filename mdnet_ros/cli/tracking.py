"""Options and outputs that the commands which run the tracker share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mdnet_ros.data.plain import parse_yaml
from mdnet_ros.errors import DataError, SettingError
from mdnet_ros.evaluation.tracks.run import RunReport
from mdnet_ros.files import write_json
from mdnet_ros.tracker.settings import SETTINGS, TrackerSettings

#: Settings that have an option of their own.
_OPTIONS = ('weights', 'max_keypoints', 'device', 'precision', 'refinement')


def add_image_topic_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that choose the topics of images and calibration in a bag."""
    parser.add_argument('--image-topic', metavar='T', help='default: the only one there is')
    parser.add_argument(
        '--camera-info-topic', metavar='T', help='default: the one beside the image topic'
    )


def add_tracker_arguments(parser: argparse.ArgumentParser, weights: str) -> None:
    """Declare the options for the tracker's settings.

    Args:
        parser: parser to add them to.
        weights: default network of the command.
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
    """Build the tracker's settings from the options.

    Raises:
        SettingError: a name is unknown, or a value is out of range.
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
    """Return the settings that differ from the node's defaults, by name."""
    default = vars(TrackerSettings())
    return {name: value for name, value in vars(settings).items() if value != default[name]}


#: Topics of a bag of tracks. A bag with other topics is another recording and is not replaced.
TRACKER_OUTPUTS = ('/keypoints', '/correspondences', '/tracks', '/diagnostics')


def output_folder(path: str) -> Path:
    """Return the folder of a command's outputs, created if it does not exist.

    Raises:
        DataError: it cannot be created.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"output folder '{folder}': {error.strerror}") from None
    return folder


def finish(report: RunReport, title: str, folder: Path, copy: str | None) -> None:
    """Show a run's report and write it as ``summary.json``.

    Args:
        report: report of the run.
        title: title of the table.
        folder: folder of the outputs.
        copy: path of a second JSON file; None: none.

    Raises:
        DataError: a file cannot be written.
    """
    report.table(title).print()
    document = report.to_json()
    write_json(folder / 'summary.json', document)
    if copy:
        write_json(Path(copy), document)
    print(f'outputs: {folder}')


def _parsed(text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    try:
        value = parse_yaml(text, 'set')
    except DataError:
        return text
    return float(value) if isinstance(default, float) and type(value) is int else value
