"""``mdnet export``: write a network with its detection as an ONNX or TorchScript file."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from mdnet_ros.data.image_files import read_image
from mdnet_ros.errors import DataError, MissingDependencyError, SettingError
from mdnet_ros.features.backends.export import export
from mdnet_ros.features.backends.exported import SUFFIXES
from mdnet_ros.features.detection import MAX_NMS_RADIUS, MIN_BORDER, DetectionSettings
from mdnet_ros.features.extractor import choose_device, to_gray

#: Photographs that come with scikit-image.
_PHOTOGRAPHS = ('astronaut', 'camera', 'chelsea', 'coffee')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    defaults = DetectionSettings()
    parser.add_argument('weights', metavar='WEIGHTS', help='md2net, md2net-light, or a path')
    parser.add_argument('--format', choices=sorted(SUFFIXES), default='onnx')
    parser.add_argument(
        '--size', type=parse_size, default=(640, 480), metavar='WxH',
        help='size of the images that it will take, px [640x480]',
    )
    parser.add_argument('--batch', type=int, default=1, help='images at a time [1]')
    parser.add_argument(
        '--max-keypoints', type=int, default=defaults.max_keypoints,
        help=f'the most keypoints of one image [{defaults.max_keypoints}]',
    )
    parser.add_argument(
        '--nms-radius', type=int, default=defaults.nms_radius,
        help=f'keypoints of a set are farther apart than this, px [{defaults.nms_radius}]',
    )
    parser.add_argument(
        '--border', type=int, default=defaults.border,
        help=f'no keypoints closer to the edge than this, px; less than {MIN_BORDER} acts as '
        f'{MIN_BORDER} [{defaults.border}]',
    )
    parser.add_argument(
        '--device', default='cpu', help='TorchScript runs on this one only: cpu, cuda [cpu]'
    )
    parser.add_argument(
        '--images', type=Path, nargs='+', metavar='FILE',
        help='images to compare the file with PyTorch on [photographs of scikit-image]',
    )
    parser.add_argument(
        '--out', type=Path, required=True, metavar='FILE',
        help='ends in .onnx (onnx, tensorrt) or .torchscript',
    )


def parse_size(text: str) -> tuple[int, int]:
    """Parse ``WxH``, pixels."""
    width, _, height = text.partition('x')
    if width.isdecimal() and height.isdecimal() and int(width) and int(height):
        return int(width), int(height)
    raise argparse.ArgumentTypeError(f"'{text}': expected WIDTHxHEIGHT, such as 640x480")


def run(args: argparse.Namespace) -> int:
    """Export the network and compare the file with PyTorch."""
    if args.max_keypoints < 1:
        raise SettingError(f'--max-keypoints: expected at least 1, got {args.max_keypoints}')
    if not 0 <= args.nms_radius <= MAX_NMS_RADIUS:
        raise SettingError(f'--nms-radius: expected 0 to {MAX_NMS_RADIUS}, got {args.nms_radius}')
    if args.border < 0:
        raise SettingError(f'--border: expected at least 0, got {args.border}')
    settings = DetectionSettings(
        args.max_keypoints, nms_radius=args.nms_radius, border=args.border
    )
    images = [read_image(path) for path in args.images] if args.images else photographs()
    width, height = args.size
    check = export(
        args.weights, args.out, args.format, (height, width), images,
        settings=settings, batch=args.batch, device=str(choose_device(args.device)),
    )
    print(f'{args.out}: {args.batch} x {width}x{height}, at most {args.max_keypoints} keypoints')
    print(f'against PyTorch: {check}')
    return 0


def photographs() -> list[np.ndarray]:
    """Return photographs that come with scikit-image, (H, W) uint8 gray.

    Raises:
        MissingDependencyError: scikit-image is not installed.
        DataError: it comes without photographs.
    """
    try:
        from skimage import data
    except ImportError:
        raise MissingDependencyError(
            'scikit-image', 'demo', 'comparing on photographs (or name some with --images)'
        ) from None
    try:
        images = [getattr(data, name)() for name in _PHOTOGRAPHS]
    except (OSError, ImportError) as error:
        raise DataError(f'photographs of scikit-image: {error}; name some with --images') from None
    return [to_gray(i if i.ndim == 2 else i[..., ::-1].copy()) for i in images]
