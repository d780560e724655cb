"The last line of a test run: N passed, N failed."
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

@pytest.fixture(scope='session')
def tree(tmp_path_factory):
    "A copy of the working tree, ignored files left out."
    names = subprocess.run(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    copy = tmp_path_factory.mktemp('tree')
    for name in filter(None, names.split('\0')):
        if not (ROOT/name).exists(): continue
        (copy/name).parent.mkdir(parents=True, exist_ok=True)
        (copy/name).write_bytes((ROOT/name).read_bytes())
    return copy

def pytest_unconfigure(config):
    if hasattr(config, 'workerinput'): return               # one of several processes: the first one counts for all
    stats = getattr(config.pluginmanager.get_plugin('terminalreporter'), 'stats', {})
    count = lambda *kinds: sum(len(stats.get(k, [])) for k in kinds)
    print(f'{count("passed")} passed, {count("failed", "error")} failed')        # pytest's own line before it counts those skipped
