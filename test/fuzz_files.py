"""Random damage to the files that users bring: bags, images, homographies, features, calibrations.

By hand, as many as you like::

    python test/fuzz_files.py --cases 1000

``test_fuzz_files.py`` runs some of them with every test run. Each case takes a good file, damages
it and reads it as the commands do: it is read, or refused in one line; nothing else.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import yaml

from mdnet_ros.bags import calibration
from mdnet_ros.bags.messages import BagTopics, depth_of_message
from mdnet_ros.bags.reader import BagReader
from mdnet_ros.bags.unfinished import SUFFIX, finish_beside
from mdnet_ros.bags.writer import BagWriter
from mdnet_ros.baselines.precomputed import PrecomputedFeatures
from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.image_files import read_image
from mdnet_ros.data.poses import Pose
from mdnet_ros.errors import MDNetError
from mdnet_ros.evaluation.homography.data import read_homography
from mdnet_ros.evaluation.image_matching.data import read_calibration
from mdnet_ros.evaluation.replay.ground_truth import load_ground_truth
from mdnet_ros.nodes.host import open_files, resident_memory
from mdnet_ros.tracker.configuration import read_mask

START = 1_700_000_000_000_000_000
PICTURE = cv2.GaussianBlur(
    np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8), (0, 0), 1
)


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Change, insert, cut or swap some bytes; most of the damage is near the start and the end."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at = int(rng.integers(0, max(1, len(data))))
        if rng.random() < 0.5:
            near = int(rng.integers(0, min(300, len(data) + 1)))
            at = near if rng.random() < 0.5 else max(0, len(data) - near)
        junk = rng.bytes(int(rng.integers(1, 9)))
        how = rng.choice(['replace', 'insert', 'cut', 'end', 'zeros', 'number'])
        if how == 'replace':
            data[at : at + len(junk)] = junk
        elif how == 'insert':
            data[at:at] = junk
        elif how == 'cut':
            del data[at : at + len(junk)]
        elif how == 'end':
            del data[at:]
        elif how == 'zeros':
            data[at : at + 64] = bytes(64)
        else:
            data[at : at + 4] = rng.choice([0, 1, 2**31, 2**32 - 1]).astype('<u4').tobytes()
    return bytes(data)


def text_damage(content: str, rng: np.random.Generator) -> bytes:
    """Damage numbers and separators of a text file as people and programs do."""
    words = content.split(' ')
    if rng.random() < 0.5:  # other separators, blank lines, a byte order mark
        return str(rng.choice([' ', '  ', '\t', ', ', ','])).join(
            ['\ufeff' * int(rng.integers(0, 2)) + words[0], *words[1:]]
        ).replace('\n', str(rng.choice(['\n', '\r\n', '\n\n', ' \n']))).encode()
    for _ in range(rng.choice([1, 2, 5])):
        at = int(rng.integers(0, len(words)))
        words[at] = str(rng.choice(['', 'nan', 'inf', '-1e400', 'x', ',', '\t', '\n\n', '#', '٣']))
    return ' '.join(words).encode('utf-8') if rng.random() < 0.7 else damage(content.encode(), rng)


def write_bag(path: Path, storage: str) -> None:
    """Write a bag with all that the readers look at."""
    camera = CameraModel(64, 48, np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]), np.zeros(5))
    with BagWriter(path, storage) as bag:
        topics = BagTopics(bag)
        for i in range(4):
            stamp = START + i * 10**8
            topics.image('/camera/image_raw', stamp, 'camera', PICTURE[..., 0])
            topics.camera_info('/camera/camera_info', stamp, 'camera', camera)
            topics.depth('/camera/depth/compressedDepth', stamp, 'camera', PICTURE[..., 0] / 99.0)
            topics.pose('/pose', stamp, 'map', Pose(np.eye(3), np.array([i, 0.0, 0.0])))
            bag.commit()  # so that an mcap has several chunks


def read_bag(path: Path) -> None:
    """Read everything in a bag as the commands do."""
    with BagReader(path) as bag:
        topic = bag.image_topic('/camera/image_raw')
        for frame in bag.images(topic):
            try:
                assert frame.image.dtype == np.uint8
                assert frame.bgr.ndim == 3
            except MDNetError as refused:
                one_line(refused)
        calibration.read_calibration(bag, topic, bag.camera_info_topic(topic))
        for name, kind in bag.topics.items():
            bag.qos(name)
            if kind.endswith('CompressedImage'):
                for message in bag.messages(name):
                    depth_of_message(message)
        pose = bag.pose_topic()
        if pose is not None:
            bag.poses(pose)
        assert bag.duration_s >= 0
        for _ in bag.raw():
            pass


def one_line(error: MDNetError) -> None:
    """Check that an error is for people."""
    assert '\n' not in str(error), error
    assert str(error), repr(error)


class Files:
    """Good files, and how each kind is damaged and read.

    Args:
        folder: for good and damaged files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outcomes: Counter[str] = Counter()
        for storage in ('sqlite3', 'mcap'):
            write_bag(folder / storage, storage)
        self._bags = {
            path: path.read_bytes() for storage in ('sqlite3', 'mcap')
            for path in sorted((folder / storage).iterdir())
        }
        self._images = [
            cv2.imencode(suffix, PICTURE)[1].tobytes()
            for suffix in ('.jpg', '.png', '.tiff', '.webp', '.bmp', '.ppm')
        ]
        self._homography = '1.1 0.01 5.5\n-0.02 0.9 3.25\n0.00001 0.00002 1.0\n'
        self._truth = '# stamp x y z qx qy qz qw\n' + ''.join(
            f'{1.7e9 + i / 10:.6f} {i} 0.5 -1 0 0 0 1\n' for i in range(20)
        )
        with h5py.File(folder / 'good.h5', 'w') as file:
            group = file.create_group('1.png')
            group['keypoints'] = np.ones((3, 2))
            group['scores'], group['descriptors'] = np.ones(3), np.eye(3)
            group['image_size'] = [64, 48]
            file['K'], file['R'], file['T'] = np.eye(3), np.eye(3), np.zeros(3)
        self._h5 = (folder / 'good.h5').read_bytes()
        self.kinds: dict[str, Callable[[np.random.Generator], None]] = {
            'bag': self.bag, 'bag, unfinished': self.unfinished, 'metadata': self.metadata,
            'image': self.image, 'homography': self.homography, 'h5': self.h5,
            'truth': self.truth,
        }

    def case(self, number: int) -> None:
        """Run one case; the same number gives the same case.

        Raises:
            Exception: anything but an error of one line, naming the case.
        """
        rng = np.random.default_rng(number)
        kind = list(self.kinds)[number % len(self.kinds)]
        try:
            self.kinds[kind](rng)
        except MDNetError as refused:
            one_line(refused)
            self.outcomes[f'{kind} refused'] += 1
        except Exception as error:
            raise AssertionError(f'case {number} ({kind}): {error!r}') from error
        else:
            self.outcomes[f'{kind} read'] += 1

    def bag(self, rng: np.random.Generator) -> None:
        """Damage the storage file of a bag, or a folder or file alone."""
        path = list(self._bags)[int(rng.integers(0, len(self._bags)))]
        whole = rng.random() < 0.5 or path.suffix == '.yaml'
        target = self._fresh() if whole else self.folder / f'alone{path.suffix}'
        content = damage(self._bags[path], rng)
        if whole:
            for other in path.parent.iterdir():
                (target / other.name).write_bytes(self._bags[other])
            (target / path.name).write_bytes(content)
            read_bag(target)
        else:
            target.write_bytes(content)
            read_bag(target)

    def unfinished(self, rng: np.random.Generator) -> None:
        """Damage a recording that was not ended, and let a recorder and a reader complete it."""
        storage = str(rng.choice(['sqlite3', 'mcap']))
        name = f'run{rng.integers(0, 2**31)}'
        folder = self.folder / 'recordings'
        bag = folder / f'{name}{SUFFIX}' / name
        bag.mkdir(parents=True)
        source = next(p for p in self._bags if p.parent.name == storage and p.suffix != '.yaml')
        content = self._bags[source]
        # A database is whole up to its last commit; an mcap ends anywhere.
        if storage == 'mcap':
            content = content[: int(rng.integers(0, len(content)))]
        if rng.random() < 0.3:
            content = damage(content, rng)
        (bag / f'{name}{source.suffix}').write_bytes(content)
        try:
            if rng.random() < 0.5:
                for line in finish_beside(folder / 'next'):
                    assert '\n' not in line
            read_bag(folder / name)
        finally:
            assert sum(len(list(p.rglob('*'))) for p in folder.iterdir()) > 0  # nothing is deleted
            _remove(folder)

    def metadata(self, rng: np.random.Generator) -> None:
        """Edit metadata.yaml as people do."""
        storage = str(rng.choice(['sqlite3', 'mcap']))
        target = self._fresh()
        for path, content in self._bags.items():
            if path.parent.name == storage:
                (target / path.name).write_bytes(content)
        document = yaml.safe_load((target / 'metadata.yaml').read_text())
        information = document['rosbag2_bagfile_information']
        for _ in range(rng.integers(1, 4)):
            key = str(rng.choice(list(information)))
            value = json.loads(str(rng.choice(
                ['null', '""', '[]', '{}', '-1', '1e300', '"file"', '"x"', '[1]', '[null]', 'true',
                 '{"a": 1}', '["../../etc/passwd"]']
            )))
            if rng.random() < 0.3:
                for topic in information.get('topics_with_message_count') or []:
                    if isinstance(topic, dict) and isinstance(topic.get('topic_metadata'), dict):
                        topic['topic_metadata']['offered_qos_profiles'] = value
            else:
                information[key] = value
        (target / 'metadata.yaml').write_text(yaml.safe_dump(document))
        read_bag(target)

    def image(self, rng: np.random.Generator) -> None:
        """Damage an image and read it as an image and as a mask."""
        path = self.folder / 'image.png'
        path.write_bytes(damage(self._images[int(rng.integers(0, len(self._images)))], rng))
        assert read_image(path).ndim == 2
        assert read_image(path, colour=True).ndim == 3
        read_mask(str(path))

    def homography(self, rng: np.random.Generator) -> None:
        """Damage a homography."""
        path = self.folder / 'H_1_2'
        path.write_bytes(text_damage(self._homography, rng))
        assert np.isfinite(read_homography(path)).all()

    def h5(self, rng: np.random.Generator) -> None:
        """Damage an h5 file and read it as features and as a calibration."""
        path = self.folder / 'file.h5'
        path.write_bytes(damage(self._h5, rng))
        try:
            features = PrecomputedFeatures(path, 10).read(Path('1.png'))
            assert np.isfinite(features.keypoints).all()
        finally:
            read_calibration(path)

    def truth(self, rng: np.random.Generator) -> None:
        """Damage a file of true poses."""
        path = self.folder / 'truth.txt'
        path.write_bytes(text_damage(self._truth, rng))
        track = load_ground_truth(path, [int(1.7e18), int(1.7e18 + 2e9)])
        assert np.isfinite(track.translations).all()

    def _fresh(self) -> Path:
        target = self.folder / 'damaged'
        _remove(target)
        target.mkdir()
        return target


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def run(files: Files, cases: int, first: int = 0, step: int = 200) -> list[float]:
    """Run cases; returns the resident memory after each ``step`` of them, bytes."""
    logging.getLogger('mdnet_ros').setLevel(logging.ERROR)
    memory = []
    for number in range(first, first + cases):
        files.case(number)
        if (number - first) % step == step - 1:
            memory.append(resident_memory())
    return memory


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--cases', type=int, default=1000)
    parser.add_argument('--first', type=int, default=0, help='number of the first case')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder))
        begun, handles = time.monotonic(), open_files()
        memory = run(files, args.cases, args.first)
        for outcome, count in sorted(files.outcomes.items()):
            print(f'{count:6d} {outcome}')
        print('memory after each 200, MB:', ' '.join(f'{m / 2**20:.0f}' for m in memory))
        print(f'open files before and after: {handles} {open_files()}')
        print(f'{sum(files.outcomes.values())} cases in {time.monotonic() - begun:.0f} s')
    return 0


if __name__ == '__main__':
    sys.exit(main())
