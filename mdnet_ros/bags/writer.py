"""Write rosbag2 recordings without ROS, so that a kill or a power failure costs a second."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from mdnet_ros.bags.qos import TopicQos, profile_of_qos
from mdnet_ros.bags.storage import Storage as StoredBag
from mdnet_ros.bags.storage import parts_of_types
from mdnet_ros.bags.unfinished import (
    METADATA_VERSION,
    FolderLock,
    finish,
    finish_beside,
    sync_folder,
    unfinished_folder,
)
from mdnet_ros.errors import DataError, MissingDependencyError

_log = logging.getLogger(__name__)

Storage = Literal['sqlite3', 'mcap']
STORAGES: tuple[str, ...] = get_args(Storage)
#: Messages are on disk after this long at the latest, seconds.
COMMIT_PERIOD = 0.5


class BagWriter:
    """Writes a new bag, as a context manager.

    The bag grows in the folder ``NAME.unfinished`` beside its own name and is moved to ``NAME``
    when it is complete. If the block raises, nothing is left. If the process is killed, the
    folder stays, with all but the last :data:`COMMIT_PERIOD`; the next writer in the same place
    completes it, or the next reader of it.

    Args:
        path: the bag's folder.
        storage: ``sqlite3`` (every ROS 2 reads it) or ``mcap`` (Humble needs a plugin).
        overwrite: replace a bag that is there, finished or not.
        outputs: with ``overwrite``, a bag is replaced only if all its topics are among these, so
            that no recording of another kind is lost; None: any bag.

    Raises:
        DataError: if something is there already, or on entering if it cannot be written.
        MissingDependencyError: if ``rosbags`` is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        storage: Storage = 'sqlite3',
        overwrite: bool = False,
        outputs: Collection[str] | None = None,
    ) -> None:
        if storage not in STORAGES:
            raise DataError(f"bag storage '{storage}': expected {' or '.join(STORAGES)}")
        self.path = Path(path)
        self.storage = storage
        self._overwrite = overwrite
        if self.path.exists() and not (overwrite and (self.path / 'metadata.yaml').is_file()):
            wanted = 'a bag or nothing' if overwrite else 'nothing'
            raise DataError(f"bag '{self.path}': is there already, expected {wanted}")
        self._outputs = None if outputs is None else frozenset(outputs)
        if self.path.exists() and (foreign := self._foreign_topic(self.path)) is not None:
            raise DataError(
                f"bag '{self.path}': is another recording ({foreign}), which would be lost: "
                'expected another output folder'
            )
        try:
            from rosbags.typesys import Stores, get_typestore
        except ImportError:
            raise MissingDependencyError('rosbags', 'bags', 'writing bags') from None
        self._typestore = get_typestore(Stores.ROS2_HUMBLE)
        #: Message classes by name, such as ``types['std_msgs/msg/Header']``.
        self.types: dict[str, Any] = dict(self._typestore.types)
        #: The folder in which the bag grows.
        self.unfinished = unfinished_folder(self.path)
        self._writer: Any = None
        self._lock: FolderLock | None = None
        self._connections: dict[str, Any] = {}
        self._committed = 0.0

    def __enter__(self) -> BagWriter:
        from rosbags.rosbag2 import StoragePlugin, Writer

        try:
            if self.unfinished.exists():
                self._make_room()
            if not self._overwrite:
                for line in finish_beside(self.path):
                    _log.warning('%s', line)
            self.unfinished.mkdir(parents=True)
            self._lock = FolderLock(self.unfinished)
            # The folder's name becomes the file's, so it has its final name already.
            writer: Any = Writer(
                self.unfinished / self.path.name,
                version=METADATA_VERSION,
                storage_plugin=StoragePlugin[self.storage.upper()],
            )
            writer.open()
            if self.storage == 'sqlite3':
                # Commits happen all the time: empty the journal rather than delete it. It holds
                # the pages to restore, and appended messages need hardly any.
                writer.storage.conn.execute('PRAGMA journal_mode=TRUNCATE').fetchone()
        except BlockingIOError:
            raise DataError(f"bag '{self.path}': another process writes it") from None
        except OSError as error:
            raise self._unwritable(error) from None
        self._writer = writer
        self._committed = time.monotonic()
        for folder in (self.unfinished / self.path.name, self.unfinished, self.path.parent):
            sync_folder(folder)
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

    def define(self, type: str, definition: str) -> set[str]:
        """Add a message type that ``rosbags`` does not know.

        Args:
            type: such as ``my_msgs/msg/Status``.
            definition: the content of its ``.msg`` file.

        Returns:
            The types it consists of, which must be known too before it is written.

        Raises:
            DataError: if the definition cannot be read.
        """
        from rosbags.typesys import get_types_from_msg

        try:
            types = get_types_from_msg(definition, type)
            self._typestore.register(types)
        except Exception as error:
            reason = ' '.join(str(error).split())[:200]
            raise DataError(f"message type '{type}': its definition: {reason}") from None
        self.types = dict(self._typestore.types)
        return parts_of_types(types)

    def write(
        self,
        topic: str,
        type: str,
        stamp_ns: int,
        message: Any,
        qos: tuple[TopicQos, ...] = (),
    ) -> None:
        """Append a message, and commit what came before if it is time.

        Args:
            topic: of the message.
            type: such as ``sensor_msgs/msg/Image``.
            stamp_ns: when it was received, nanoseconds.
            message: an object of ``types[type]``, or its CDR bytes.
            qos: what each publisher of the topic offers; kept with the topic's first message.

        Raises:
            DataError: unknown type, another type than before, or the disk is full.
        """
        connection = self._connections.get(topic)
        if connection is None:
            connection = self._connect(topic, type, qos)
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
        self.commit_if_due()

    def commit_if_due(self) -> None:
        """Put what was written on disk, unless that was done less than a period ago.

        Raises:
            DataError: if that cannot be, for example because the disk is full.
        """
        if time.monotonic() - self._committed >= COMMIT_PERIOD:
            self.commit()

    def commit(self) -> None:
        """Put what was written on disk.

        Raises:
            DataError: if that cannot be, for example because the disk is full.
        """
        try:
            if self.storage == 'sqlite3':
                self._writer.storage.conn.commit()
            else:
                storage = self._writer.storage
                if storage.chunk.msgs:
                    storage.close_chunk()
                storage.bio.flush()
                os.fsync(storage.bio.fileno())
        except Exception as error:
            raise self._unwritable(error) from None
        self._committed = time.monotonic()

    def close(self) -> None:
        """Finish the bag and give it its name.

        Raises:
            DataError: if that cannot be; what was committed stays in the unfinished folder.
        """
        writer, self._writer = self._writer, None
        if writer is None:
            return
        bag = self.unfinished / self.path.name
        with self._ending():
            if self.storage == 'sqlite3':
                writer.storage.conn.commit()
                writer.storage.conn.execute('PRAGMA journal_mode=DELETE').fetchone()
            writer.close()
            for file in bag.iterdir():
                with file.open('rb') as written:
                    os.fsync(written.fileno())
            sync_folder(bag)
            if self.path.exists():
                self.path.rename(self.unfinished / 'replaced')
            os.replace(bag, self.path)
            sync_folder(self.path.parent)
            shutil.rmtree(self.unfinished, ignore_errors=True)

    def abort(self) -> None:
        """Throw away what was written."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort()
            shutil.rmtree(self.unfinished, ignore_errors=True)
        self._release()

    def salvage(self) -> bool:
        """End the bag after an error with what was committed before it.

        Returns:
            False if there was nothing to end.

        Raises:
            DataError: if that cannot be; it stays in the unfinished folder.
        """
        writer, self._writer = self._writer, None
        if writer is None:
            return False
        with self._ending():
            writer.abort()
            finish(self.unfinished, self.path)
        return True

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """Release the bag at the end; an error names the folder that keeps what was written."""
        try:
            yield
        except Exception as error:
            raise DataError(
                f"{self._unwritable(error)}; what was written until then is in "
                f"'{self.unfinished}'"
            ) from None
        finally:
            self._release()

    def _make_room(self) -> None:
        """Remove or complete what a killed writer left under this name.

        Raises:
            BlockingIOError: if another process writes it.
        """
        FolderLock(self.unfinished).close()
        if self._overwrite and self._foreign_topic(self.unfinished / self.path.name) is None:
            shutil.rmtree(self.unfinished)
        else:
            for line in finish_beside(self.path):
                _log.warning('%s', line)

    def _foreign_topic(self, bag: Path) -> str | None:
        """Return a topic of a bag that is none of the outputs, or why the bag cannot be read.

        Returns:
            None if the bag may be replaced.
        """
        if self._outputs is None:
            return None
        try:
            with closing(StoredBag(bag)) as found:
                return next((topic for topic in found.topics if topic not in self._outputs), None)
        except DataError as error:
            return str(error)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _connect(self, topic: str, type: str, qos: tuple[TopicQos, ...]) -> Any:
        if type not in self.types:
            raise DataError(f"bag '{self.path}': topic '{topic}': unknown message type '{type}'")
        try:
            connection = self._writer.add_connection(
                topic, type, typestore=self._typestore,
                offered_qos_profiles=[profile_of_qos(one) for one in qos],
            )
        except Exception as error:
            raise self._unwritable(error) from None
        self._connections[topic] = connection
        return connection

    def _unwritable(self, error: Exception) -> DataError:
        reason = ' '.join(str(error).split())[:200] or error.__class__.__name__
        return DataError(f"bag '{self.path}': cannot be written: {reason}")
