"""Environment variables for processes that run ROS nodes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

#: Fast DDS transports with a shared-memory segment large enough for images.
FASTDDS_PROFILE = Path(__file__).resolve().parent / 'fastdds_profile.xml'
#: Humble and Jazzy read the first, Kilted and later the second.
_PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
#: Set by the ROS wheels for the Python of this process; wrong for another Python.
_WHEELS_BOOTSTRAP = '_ROS_WHEELS_BOOTSTRAP_COMPLETE'


def ros_environment(
    base: Mapping[str, str],
    *,
    domain_id: int | None = None,
    localhost: bool = False,
    log_dir: Path | None = None,
    python: str | Path = sys.executable,
) -> dict[str, str]:
    """Return the environment variables for a child process that runs one of our nodes.

    A DDS profile that the user has set is kept.

    Args:
        base: the environment to start from, usually ``os.environ``.
        domain_id: ROS domain, 0 to 232; the base's if None.
        localhost: discover other nodes on this machine only.
        log_dir: folder of the ROS log files; the base's choice if None.
        python: the interpreter that the child runs.

    Raises:
        ValueError: if the domain id is out of range.
    """
    environment = dict(base)
    if not any(environment.get(name) for name in _PROFILE_VARIABLES):
        for name in _PROFILE_VARIABLES:
            environment[name] = str(FASTDDS_PROFILE)
    if domain_id is not None:
        if not 0 <= domain_id <= 232:
            raise ValueError(f'domain_id: expected 0 to 232, got {domain_id}')
        environment['ROS_DOMAIN_ID'] = str(domain_id)
    if localhost:
        environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
        if environment.get('ROS_DISTRO') == 'humble':
            environment['ROS_LOCALHOST_ONLY'] = '1'
    if log_dir is not None:
        environment['ROS_LOG_DIR'] = str(log_dir)
    if Path(python) != Path(sys.executable) and environment.pop(_WHEELS_BOOTSTRAP, ''):
        # Without these the other Python sets up its own library path.
        environment.pop('LD_LIBRARY_PATH', None)
    environment.setdefault('PYTHONUNBUFFERED', '1')
    return environment
