"""Messages of many small parts serialised at once, without a Python object for each part."""

from __future__ import annotations

import struct

import numpy as np
from std_msgs.msg import Header

#: Says that what follows is plain CDR in little-endian order.
_ENCAPSULATION = b'\x00\x01\x00\x00'


class CdrWriter:
    """Puts fields one behind the other as CDR does, each number aligned to its own size."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0  # behind the encapsulation, which alignment does not count

    def header(self, header: Header) -> None:
        """Append a std_msgs/Header."""
        self._append(struct.pack('<iI', header.stamp.sec, header.stamp.nanosec))
        self.string(header.frame_id)

    def count(self, number: int) -> None:
        """Append the length of a sequence."""
        self._append(bytes(-self._length % 4) + struct.pack('<I', number))

    def string(self, text: str) -> None:
        """Append a string."""
        data = text.encode() + b'\x00'
        self.count(len(data))
        self._append(data)

    def floats(self, values: np.ndarray) -> None:
        """Append float32 numbers, right behind a count."""
        self._append(values.astype('<f4', copy=False).tobytes())

    def message(self) -> bytes:
        """The whole message, as publishers take it."""
        return _ENCAPSULATION + b''.join(self._parts)

    def _append(self, data: bytes) -> None:
        self._parts.append(data)
        self._length += len(data)
