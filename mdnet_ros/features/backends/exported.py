"""Backends for files that ``mdnet export`` wrote, and the metadata of these files."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mdnet_ros.errors import (
    ImageError,
    MDNetError,
    MissingDependencyError,
    SettingError,
    WeightsError,
)
from mdnet_ros.features.detection import DetectionSettings, limit_keypoints
from mdnet_ros.features.network import MDNetConfig
from mdnet_ros.features.types import PaddedFeatures
from mdnet_ros.features.weights import MAX_FILE_BYTES, WeightsInfo

#: Format -> suffix of the file. TensorRT builds its engine from the ONNX file.
SUFFIXES = {'onnx': '.onnx', 'torchscript': '.torchscript', 'tensorrt': '.onnx'}
#: Key of the metadata in a file.
METADATA_KEY = 'mdnet_ros'
_VERSION = 'mdnet_ros-export/1'


@dataclass(frozen=True)
class ExportInfo:
    """Metadata of an exported file.

    Attributes:
        format: a key of :data:`SUFFIXES`.
        config: configuration of the network.
        settings: settings of the detection, which is part of the file.
        size: (height, width) of the images it processes, pixels.
        batch: how many images it processes at a time.
        device: type of the device it was traced on; TorchScript runs on this type only.
        name: name of the weights.
        weights_sha256: hash of the weights file, hexadecimal.
        training: provenance of the training, from the weights file.
        torch_version: version of torch that exported it.
    """

    format: str
    config: MDNetConfig
    settings: DetectionSettings
    size: tuple[int, int]
    batch: int
    device: str
    name: str
    weights_sha256: str
    training: dict[str, Any]
    torch_version: str

    def to_json(self) -> str:
        """Return the metadata as JSON text."""
        return json.dumps({'version': _VERSION, **asdict(self)})

    @staticmethod
    def from_json(text: str) -> ExportInfo:
        """Parse what :meth:`to_json` returned; raises ValueError if it is not valid."""
        try:
            values = json.loads(text)
            if values.pop('version') != _VERSION:
                raise ValueError(f'expected {_VERSION}')
            height, width = values.pop('size')
            info = ExportInfo(
                config=MDNetConfig.from_dict(values.pop('config')),
                settings=DetectionSettings(**values.pop('settings')),
                size=(int(height), int(width)),
                **values,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f'metadata: {error!r}') from None
        if info.format not in SUFFIXES:
            raise ValueError(f"metadata: format '{info.format}' is not known")
        return info


class ExportedBackend:
    """Base of the backends for files that ``mdnet export`` wrote.

    Image size, batch size, NMS and border are fixed in the file. Fewer keypoints, a higher score
    threshold and a mask are applied to the keypoints that the file finds.
    """

    precision = 'fp32'
    info: WeightsInfo
    export: ExportInfo
    device: torch.device
    fixed_size: tuple[int, int] | None
    fixed_batch: int | None

    def _describe(self, path: Path, metadata: str | None) -> None:
        """Read the metadata of the file; raises WeightsError if it is not valid."""
        if not metadata:
            raise WeightsError(f"weights '{path}': not written by mdnet export")
        try:
            self.export = ExportInfo.from_json(metadata)
        except ValueError as error:
            raise WeightsError(f"weights '{path}': {error}") from None
        self.fixed_size, self.fixed_batch = self.export.size, self.export.batch
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.info = WeightsInfo(path, sha256, self.export.config, self.export.training)

    def check(self, settings: DetectionSettings) -> None:
        """Raise SettingError if the file has other settings, see ``Backend.check``."""
        for name in ('nms_radius', 'border'):
            fixed, asked = getattr(self.export.settings, name), getattr(settings, name)
            if fixed != asked:
                raise SettingError(
                    f"{name}: '{self.info.path}' was exported with {fixed}, got {asked}; "
                    f'set it to {fixed} or export again'
                )

    def run(
        self, images: torch.Tensor, settings: DetectionSettings, mask: torch.Tensor | None
    ) -> PaddedFeatures:
        """Detect keypoints, see ``Backend.run``."""
        count, (height, width) = len(images), self.export.size
        if images.shape[-2:] != (height, width) or count != self.export.batch:
            raise ImageError(
                f"image: '{self.info.path}' takes {self.export.batch} of {width}x{height}, "
                f'got {count} of {images.shape[-1]}x{images.shape[-2]}'
            )
        found = PaddedFeatures.of(self._call(images))
        m = -(-settings.max_keypoints // self.export.config.num_sets)
        keypoints, scores = found.keypoints[:, :, :m], found.scores[:, :, :m]
        valid = found.valid[:, :, :m] & (scores >= settings.score_threshold)
        valid = limit_keypoints(valid, settings.max_keypoints)
        if mask is not None:
            x, y = keypoints.round().long().unbind(-1)
            image = torch.arange(count, device=valid.device)[:, None, None]
            inside = mask[:, 0].to(valid.device)
            valid = valid & inside[image, y.clamp(0, height - 1), x.clamp(0, width - 1)]
        return PaddedFeatures(keypoints, scores * valid, found.descriptors[:, :, :m], valid)

    def _call(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return keypoints, scores, descriptors and validity."""
        raise NotImplementedError


class OnnxBackend(ExportedBackend):
    """Runs a file with ONNX Runtime, or with TensorRT through ONNX Runtime.

    The number of CPU threads is that of torch in the calling thread; when it changes, a new
    session is opened. TensorRT keeps its engines, one for each device and version, in a folder
    beside the file.

    Args:
        path: path of the file.
        device: device to run on.

    Raises:
        MissingDependencyError: if ONNX Runtime is not installed.
        MDNetError: if the installed ONNX Runtime does not support the device.
        WeightsError: if the file is corrupt or was not written by ``mdnet export``.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingDependencyError('onnxruntime', 'onnx', f"weights '{path}'") from None
        self._runtime = onnxruntime
        self._path, self.device = path, device
        self.threads = torch.get_num_threads()
        session = self._open(['CPUExecutionProvider'], optimise=False)
        self._describe(path, session.get_modelmeta().custom_metadata_map.get(METADATA_KEY))
        self._session = self._open(self._providers())

    def _open(self, providers: list[Any], optimise: bool = True) -> Any:
        ort = self._runtime
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        if not optimise:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = ort.InferenceSession(str(self._path), options, providers=providers)
        except Exception as error:  # onnxruntime's errors have no common base class
            reason = ' '.join(str(error).split())[:160]
            raise WeightsError(f"weights '{self._path}': not an ONNX model: {reason}") from None
        wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
        if wanted not in session.get_providers():
            raise MDNetError(
                f"weights '{self._path}': ONNX Runtime cannot start its {wanted} here; "
                'install onnxruntime-gpu with the libraries it names, or use another device'
            )
        return session

    def _providers(self) -> list[Any]:
        if self.export.format == 'tensorrt':
            require_tensorrt(self.device)
            cache = engine_folder(self._path)
            return [
                ('TensorrtExecutionProvider', {
                    'device_id': self.device.index or 0,
                    'trt_engine_cache_enable': True,
                    'trt_engine_cache_path': str(cache),
                }),
                ('CUDAExecutionProvider', {'device_id': self.device.index or 0}),
            ]  # fmt: skip
        if self.device.type == 'cuda':
            return [('CUDAExecutionProvider', {'device_id': self.device.index or 0})]
        return ['CPUExecutionProvider']

    def _call(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.threads != torch.get_num_threads():
            self.threads = torch.get_num_threads()
            self._session = self._open(self._providers())
        outputs = self._session.run(None, {'image': images.numpy()})
        return tuple(torch.from_numpy(output) for output in outputs)


def engine_folder(path: Path) -> Path:
    """Return the folder of TensorRT's engines for a file."""
    return path.with_name(f'{path.name}.engines')


def require_tensorrt(device: torch.device) -> None:
    """Raise MDNetError if TensorRT cannot run on this machine and device."""
    try:
        from onnxruntime import get_available_providers
    except ImportError:
        raise MissingDependencyError('onnxruntime', 'onnx', 'format tensorrt') from None
    if 'TensorrtExecutionProvider' not in get_available_providers():
        raise MDNetError(
            'format tensorrt: TensorRT is not installed; it takes onnxruntime-gpu and '
            "NVIDIA's TensorRT libraries"
        )
    if device.type != 'cuda':
        raise SettingError(f"format tensorrt: expected device cuda, got '{device}'")


class TorchScriptBackend(ExportedBackend):
    """Runs a TorchScript file, on the type of device it was exported for.

    Args:
        path: path of the file.
        device: device to run on.

    Raises:
        WeightsError: if the file is corrupt or was not written by ``mdnet export``.
        SettingError: if it was exported for another type of device.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        extra = {METADATA_KEY: ''}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # about a newer format
                self._module = torch.jit.load(str(path), map_location=device, _extra_files=extra)
        except (RuntimeError, ValueError, OSError) as error:
            reason = ' '.join(str(error).split())[:160]
            raise WeightsError(f"weights '{path}': not a TorchScript file: {reason}") from None
        text: str | bytes = extra[METADATA_KEY]
        self._describe(path, text.decode() if isinstance(text, bytes) else text)
        self.device = device
        if self.export.device != device.type:
            raise SettingError(
                f"device '{device}': '{path}' was exported for {self.export.device}"
            )

    @torch.inference_mode()
    def _call(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found: tuple[torch.Tensor, ...] = self._module(images.to(self.device))
        return found


def open_exported(path: Path, device: torch.device) -> ExportedBackend:
    """Open an exported file with the backend for its suffix.

    Raises:
        WeightsError: if the file is corrupt or was not written by ``mdnet export``.
        MDNetError: if it cannot run on this machine.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise WeightsError(f"weights '{path}': larger than {MAX_FILE_BYTES} bytes, refused")
    if path.suffix == SUFFIXES['torchscript']:
        return TorchScriptBackend(path, device)
    return OnnxBackend(path, device)
