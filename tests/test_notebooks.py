"Every notebook runs from top to bottom, its checks pass, and what is committed is what it makes."
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
NOTEBOOKS = sorted((ROOT/'nbs').glob('*.ipynb'))

@pytest.mark.parametrize('path', sorted(NOTEBOOKS, key=lambda p: p.stem != '09_cli'), ids=lambda p: p.stem)      # the longest first: the others fit beside it
def test_runs(path):
    # one thread: on a machine that is busy otherwise, two that wait for each other take ten times as long
    p = subprocess.run([BIN/'nbdev_test', '--path', path, '--n_workers', '1', '--do_print'], cwd=ROOT, capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert p.returncode == 0, p.stdout[-4000:] + p.stderr[-4000:]

def contents(folder): return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file() and '__pycache__' not in p.parts and '.git' not in p.parts}

@pytest.mark.parametrize('commands', [
    [[BIN/'nbdev_export'], [BIN/'nbdev_clean']],
    [[sys.executable, 'tools/readme.py']],
], ids=['export and clean', 'README'])
def test_in_sync(tree, commands):
    before = contents(tree)
    for command in commands: subprocess.run(command, cwd=tree, check=True, capture_output=True)
    after = contents(tree)
    changed = sorted(str(p) for p in before.keys() | after.keys() if before.get(p) != after.get(p))
    assert not changed, f'out of date: {changed}; run make notebooks and commit'

def test_readme_links():
    links = re.findall(r'\]\(([^)#\s]+)|(?:src|href)="([^"#]+)', (ROOT/'README.md').read_text())
    broken = [a or b for a, b in links if not (a or b).startswith('http') and not (ROOT/(a or b)).exists()]
    assert len(links) > 20 and not broken, broken

@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_are_saved(path):
    "What readers of the docs see is there, that of slow cells too, and is no error."
    cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == 'code']
    shows = [c for c in cells if re.search(r'^(print\(|plt\.(?!close)|fig, )', c.source, re.M) and '#| hide' not in c.source]
    assert all(c.outputs for c in shows), next(c.source for c in shows if not c.outputs)
    assert not [o for c in cells for o in c.outputs if o.output_type == 'error' or o.get('name') == 'stderr']
