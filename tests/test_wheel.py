"The built wheel in a clean environment: newest dependencies, no nbdev, another folder."
import json
import subprocess
import sys

def run(*command, cwd): return subprocess.run(list(map(str, command)), cwd=cwd, check=True, capture_output=True, text=True).stdout

def test_wheel(tree, tmp_path):
    run(sys.executable, '-m', 'build', '--wheel', '--outdir', tmp_path/'dist', tree, cwd=tmp_path)
    wheel, = (tmp_path/'dist').glob('*.whl')
    run(sys.executable, '-m', 'venv', tmp_path/'venv', cwd=tmp_path)
    bin = tmp_path/'venv'/'bin'
    run(bin/'python', '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-compile', wheel, cwd=tmp_path)     # of the thousands of files few are imported
    elsewhere = tmp_path/'elsewhere'
    elsewhere.mkdir()
    code = '''
import importlib.util, importlib.metadata, json, disentangle_nb
for name in "data networks unroll training gan infogan metrics explore cli".split(): importlib.import_module("disentangle_nb." + name)
assert importlib.util.find_spec("nbdev") is None
for size in (8, 28): disentangle_nb.networks.judge((1, size, size))
print(json.dumps([disentangle_nb.__version__, importlib.metadata.version("disentangle_nb"), disentangle_nb.__file__, importlib.metadata.version("fastcore")]))
'''
    version, dist, file, fastcore = json.loads(run(bin/'python', '-c', code, cwd=elsewhere))
    assert version == dist and file.startswith(str(tmp_path/'venv'))
    assert int(fastcore.split('.')[0]) >= 2, f'not the newest fastcore: {fastcore}'
    out = run(bin/'disentangle', 'train', 'infogan', '--unroll', 1, '--steps', 20, '--width', 8, '--d-width', 8, '--out', 'r', cwd=elsewhere)
    assert out.splitlines()[-1].startswith('digit match: ')
    assert {"category_error", "frechet"} <= set(json.loads(run(bin/"disentangle", "evaluate", "r", cwd=elsewhere)))
    assert 'MB' in run(bin/'disentangle', 'explore', 'r', cwd=elsewhere) and (elsewhere/'explorer.html').exists()
