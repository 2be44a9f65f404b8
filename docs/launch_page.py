"""Write docs/launch.md from what the launch files declare: ``python docs/launch_page.py``.

Reading the declarations needs no ROS: names, defaults and descriptions are collected while the
launch file's own ``generate_launch_description`` runs; nothing is launched.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'launch.md'
#: Modules of ROS that launch files import.
MODULES = (
    'ament_index_python', 'ament_index_python.packages', 'launch', 'launch.actions',
    'launch.conditions', 'launch.event_handlers', 'launch.events', 'launch.events.process',
    'launch.launch_description_sources', 'launch.substitutions', 'launch_ros',
    'launch_ros.actions', 'launch_ros.substitutions',
)
HEAD = """# Launch files

Written by `python docs/launch_page.py`; do not edit. The same from ROS:
`ros2 launch mdnet_ros tracker.launch.py --show-args`.

An argument is given as `NAME:=VALUE`. Everything else is a parameter of the node
([parameters](parameters.md)): copy a file of [config/](../config), change it, and name it by
`config:=FILE`.
"""
#: Of each launch file: what it is for, and examples.
PAGES = {
    'tracker.launch.py': """The tracker on one or more cameras.

```bash
ros2 launch mdnet_ros tracker.launch.py image:=/camera/image_raw camera_info:=/camera/camera_info
ros2 launch mdnet_ros tracker.launch.py config:=low_power image_transport:=compressed
ros2 launch mdnet_ros tracker.launch.py config:=stereo namespace:=stereo image:=image_raw rviz:=true
ros2 launch mdnet_ros tracker.launch.py cameras:=front,rear image:=image_raw device:=cuda
```
""",
    'replay.launch.py': """The tracker over a bag, live: player, tracker and, with `out`, recorder.
It ends with the bag.

```bash
ros2 launch mdnet_ros replay.launch.py bag:=drive out:=drive_tracked lockstep:=true
```

Without ROS, as fast as it goes: `mdnet track`.
""",
}


class _Anything(ModuleType):
    """A module of which everything may be imported and called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        return lambda *_, **__: None


def declared_arguments(path: Path) -> list[tuple[str, str | None, str]]:
    """Name, default (None: must be given) and description of a launch file's arguments."""
    found: list[tuple[str, str | None, str]] = []

    def declare(name: str, *, default_value: str | None = None, description: str = '') -> None:
        found.append((name, default_value, description))

    modules = {name: _Anything(name) for name in MODULES}
    modules['launch.actions'].DeclareLaunchArgument = declare  # type: ignore[attr-defined]
    with patch.dict(sys.modules, modules):
        runpy.run_path(str(path))['generate_launch_description']()
    return found


def table(path: Path) -> str:
    """The arguments as a Markdown table."""
    lines = ['| argument | default | |', '|---|---|---|']
    for name, default, description in declared_arguments(path):
        shown = 'must be given' if default is None else f'`{default}`' if default else 'empty'
        text = description.replace('|', '\\|')
        lines.append(f'| `{name}` | {shown} | {text} |')
    return '\n'.join(lines)


def page() -> str:
    """The whole page."""
    files = sorted((ROOT / 'launch').glob('*.launch.py'), reverse=True)
    parts = [f'## {path.name}\n\n{PAGES[path.name]}\n{table(path)}\n' for path in files]
    return '\n'.join([HEAD, *parts])


if __name__ == '__main__':
    PAGE.write_text(page(), encoding='utf-8')
