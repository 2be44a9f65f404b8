"""Ground-truth poses from text files (TUM, KITTI, EuRoC), and camera-to-body extrinsics."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np

from mdnet_ros.data.plain import parse_yaml
from mdnet_ros.data.poses import Pose, Trajectory, pose_of_quaternion
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.tracks.truth import GroundTruthError

#: Lines that start with one of these hold no pose.
_COMMENTS = ('#', '%', '//')
#: Numbers stand apart by commas, semicolons, tabs or any number of spaces.
_SEPARATOR = re.compile(r'[,;\s]+')
#: Nanoseconds in a second, a nanosecond, a microsecond and a millisecond.
_UNITS_NS = (10**9, 1, 10**3, 10**6)
#: Names of columns of a quaternion, such as qw, q_RS_w, orientation.w and rot_w.
_QUATERNION = re.compile(r'q|(.*[._])?(quat|orient|rot)')
#: No clock's numbers have more digits before the point, in any unit.
_DIGITS = 19
#: How far a quaternion's length, or a matrix from a rotation, may be off by rounding.
_ROUNDING = 0.05
_FORMATS = 'expected lines of 8 (TUM), 12 or 16 (KITTI) or comma-separated (EuRoC) numbers'


@dataclass(frozen=True)
class PoseFile:
    """The poses in a text file.

    Attributes:
        path: path of the file.
        stamps: stamps of each pose, in the unit of the file; None: the format has none (KITTI).
        poses: body to map; None where the file says that there is none (NaN, zero quaternion).
        of_body: the poses are, by the format (EuRoC), those of the body that carries the camera.
    """

    path: Path
    stamps: tuple[Decimal, ...] | None
    poses: tuple[Pose | None, ...]
    of_body: bool


def load_ground_truth(path: Path, stamps_ns: Sequence[int] | np.ndarray) -> Trajectory:
    """Read the poses (camera or body to map) in a file and give them their times.

    Args:
        path: the file, see :func:`read_pose_file`.
        stamps_ns: stamps of all images of the bag. They decide the unit of the file's stamps, and
            the times of KITTI's poses, which have none.

    Returns:
        The poses, sorted; their ``body_frame`` is empty unless they are EuRoC's, whose poses are
        those of the body that carries the camera.

    Raises:
        GroundTruthError: as :func:`read_pose_file`, or if KITTI's poses are more or fewer than
            the images.
    """
    file = read_pose_file(path)
    images = np.asarray(stamps_ns, np.int64)
    if file.stamps is not None:
        stamps = _nanoseconds(file.stamps, images)
    elif len(file.poses) == len(images):
        stamps = images
    else:
        raise GroundTruthError(
            f"ground truth '{path}': expected as many poses as the bag has images, "
            f'{len(images)}, got {len(file.poses)}'
        )
    return Trajectory.of_poses(stamps, file.poses, body_frame='body' if file.of_body else '')


def read_pose_file(path: Path) -> PoseFile:
    """Read the poses in a text file.

    ====== ==========================================================================
    TUM    ``stamp x y z qx qy qz qw`` a line
    EuRoC  ``stamp,x,y,z,qw,qx,qy,qz,…`` a line, stamps are integers
    KITTI  the 12 numbers of a 3x4 matrix (or 16 of a 4x4 one) a line, one line an image
    ====== ==========================================================================

    Blank lines, comments, a header line, commas, tabs and several spaces are taken. The order of
    the quaternion is that which the header names, else that of the format. Stamps are in any
    unit.

    Raises:
        GroundTruthError: if the file is missing, a line cannot be read (which is named by its
            number), or there is no finite pose.
    """
    where = f"ground truth '{path}'"
    lines = _lines(path, where)
    whole = _stamps_are_whole(lines)
    head, stamps, poses = '', [], []
    width, comma, w_first, of_body = 0, False, False, False
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith(_COMMENTS):
            head = text or head
            continue
        tokens = [token for token in _SEPARATOR.split(text) if token]
        if not width and not _is_number(tokens[0] if tokens else ''):
            head = text
            continue
        if not width:
            width, comma = len(tokens), ',' in text or ';' in text
            if width not in (8, 12, 16) and not (comma and width > 8):
                raise GroundTruthError(f'{where}, line {number}: {_FORMATS}, got {width}')
            of_body = comma and width not in (12, 16) and whole
            w_first = _w_first(head, of_body)
        if len(tokens) != width:
            raise GroundTruthError(
                f'{where}, line {number}: expected {width} numbers as in the lines before, '
                f'got {len(tokens)}'
            )
        try:
            if width in (12, 16):
                poses.append(_pose_of_matrix([float(token) for token in tokens]))
            else:
                stamp = Decimal(tokens[0])
                if not stamp.is_finite() or (stamp and stamp.adjusted() >= _DIGITS):
                    raise ValueError(f'expected a time, got {tokens[0][:40]}')
                poses.append(_pose_of_line([float(token) for token in tokens[1:8]], w_first))
                stamps.append(stamp)
        except (InvalidOperation, ValueError) as error:
            reason = 'expected numbers' if isinstance(error, InvalidOperation) else str(error)
            raise GroundTruthError(f'{where}, line {number}: {reason}') from None
    if not width:
        raise GroundTruthError(f'{where}: {_FORMATS}, found none')
    if not any(pose is not None for pose in poses):
        raise GroundTruthError(f'{where}: expected finite poses, found none')
    return PoseFile(path, tuple(stamps) if stamps else None, tuple(poses), of_body)


def _lines(path: Path, where: str) -> list[str]:
    """Read the lines of a text file in any of the usual encodings."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise GroundTruthError(f'{where}: cannot be read: {error.strerror}') from None
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode('utf-16' if wide else 'utf-8-sig', errors='replace').splitlines()


def _stamps_are_whole(lines: Sequence[str]) -> bool:
    """Tell whether every line begins with an integer, as the nanoseconds of EuRoC are."""
    first = [_SEPARATOR.split(line.strip())[0] for line in lines if line.strip()]
    return all(token.lstrip('+-').isdecimal() for token in first if _is_number(token))


def _is_number(token: str) -> bool:
    try:
        float(token)
    except ValueError:
        return False
    return True


def _w_first(head: str, default: bool) -> bool:
    """Tell whether a quaternion begins with its scalar part, by the names in the header."""
    names = re.findall(r'[a-z_.]+', head.lower())
    places = [
        [i for i, name in enumerate(names) if _QUATERNION.match(name) and name[-1] == last]
        for last in 'wx'
    ]
    return places[0][0] < places[1][0] if all(places) else default


def _pose_of_line(numbers: list[float], w_first: bool) -> Pose | None:
    translation, quaternion = numbers[:3], numbers[3:]
    if w_first:
        quaternion = [*quaternion[1:], quaternion[0]]
    pose = pose_of_quaternion(translation, quaternion)
    length = 1.0 if pose is None else float(np.linalg.norm(quaternion))
    if abs(length - 1) > _ROUNDING:
        raise ValueError(f'expected a quaternion of length 1, got {length:.3g}')
    return pose


def _pose_of_matrix(numbers: list[float]) -> Pose | None:
    matrix = np.array(numbers).reshape(-1, 4)
    if not np.isfinite(matrix).all() or not matrix[:3, :3].any():
        return None
    if len(matrix) == 4 and not np.allclose(matrix[3], [0, 0, 0, 1]):
        raise ValueError('expected 0, 0, 0, 1 in the last row of the matrix')
    if not _is_rotation(matrix[:3, :3], _ROUNDING):
        raise ValueError('expected a rotation in the first three columns of the matrix')
    return Pose(matrix[:3, :3], matrix[:3, 3])


def _is_rotation(matrix: np.ndarray, tolerance: float) -> bool:
    if not np.abs(matrix).max() < 2:
        return False
    near = np.abs(matrix @ matrix.T - np.eye(3)).max() <= tolerance
    return bool(near and np.linalg.det(matrix) > 0)


def _nanoseconds(stamps: Sequence[Decimal], images: np.ndarray) -> np.ndarray:
    """Convert stamps to nanoseconds, in the unit that makes their range most like the images'.

    Where no unit makes the ranges overlap, the stamps' size decides, as for times since 1970.
    """
    low, high = (int(images.min()), int(images.max())) if len(images) else (0, 0)
    first, last = float(min(stamps)), float(max(stamps))

    def likeness(unit: int) -> float:
        """Return the intersection of the two ranges over their union."""
        begin, end = first * unit, last * unit
        union = max(end, high) - min(begin, low)
        return (min(end, high) - max(begin, low)) / union if union > 0 else 1.0

    unit = max(_UNITS_NS, key=likeness)
    if likeness(unit) <= 0:
        sizes = ((1, 1e16), (10**3, 1e13), (10**6, 1e11))
        unit = next((u for u, least in sizes if abs(last) > least), 10**9)
    return np.array(
        [int((stamp * unit).to_integral_value()) for stamp in stamps], object
    ).clip(-(2**63), 2**63 - 1).astype(np.int64)


def euroc_extrinsics(path: Path, image_topic: str) -> Path | None:
    """Find the ``sensor.yaml`` of the camera beside an EuRoC ground truth.

    The data set has ``mav0/state_groundtruth_estimate0/data.csv`` with poses of the body (the
    IMU) and ``mav0/cam0/sensor.yaml``, ``mav0/cam1/sensor.yaml`` for the cameras.

    Args:
        path: path of the ground truth.
        image_topic: the camera's number is read from it; 0 where it has none.
    """
    number = _camera_number(image_topic) or '0'
    found = path.resolve().parent.parent / f'cam{number}' / 'sensor.yaml'
    return found if found.is_file() else None


def _camera_number(image_topic: str) -> str:
    """Return the number of the camera in a topic's name, or an empty string."""
    number = re.search(r'cam(?:era)?_?(\d)', image_topic)
    return number[1] if number else ''


def read_extrinsics(path: Path, image_topic: str | None = None) -> Pose:
    """Read the transform from a camera's frame to its body's.

    Args:
        path: YAML with ``T_BS``, 16 numbers row by row (EuRoC's ``sensor.yaml``), or with
            ``T_cam_imu`` (Kalibr's ``camchain``, which goes from body to camera). Of several
            cameras, the one whose ``rostopic`` is the image topic, or whose number is in it.
        image_topic: topic of the camera's images; None: not known, any camera will do.

    Raises:
        DataError: if the file cannot be read or does not hold a rigid motion.
    """
    try:
        text = path.read_text(encoding='utf-8').removeprefix('%YAML:1.0')
        values = parse_yaml(text, f"extrinsics '{path}'")
        kalibr = 'T_BS' not in values
        if kalibr:
            values = _camera_of_chain(values, path, image_topic)
        found = values['T_cam_imu' if kalibr else 'T_BS']
        found = found['data'] if isinstance(found, dict) else found
        matrix = np.array(found, np.float64).reshape(4, 4)
    except (
        OSError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError, OverflowError
    ) as error:
        reason = ' '.join(str(error).split())[:160]
        raise DataError(f"extrinsics '{path}': expected T_BS, 16 numbers: {reason}") from None
    if not np.isfinite(matrix).all() or not _is_rotation(matrix[:3, :3], 1e-3):
        raise DataError(f"extrinsics '{path}': expected a rotation in T_BS")
    if not np.allclose(matrix[3], [0, 0, 0, 1]):
        raise DataError(
            f"extrinsics '{path}': expected 0, 0, 0, 1 in the last row of the matrix (is it "
            'transposed?)'
        )
    pose = Pose(matrix[:3, :3], matrix[:3, 3])
    return pose.inverse() if kalibr else pose


def _camera_of_chain(
    values: dict[str, Any], path: Path, image_topic: str | None
) -> dict[str, Any]:
    """Choose the camera of an image topic in Kalibr's ``camchain``.

    Raises:
        DataError: if there are several and none is the topic's.
    """
    cameras = {name: entry for name, entry in values.items() if str(name).startswith('cam')}
    if not cameras:
        return values
    if len(cameras) == 1 or image_topic is None:
        return cameras[min(cameras)]
    topic = image_topic.removesuffix('/compressed')
    for entry in cameras.values():
        if str(entry.get('rostopic', '')).removesuffix('/compressed') == topic:
            return entry
    number = _camera_number(image_topic)
    if f'cam{number}' not in cameras:
        raise DataError(
            f"extrinsics '{path}': holds {', '.join(cameras)}: expected one with the rostopic "
            f"'{image_topic}'"
        )
    return cameras[f'cam{number}']
