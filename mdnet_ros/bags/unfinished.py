"""Recordings that were not ended: found, completed and given their name.

A bag grows in the folder ``NAME.unfinished`` beside its own name and is moved to ``NAME`` when it
is complete. If its recorder is killed or the power fails, that folder stays with everything that
was committed. It is completed by the next reader or recorder that meets it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import yaml

from mdnet_ros.bags.mcap_ending import complete, missing_ending
from mdnet_ros.bags.storage import METADATA, SUFFIXES, cannot_be_read, settle_database
from mdnet_ros.errors import DataError, MDNetError

_log = logging.getLogger(__name__)

#: Ending of the folder in which a bag grows.
SUFFIX = '.unfinished'
#: Humble refuses newer metadata; Jazzy and later read it.
METADATA_VERSION: Literal[8] = 8


def unfinished_folder(path: Path) -> Path:
    """Return the folder in which the bag of that path grows."""
    return path.with_name(path.name + SUFFIX)


def is_bag(path: Path) -> bool:
    """Tell whether a path is that of a bag which :class:`~mdnet_ros.bags.reader.BagReader` reads.

    A folder that lost its ``metadata.yaml`` is one by its storage files; a recording that was not
    ended is one by either of its names.
    """
    if path.is_dir():
        return path.name.endswith(SUFFIX) or any(
            p.name == METADATA or p.suffix in SUFFIXES for p in path.iterdir() if p.is_file()
        )
    return path.suffix in SUFFIXES or (not path.exists() and unfinished_folder(path).is_dir())


class FolderLock:
    """Marks a folder as being written, for as long as this process lives and does not let go.

    The operating system releases the lock of a process that is killed.

    Args:
        folder: which must exist.

    Raises:
        BlockingIOError: if another process writes it.
        OSError: if the folder cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise
        except OSError:
            pass  # some network file systems have no locks

    def close(self) -> None:
        """Let others write the folder."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def finish(folder: Path, path: Path) -> int:
    """Complete an unfinished recording and give it its name.

    Args:
        folder: ``NAME.unfinished``, not written by anybody.
        path: the bag's name, which must be free.

    Returns:
        The number of its messages.

    Raises:
        DataError: if it cannot be completed; it stays as it is.
    """
    try:
        bag = next(inner for inner in sorted(folder.iterdir()) if inner.is_dir())
        file = next(f for f in sorted(bag.iterdir()) if f.suffix in ('.db3', '.mcap'))
    except StopIteration:
        raise DataError(
            f"bag '{folder}': ended before anything was recorded; it can be deleted"
        ) from None
    try:
        if file.suffix == '.mcap':
            ending = missing_ending(file)
            if ending is not None:
                complete(file, ending)
        else:
            settle_database(file)
        count = write_metadata(bag, file)
        if path.exists():
            raise FileExistsError(f"'{path}' is there already")
        os.replace(bag, path)
        shutil.rmtree(folder, ignore_errors=True)
        sync_folder(path.parent)
    except MDNetError:
        raise
    except Exception as error:  # of sqlite3, the library and the system
        raise DataError(cannot_be_read(folder, error)) from None
    return count


def finish_beside(path: Path) -> list[str]:
    """Complete every unfinished recording in the folder where a new bag is to be written.

    A recording of the same name is called ``NAME_recovered``, so that the name is free. What
    cannot be completed stays where it is; of the same name it is moved to ``NAME.unreadable``.

    Args:
        path: path of the new bag.

    Returns:
        One line on each recording found.
    """
    lines = []
    for folder in sorted(path.parent.glob(f'*{SUFFIX}')):
        name = folder.name.removesuffix(SUFFIX)
        target = _free(path.with_name(name), taken=path)
        try:
            with closing(FolderLock(folder)):
                count = finish(folder, target)
        except BlockingIOError:
            continue  # a recorder at work beside
        except MDNetError as error:
            line = str(error)
            if name == path.name:
                aside = _free(path.with_name(f'{name}.unreadable'))
                os.replace(folder, aside)
                line += f"; moved to '{aside}'"
            lines.append(line)
            continue
        lines.append(
            f"bag '{folder}': was not ended; its {count} messages are now in '{target}'"
        )
    return lines


def finish_at(path: Path) -> Path:
    """Complete the unfinished recording that a user names, if that is what the path names.

    Args:
        path: path of a bag: ``NAME``, ``NAME.unfinished`` or something else.

    Returns:
        The path to read: the completed recording, or the path as it was given.

    Raises:
        DataError: if the recording is still being written, or cannot be completed.
    """
    if path.name.endswith(SUFFIX) and path.is_dir():
        folder, target = path, path.with_name(path.name.removesuffix(SUFFIX))
    elif not path.exists() and unfinished_folder(path).is_dir():
        folder, target = unfinished_folder(path), path
    else:
        return path
    try:
        lock = FolderLock(folder)
    except BlockingIOError:
        raise DataError(
            f"bag '{folder}': is being recorded by another process: stop it first"
        ) from None
    with closing(lock):
        if not os.access(folder, os.W_OK) or not os.access(folder.parent, os.W_OK):
            # On a medium that cannot be written the recording is read where it lies.
            return next((inner for inner in sorted(folder.iterdir()) if inner.is_dir()), folder)
        target = _free(target)
        count = finish(folder, target)
    _log.warning(
        "bag '%s': was not ended; its %d messages are now in '%s'", folder, count, target
    )
    return target


def write_metadata(bag: Path, file: Path) -> int:
    """Write ``metadata.yaml`` for a bag of one file, from what is in the file.

    Args:
        bag: the folder.
        file: the storage file in it.

    Returns:
        The number of messages.

    Raises:
        Exception: of many kinds, if the file cannot be read or the folder not be written.
    """
    from rosbags.rosbag2 import Reader
    from rosbags.rosbag2.metadata import dump_qos_v8

    with Reader(file) as opened:
        reader: Any = opened  # the library's annotation allows ROS 1's connections too
        count = reader.message_count
        start = {'nanoseconds_since_epoch': reader.start_time if count else 0}
        duration = {'nanoseconds': max(0, reader.duration - 1)}
        topics: list[dict[str, Any]] = [
            {
                'topic_metadata': {
                    'name': connection.topic,
                    'type': connection.msgtype,
                    'serialization_format': connection.ext.serialization_format,
                    'offered_qos_profiles': dump_qos_v8(connection.ext.offered_qos_profiles),
                    'type_description_hash': connection.digest,
                },
                'message_count': connection.msgcount,
            }
            for connection in reader.connections
        ]
    content = {
        'rosbag2_bagfile_information': {
            'version': METADATA_VERSION,
            'storage_identifier': 'mcap' if file.suffix == '.mcap' else 'sqlite3',
            'relative_file_paths': [file.name],
            'duration': duration,
            'starting_time': start,
            'message_count': count,
            'topics_with_message_count': topics,
            'compression_format': '',
            'compression_mode': '',
            'files': [
                {
                    'path': file.name, 'starting_time': start, 'duration': duration,
                    'message_count': count,
                }
            ],
            'custom_data': None,
            'ros_distro': 'rosbags',
        }
    }
    text = StringIO()
    yaml.dump(content, text, Dumper=_NoAliases, sort_keys=False)
    temporary = bag / f'.{METADATA}.tmp'
    with temporary.open('w', encoding='utf-8') as out:
        out.write(text.getvalue())
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, bag / METADATA)
    sync_folder(bag)
    return int(count)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk, as far as its file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


class _NoAliases(yaml.SafeDumper):
    """Writes equal parts out: rosbag2's parser knows no aliases in some versions."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _free(path: Path, taken: Path | None = None) -> Path:
    """The path, or with ``_recovered`` and a number behind if it is in use."""
    candidate, number = path, 1
    while candidate.exists() or candidate == taken:
        end = '_recovered' if number == 1 else f'_recovered_{number}'
        candidate, number = path.with_name(path.name + end), number + 1
    return candidate
