"""Ground-truth poses from files: TUM, KITTI and EuRoC, read by evo."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from mdnet_ros.data.poses import Pose, PoseTrack
from mdnet_ros.errors import DataError, MissingDependencyError

try:
    from evo import EvoException
    from evo.tools import file_interface
except ImportError:
    file_interface = None


def load_ground_truth(path: Path, stamps_ns: Sequence[int]) -> PoseTrack:
    """Read poses (camera or body to map) from a file.

    TUM: ``stamp x y z qx qy qz qw`` a line, seconds. EuRoC: ``stamp,x,y,z,qw,qx,qy,qz,…`` a
    line, nanoseconds. KITTI: the 12 numbers of a 3x4 matrix a line, one line per frame. The
    format is told from the first line of numbers.

    Args:
        path: the file.
        stamps_ns: of the frames, for KITTI's poses, which have none.

    Raises:
        DataError: if the file is missing, malformed, or, for KITTI, has another number of poses
            than there are frames.
        MissingDependencyError: without evo.
    """
    if file_interface is None:
        raise MissingDependencyError('evo', 'evaluate', 'reading ground-truth files')
    where = f"ground truth '{path}'"
    try:
        with open(path, encoding='utf-8') as file:
            lines = (line.strip() for line in file)
            first = next((line for line in lines if line and not line.startswith('#')), '')
        if ',' in first:
            poses = file_interface.read_euroc_csv_trajectory(str(path))
        elif len(first.split()) == 12:
            poses = file_interface.read_kitti_poses_file(str(path))
        elif len(first.split()) == 8:
            poses = file_interface.read_tum_trajectory_file(str(path))
        else:
            raise DataError(
                f'{where}: expected lines of 8 (TUM), 12 (KITTI) or comma-separated (EuRoC) numbers'
            )
    except (OSError, UnicodeDecodeError, EvoException, ValueError) as error:
        reason = ' '.join(str(error).split())[:160]
        raise DataError(f'{where}: cannot be read: {reason}') from None
    matrices = np.array(poses.poses_se3)
    if hasattr(poses, 'timestamps'):
        stamps = np.rint(np.asarray(poses.timestamps) * 1e9).astype(np.int64)
    elif len(matrices) == len(stamps_ns):
        stamps = np.asarray(stamps_ns, np.int64)
    else:
        raise DataError(
            f'{where}: expected as many poses as frames, {len(stamps_ns)}, got {len(matrices)}'
        )
    if not len(matrices) or not np.isfinite(matrices).all():
        raise DataError(f'{where}: expected finite poses')
    unique, rows = np.unique(stamps, return_index=True)
    return PoseTrack(unique, matrices[rows, :3, :3], matrices[rows, :3, 3])


def is_euroc(path: Path) -> bool:
    """Whether a file of poses is EuRoC's: comma-separated."""
    try:
        with open(path, encoding='utf-8') as file:
            lines = (line.strip() for line in file)
            return ',' in next((line for line in lines if line and line[0] != '#'), '')
    except (OSError, UnicodeDecodeError):
        return False


def euroc_extrinsics(path: Path, image_topic: str) -> Path | None:
    """The ``sensor.yaml`` of the camera beside an EuRoC ground truth, if it is there.

    The data set has ``mav0/state_groundtruth_estimate0/data.csv`` with poses of the body (the
    IMU) and ``mav0/cam0/sensor.yaml``, ``mav0/cam1/sensor.yaml`` for the cameras.

    Args:
        path: of the ground truth.
        image_topic: the camera's number is read from it; 0 where it has none.
    """
    if not is_euroc(path):
        return None
    number = re.search(r'cam(?:era)?_?(\d)', image_topic)
    found = path.resolve().parent.parent / f'cam{number[1] if number else 0}' / 'sensor.yaml'
    return found if found.is_file() else None


def read_extrinsics(path: Path) -> Pose:
    """Camera to body: ``T_BS`` of a ``sensor.yaml`` of EuRoC, 16 numbers row by row.

    Raises:
        DataError: the file cannot be read or is not a rigid motion.
    """
    try:
        text = path.read_text(encoding='utf-8')
        values = yaml.safe_load(text.removeprefix('%YAML:1.0'))['T_BS']
        values = values['data'] if isinstance(values, dict) else values
        matrix = np.array(values, np.float64).reshape(4, 4)
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        reason = ' '.join(str(error).split())[:160]
        raise DataError(f"extrinsics '{path}': expected T_BS, 16 numbers: {reason}") from None
    rotation = matrix[:3, :3]
    turned = np.isfinite(matrix).all() and np.linalg.det(rotation) > 0
    if not turned or np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3:
        raise DataError(f"extrinsics '{path}': expected a rotation in T_BS")
    return Pose(rotation, matrix[:3, 3])
