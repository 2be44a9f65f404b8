"""Makes extractors by name: MD-Net and the baselines it is compared with.

>>> extractor = create_extractor('rootsift', max_keypoints=1000)
"""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from mdnet_ros import features
from mdnet_ros.baselines import common
from mdnet_ros.baselines.common import (
    BaselineInfo,
    BaselineSettings,
    file_digest,
    find_weights,
)
from mdnet_ros.baselines.precomputed import PrecomputedFeatures
from mdnet_ros.errors import DataError, WeightsError
from mdnet_ros.features import weights
from mdnet_ros.features.backends.base import PRECISIONS
from mdnet_ros.features.backends.choice import NETWORK_SUFFIXES, RUNTIMES
from mdnet_ros.features.extractor import (
    Extractor,
    MDNetExtractor,
    choose_device,
    fastest_precision,
)
from mdnet_ros.features.refinement import Refinement

#: Name of a baseline -> module of this package that implements it.
BASELINES = {
    'sift': 'sift',
    'rootsift': 'sift',
    'upright-sift': 'sift',
    'upright-rootsift': 'sift',
    'r2d2': 'r2d2',
    'r2d2-ms': 'r2d2',
    'alike-t': 'alike',
    'alike-s': 'alike',
    'alike-n': 'alike',
    'alike-l': 'alike',
    'surf': 'surf',
    'orb': 'orb',
    'akaze': 'akaze',
    'hardnet': 'hardnet',
    'superpoint': 'superpoint',
    'disk': 'disk',
    'aliked-t16': 'aliked',
    'aliked-n16': 'aliked',
    'aliked-n16rot': 'aliked',
    'aliked-n32': 'aliked',
    'xfeat': 'xfeat',
    'edgepoint2-t32': 'edgepoint2',
    'edgepoint2-t48': 'edgepoint2',
    'edgepoint2-s32': 'edgepoint2',
    'edgepoint2-s48': 'edgepoint2',
    'edgepoint2-s64': 'edgepoint2',
    'edgepoint2-m32': 'edgepoint2',
    'edgepoint2-m48': 'edgepoint2',
    'edgepoint2-m64': 'edgepoint2',
    'edgepoint2-l32': 'edgepoint2',
    'edgepoint2-l48': 'edgepoint2',
    'edgepoint2-l64': 'edgepoint2',
    'edgepoint2-e32': 'edgepoint2',
    'edgepoint2-e48': 'edgepoint2',
    'edgepoint2-e64': 'edgepoint2',
}
#: Name of a family of networks -> the one that is meant by it.
ALIASES = {'alike': 'alike-n', 'aliked': 'aliked-n16', 'edgepoint2': 'edgepoint2-e64'}
_PRECOMPUTED = 'precomputed:'
#: After the name of an extractor: its tracks are refined by optical flow.
FLOW_SUFFIX = '+flow'
#: Import name of a library -> names of the distributions that may contain it.
_DISTRIBUTIONS = {'cv2': ('opencv-python-headless', 'opencv-python')}


def extractor_names() -> list[str]:
    """List the names that :func:`create_extractor` takes, besides paths."""
    return [*sorted(weights.CONFIGS), *BASELINES]


def _module(name: str) -> ModuleType:
    return importlib.import_module(f'mdnet_ros.baselines.{BASELINES[name]}')


def baseline_info(name: str) -> BaselineInfo:
    """Return the licence and origin of a baseline; KeyError if ``name`` is no baseline."""
    return _module(name).INFOS[name]


@dataclass(frozen=True)
class ExtractorSpec:
    """Description of an extractor, from which it can be made in any thread or process.

    Attributes:
        text: text that names it: a name of :func:`extractor_names`, a ``.safetensors`` path, or
            ``precomputed:PATH``. MD-Net may be followed by a precision or a runtime after ``@``, as
            ``md2net@fp32`` or ``md2net-light@openvino@bf16``.
        max_keypoints: the most keypoints of one image.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        weights_dir: folder with weights of baselines; None: only the usual places.
    """

    text: str
    max_keypoints: int = 2048
    device: str = 'auto'
    weights_dir: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, 'text', ALIASES.get(self.text, self.text))
        if self.max_keypoints < 1:
            raise DataError(f'max keypoints: expected at least 1, got {self.max_keypoints}')
        if self.text not in BASELINES and self.precomputed is None and not self.is_ours:
            raise DataError(
                f"extractor '{self.text}': unknown; expected one of "
                f'{", ".join(extractor_names())}, a .safetensors or exported file, or '
                'precomputed:PATH'
            )

    @property
    def is_ours(self) -> bool:
        """Whether it is MD-Net, from weights or an exported file."""
        return self.network in weights.CONFIGS or self.network.endswith(NETWORK_SUFFIXES)

    @property
    def network(self) -> str:
        """Name or path of the network, without precision and runtime."""
        return self._parts()[0]

    @property
    def precision(self) -> str:
        """Precision after ``@``, or ``auto``."""
        return self._parts()[1]

    @property
    def runtime(self) -> str:
        """Runtime after ``@``, or ``torch``."""
        return self._parts()[2]

    def _parts(self) -> tuple[str, str, str]:
        """Split the text into network, precision and runtime."""
        network, precision, runtime = self.text, 'auto', 'torch'
        while network.rpartition('@')[2] in (*PRECISIONS, *RUNTIMES) and '@' in network:
            network, _, option = network.rpartition('@')
            if option in PRECISIONS:
                precision = option
            else:
                runtime = option
        return network, precision, runtime

    @property
    def exact(self) -> bool:
        """Whether a tracker compares its descriptors in float32, as the node does at ``fp32``."""
        return self.precision == 'fp32'

    @property
    def precomputed(self) -> Path | None:
        """File or folder of precomputed features; None for every other extractor."""
        if not self.text.startswith(_PRECOMPUTED):
            return None
        return Path(self.text.removeprefix(_PRECOMPUTED)).expanduser()

    @property
    def name(self) -> str:
        """Name of the extractor in reports."""
        if self.precomputed is not None:
            return self.precomputed.stem
        if not self.is_ours:
            return self.text
        return Path(self.network).stem + self.text.removeprefix(self.network)

    @property
    def licence(self) -> str:
        """Licence of the code and the weights."""
        if self.text in BASELINES:
            return baseline_info(self.text).licence
        return 'Apache-2.0' if self.is_ours else 'of whoever computed it'

    @property
    def single_threaded(self) -> bool:
        """Whether extraction from one image occupies one core only."""
        return self.text in BASELINES and baseline_info(self.text).single_threaded

    def create(self) -> Extractor:
        """Create the extractor.

        Raises:
            WeightsError: weights are missing or corrupt.
            MissingDependencyError: its library is not installed.
        """
        if self.precomputed is not None:
            return PrecomputedFeatures(self.precomputed, self.max_keypoints)
        if self.is_ours:
            return MDNetExtractor(
                self.network, self.device, self.max_keypoints,
                precision=self.precision, runtime=self.runtime,
            )
        settings = BaselineSettings(self.max_keypoints, self.device, self.weights_dir)
        file = self.weights_file()
        try:
            return _module(self.text).create(self.text, settings, file)
        except WeightsError as error:
            source = baseline_info(self.text).source
            raise WeightsError(
                f"extractor '{self.text}': {error}; the right file: {source}"
            ) from None

    def weights_file(self) -> Path | None:
        """Find the file or folder of the weights or precomputed features; None if there are none.

        Raises:
            WeightsError: weights are missing.
        """
        if self.precomputed is not None:
            return self.precomputed
        if self.is_ours:
            return weights.resolve_weights(self.network)
        info = baseline_info(self.text)
        return find_weights(info, self.weights_dir) if info.weights else None

    def identity(self) -> str:
        """Hash everything that decides the output: code, weights, settings and libraries.

        The code is every file of ``features/`` for MD-Net, and the adapter's for a baseline.

        Raises:
            WeightsError: weights are missing.
        """
        parts = [self.name, str(self.max_keypoints)]
        if self.is_ours:
            files = sorted(Path(str(features.__file__)).parent.rglob('*.py'))
            device = choose_device(self.device)
            precision = self.precision
            parts += [file_digest(weights.resolve_weights(self.network)), device.type]
            parts += [fastest_precision(device) if precision == 'auto' else precision]
            parts += [_version(library) for library in sorted({'torch', self.runtime})]
        else:
            info = baseline_info(self.text)
            files = [Path(str(m.__file__)) for m in (common, _module(self.text))]
            found = self.weights_file()
            parts += [file_digest(found)] if found else []
            parts += [choose_device(self.device).type] if info.library != 'cv2' else []
            parts += [info.library, _version(info.library)]
        parts += [file_digest(file) for file in files]
        return hashlib.sha256('\n'.join(parts).encode()).hexdigest()


def _version(library: str) -> str:
    for name in _DISTRIBUTIONS.get(library, (library,)):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return str(getattr(importlib.import_module(library), '__version__', 'unknown'))


def create_extractor(
    name: str, max_keypoints: int = 2048, device: str = 'auto', **options: Any
) -> Extractor:
    """Make the extractor called ``name``.

    Args:
        name: see :class:`ExtractorSpec`.
        max_keypoints: the most keypoints of one image.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        options: further fields of :class:`ExtractorSpec`.

    Raises:
        DataError: the name is unknown.
        WeightsError: weights are missing or corrupt.
        MissingDependencyError: its library is not installed.
    """
    return ExtractorSpec(name, max_keypoints, device, **options).create()


def split_refinement(text: str) -> tuple[str, Refinement]:
    """Split ``md2net-light+flow`` into the extractor and the refinement of its tracks."""
    name = text.removesuffix(FLOW_SUFFIX)
    return name, 'none' if name == text else 'flow'


def parse_extractors(
    text: str, max_keypoints: int, device: str, weights_dir: Path | None
) -> list[ExtractorSpec]:
    """Read a comma-separated list of extractors and check that their weights exist.

    Raises:
        DataError: a name is unknown, missing, or two would be reported under one name.
        WeightsError: a weights file is missing; the line says where to get it.
    """
    specs = [
        ExtractorSpec(part.strip(), max_keypoints, device, weights_dir)
        for part in text.split(',')
        if part.strip()
    ]
    if not specs:
        raise DataError(f"extractors '{text}': expected at least one name")
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"extractors '{text}': two are called '{name}'; rename a file")
    for spec in specs:
        spec.weights_file()
    return specs


__all__ = [
    'BASELINES',
    'ExtractorSpec',
    'baseline_info',
    'create_extractor',
    'extractor_names',
    'split_refinement',
    'parse_extractors',
]
