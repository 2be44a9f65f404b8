"""Provenance of results: the command, the date, the machine, the versions and the weights."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import torch

from mdnet_ros.baselines.common import file_digest
from mdnet_ros.baselines.registry import ExtractorSpec
from mdnet_ros.data.plain import from_plain

#: Distributions whose versions decide results, besides OpenCV.
_LIBRARIES = ('mdnet_ros', 'torch', 'numpy', 'kornia', 'poselib', 'pycolmap', 'evo')
#: A path with folders, at the start of an argument or of an element of a list.
_PATH = re.compile(r'(?:^|(?<=[,:=]))[~.]{0,2}/(?:[^,/]+/)*([^,/]+)/?')


@dataclass(frozen=True)
class Provenance:
    """How one run came to its results.

    Attributes:
        command: the command line, with paths cut to their last part.
        date: day of the run, year-month-day, UTC.
        machine: processor, system and accelerator.
        versions: versions of the libraries, by name.
        weights: SHA-256 of the weights of each extractor that has some, hexadecimal.
        remark: text that the user added; empty: none.
    """

    command: str
    date: str
    machine: str
    versions: dict[str, str]
    weights: dict[str, str]
    remark: str = ''

    def lines(self) -> list[str]:
        """Return lines for the head of a text file."""
        versions = ', '.join(f'{name} {version}' for name, version in self.versions.items())
        return [
            f'$ {self.command}',
            f'date: {self.date}',
            f'machine: {self.machine}',
            f'versions: {versions}',
            *(f'weights: {name} sha256 {digest}' for name, digest in self.weights.items()),
            *([f'remark: {self.remark}'] if self.remark else []),
        ]


def provenance(
    arguments: Sequence[str], specs: Iterable[ExtractorSpec], remark: str = ''
) -> Provenance:
    """Record how a run that takes place now comes to its results.

    Args:
        arguments: arguments of the command ``mdnet``.
        specs: the extractors that are measured.
        remark: text to be shown with it.

    Raises:
        WeightsError: weights are missing.
    """
    files = {spec.name: spec.weights_file() for spec in specs}
    return Provenance(
        command=' '.join(['mdnet', *(_PATH.sub(r'\1', argument) for argument in arguments)]),
        date=datetime.now(timezone.utc).strftime('%Y-%m-%d'),
        machine=_machine(),
        versions=_versions(),
        weights={name: file_digest(file) for name, file in files.items() if file is not None},
        remark=remark,
    )


def provenances_of(document: dict[str, Any], where: str) -> list[Provenance]:
    """Read the provenance of a JSON document of ``mdnet evaluate``.

    Args:
        document: parsed JSON.
        where: what an error names, such as the file.

    Returns:
        One entry; several where the document was merged.

    Raises:
        DataError: the provenance is malformed.
    """
    sources = document.get('provenance', [])
    return list(from_plain(tuple[Provenance, ...], sources, f'{where}: provenance'))


def _machine() -> str:
    """Name the processor, its cores, the system, and the GPU where there is one."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
        models = [line.partition(':')[2].strip() for line in lines if line[:10] == 'model name']
        name = models[0] if models else name
    except OSError:
        pass  # not Linux
    parts = [f'{name}, {os.cpu_count()} cores', platform.system()]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return '; '.join(parts)


def _versions() -> dict[str, str]:
    versions = {'python': platform.python_version(), 'opencv': cv2.__version__}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
