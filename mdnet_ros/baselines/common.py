"""Shared parts of the baselines: origin and licence, weights, and output as Features."""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from mdnet_ros.errors import MissingDependencyError, WeightsError
from mdnet_ros.features.extractor import choose_device, to_gray
from mdnet_ros.features.types import Features

#: Names a folder with weights of baselines, searched after ``--weights-dir``.
WEIGHTS_VARIABLE = 'MDNET_PEER_WEIGHTS'


@dataclass(frozen=True)
class BaselineInfo:
    """Origin and licence of a baseline.

    Attributes:
        name: name on the command line.
        title: method and its publication.
        licence: licence of the code that runs and of the weights.
        source: where to get the weights (or the library).
        weights: file names of the weights, any of which will do; empty if there are none.
        library: import whose version decides the result; part of the cache's key.
        single_threaded: one image occupies one core, so extracting images in parallel pays.
    """

    name: str
    title: str
    licence: str
    source: str
    weights: tuple[str, ...] = ()
    library: str = 'cv2'
    single_threaded: bool = False


@dataclass(frozen=True)
class BaselineSettings:
    """How a baseline is built.

    Attributes:
        max_keypoints: the most keypoints of one image.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``, for baselines that run on torch.
        weights_dir: folder with weights of baselines; None: only the usual places.
    """

    max_keypoints: int = 2048
    device: str = 'auto'
    weights_dir: Path | None = None


class TorchExtractor:
    """Base of the baselines whose network runs on torch.

    Args:
        name: name of the extractor.
        network: network with its weights loaded.
        max_keypoints: the best this many are kept.
        device: device as :func:`mdnet_ros.features.extractor.choose_device` takes it.
    """

    def __init__(
        self, name: str, network: torch.nn.Module, max_keypoints: int, device: str = 'auto'
    ) -> None:
        self.name = name
        self.max_keypoints = max_keypoints
        self.device = choose_device(device)
        self.network: Any = network.eval().to(self.device)  # baselines have methods of their own


def user_cache() -> Path:
    """Return this package's folder in the user's cache."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base) / 'mdnet_ros'


def find_weights(info: BaselineInfo, weights_dir: Path | None) -> Path:
    """Find the weights file of a baseline on this machine; nothing is downloaded.

    Looks in ``weights_dir``, the folder that ``MDNET_PEER_WEIGHTS`` names, the user's cache
    (``~/.cache/mdnet_ros``) and torch hub's cache, in this order.

    Raises:
        WeightsError: there is none; the message says where to get it, under which licence.
    """
    folders = [
        weights_dir,
        os.environ.get(WEIGHTS_VARIABLE),
        user_cache(),
        Path(torch.hub.get_dir()) / 'checkpoints',
    ]
    for folder in folders:
        for name in info.weights if folder else ():
            path = Path(str(folder)).expanduser() / name
            if path.exists():
                return path
    raise WeightsError(
        f"extractor '{info.name}': no {' or '.join(info.weights)} in --weights-dir, "
        f'${WEIGHTS_VARIABLE} or {user_cache()}; get it from {info.source} '
        f'(licence: {info.licence})'
    )


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a torch checkpoint of plain tensors; no code in it is run.

    Raises:
        WeightsError: the file is not one.
    """
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch raises whatever the broken pickle makes it raise
        reason = ' '.join(str(error).split())[:120]
        raise WeightsError(f"weights '{path}': not a checkpoint of tensors: {reason}") from None
    if not isinstance(content, dict):
        raise WeightsError(f"weights '{path}': expected a dictionary, got {type(content).__name__}")
    return content


def load_state(network: torch.nn.Module, state: dict[str, Any], path: Path) -> None:
    """Load all tensors of a state dictionary into a network.

    Raises:
        WeightsError: names or shapes do not fit.
    """
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = ' '.join(str(error).split())[:160]
        raise WeightsError(f"weights '{path}': tensors do not fit: {reason}") from None


def kornia_feature(symbol: str, name: str) -> Any:
    """Return a class or function of ``kornia.feature`` for extractor ``name``.

    Raises:
        MissingDependencyError: kornia is not installed or too old to have it.
    """
    try:
        return getattr(importlib.import_module('kornia.feature'), symbol)
    except (ImportError, AttributeError):
        raise MissingDependencyError('kornia>=0.9', 'evaluate', f"extractor '{name}'") from None


def rgb_tensor(image: np.ndarray, device: torch.device) -> torch.Tensor:
    """Convert a uint8 gray or BGR image to a (1, 3, H, W) float32 RGB tensor in [0, 1].

    Raises:
        ImageError: as :func:`mdnet_ros.features.extractor.to_gray`.
    """
    gray = to_gray(image)
    colour = image.ndim == 3 and image.shape[2] == 3
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if colour else np.repeat(gray[..., None], 3, 2)
    return torch.from_numpy(rgb).to(device).permute(2, 0, 1)[None].float() / 255.0


def file_digest(path: Path) -> str:
    """Hash a file, or all files of a folder: SHA-256, hexadecimal."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob('*')) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def build_features(
    keypoints: np.ndarray | torch.Tensor,
    scores: np.ndarray | torch.Tensor,
    descriptors: np.ndarray | torch.Tensor,
    image_size: tuple[int, int],
    max_keypoints: int,
) -> Features:
    """Build the features of one set: the best ones, sorted by descending score, of unit norm.

    Args:
        keypoints: (N, 2) x and y, pixels.
        scores: (N,) scores; higher is better.
        descriptors: (N, D) real-valued; rows of zeros stay zeros.
        image_size: (width, height).
        max_keypoints: the most keypoints to keep.
    """
    keypoints, scores, descriptors = (
        values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
        for values in (keypoints, scores, descriptors)
    )
    order = np.argsort(-scores, kind='stable')[:max_keypoints]
    described = descriptors.astype(np.float32)[order]
    norm = np.linalg.norm(described, axis=1, keepdims=True)
    return Features(
        keypoints=np.ascontiguousarray(keypoints.astype(np.float32)[order]),
        scores=scores.astype(np.float32)[order],
        sets=np.zeros(len(order), np.int32),
        descriptors=described / np.maximum(norm, 1e-12),
        image_size=image_size,
    )


def from_opencv(
    keypoints: Sequence[Any],
    descriptors: np.ndarray | None,
    dim: int,
    image_size: tuple[int, int],
    max_keypoints: int,
) -> Features:
    """Build features of OpenCV's keypoints and float descriptors (None: no keypoint)."""
    if descriptors is None or not len(keypoints):
        return Features.empty(image_size, dim)
    return build_features(
        np.array([k.pt for k in keypoints], np.float32),
        np.array([k.response for k in keypoints], np.float32),
        descriptors,
        image_size,
        max_keypoints,
    )


def binary_to_float(descriptors: np.ndarray, bits: int) -> np.ndarray:
    """Turn binary descriptors into ±1/sqrt(bits), so that cosine = 1 - 2 · Hamming / bits.

    Args:
        descriptors: (N, ceil(bits / 8)) uint8, packed from the lowest bit on, as OpenCV does.
        bits: number of bits of a descriptor.

    Returns:
        (N, bits) float32, unit norm.
    """
    unpacked = np.unpackbits(descriptors, axis=1, count=bits, bitorder='little')
    return ((2.0 * unpacked - 1.0) / np.sqrt(bits)).astype(np.float32)
