"""Random Image, CompressedImage and CameraInfo messages through what the node does with them.

By hand, as many as you like::

    python test/nodes/fuzz_messages.py --cases 10000

``test_fuzz.py`` runs some of them with every test run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mdnet_ros.data.camera import camera_of_info
from mdnet_ros.data.headers import stamp_nanoseconds
from mdnet_ros.data.image_decoding import ENCODINGS
from mdnet_ros.errors import DataError, ImageError, MDNetError
from mdnet_ros.features.network import MDNet, MDNetConfig
from mdnet_ros.features.weights import save_weights
from mdnet_ros.nodes.host import open_files, resident_memory
from mdnet_ros.nodes.image_conversion import ImageConverter, check, fill
from mdnet_ros.tracker.configuration import load_configuration
from mdnet_ros.tracker.engine import Engine
from mdnet_ros.tracker.settings import TrackerSettings

UINT32 = st.one_of(
    st.integers(0, 100), st.sampled_from([2**16, 2**31 - 1, 2**31, 2**32 - 1]),
    st.integers(0, 2**32 - 1),
)
STAMPS = st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1))
#: Text as a string field may hold it.
TEXT = st.text(st.characters(exclude_characters='\0', codec='utf-8'), max_size=20)
NUMBERS = st.one_of(
    st.floats(), st.floats(-2000, 2000), st.sampled_from([0.0, 1.0, 1e-300, 1e300])
)
PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
PICTURE = cv2.GaussianBlur(PICTURE, (0, 0), 2)
FILES = tuple(
    cv2.imencode(suffix, PICTURE, options)[1].tobytes()
    for suffix, options in (
        ('.jpg', []), ('.png', []), ('.jpg', [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]), ('.bmp', []),
    )
)


@st.composite
def images(draw):
    """Half of them right, or right but for one field; half of them anything."""
    message = Image()
    message.header.stamp.sec, message.header.stamp.nanosec = draw(STAMPS)
    message.header.frame_id = draw(TEXT)
    message.encoding = draw(rarely(TEXT, st.sampled_from(ENCODINGS)))
    message.is_bigendian = draw(st.integers(0, 255))
    if draw(st.booleans()):
        message.height, message.width = draw(st.integers(30, 80)), draw(st.integers(30, 80))
        size = {'rgba': 4, 'bgra': 4, 'rgb': 3, 'bgr': 3, '8UC3': 3, 'yuv': 2, 'uyvy': 2}
        size |= {'yuyv': 2}
        pixel = next((n for name, n in size.items() if message.encoding.startswith(name)), 1)
        pixel *= 1 + (message.encoding.endswith('16') or message.encoding == '16UC1')
        message.step = message.width * pixel + draw(st.sampled_from([0, 0, 0, 1, 64]))
        planes = message.encoding in ('nv12', 'nv21')
        fill(message, np.random.default_rng(draw(st.integers(0, 9))).bytes(
            message.height * message.step * (3 if planes else 2) // 2
        ))
        if draw(st.booleans()):
            setattr(message, draw(st.sampled_from(['height', 'width', 'step'])), draw(UINT32))
    else:
        message.height, message.width, message.step = draw(UINT32), draw(UINT32), draw(UINT32)
        fill(message, draw(st.binary(max_size=5000)))
    return message


@st.composite
def compressed_images(draw):
    """Files with bytes changed, cut out or put in, or nothing but such bytes."""
    content = bytearray(draw(st.sampled_from([*FILES, b''])))
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 6]))):
        # Headers matter more than pixels.
        at = draw(st.integers(0, 40) | st.integers(0, max(0, len(content) - 1)))
        what = draw(st.binary(max_size=8))
        how = draw(st.sampled_from(['replace', 'insert', 'cut', 'end']))
        if how == 'replace':
            content[at : at + len(what)] = what
        elif how == 'insert':
            content[at:at] = what
        elif how == 'cut':
            del content[at : at + len(what)]
        else:
            del content[at:]
    formats = ('jpeg', 'png', 'bgr8; jpeg', 'bayer_rggb8; png compressed', '16UC1; png compressed')
    message = CompressedImage(format=draw(TEXT | st.sampled_from(formats)))
    message.header.stamp.sec, message.header.stamp.nanosec = draw(STAMPS)
    fill(message, bytes(content))
    return message


@st.composite
def camera_infos(draw):
    """Calibrations with any numbers, models, binnings and regions, or right but for a few."""
    message = CameraInfo(
        width=draw(rarely(UINT32, st.just(64))), height=draw(rarely(UINT32, st.just(48))),
        distortion_model=draw(rarely(TEXT, st.sampled_from(
            ['plumb_bob', 'rational_polynomial', 'equidistant', 'fisheye', '']
        ))),
    )
    count = draw(rarely(st.integers(0, 16), st.sampled_from([0, 4, 5, 8, 12, 14])))
    message.d = draw(mostly(count * [0.01]))
    k = [50.0, 0.0, 32.0, 0.0, 50.0, 24.0, 0.0, 0.0, 1.0]
    message.k = draw(mostly(k))
    message.r = draw(mostly([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]))
    message.p = draw(mostly([*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0]))
    message.binning_x = draw(rarely(UINT32, st.integers(0, 2)))
    message.binning_y = draw(rarely(UINT32, st.integers(0, 2)))
    for name in ('x_offset', 'y_offset', 'width', 'height'):
        setattr(message.roi, name, draw(rarely(UINT32, st.sampled_from([0, 0, 0, 2, 16]))))
    return message


def rarely(odd, usual):
    """Draw an odd value in one of eight cases."""
    return st.integers(0, 7).flatmap(lambda n: odd if n == 7 else usual)


@st.composite
def mostly(draw, numbers):
    """Draw these numbers, in a quarter of the cases with some of them replaced by any."""
    numbers = list(numbers)
    if numbers and draw(st.integers(0, 3)) == 3:
        for _ in range(draw(st.integers(1, len(numbers)))):
            numbers[draw(st.integers(0, len(numbers) - 1))] = draw(NUMBERS)
    return numbers


class Target:
    """The node's own way of a message, without a subscription around it."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        weights = folder / 'fuzz.safetensors'
        save_weights(MDNet(MDNetConfig(dim=8, channels=(4, 4, 4, 4, 4))), weights, {})
        self._settings = TrackerSettings(
            weights=str(weights), device='cpu', precision='fp32', max_keypoints=64, threads=1,
            vins_layout='fusion',
        )
        self.engine = Engine(load_configuration(self._settings))
        self.converter = ImageConverter()
        self.outcomes: Counter[str] = Counter()
        self._served = 0

    def image(self, message: Image | CompressedImage) -> None:
        """Either tracks, or an ImageError of one line."""
        message = deserialize_message(serialize_message(message), type(message))
        kind = type(message).__name__
        try:
            check(message)
            gray = self.converter.gray(message)
            bgr = self.converter.bgr(message)
            assert gray.dtype == bgr.dtype == np.uint8
            assert gray.shape == bgr.shape[:2]
            assert gray.shape[0] * gray.shape[1] <= 2**26
            done = self.engine.process(gray, stamp_nanoseconds(message.header))
        except ImageError as refused:
            self._refused(kind, refused)
            return
        assert np.isfinite(done.frame.features.keypoints).all()
        self.outcomes[f'{kind} served'] += 1

    def camera_info(self, message: CameraInfo) -> None:
        """Either a camera that gives tracks, or a DataError of one line."""
        message = deserialize_message(serialize_message(message), CameraInfo)
        try:
            self.engine.cameras[0].model = camera_of_info(message)
        except DataError as refused:
            self._refused('CameraInfo', refused)
        else:
            self.outcomes['CameraInfo taken'] += 1
        self.good_frame()

    def _refused(self, kind: str, error: MDNetError) -> None:
        assert '\n' not in str(error), error
        self.outcomes[f'{kind} refused'] += 1

    def good_frame(self) -> None:
        """One that must be served, whatever came before."""
        self._served += 1
        gray = np.ascontiguousarray(cv2.cvtColor(PICTURE, cv2.COLOR_BGR2GRAY))
        done = self.engine.process(gray, 10**18 + self._served * 10**7)
        assert len(done.frame.features) > 0
        if done.tracks is not None:
            assert np.isfinite(done.tracks.points()).all()
            for _, values in done.tracks.channels('fusion'):
                assert np.isfinite(values).all()


def run(target: Target, cases: int, number: int = 0, step: int = 1000) -> list[float]:
    """Put random messages through; raises what the node would not survive.

    Args:
        target: takes them.
        cases: how many messages.
        number: seed; the same messages for the same number.
        step: messages between two looks at the memory.

    Returns:
        The resident memory after each step, bytes.
    """
    anything = st.one_of(images(), compressed_images(), camera_infos())
    memory = []
    for first in range(0, cases, step):

        @seed(number + first)
        @settings(
            max_examples=min(step, cases - first), deadline=None, database=None,
            phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
        )
        @given(anything)
        def case(message: object) -> None:
            if isinstance(message, CameraInfo):
                target.camera_info(message)
            else:
                target.image(message)

        case()
        target.good_frame()
        memory.append(resident_memory())
    return memory


def main() -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--cases', type=int, default=10000)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        target = Target(Path(folder))
        files = open_files()
        memory = run(target, args.cases, args.seed)
        for outcome, count in sorted(target.outcomes.items()):
            print(f'{count:7d} {outcome}')
        listing = ' '.join(f'{m / 2**20:.0f}' for m in memory)
        print(f'memory after each 1000, MB: {listing}')
        print(f'open files before and after: {files} {open_files()}')
        print(f'{sum(target.outcomes.values())} cases')
    return 0


if __name__ == '__main__':
    sys.exit(main())
