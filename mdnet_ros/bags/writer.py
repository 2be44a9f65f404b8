"""Write rosbag2 recordings without ROS."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from mdnet_ros.errors import DataError, MissingDependencyError

Storage = Literal['sqlite3', 'mcap']
STORAGES: tuple[str, ...] = get_args(Storage)
#: Humble refuses newer metadata; Jazzy and later read it.
METADATA_VERSION: Literal[8] = 8


class BagWriter:
    """A new bag, written as a context manager.

    The bag grows under a hidden temporary name beside its own and appears only when it is
    complete; if the block raises, nothing is left.

    Args:
        path: the bag's folder.
        storage: ``sqlite3`` (every ROS 2 reads it) or ``mcap`` (Humble needs a plugin).
        overwrite: replace a bag that is there.

    Raises:
        DataError: if something is there already, or on entering if it cannot be written.
        MissingDependencyError: if ``rosbags`` is not installed.
    """

    def __init__(
        self, path: str | Path, storage: Storage = 'sqlite3', overwrite: bool = False
    ) -> None:
        if storage not in STORAGES:
            raise DataError(f"bag storage '{storage}': expected {' or '.join(STORAGES)}")
        self.path = Path(path)
        self.storage = storage
        if self.path.exists() and not (overwrite and (self.path / 'metadata.yaml').is_file()):
            wanted = 'a bag or nothing' if overwrite else 'nothing'
            raise DataError(f"bag '{self.path}': is there already, expected {wanted}")
        try:
            from rosbags.typesys import Stores, get_typestore
        except ImportError:
            raise MissingDependencyError('rosbags', 'bags', 'writing bags') from None
        #: Message classes by name, such as ``types['std_msgs/msg/Header']``.
        self.types: dict[str, Any]
        self._typestore = get_typestore(Stores.ROS2_HUMBLE)
        self.types = dict(self._typestore.types)
        self._temporary = self.path.with_name(f'.{self.path.name}.{os.getpid()}.tmp')
        self._writer: Any = None
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> BagWriter:
        from rosbags.rosbag2 import StoragePlugin, Writer

        shutil.rmtree(self._temporary, ignore_errors=True)
        try:
            # The folder's name goes into the file's, so it has its final one within.
            writer = Writer(
                self._temporary / self.path.name,
                version=METADATA_VERSION,
                storage_plugin=StoragePlugin[self.storage.upper()],
            )
            writer.open()
        except OSError as error:
            raise self._unwritable(error) from None
        self._writer = writer
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, topic: str, type: str, stamp_ns: int, message: Any) -> None:
        """Append a message.

        Args:
            topic: of the message.
            type: such as ``sensor_msgs/msg/Image``.
            stamp_ns: when it was received, nanoseconds.
            message: an object of ``types[type]``, or its CDR bytes.

        Raises:
            DataError: unknown type, another type than before, or the disk is full.
        """
        connection = self._connections.get(topic)
        if connection is None:
            connection = self._connect(topic, type)
        elif connection.msgtype != type:
            raise DataError(
                f"bag '{self.path}': topic '{topic}' holds {connection.msgtype}, got {type}"
            )
        if not isinstance(message, (bytes, memoryview)):
            message = self._typestore.serialize_cdr(message, type)
        try:
            self._writer.write(connection, int(stamp_ns), message)
        except Exception as error:  # sqlite3's errors are no OSErrors
            raise self._unwritable(error) from None

    def close(self) -> None:
        """Finish the bag and give it its name."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
            if self.path.exists():
                self.path.rename(self._temporary / 'replaced')
            os.replace(self._temporary / self.path.name, self.path)
        except Exception as error:
            raise self._unwritable(error) from None
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def abort(self) -> None:
        """Throw away what was written."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _connect(self, topic: str, type: str) -> Any:
        if type not in self.types:
            raise DataError(f"bag '{self.path}': topic '{topic}': unknown message type '{type}'")
        connection = self._writer.add_connection(topic, type, typestore=self._typestore)
        self._connections[topic] = connection
        return connection

    def _unwritable(self, error: Exception) -> DataError:
        reason = ' '.join(str(error).split())[:200] or error.__class__.__name__
        return DataError(f"bag '{self.path}': cannot be written: {reason}")
