"""The environment of processes that run ROS nodes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

#: Fast DDS transports with a shared-memory segment large enough for images.
FASTDDS_PROFILE = Path(__file__).resolve().parent / 'fastdds_profile.xml'
#: Humble and Jazzy read the first, Kilted and later the second.
_PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
#: Set in a process by the ROS wheels for its own Python; poison to another one's.
_WHEELS_BOOTSTRAP = '_ROS_WHEELS_BOOTSTRAP_COMPLETE'


def ros_environment(
    base: Mapping[str, str],
    *,
    domain_id: int | None = None,
    localhost: bool = False,
    log_dir: Path | None = None,
    python: str | Path = sys.executable,
) -> dict[str, str]:
    """The environment for a child process that runs one of our nodes.

    A profile the user has set is kept.

    Args:
        base: the environment to start from, usually ``os.environ``.
        domain_id: ROS domain, 0 to 232; the base's if None.
        localhost: discover peers on this machine only.
        log_dir: where ROS writes log files; the base's choice if None.
        python: the interpreter the child runs.

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
        # The other Python sets its own library path up once these are gone.
        environment.pop('LD_LIBRARY_PATH', None)
    environment.setdefault('PYTHONUNBUFFERED', '1')
    return environment
