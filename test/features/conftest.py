"""Shared by the core's tests: photographs, small networks, and features made by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from mdnet_ros.features.network import MDNet, MDNetConfig
from mdnet_ros.features.types import Features
from mdnet_ros.features.weights import save_weights

SMALL = MDNetConfig(num_sets=2, dim=32, channels=(4, 8, 8, 16, 16))


@pytest.fixture(scope='session')
def photo() -> np.ndarray:
    """(300, 451, 3) uint8 BGR: odd width, no multiple of the network's stride."""
    return cv2.cvtColor(skimage.data.chelsea(), cv2.COLOR_RGB2BGR)


def make_network(config: MDNetConfig = SMALL, seed: int = 0) -> MDNet:
    """An untrained network whose output varies with the image, the same for the same seed."""
    torch.manual_seed(seed)
    return MDNet(config).eval()


@pytest.fixture(scope='session')
def network() -> MDNet:
    return make_network()


@pytest.fixture(scope='session')
def weights_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an untrained network."""
    path = tmp_path_factory.mktemp('weights') / 'untrained.safetensors'
    save_weights(make_network(), path, {'steps': 0})
    return path


def unit_rows(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """(count, dim) float32 rows of length 1, in random directions."""
    rows = rng.normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_features(
    keypoints: np.ndarray,
    descriptors: np.ndarray,
    sets: np.ndarray | None = None,
    num_sets: int = 1,
    image_size: tuple[int, int] = (640, 480),
) -> Features:
    """Features with the given content; scores fall from row to row."""
    count = len(keypoints)
    return Features(
        keypoints=np.asarray(keypoints, np.float32).reshape(count, 2),
        scores=np.linspace(1.0, 0.1, count, dtype=np.float32),
        sets=np.zeros(count, np.int32) if sets is None else np.asarray(sets, np.int32),
        descriptors=np.asarray(descriptors, np.float32),
        image_size=image_size,
        num_sets=num_sets,
    )


@pytest.fixture
def make():
    """The helpers above, for test modules (a conftest cannot be imported by name safely)."""

    class Make:
        features = staticmethod(make_features)
        network = staticmethod(make_network)
        unit_rows = staticmethod(unit_rows)

    return Make
