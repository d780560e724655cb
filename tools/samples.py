"""Train the models that the pages show, and gather their numbers in samples/runs.json.

    python tools/samples.py [--jobs 1]

Runs are kept in runs/samples/ and resumed if they were interrupted; finished ones are not trained again.
"""
import argparse, json, shutil, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS, SAMPLES = ROOT/'runs'/'samples', ROOT/'samples'
KEPT = ('config.json', 'evaluation.json', 'metrics.jsonl', 'model.safetensors')      # and the pictures

DIGITS = [dict(experiment='digits', arm=f'unroll {k}', k=k, seed=s, options=f'--data digits --unroll {k} --seed {s}') for k in (0, 5) for s in range(5)]
SHOWN = {('digits', 5, 0)}     # experiment, k, seed: these models are kept whole

def folder(run): return RUNS/run['experiment']/f'k{run["k"]}-s{run["seed"]}'

def command(run): return f'disentangle train infogan {run["options"]}'

def train(run):
    if (folder(run)/'evaluation.json').exists(): return
    arguments = [*command(run).split()[1:], '--out', str(folder(run)), '--resume']
    subprocess.run([sys.executable, '-m', 'disentangle_nb.cli', *arguments], cwd=ROOT, check=True)

def entry(run):
    "One object of runs.json."
    read = lambda name: json.loads((folder(run)/name).read_text())
    last = lambda name: json.loads((folder(run)/name).read_text().splitlines()[-1])
    config, evaluation = read('config.json'), read('evaluation.json')
    metrics = {k: v for k, v in {**last('metrics.jsonl'), **evaluation}.items() if isinstance(v, (int, float)) and k != 'step'}
    return {**{k: run[k] for k in ('experiment', 'arm', 'k', 'seed')}, 'command': command(run), 'steps': config['steps'], 'metrics': metrics,
            'cpu_seconds': round(last('timings.jsonl')['cpu_seconds'], 1), 'versions': config['versions']}

def keep(run):
    "The run's folder in samples/, without what only training needs."
    target = SAMPLES/run['experiment']/folder(run).name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in [folder(run)/n for n in KEPT] + sorted(folder(run).glob('*.png')): shutil.copy(file, target)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--jobs', type=int, default=1, help='runs at a time (set OMP_NUM_THREADS=1 for more than one)')
    with ThreadPoolExecutor(p.parse_args().jobs) as pool: list(pool.map(train, DIGITS))
    (SAMPLES/'runs.json').write_text(json.dumps([entry(r) for r in DIGITS], indent=1) + '\n')
    for run in DIGITS:
        if (run['experiment'], run['k'], run['seed']) in SHOWN: keep(run)
    print(f'samples/runs.json: {len(DIGITS)} runs')
