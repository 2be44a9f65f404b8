"""Random damage to the files that users bring: bags, images, truth, features, settings, weights.

By hand, as many as you like::

    python test/fuzz_files.py --cases 1000

``test_fuzz_files.py`` runs some of them with every test run. Each case takes a good file, damages
it and reads it as the commands do: it is read, or refused in one line; nothing else.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import re
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import h5py
import numpy as np
import torch
import yaml
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore

from mdnet_ros.bags import calibration
from mdnet_ros.bags.messages import BagTopics, depth_of_message
from mdnet_ros.bags.reader import CAMERA_INFO, IMAGE, ODOMETRY, BagReader
from mdnet_ros.bags.static_transforms import TF_MESSAGE
from mdnet_ros.bags.unfinished import SUFFIX, finish_beside
from mdnet_ros.bags.writer import BagWriter
from mdnet_ros.baselines.precomputed import PrecomputedFeatures
from mdnet_ros.cli.evaluate_common import read_document
from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.image_files import read_image
from mdnet_ros.data.poses import Pose
from mdnet_ros.errors import MDNetError
from mdnet_ros.evaluation.homography.data import read_homography
from mdnet_ros.evaluation.image_matching.data import read_calibration
from mdnet_ros.evaluation.image_matching.scene import SceneSettings, View
from mdnet_ros.evaluation.image_matching.selection import pairs_from_file, read_subsets
from mdnet_ros.evaluation.replay.ground_truth import load_ground_truth, read_extrinsics
from mdnet_ros.evaluation.tracks.truth import camera_poses, truth_of_bag
from mdnet_ros.features.network import MDNet, MDNetConfig
from mdnet_ros.features.weights import load_weights, save_weights
from mdnet_ros.nodes.host import open_files, resident_memory
from mdnet_ros.tracker.configuration import read_mask
from mdnet_ros.training import curve
from mdnet_ros.training.config import TrainingConfig, load_config
from mdnet_ros.training.images import read_images

START = 1_700_000_000_000_000_000
PICTURE = cv2.GaussianBlur(
    np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8), (0, 0), 1
)


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Change, insert, cut or swap some bytes; most of the damage is near the start and the end.

    One file in six stays whole, so that what is read is fuzzed and not only what is refused.
    """
    if rng.random() < 1 / 6:
        return content
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


#: Numbers that no calibration and no pose should hold, and some that they may.
ODD = (np.nan, np.inf, -np.inf, 0.0, -1.0, 1e-300, 1e300, 1.0, 50.0, 0.5)
#: Words of YAML and JSON that stand where a number or a name was expected.
WORDS = ('', 'null', 'nan', '-1', '1e400', '2001-99-99', '!!int ""', '[', '{}', '[' * 3000, '*a',
         '9' * 400, '9' * 5000, 'true', '"x"', '- - -', '\0', '٣')


def odd(numbers: Sequence[float], rng: np.random.Generator) -> list[float]:
    """Replace some numbers; none in a third of the cases."""
    share = rng.choice([0.0, 0.05, 0.3])
    return [float(rng.choice(ODD)) if rng.random() < share else float(n) for n in numbers]


def word_damage(content: str, rng: np.random.Generator) -> bytes:
    """Put odd words into a YAML or JSON file, or damage its bytes; some stay whole."""
    if rng.random() < 0.5:
        return damage(content.encode(), rng)
    parts = re.split(r'([\s,:\[\]]+)', content)
    for _ in range(rng.choice([1, 1, 3])):
        parts[2 * int(rng.integers(0, (len(parts) + 1) // 2))] = str(rng.choice(WORDS))
    return ''.join(parts).encode()


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


def write_ros1_bag(path: Path) -> None:
    """Write a ROS 1 bag with images and their calibration."""
    store = get_typestore(Stores.ROS1_NOETIC)
    t = store.types
    with Ros1Writer(path) as writer:
        images = writer.add_connection('/camera/image_raw', IMAGE, typestore=store)
        infos = writer.add_connection('/camera/camera_info', CAMERA_INFO, typestore=store)
        region = t['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
        k = np.array([50.0, 0, 32, 0, 50, 24, 0, 0, 1])
        for i in range(4):
            stamp = START + i * 10**8
            time_ = t['builtin_interfaces/msg/Time'](*divmod(stamp, 10**9))
            header = t['std_msgs/msg/Header'](i, time_, 'camera')
            gray = PICTURE[..., 0].reshape(-1)
            writer.write(images, stamp, store.serialize_ros1(
                t[IMAGE](header, 48, 64, 'mono8', 0, 64, gray), IMAGE))
            writer.write(infos, stamp, store.serialize_ros1(
                t[CAMERA_INFO](header, 48, 64, 'plumb_bob', np.zeros(5), k, np.eye(3).reshape(-1),
                               np.zeros(12), 0, 0, region), CAMERA_INFO))


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
                    try:
                        depth_of_message(message)
                    except MDNetError as refused:
                        one_line(refused)
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
        write_ros1_bag(folder / 'good.bag')
        self._ros1 = (folder / 'good.bag').read_bytes()
        self._extrinsics = [
            'sensor_type: camera\nT_BS:\n  cols: 4\n  rows: 4\n  data: [1.0, 0.0, 0.0, 0.1,\n'
            '         0.0, 1.0, 0.0, 0.2, 0.0, 0.0, 1.0, 0.3, 0.0, 0.0, 0.0, 1.0]\n',
            'cam0:\n  T_cam_imu:\n  - [1.0, 0.0, 0.0, 0.1]\n  - [0.0, 1.0, 0.0, 0.2]\n'
            '  - [0.0, 0.0, 1.0, 0.3]\n  - [0.0, 0.0, 0.0, 1.0]\n  rostopic: /cam0/image_raw\n',
        ]
        self._config = yaml.safe_dump(TrainingConfig().to_dict())
        metrics = dict.fromkeys(
            ('mma_1px', 'mma_3px', 'ms_3px', 'repeatability_1px'), (0.5, 0.75)
        )
        self._documents = [
            json.dumps({'protocol': 'pairs', 'photographs': 3, 'figures': {'a': [1, 2.5, None]}}),
            json.dumps({'curves': [curve.Curve('run', (10, 20), metrics).to_json()]}),
        ]
        np.savez(folder / 'good.npz', keypoints=np.ones((3, 2)), descriptors=np.eye(3),
                 scores=np.ones(3), imsize=np.array([64, 48]))
        np.save(folder / 'pairs.npy', np.array(['a-b', 'b-c', 'a-x']))
        self._npz = (folder / 'good.npz').read_bytes()
        self._npy = (folder / 'pairs.npy').read_bytes()
        torch.manual_seed(0)
        save_weights(
            MDNet(MDNetConfig(dim=8, channels=(4, 4, 4, 4, 4))), folder / 'good.safetensors', {}
        )
        self._weights = (folder / 'good.safetensors').read_bytes()
        with tarfile.open(folder / 'good.tar', 'w') as pack:
            for i, content in enumerate(self._images):
                member = tarfile.TarInfo(f'{i}.png')
                member.size = len(content)
                pack.addfile(member, io.BytesIO(content))
        self._tar = (folder / 'good.tar').read_bytes()
        self.kinds: dict[str, Callable[[np.random.Generator], None]] = {
            'bag': self.bag, 'bag, unfinished': self.unfinished, 'metadata': self.metadata,
            'image': self.image, 'homography': self.homography, 'h5': self.h5,
            'truth': self.truth, 'camera_info': self.camera_info, 'odometry': self.odometry,
            'ROS 1 bag': self.ros1_bag, 'extrinsics': self.extrinsics, 'config': self.config,
            'document': self.document, 'npz': self.npz, 'pairs': self.pairs,
            'weights': self.weights, 'tar': self.tar,
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

    def camera_info(self, rng: np.random.Generator) -> None:
        """Fill the calibrations of a bag with numbers that no camera has, and use them."""
        path = self.folder / 'calibrated'
        k = [50.0, 0, 32, 0, 50, 24, 0, 0, 1]
        models = ['plumb_bob', 'rational_polynomial', 'equidistant', 'fisheye', '', 'x\ny']
        sizes = [0, 1, 48, 64, 640, 2**31, 2**32 - 1]
        with BagWriter(path, str(rng.choice(['sqlite3', 'mcap'])), overwrite=True) as bag:
            t = bag.types
            BagTopics(bag).image('/camera/image_raw', START, 'camera', PICTURE[..., 0])
            for i in range(2):
                header = t['std_msgs/msg/Header'](
                    t['builtin_interfaces/msg/Time'](*divmod(START + i, 10**9)), 'camera'
                )
                wild = rng.random() < 0.3
                height, width = (int(rng.choice(sizes)) if wild else n for n in (48, 64))
                region = t['sensor_msgs/msg/RegionOfInterest'](
                    *(int(rng.choice(sizes)) if wild else 0 for _ in range(4)), False
                )
                binning = [int(rng.choice(sizes[:5])) if wild else 0 for _ in range(2)]
                d = odd(rng.normal(0, 0.1, int(rng.integers(0, 16))), rng)
                bag.write('/camera/camera_info', CAMERA_INFO, START + i, t[CAMERA_INFO](
                    header, height, width, str(rng.choice(models)), np.array(d, np.float64),
                    np.array(odd(k, rng)), np.array(odd(np.eye(3).reshape(-1), rng)),
                    np.array(odd(np.c_[np.reshape(k, (3, 3)), np.zeros(3)].reshape(-1), rng)),
                    *binning, region,
                ))
        points = np.array([[0.0, 0.0], [32, 24], [63, 47], [1e9, -1e9], [np.nan, 0]])
        with BagReader(path) as reader:
            for rectified in (False, True):
                found = calibration.read_calibration(
                    reader, '/camera/image_raw', '/camera/camera_info', rectified
                )
                assert (found.camera is None) == bool(found.problem)
                assert '\n' not in found.problem
                if found.camera is not None:
                    assert np.isfinite(found.camera.k).all()
                    rays = found.camera.normalise(points)
                    assert rays.shape == points.shape
                    assert found.camera.project(np.c_[rays, np.ones(len(rays))]).shape == rays.shape
                    assert found.camera.rectify(points).shape == points.shape

    def odometry(self, rng: np.random.Generator) -> None:
        """Fill the poses and transforms of a bag with numbers that no robot has."""
        path = self.folder / 'posed'
        g, frames = 'geometry_msgs/msg/', ['camera', 'base_link', 'odom', '', '/camera']
        with BagWriter(path, str(rng.choice(['sqlite3', 'mcap'])), overwrite=True) as bag:
            t = bag.types
            for i in range(4):
                header = t['std_msgs/msg/Header'](
                    t['builtin_interfaces/msg/Time'](*divmod(START + i, 10**9)),
                    str(rng.choice(frames)),
                )
                child = str(rng.choice(frames))
                BagTopics(bag).image('/camera/image_raw', START + i, 'camera', PICTURE[..., 0])
                place = odd([i, 0, 0], rng)
                turn = t[g + 'Quaternion'](*odd([0, 0, 0, 1], rng))
                bag.write('/tf_static', TF_MESSAGE, START + i, t[TF_MESSAGE]([
                    t[g + 'TransformStamped'](
                        header, child, t[g + 'Transform'](t[g + 'Vector3'](*place), turn)
                    )
                ]))
                zero = t[g + 'Vector3'](0.0, 0.0, 0.0)
                bag.write('/odom', ODOMETRY, START + i, t[ODOMETRY](
                    header, child,
                    t[g + 'PoseWithCovariance'](
                        t[g + 'Pose'](t[g + 'Point'](*place), turn), np.zeros(36)
                    ),
                    t[g + 'TwistWithCovariance'](t[g + 'Twist'](zero, zero), np.zeros(36)),
                ))
        camera = CameraModel(64, 48, np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]), np.zeros(5))
        with BagReader(path) as reader:
            poses = camera_poses(reader, '/camera/image_raw', '/odom').poses
            truth_of_bag(reader, '/camera/image_raw', camera, poses)
            assert poses is not None
            assert np.isfinite(poses.translations).all()
            assert np.isfinite(poses.rotations).all()

    def ros1_bag(self, rng: np.random.Generator) -> None:
        """Damage a ROS 1 bag."""
        path = self.folder / 'file.bag'
        path.write_bytes(damage(self._ros1, rng))
        read_bag(path)

    def extrinsics(self, rng: np.random.Generator) -> None:
        """Damage a YAML file with the camera's place on its body."""
        path = self.folder / 'sensor.yaml'
        path.write_bytes(word_damage(str(rng.choice(self._extrinsics)), rng))
        assert np.isfinite(read_extrinsics(path).translation).all()

    def config(self, rng: np.random.Generator) -> None:
        """Damage a training configuration."""
        path = self.folder / 'config.yaml'
        path.write_bytes(word_damage(self._config, rng))
        load_config(path, {})

    def document(self, rng: np.random.Generator) -> None:
        """Damage the JSON files of ``mdnet evaluate`` and ``mdnet curve``."""
        path = self.folder / 'results.json'
        path.write_bytes(word_damage(str(rng.choice(self._documents)), rng))
        try:
            read_document(path)
        except MDNetError as refused:
            one_line(refused)
            curve.read_curves(path)

    def npz(self, rng: np.random.Generator) -> None:
        """Damage precomputed features in an npz file."""
        folder = self._fresh()
        (folder / '1.png.npz').write_bytes(damage(self._npz, rng))
        features = PrecomputedFeatures(folder, 10).read(Path('1.png'))
        assert np.isfinite(features.keypoints).all()

    def pairs(self, rng: np.random.Generator) -> None:
        """Damage the lists of pairs and of subsets of the Image Matching Benchmark."""
        folder = self._fresh()
        (folder / 'keys.npy').write_bytes(damage(self._npy, rng))
        (folder / '3bag_000.txt').write_bytes(text_damage('images/a.jpg images/b.jpg\nc', rng))
        views: dict[str, View] = {
            name: View(name, folder / name, np.eye(3), Pose(np.eye(3), np.zeros(3)), None)
            for name in 'abc'
        }
        read_subsets(folder, views, SceneSettings(subset_sizes=(3,)), [])
        pairs_from_file(folder / 'keys.npy', views, [])

    def weights(self, rng: np.random.Generator) -> None:
        """Damage a file of weights."""
        path = self.folder / 'damaged.safetensors'
        path.write_bytes(damage(self._weights, rng))
        load_weights(path)

    def tar(self, rng: np.random.Generator) -> None:
        """Damage a tar pack of photographs."""
        path = self.folder / 'damaged.tar'
        path.write_bytes(damage(self._tar, rng))
        assert all(image.gray.ndim == 2 for image in read_images(path))

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
