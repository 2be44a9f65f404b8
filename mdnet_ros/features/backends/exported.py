"""Files that ``mdnet export`` wrote: what they say of themselves, and what runs them."""

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

#: Format -> how the file's name ends. TensorRT builds its engine from the ONNX file.
SUFFIXES = {'onnx': '.onnx', 'torchscript': '.torchscript', 'tensorrt': '.onnx'}
#: Key of the metadata in a file.
METADATA_KEY = 'mdnet_ros'
_VERSION = 'mdnet_ros-export/1'


@dataclass(frozen=True)
class ExportInfo:
    """Metadata of an exported file.

    Attributes:
        format: a key of :data:`SUFFIXES`.
        config: the network.
        settings: of the detection that the file includes.
        size: (height, width) of the images it takes, pixels.
        batch: how many images it takes at a time.
        device: type of the device it was traced on; TorchScript runs on no other.
        name: of the weights.
        weights_sha256: hash of the weights file, hexadecimal.
        training: provenance from the weights file.
        torch_version: that exported it.
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
        """As the text that a file holds."""
        return json.dumps({'version': _VERSION, **asdict(self)})

    @staticmethod
    def from_json(text: str) -> ExportInfo:
        """Rebuild from what :meth:`to_json` gave; raises ValueError where it does not fit."""
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
    """Common to files that ``mdnet export`` wrote: size, batch, NMS and border are the file's.

    Fewer keypoints, a higher score threshold and a mask are applied to what the file finds.
    """

    precision = 'fp32'
    info: WeightsInfo
    export: ExportInfo
    device: torch.device
    fixed_size: tuple[int, int] | None
    fixed_batch: int | None

    def _describe(self, path: Path, metadata: str | None) -> None:
        """Take over what the file says of itself; raises WeightsError."""
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
        """As ``Backend.check``."""
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
        """As ``Backend.run``."""
        count, (height, width) = len(images), self.export.size
        if images.shape[-2:] != (height, width) or count != self.export.batch:
            raise ImageError(
                f"image: '{self.info.path}' takes {self.export.batch} of {width}x{height}, "
                f'got {count} of {images.shape[-1]}x{images.shape[-2]}'
            )
        found = PaddedFeatures(*self._call(images))
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
        """Keypoints, scores, descriptors and validity."""
        raise NotImplementedError


class OnnxBackend(ExportedBackend):
    """ONNX Runtime, or TensorRT by ONNX Runtime for files exported for it.

    The number of CPU threads is torch's of the calling thread; when it changes, the session is
    made anew. TensorRT keeps its engines, one for each device and version, in a folder beside the
    file.

    Args:
        path: of the file.
        device: where to run.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        MDNetError: the one installed does not serve the device.
        WeightsError: the file is corrupt or not of ``mdnet export``.
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
        except Exception as error:  # onnxruntime's errors have no common base of their own
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
    """Where TensorRT's engines of a file lie."""
    return path.with_name(f'{path.name}.engines')


def require_tensorrt(device: torch.device) -> None:
    """Raise MDNetError, in one line, unless TensorRT can run here."""
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
    """A TorchScript file, on the type of device it was exported for.

    Args:
        path: of the file.
        device: where to run.

    Raises:
        WeightsError: the file is corrupt or not of ``mdnet export``.
        SettingError: it was exported for another type of device.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        extra = {METADATA_KEY: ''}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # that another format is newer
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
    """The backend of an exported file, by how its name ends.

    Raises:
        WeightsError: corrupt, or not of ``mdnet export``.
        MDNetError: it cannot run here.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise WeightsError(f"weights '{path}': larger than {MAX_FILE_BYTES} bytes, refused")
    if path.suffix == SUFFIXES['torchscript']:
        return TorchScriptBackend(path, device)
    return OnnxBackend(path, device)
