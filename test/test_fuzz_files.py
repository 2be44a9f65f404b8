"""Some hundred damaged files; ``fuzz_files.py`` runs any number of them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_files import Files, run  # noqa: E402

from mdnet_ros.nodes.host import open_files  # noqa: E402


def test_damaged_files_are_read_or_refused_in_one_line(tmp_path):
    files = Files(tmp_path)
    count = len(files.kinds)
    run(files, 4 * count)
    before = open_files()
    run(files, 11 * count, first=4 * count)
    assert open_files() <= before + 2
    for kind in files.kinds:
        assert files.outcomes[f'{kind} read'] + files.outcomes[f'{kind} refused'] == 15
        assert files.outcomes[f'{kind} read'] > 0, files.outcomes
