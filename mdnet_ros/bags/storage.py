"""The files of a bag, opened for reading: rosbag2's sqlite3 and mcap, and ROS 1.

The storage files decide what a bag holds. ``metadata.yaml`` adds the compression and the quality
of service, and may be missing, older than the files or edited by hand.
"""

from __future__ import annotations

import heapq
import logging
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdnet_ros.bags.mcap_ending import CompletedMcap, missing_ending
from mdnet_ros.bags.qos import TopicQos, qos_of_profiles
from mdnet_ros.data.plain import parse_yaml
from mdnet_ros.errors import DataError, MDNetError, MissingDependencyError

_log = logging.getLogger(__name__)

#: Names of the files that hold messages.
SUFFIXES = ('.db3', '.mcap', '.bag')
_HEADER = 'std_msgs/msg/Header'
METADATA = 'metadata.yaml'
#: Types of ROS 1 that ROS 2 calls otherwise.
_RENAMED = {'tf/msg/tfMessage': 'tf2_msgs/msg/TFMessage'}
#: Primitive types of message definitions, by their names in ROS 2's interfaces.
_SPELLINGS = {
    'float32': 'float', 'float64': 'double', 'bool': 'boolean', 'byte': 'octet', 'char': 'uint8',
}
#: ROS 2's convention where a bag does not tell: published once, for everybody to come.
_LATCHED_TOPICS = ('/tf_static', '/robot_description')


@dataclass(frozen=True)
class Topic:
    """A topic of a bag.

    Attributes:
        name: for example ``/camera/image_raw``.
        type: message type, for example ``sensor_msgs/msg/Image``.
        count: number of messages.
        qos: quality of service it was published with; None if it was not recorded.
    """

    name: str
    type: str
    count: int
    qos: TopicQos | None


@dataclass(frozen=True)
class _Source:
    """An open storage file and its readable connections."""

    reader: Any
    connections: tuple[Any, ...]
    ros1: bool


class Storage:
    """The opened files of a bag.

    Args:
        path: a rosbag2 folder, a ``.db3`` or ``.mcap`` file, or a ROS 1 ``.bag``.

    Attributes:
        topics: dictionary from name to topic.
        is_ros1: whether the bag is of ROS 1. Its messages are converted to CDR.

    Raises:
        DataError: if there is no bag, or nothing in it can be read.
        MissingDependencyError: if ``rosbags`` is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import rosbags.rosbag2  # noqa: F401
        except ImportError:
            raise MissingDependencyError('rosbags', 'bags', 'reading bags') from None
        self.path = path
        self._stack = ExitStack()
        self._metadata = _read_metadata(path)
        try:
            self._sources = self._open()
            self._typestore = _typestore(self._sources)
        except BaseException:
            self._stack.close()
            raise
        self.is_ros1 = any(source.ros1 for source in self._sources)
        self.topics = self._topics()

    def close(self) -> None:
        """Close the files and remove temporary copies."""
        self._stack.close()

    @property
    def span_ns(self) -> tuple[int, int] | None:
        """Return the stamps of the first and the last message, ns; None if there are none."""
        # Readers give the moment after the last message.
        spans = [
            (source.reader.start_time, source.reader.end_time - 1)
            for source in self._sources if source.reader.message_count
        ]
        if not spans:
            return None
        return min(first for first, _ in spans), max(last for _, last in spans)

    def messages(self, topics: Sequence[str] | None = None) -> Iterator[tuple[str, int, bytes]]:
        """Yield topic, stamp (ns) and CDR bytes of the messages of some topics, sorted by stamp.

        Raises:
            Exception: of many kinds, if a file is damaged.
        """
        streams = []
        for source in self._sources:
            chosen = [c for c in source.connections if topics is None or c.topic in topics]
            if chosen:
                streams.append(self._messages(source, chosen))
        return heapq.merge(*streams, key=lambda message: message[1])

    def deserialize(self, data: bytes, type: str) -> Any:
        """Deserialise a message.

        Raises:
            Exception: of many kinds, if the bytes are not those of the type.
        """
        return self._typestore.deserialize_cdr(data, type)

    def fields(self, type: str) -> dict[str, str] | None:
        """Return the fields of a message type by the bag's own definition.

        Returns:
            Type by name, both as ROS 2 spells them (``sequence<double>``); None if the bag does
            not define it.
        """
        known = self._typestore.fielddefs.get(type)
        if known is None:
            return None
        return {name.lower(): _spelled(description) for name, description in known[1]}

    def _messages(
        self, source: _Source, connections: Sequence[Any]
    ) -> Iterator[tuple[str, int, bytes]]:
        for connection, stamp, data in source.reader.messages(connections=connections):
            if source.ros1:
                data = self._typestore.ros1_to_cdr(data, connection.msgtype)
            yield connection.topic, int(stamp), bytes(data)

    def _topics(self) -> dict[str, Topic]:
        profiles: dict[str, TopicQos | None] = {}
        counts: dict[str, int] = {}
        types: dict[str, str] = {}
        for source in self._sources:
            for connection in source.connections:
                name = connection.topic
                counts[name] = counts.get(name, 0) + connection.msgcount
                types.setdefault(name, _RENAMED.get(connection.msgtype, connection.msgtype))
                if source.ros1:
                    offered = qos_of_latching(connection.ext.latching)
                else:
                    offered = qos_of_profiles(connection.ext.offered_qos_profiles)
                if profiles.get(name) is None:
                    profiles[name] = offered
        edited = _qos_of_metadata(self.path, self._metadata)
        return {
            name: Topic(
                name, types[name], counts[name],
                edited.get(name) or profiles[name] or (
                    TopicQos(transient_local=True) if name in _LATCHED_TOPICS else None
                ),
            )
            for name in sorted(types)
        }

    def _open(self) -> tuple[_Source, ...]:
        if not self.path.exists():
            raise DataError(f"bag '{self.path}': no such file or folder")
        compressed = self._compressed_bag()
        if compressed is not None:
            return (compressed,)
        sources, problem = [], ''
        files = self._files()
        for file in files:
            try:
                sources.append(self._open_file(file))
            except MissingDependencyError:
                raise
            except Exception as error:  # the library's errors are many and not one family
                reason = str(error) if isinstance(error, MDNetError) else cannot_be_read(
                    self.path, error
                )
                problem = problem or reason
                if len(files) > 1:
                    _log.warning("bag '%s': '%s' is left out: %s", self.path, file.name, reason)
        if not sources:
            raise DataError(problem)
        return tuple(sources)

    def _files(self) -> list[Path]:
        """Return the storage files of the bag; raises DataError if there are none."""
        if not self.path.is_dir():
            if self.path.suffix not in SUFFIXES:
                raise DataError(
                    f"bag '{self.path}': expected a folder or a file ending in "
                    f'{", ".join(SUFFIXES)}' + (
                        "; it was not closed by its recorder: run 'rosbag reindex'"
                        if self.path.name.endswith('.bag.active') else ''
                    )
                )
            return [self.path]
        found = sorted(p for p in self.path.iterdir() if p.suffix in SUFFIXES and p.is_file())
        listing = _list(self._metadata, 'relative_file_paths')
        named = [self.path / Path(str(name)).name for name in listing]
        listed = [p for p in named if p in found]
        missing = [p.name for p in named if p not in found]
        if missing and found:
            _log.warning(
                "bag '%s': %s named in %s not there; reading %s", self.path,
                f"'{missing[0]}' is" if len(missing) == 1 else f'{len(missing)} files are',
                METADATA, ', '.join(p.name for p in listed or found),
            )
        if found:
            return listed or found
        packed = [p.name for p in self.path.iterdir() if p.suffix == '.zstd']
        if packed:
            raise DataError(
                f"bag '{self.path}': compressed ('{packed[0]}') and without a usable {METADATA}: "
                "run 'ros2 bag reindex', or 'unzstd' on the files"
            )
        inner = sorted(p.name for p in self.path.iterdir() if p.is_dir())
        raise DataError(
            f"bag '{self.path}': expected {', '.join(SUFFIXES)} files in this folder, found none"
            + (f"; did you mean '{self.path / inner[0]}'?" if inner else '')
        )

    def _open_file(self, file: Path) -> _Source:
        if file.suffix == '.bag':
            return self._open_ros1(file)
        from rosbags.rosbag2 import Reader

        target: Any = file
        if file.suffix == '.mcap':
            ending = missing_ending(file)
            if ending is not None:
                _log.warning("bag '%s': was not closed, reading the part that is whole", file)
                target = CompletedMcap(file, ending)
        else:
            target = self._settled_database(file)
        reader = Reader(target)
        reader.open()
        self._stack.callback(reader.close)
        connections = []
        for connection in reader.connections:
            extra: Any = connection.ext  # of ROS 2, though the library's annotation allows ROS 1's
            if extra.serialization_format != 'cdr':
                _log.warning(
                    "bag '%s': topic '%s' is left out: encoded as '%s', expected cdr", self.path,
                    connection.topic, extra.serialization_format,
                )
            else:
                connections.append(connection)
        return _Source(reader, tuple(connections), ros1=False)

    def _open_ros1(self, file: Path) -> _Source:
        from rosbags.rosbag1 import Reader, ReaderError

        reader = Reader(file)
        try:
            reader.open()
        except ReaderError as error:
            if 'index' in str(error).lower():
                raise DataError(
                    f"bag '{file}': was not closed by its recorder: run 'rosbag reindex'"
                ) from None
            raise
        self._stack.callback(reader.close)
        return _Source(reader, tuple(reader.connections), ros1=True)

    def _compressed_bag(self) -> _Source | None:
        """Open a bag whose metadata says that its files or messages are compressed."""
        mode = str(self._metadata.get('compression_mode') or '').lower()
        if mode not in ('file', 'message'):
            return None
        from rosbags.rosbag2 import Reader

        try:
            reader = Reader(self.path)
            reader.open()
        except Exception as error:
            raise DataError(cannot_be_read(self.path, error)) from None
        self._stack.callback(reader.close)
        # The library takes only messages whose quality of service is that of the metadata.
        folder: Any = reader.storage
        for storage in folder.storages:
            storage.connections = [
                stored._replace(ext=listed.ext, digest=listed.digest)
                for stored in storage.connections
                for listed in reader.connections
                if (listed.topic, listed.msgtype) == (stored.topic, stored.msgtype)
            ]
        return _Source(reader, tuple(reader.connections), ros1=False)

    def _settled_database(self, file: Path) -> Path:
        """Return a database file with all committed messages, without a journal or log beside it.

        A recorder that was killed leaves a rollback journal or write-ahead log. SQLite applies it
        to the database, in a temporary copy where the folder is read-only.

        Args:
            file: the database.

        Returns:
            The same file, or the copy, which is deleted when this object is closed.

        Raises:
            DataError: if another process is recording the bag.
        """
        rests = [file.with_name(file.name + end) for end in ('-journal', '-wal')]
        if not any(rest.exists() and rest.stat().st_size for rest in rests):
            return file
        try:
            settle_database(file)
        except sqlite3.OperationalError as error:
            if 'locked' in str(error):
                raise DataError(
                    f"bag '{file}': is being recorded by another process: stop it first"
                ) from None
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
            for part in (file, *rests):
                if part.exists():
                    shutil.copy(part, folder / part.name)
            settle_database(folder / file.name)
            return folder / file.name
        return file


def settle_database(file: Path) -> None:
    """Apply the journal or write-ahead log that a killed writer left to its database.

    Raises:
        sqlite3.Error: if it is damaged, locked, or cannot be written.
    """
    with closing(sqlite3.connect(file, timeout=1.0)) as database:
        # Reading rolls an unfinished transaction back; a write-ahead log has to be asked for.
        database.execute('SELECT count(*) FROM sqlite_master').fetchone()
        database.execute('PRAGMA journal_mode=DELETE').fetchone()


def qos_of_latching(latching: int | None) -> TopicQos | None:
    """Return the quality of service of a ROS 1 publisher: latching becomes transient local."""
    return TopicQos(transient_local=True, depth=1) if latching else None


def cannot_be_read(path: Path, error: Exception) -> str:
    """Return a line that says which bag cannot be read, and why."""
    reason = ' '.join(str(error).split())[:200] or type(error).__name__
    return f"bag '{path}': cannot be read: {reason}"


def _read_metadata(path: Path) -> dict[str, Any]:
    """Return the content of ``metadata.yaml``; empty if it is missing or damaged."""
    file = path / METADATA
    if not file.is_file():
        return {}
    try:
        content = parse_yaml(file.read_text(encoding='utf-8'), METADATA)
        content = content['rosbag2_bagfile_information']
    except (OSError, ValueError, TypeError, KeyError, DataError):
        _log.warning("bag '%s': %s cannot be read, doing without it", path, METADATA)
        return {}
    return content if isinstance(content, dict) else {}


def _list(metadata: dict[str, Any], key: str) -> list[Any]:
    """Return a list in the metadata; empty if there is none."""
    value = metadata.get(key)
    return value if isinstance(value, list) else []


def _qos_of_metadata(path: Path, metadata: dict[str, Any]) -> dict[str, TopicQos]:
    """Return topic -> quality of service by ``metadata.yaml``, which people edit for the player."""
    from rosbags.rosbag2.metadata import parse_qos

    found = {}
    for entry in _list(metadata, 'topics_with_message_count'):
        try:
            topic = entry['topic_metadata']
            qos = qos_of_profiles(parse_qos(topic.get('offered_qos_profiles') or []))
        except Exception:  # whatever people write there
            _log.warning("bag '%s': a quality of service in %s cannot be read", path, METADATA)
            continue
        if qos is not None:
            found[str(topic['name'])] = qos
    return found


def _typestore(sources: Sequence[_Source]) -> Any:
    """Build a type store of the bag's message definitions, or ROS 2's where it has none.

    A definition that cannot be parsed leaves its type out and the others readable.
    """
    from rosbags.interfaces import MessageDefinitionFormat
    from rosbags.typesys import Stores, get_typestore

    types: dict[str, Any] = {}
    undefined: set[str] = set()
    for source in sources:
        for connection in source.connections:
            definition = connection.msgdef
            if definition.format == MessageDefinitionFormat.NONE:
                undefined.add(connection.msgtype)
                continue
            try:
                found = _parse(definition, connection.msgtype)
            except Exception as error:
                undefined.add(connection.msgtype)
                _log.warning(
                    "topic '%s': the definition of %s in the bag cannot be read: %s",
                    connection.topic, connection.msgtype, ' '.join(str(error).split())[:100],
                )
                continue
            if source.ros1 and found.pop(_HEADER, None) is not None:
                # ROS 1's header has one number more, which the conversion to CDR leaves out.
                undefined.add(_HEADER)
            types |= found
    if undefined - types.keys():
        # Definitions of ROS's own messages have hardly changed since; older bags hold none.
        known = get_typestore(Stores.ROS2_HUMBLE).fielddefs
        types = _with_parts(undefined, known) | types
    store = get_typestore(Stores.EMPTY)
    store.register(types)
    return store


def _with_parts(names: set[str], known: dict[str, Any]) -> dict[str, Any]:
    """Return the known types among some names, with the types that they consist of."""
    found: dict[str, Any] = {}
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        if name in known and name not in found:
            found[name] = known[name]
            waiting |= parts_of_types({name: known[name]})
    return found


def parts_of_types(types: dict[str, Any]) -> set[str]:
    """Return the names of the message types of the fields of types that ``rosbags`` parsed."""
    from rosbags.interfaces import Nodetype

    names = set()
    for _, fields in types.values():
        for _, (kind, content) in fields:
            if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
                kind, content = content[0]
            if kind == Nodetype.NAME:
                names.add(content)
    return names


def _spelled(description: Any) -> str:
    """Return the type of a field in ROS 2's spelling."""
    from rosbags.interfaces import Nodetype

    kind, content = description
    if kind == Nodetype.NAME:
        return str(content).replace('/msg/', '/')
    if kind == Nodetype.BASE:
        return _SPELLINGS.get(content[0], content[0])
    inner, length = content
    if kind == Nodetype.ARRAY:
        return f'{_spelled(inner)}[{length}]'
    return f'sequence<{_spelled(inner)}' + (f', {length}>' if length else '>')


def _parse(definition: Any, type: str) -> dict[str, Any]:
    from rosbags.interfaces import MessageDefinitionFormat
    from rosbags.typesys import get_types_from_idl, get_types_from_msg

    if definition.format == MessageDefinitionFormat.MSG:
        return dict(get_types_from_msg(definition.data, type))
    parse: Callable[[str], dict[str, Any]] = get_types_from_idl
    separator = '=' * 80 + '\n'
    if not definition.data.startswith(f'{separator}IDL: '):
        return dict(parse(definition.data))
    found: dict[str, Any] = {}
    for part in definition.data.split(separator)[1:]:
        found |= parse(part.split('\n', 1)[1])
    return found
