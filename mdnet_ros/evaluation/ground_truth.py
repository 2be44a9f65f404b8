"""Ground-truth poses from files: TUM, KITTI and EuRoC, read by evo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mdnet_ros.errors import DataError, MissingDependencyError
from mdnet_ros.poses import PoseTrack

try:
    from evo import EvoException
    from evo.tools import file_interface
except ImportError:
    file_interface = None


def load_ground_truth(path: Path, stamps_ns: Sequence[int]) -> PoseTrack:
    """Read poses of the camera (camera to map) from a file.

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
