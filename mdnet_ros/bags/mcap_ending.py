"""The end of an mcap file that was not closed: summary, indexes and footer.

A recorder that is killed leaves whole records and perhaps a part of one more, but none of the
indexes that readers look for at the end of the file. They are computed here from the records, so
that the file can be completed in place, or read as if it were complete without being changed.
The format is described at https://mcap.dev/spec.
"""

from __future__ import annotations

import io
import mmap
import os
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mdnet_ros.errors import DataError, MissingDependencyError

MAGIC = b'\x89MCAP0\r\n'
#: Opcode and length before the content of every record.
_RECORD_HEAD = struct.Struct('<BQ')
#: Bytes of a footer record with the magic after it.
_FOOTER_SIZE = 37
_FOOTER_HEAD = b'\x02\x14\0\0\0\0\0\0\0'


@dataclass(frozen=True)
class McapEnding:
    """The part of an mcap file that can be read, and the bytes that complete it.

    Attributes:
        length: bytes at the start of the file that hold whole records.
        data: bytes that belong after them.
    """

    length: int
    data: bytes


def missing_ending(path: Path) -> McapEnding | None:
    """Compute the end of an mcap file, or return None if the file has one.

    Args:
        path: the file; it is not changed.

    Raises:
        DataError: if the file is not mcap, or holds no whole record that could be read.
        MissingDependencyError: if ``mcap`` is not installed and would be needed.
        OSError: if the file cannot be read.
    """
    with path.open('rb') as file:
        size = os.fstat(file.fileno()).st_size
        if size < len(MAGIC) or file.read(len(MAGIC)) != MAGIC:
            raise DataError(f"bag '{path}': cannot be read: not an mcap file")
        if size >= _FOOTER_SIZE + len(MAGIC):
            file.seek(-_FOOTER_SIZE, os.SEEK_END)
            footer = file.read()
            if footer.startswith(_FOOTER_HEAD) and footer.endswith(MAGIC):
                return None
        try:
            import mcap.records  # noqa: F401
        except ImportError:
            raise MissingDependencyError('mcap', 'bags', 'reading an unfinished mcap') from None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            scan = _Scan()
            scan.read(content)
    if not scan.message_count:
        raise DataError(
            f"bag '{path}': holds no complete chunk of messages: its recorder ended before it "
            'wrote the first one'
        )
    return scan.ending()


def complete(path: Path, ending: McapEnding) -> None:
    """Write the missing end of an mcap file and wait until it is on disk.

    Args:
        path: the file that the ending was computed for.
        ending: from :func:`missing_ending`.

    Raises:
        OSError: if the file cannot be written.
    """
    with path.open('r+b') as file:
        file.truncate(ending.length)
        file.seek(ending.length)
        file.write(ending.data)
        file.flush()
        os.fsync(file.fileno())


class CompletedMcap:
    """The path of an mcap file whose end is supplied from memory.

    It offers what ``rosbags`` asks of a path.

    Args:
        path: the file; it is not changed.
        ending: from :func:`missing_ending`.
    """

    def __init__(self, path: Path, ending: McapEnding) -> None:
        self._path = path
        self._ending = ending
        self.suffix = path.suffix
        self.stem = path.stem
        self.name = path.name

    def __str__(self) -> str:
        return str(self._path)

    def exists(self) -> bool:
        """Tell whether the file exists."""
        return self._path.exists()

    def is_dir(self) -> bool:
        """Tell that this is no folder."""
        return False

    def open(self, mode: str = 'rb') -> IO[bytes]:
        """Open the file with its end."""
        return io.BufferedReader(_Joined(self._path, self._ending))


class _Joined(io.RawIOBase):
    """A file's first bytes followed by bytes from memory."""

    def __init__(self, path: Path, ending: McapEnding) -> None:
        self._file = path.open('rb', buffering=0)
        self._ending = ending
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(
            whence, self._ending.length + len(self._ending.data)
        )
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast('B')
        left = self._ending.length - self._position
        if left > 0:
            self._file.seek(self._position)
            data = self._file.read(min(left, len(view))) or b''
        else:
            data = self._ending.data[-left : -left + len(view)]
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


@dataclass
class _Scan:
    """The records of a file, as far as its end needs them."""

    length: int = len(MAGIC)
    schemas: dict[int, Any] = field(default_factory=dict)
    channels: dict[int, Any] = field(default_factory=dict)
    counts: Counter[int] = field(default_factory=Counter)
    chunks: list[Any] = field(default_factory=list)
    metadata: list[Any] = field(default_factory=list)
    first_stamp: int = 2**63 - 1
    last_stamp: int = 0
    #: The message indexes of the last chunk, by channel, and the channels whose index did not
    #: follow it yet.
    indexes: dict[int, Any] = field(default_factory=dict)
    due: set[int] = field(default_factory=set)
    #: False once the file went on after a chunk without all of its indexes.
    indexed: bool = True

    @property
    def message_count(self) -> int:
        """The number of messages."""
        return sum(self.counts.values())

    def read(self, content: mmap.mmap) -> None:
        """Take every whole record from the first on."""
        position = len(MAGIC)
        while position + _RECORD_HEAD.size <= len(content):
            opcode, size = _RECORD_HEAD.unpack_from(content, position)
            end = position + _RECORD_HEAD.size + size
            # Zeros are what a file system leaves where the power failed before the data was
            # written; a data end or a footer begins an end that was cut.
            if opcode in (0x00, 0x02, 0x0F) or end > len(content):
                break
            if not self._take(opcode, position, content[position + _RECORD_HEAD.size : end], end):
                break
            position = self.length = end

    def _take(self, opcode: int, start: int, data: bytes, end: int) -> bool:
        """Take one record; False if its content is damaged."""
        from mcap.data_stream import ReadDataStream
        from mcap.records import Channel, Chunk, Message, MessageIndex, MetadataIndex, Schema
        from mcap.records import Metadata as MetadataRecord

        stream = ReadDataStream(io.BytesIO(data))
        try:
            if opcode == 0x07:
                index = MessageIndex.read(stream)
                if self.chunks and index.channel_id in self.due:
                    self.due.remove(index.channel_id)
                    chunk = self.chunks[-1]
                    chunk.message_index_offsets[index.channel_id] = start
                    chunk.message_index_length += end - start
                return True
            self._check_indexes()
            if opcode == 0x03:
                schema = Schema.read(stream)
                self.schemas[schema.id] = schema
            elif opcode == 0x04:
                channel = Channel.read(stream)
                self.channels[channel.id] = channel
            elif opcode == 0x05:
                message = Message.read(stream, len(data))
                if message.channel_id not in self.channels:
                    return False
                self._count(message.channel_id, message.log_time)
            elif opcode == 0x06:
                self._take_chunk(Chunk.read(stream), start, end - start)
            elif opcode == 0x0C:
                name = MetadataRecord.read(stream).name
                self.metadata.append(MetadataIndex(start, end - start, name))
        except Exception:  # of the decompressors too: whatever it is, the records before are good
            return False
        return True

    def _take_chunk(self, chunk: Any, start: int, length: int) -> None:
        from mcap.records import Channel, ChunkIndex, Message, MessageIndex, Schema
        from mcap.stream_reader import get_chunk_data_stream

        stream, size = get_chunk_data_stream(chunk, validate_crc=True)
        if size != chunk.uncompressed_size:
            raise ValueError('the chunk has another size than it says')
        schemas: dict[int, Any] = {}
        channels: dict[int, Any] = {}
        messages: list[tuple[int, int, int]] = []
        while stream.count < size:
            offset = stream.count
            opcode, content_size = stream.read1(), stream.read8()
            if stream.count + content_size > size:
                raise ValueError('a record reaches beyond its chunk')
            if opcode == 0x03:
                schema = Schema.read(stream)
                schemas[schema.id] = schema
            elif opcode == 0x04:
                channel = Channel.read(stream)
                channels[channel.id] = channel
            elif opcode == 0x05:
                message = Message.read(stream, content_size)
                messages.append((message.channel_id, message.log_time, offset))
            else:
                stream.read(content_size)
        if not {channel for channel, _, _ in messages} <= self.channels.keys() | channels.keys():
            raise ValueError('a message of an unknown channel')
        # A chunk is taken whole or not at all.
        self.schemas |= schemas
        self.channels |= channels
        self.indexes = {}
        for channel_id, stamp, offset in messages:
            self._count(channel_id, stamp)
            index = self.indexes.setdefault(channel_id, MessageIndex(channel_id, []))
            index.records.append((stamp, offset))
        self.due = set(self.indexes)
        self.chunks.append(
            ChunkIndex(
                chunk_length=length,
                chunk_start_offset=start,
                compression=chunk.compression,
                compressed_size=len(chunk.data),
                message_end_time=chunk.message_end_time,
                message_index_length=0,
                message_index_offsets={},
                message_start_time=chunk.message_start_time,
                uncompressed_size=chunk.uncompressed_size,
            )
        )

    def _count(self, channel_id: int, stamp: int) -> None:
        self.counts[channel_id] += 1
        self.first_stamp = min(self.first_stamp, stamp)
        self.last_stamp = max(self.last_stamp, stamp)

    def _check_indexes(self) -> None:
        """Note if the file goes on after a chunk without the indexes of its messages."""
        if self.due:
            self.indexed = False
            self.due = set()

    def ending(self) -> McapEnding:
        """Build the records that belong at the end."""
        from mcap.data_stream import RecordBuilder
        from mcap.records import DataEnd, Footer, Statistics

        length = self.length
        builder = RecordBuilder()
        if self.due and self.indexed:
            # The file ends between its last chunk and the indexes of it: write them all anew.
            chunk = self.chunks[-1]
            length = chunk.chunk_start_offset + chunk.chunk_length
            chunk.message_index_offsets, chunk.message_index_length = {}, 0
            for index in self.indexes.values():
                start = builder.count
                chunk.message_index_offsets[index.channel_id] = length + start
                index.write(builder)
                chunk.message_index_length += builder.count - start
        DataEnd(0).write(builder)
        summary = length + builder.count
        for record in (*self.schemas.values(), *self.channels.values()):
            record.write(builder)
        for record in self.chunks if self.indexed else ():
            record.write(builder)
        for record in self.metadata:
            record.write(builder)
        Statistics(
            attachment_count=0,
            channel_count=len(self.channels),
            channel_message_counts=dict(self.counts),
            chunk_count=len(self.chunks),
            message_count=self.message_count,
            message_end_time=self.last_stamp,
            message_start_time=self.first_stamp,
            metadata_count=len(self.metadata),
            schema_count=len(self.schemas),
        ).write(builder)
        Footer(summary, 0, 0).write(builder)
        return McapEnding(length, builder.end() + MAGIC)
