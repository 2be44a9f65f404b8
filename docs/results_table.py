"""Write the accuracy table of README.md from docs/results/homography.txt.

Run ``python docs/results_table.py`` after ``mdnet evaluate homography --text`` or ``mdnet evaluate
merge --text`` has written new results; ``make results`` does both.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'docs' / 'results' / 'homography.txt'
README = ROOT / 'README.md'
#: Lines of README.md between which the table stands.
BEGIN, END = '<!-- docs/results_table.py -->', '<!-- end of the table -->'
#: Group of sequences in the results -> title and figures shown.
GROUPS = {
    'viewpoint': ('viewpoint', ('MMA@1', 'MMA@3', 'MS@3', 'Rep@3')),
    'illumination': ('light, blur, JPEG', ('MMA@1', 'MMA@3', 'MS@3', 'Rep@3')),
}
#: Variants of RootSIFT that are in the results but not in the short table.
LEFT_OUT = ('sift', 'upright-sift', 'upright-rootsift')


def read_group(text: str, group: str) -> dict[str, dict[str, float]]:
    """Extractor -> column -> figure, of one table of the results.

    Args:
        text: of the results.
        group: the first word of the table's title.
    """
    found = re.search(rf'^{group}, \d+ pairs\n\n(.+)\n.+\n((?:.*\S.*\n)+)', text, re.MULTILINE)
    assert found is not None, f'{RESULTS}: no table of {group}'
    columns = re.split(r'\s{2,}', found[1].strip())
    rows = [re.split(r'\s{2,}', line.strip()) for line in found[2].splitlines()]
    return {
        row[0]: {
            column: float(value.rstrip('*'))
            for column, value in zip(columns[1:], row[1:], strict=True)
            if value != '–'
        }
        for row in rows
    }


def table(text: str) -> str:
    """The results as a short Markdown table; the best of each column is bold."""
    groups = {group: read_group(text, group) for group in GROUPS}
    names = [name for name in groups['viewpoint'] if name not in LEFT_OUT]
    columns = [(group, column) for group, (_, shown) in GROUPS.items() for column in shown]
    best = {
        (group, column): max(groups[group][name][column] for name in names)
        for group, column in columns
    }
    heads = []
    for title, shown in GROUPS.values():
        heads += [f'{title}: {shown[0]}', *shown[1:]]
    lines = ['| | ' + ' | '.join(heads) + ' |', '|---|' + '---|' * len(columns)]
    for name in names:
        cells = []
        for key in columns:
            value = groups[key[0]][name][key[1]]
            cell = f'{value:.3f}'.lstrip('0')
            cells.append(f'**{cell}**' if value == best[key] else cell)
        lines.append(f'| `{name}` | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def page() -> str:
    """README.md with the table of today's results."""
    readme = README.read_text(encoding='utf-8')
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return f'{before}{BEGIN}\n\n{table(RESULTS.read_text(encoding="utf-8"))}\n\n{END}{after}'


if __name__ == '__main__':
    README.write_text(page(), encoding='utf-8')
