"""Writes messages in CDR, the serialisation of DDS, without a Python object for each element.

A ``sensor_msgs/PointCloud`` has an object for each point; arrays are written many times faster.
"""

from __future__ import annotations

import struct

import numpy as np
from std_msgs.msg import Header

#: Encapsulation header: plain CDR in little-endian order follows.
_ENCAPSULATION = b'\x00\x01\x00\x00'


class CdrWriter:
    """Serialises the fields of a message in their order, each number aligned to its own size."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0  # without the encapsulation header: alignment counts from its end

    def header(self, header: Header) -> None:
        """Append a std_msgs/Header."""
        self._append(struct.pack('<iI', header.stamp.sec, header.stamp.nanosec))
        self.string(header.frame_id)

    def count(self, number: int) -> None:
        """Append the length of a sequence, a uint32."""
        self._append(bytes(-self._length % 4) + struct.pack('<I', number))

    def string(self, text: str) -> None:
        """Append a string in UTF-8, with its length and a terminating zero byte."""
        data = text.encode() + b'\x00'
        self.count(len(data))
        self._append(data)

    def floats(self, values: np.ndarray) -> None:
        """Append an (N,) array as float32; must follow :meth:`count`, which aligns it."""
        self._append(values.astype('<f4', copy=False).tobytes())

    def message(self) -> bytes:
        """Return the serialised message, which publishers accept in place of an object."""
        return _ENCAPSULATION + b''.join(self._parts)

    def _append(self, data: bytes) -> None:
        self._parts.append(data)
        self._length += len(data)
