"""Convert between PointCloud2 messages and structured arrays, without ROS."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet_ros.errors import DataError

#: sensor_msgs/PointField datatypes.
_DATATYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype('i1'), 2: np.dtype('u1'), 3: np.dtype('<i2'), 4: np.dtype('<u2'),
    5: np.dtype('<i4'), 6: np.dtype('<u4'), 7: np.dtype('<f4'), 8: np.dtype('<f8'),
}
_DATATYPE_OF = {dtype: number for number, dtype in _DATATYPES.items()}


@dataclass(frozen=True)
class CloudField:
    """One field of a PointCloud2, as in ``sensor_msgs/PointField``.

    Attributes:
        name: name of the field.
        offset: bytes from the start of a point.
        datatype: type of its numbers, as numbered in ``sensor_msgs/PointField``.
        count: how many numbers it has.
    """

    name: str
    offset: int
    datatype: int
    count: int


def cloud_fields(dtype: np.dtype) -> list[CloudField]:
    """Return the PointCloud2 fields of a structured array."""
    fields = []
    for name in dtype.names or ():
        kind, offset = dtype.fields[name][:2]  # type: ignore[index]
        count = int(np.prod(kind.shape)) if kind.shape else 1
        fields.append(CloudField(name, offset, _DATATYPE_OF[kind.base], count))
    return fields


def cloud_table(
    fields: Iterable[Any], count: int, point_step: int, data: Any, is_bigendian: bool = False
) -> np.ndarray:
    """Read the points of a PointCloud2 with any fields.

    Args:
        fields: objects with ``name``, ``offset``, ``datatype`` and ``count``.
        count: number of points (width · height).
        point_step: bytes from one point to the next.
        data: the message's bytes; buffer protocol.
        is_bigendian: byte order.

    Returns:
        (count,) structured; a view of ``data``.

    Raises:
        DataError: if the fields contradict each other or the data is too short.
    """
    listed = list(fields)
    try:
        kinds = [
            _DATATYPES[f.datatype] if not is_bigendian else _DATATYPES[f.datatype].newbyteorder('>')
            for f in listed
        ]
        formats = [
            kind if f.count == 1 else (kind, (f.count,))
            for kind, f in zip(kinds, listed, strict=True)
        ]
        dtype = np.dtype(
            {
                'names': [f.name for f in listed],
                'formats': formats,
                'offsets': [f.offset for f in listed],
                'itemsize': point_step,
            }
        )
        if count == 0:
            return np.zeros(0, dtype)
        return np.frombuffer(data, dtype, count)
    except (KeyError, TypeError, ValueError) as error:
        reason = ' '.join(str(error).split())[:120]
        raise DataError(
            f'point cloud of {count} points, {point_step} bytes each: cannot be read: {reason}'
        ) from None


def read_cloud(message: Any) -> np.ndarray:
    """Read the points of a PointCloud2 as a structured array.

    Args:
        message: deserialised by rclpy or by ``rosbags``.

    Returns:
        (N,) structured, one field for each of the message's; a view of its data.

    Raises:
        DataError: if the message contradicts itself.
    """
    return cloud_table(
        message.fields, message.width * message.height, message.point_step,
        np.asarray(message.data, np.uint8), message.is_bigendian,
    )
