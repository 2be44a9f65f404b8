"""The model card says what the weights, the table of sources and the evaluation say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from mdnet_ros.cli.main import main
from mdnet_ros.evaluation.homography.metrics import PairCounts
from mdnet_ros.evaluation.homography.report import REPORT_FORMAT
from mdnet_ros.evaluation.homography.results import HomographySettings, SequenceResult
from mdnet_ros.evaluation.reports.results import EvaluationResult, ExtractorResult
from mdnet_ros.features.network import CONFIGS, MDNet, count_parameters
from mdnet_ros.features.weights import save_weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / 'mine.safetensors'
    training = {'images': ['photos.tar'], 'steps': 12, 'pairs': 192, 'validation': {'ms_3px': 0.25}}
    save_weights(MDNet(CONFIGS['md2net-light']), path, training)
    return path


def test_card_holds_the_metrics(weights: Path, tmp_path: Path) -> None:
    table = tmp_path / 'sources.csv'
    table.write_text('file,source,licence\na,github:x/y@1,MIT\nb,github:x/y@2,MIT\nc,z,CC0\n')
    # Of 20 matches 2, 4, 6, … are within 1, 2, 3, … px; the images share 16 keypoints.
    counts = tuple(range(2, 22, 2))
    pair = PairCounts((10, 10), (8, 8), 20, counts, tuple(n // 2 for n in counts), counts, None)
    sequence = SequenceResult('v_wall', 'viewpoint', (pair,), (10, 10), (1.0, 1.0))
    mine = ExtractorResult('mine', 'MIT', (sequence,))
    result = tmp_path / 'h.json'
    measured = EvaluationResult(HomographySettings(), (mine,), ())
    result.write_text(json.dumps(REPORT_FORMAT.to_json(measured)))
    out = tmp_path / 'mine.md'
    code = main(['card', str(weights), '--out', str(out), '--attribution', str(table),
                 '--evaluation', str(result), 'mdnet evaluate homography --root D'])
    assert code == 0
    card = out.read_text()
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in card
    assert f'{count_parameters(MDNet(CONFIGS["md2net-light"])):,}' in card
    assert '| MIT | 2 |' in card
    assert '| github:x/y | 2 |' in card
    row = '| viewpoint | 0.100 | 0.200 | 0.300 | 0.125 | 0.250 | 0.375 | 0.375 |'
    assert f'| mine {row}' in card
    assert '| ms_3px | 0.250 |' in card
    assert '`mdnet evaluate homography --root D`' in card


def test_only_packs_that_were_trained_on_are_counted(tmp_path: Path) -> None:
    """Two tables; the weights' ancestors count, packs that nobody trained on do not."""
    path = tmp_path / 'mine.safetensors'
    training = {'images': ['new.tar'], 'from_weights_training': {'images': ['old.tar']}}
    save_weights(MDNet(CONFIGS['md2net-light']), path, training)
    new, old = tmp_path / 'new.csv', tmp_path / 'old.csv'
    new.write_text('pack,source,licence\nnew.tar,x,MIT\nother.tar,x,CC0\n')
    old.write_text('pack,source,licence\nold.tar,y,MIT\nold.tar,y,MIT\nunused.tar,z,CC0\n')
    out = tmp_path / 'mine.md'
    assert main(['card', str(path), '--out', str(out), '--attribution', str(new), str(old)]) == 0
    card = out.read_text()
    assert '| MIT | 3 |' in card
    assert 'CC0' not in card
    assert '| y | 2 |' in card


@pytest.mark.parametrize(
    'arguments',
    [['--attribution', 'gone.csv'], ['--evaluation', 'gone.json', 'x'], ['--notes', 'gone.md']],
)
def test_wrong_input_is_named(
    weights: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['card', str(weights), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert 'gone' in error
    assert len(error.splitlines()) == 1
