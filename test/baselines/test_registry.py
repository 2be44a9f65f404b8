"""Names, licences, missing weights, and what tells two extractors apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mdnet_ros.baselines.alike import CONFIGS, AlikeNetwork
from mdnet_ros.baselines.registry import (
    BASELINES,
    ExtractorSpec,
    baseline_info,
    create_extractor,
    extractor_names,
    parse_extractors,
)
from mdnet_ros.errors import DataError, WeightsError
from mdnet_ros.features.extractor import MDNetExtractor
from mdnet_ros.features.network import MDNet, MDNetConfig
from mdnet_ros.features.weights import save_weights

NEED_WEIGHTS = [name for name in BASELINES if baseline_info(name).weights]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No weights in any of the usual places."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.delenv('MDNET_PEER_WEIGHTS', raising=False)
    return tmp_path


def test_every_peer_says_where_it_comes_from() -> None:
    for name in BASELINES:
        info = baseline_info(name)
        assert info.name == name
        assert info.title
        assert info.licence
        assert info.source
    assert 'non-commercial' in baseline_info('r2d2').licence
    assert 'non-commercial' in baseline_info('superpoint').licence
    assert {'md2net', 'md2net-light', *BASELINES} == set(extractor_names())


@pytest.mark.parametrize('name', NEED_WEIGHTS)
def test_missing_weights_are_named_with_source_and_licence(name: str, bare: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        create_extractor(name, 10, 'cpu', weights_dir=bare)
    message = str(caught.value)
    info = baseline_info(name)
    for part in (name, info.weights[0], info.source, info.licence, '--weights-dir'):
        assert part in message
    assert '\n' not in message


@pytest.mark.parametrize('place', ['option', 'variable', 'user cache', 'torch hub'])
def test_weights_are_found_in_every_usual_place(
    place: str, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = {
        'option': bare / 'a',
        'variable': bare / 'b',
        'user cache': bare / 'cache' / 'mdnet_ros',
        'torch hub': bare / 'torch' / 'hub' / 'checkpoints',
    }[place]
    folder.mkdir(parents=True)
    torch.save(AlikeNetwork(CONFIGS['alike-t']).state_dict(), folder / 'alike-t.pth')
    if place == 'variable':
        monkeypatch.setenv('MDNET_PEER_WEIGHTS', str(folder))
    given = folder if place == 'option' else None
    assert create_extractor('alike-t', 10, 'cpu', weights_dir=given).name == 'alike-t'


def test_families_have_a_default_size() -> None:
    assert ExtractorSpec('alike').name == 'alike-n'
    assert ExtractorSpec('aliked').name == 'aliked-n16'


@pytest.mark.parametrize('name', ['', 'sifft', 'sift.pth', '../sift'])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(DataError, match='unknown'):
        create_extractor(name)


def test_lists_of_extractors() -> None:
    specs = parse_extractors(' sift , orb,', 7, 'cpu', None)
    assert [spec.name for spec in specs] == ['sift', 'orb']
    assert all(spec.max_keypoints == 7 for spec in specs)
    for text in ('', ' , ', 'sift,sift', 'alike,alike-n', 'a/x.safetensors,b/x.safetensors'):
        with pytest.raises(DataError):
            parse_extractors(text, 7, 'cpu', None)


def test_lists_name_missing_weights_before_anything_is_measured(bare: Path) -> None:
    with pytest.raises(WeightsError, match=r'aliked-n32.*no aliked-n32\.pth.*github\.com'):
        parse_extractors('md2net,aliked-n32', 7, 'cpu', bare)


def test_our_own_by_path(tmp_path: Path) -> None:
    config = MDNetConfig(num_sets=2, dim=16, channels=(4, 4, 4, 4, 4))
    paths = [tmp_path / 'first.safetensors', tmp_path / 'second.safetensors']
    for path in paths:
        save_weights(MDNet(config), path, {})
    first, second = (ExtractorSpec(str(path), 64, 'cpu') for path in paths)
    extractor = first.create()
    assert (first.name, extractor.name) == ('first', 'first')
    assert first.identity() == ExtractorSpec(str(paths[0]), 64, 'cpu').identity()
    assert len({first.identity(), second.identity(),
                ExtractorSpec(str(paths[0]), 65, 'cpu').identity()}) == 3
    # The same name with other weights in it is another extractor.
    before = first.identity()
    save_weights(MDNet(config), paths[0], {})
    assert first.identity() != before
    with pytest.raises(WeightsError):
        ExtractorSpec(str(tmp_path / 'none.safetensors')).identity()


def test_our_own_at_a_precision_and_by_a_runtime() -> None:
    spec = ExtractorSpec('md2net-light@fp32', 100)
    extractor = spec.create()
    assert isinstance(extractor, MDNetExtractor)
    assert (spec.name, extractor.precision) == ('md2net-light@fp32', 'fp32')
    assert spec.exact
    assert not ExtractorSpec('md2net-light', 100).exact
    assert spec.identity() != ExtractorSpec('md2net-light', 100).identity()
    assert ExtractorSpec('dir/own.safetensors@bf16').name == 'own@bf16'
    for wrong in ('orb@fp32', 'md2net@fp64', 'md2net@'):
        with pytest.raises(DataError, match='unknown'):
            ExtractorSpec(wrong)


def test_identities_tell_variants_apart() -> None:
    names = [name for name in BASELINES if not baseline_info(name).weights]
    identities = {ExtractorSpec(name, 100, 'cpu').identity() for name in names}
    assert len(identities) == len(names)
