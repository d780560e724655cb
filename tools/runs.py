"""What the experiments share: a list of runs is trained as far as that is missing, and gathered in samples/runs.json, an object a line."""
import json, re, shlex, shutil, sys
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import mean

import torch

from disentangle_nb.cli import finished, planned, sweep
from disentangle_nb.data import InputError
from disentangle_nb.training import load_tensors, read_jsonl, save_tensors, write_whole

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT/'samples'
KEPT = ('config.json', 'evaluation.json', 'metrics.jsonl', 'model.safetensors')      # of a shown model, and its pictures

@dataclass(frozen=True)
class Run:
    experiment:str
    arm:str
    k:int
    seed:int
    options:str       # of `disentangle train`, but for K and the seed
    seconds:float     # of CPU time that it takes, about
    name:str          # of its folder
    model:str='infogan'

    command = property(lambda self: ' '.join(f'disentangle train {self.model} {self.options} --unroll {self.k} --seed {self.seed}'.split()))

    def folder(self, root): return Path(root)/self.experiment/self.name

def overridden(options, more):
    "Options that take a value, with `more` in place of those that it repeats."
    words = shlex.split(options) + shlex.split(more)
    return ' '.join(f'{k} {v}' for k, v in dict(zip(words[::2], words[1::2])).items())

def at(run, root):
    "The run as `sweep` wants it."
    out = run.folder(root)
    return {'arm': run.arm, 'k': run.k, 'seed': run.seed, 'out': out, 'command': [*shlex.split(run.command)[1:], '--out', str(out), '--resume']}

def at_one_speed(found, experiment='modes-ring'):
    """Divide, in place, the CPU seconds of an experiment's runs on a processor without AVX-512 by what they would have taken longer there: an arm that was run on
    both kinds (some once more, in EXPERIMENT-again; for longer or not) by its own factor, others by the mean of these; what was done, in words. (Runs with the
    field `cpu` say what they were made on; the older ones, without it, had AVX-512.)"""
    seconds, mine = {}, [r for r in found if r['experiment'] == experiment]
    def slow(r): return r.get('cpu') == 'AVX2'
    for r in found:
        if r['experiment'] in (experiment, f'{experiment}-again'): seconds.setdefault(r['arm'], ([], []))[slow(r)].append(r['cpu_seconds'])
    ratios = {arm: mean(there)/mean(here) for arm, (here, there) in seconds.items() if here and there}
    if not (ratios and any(map(slow, mine))): return ''
    kinds = {arm: {slow(r) for r in mine if r['arm'] == arm} for arm in dict.fromkeys(r['arm'] for r in mine)}
    others = mean(ratios.values())
    for r in filter(slow, mine): r['cpu_seconds'] /= ratios.get(r['arm'].removesuffix(', longer'), others)
    words = [f'{how} of {" and ".join(arms)}' for how, kind in (('all', {True}), ('some', {True, False})) if (arms := [a for a, k in kinds.items() if k == kind])]
    return f'The CPU seconds of runs on a slower processor ({"; ".join(words)}) are divided by how many times as long they took there: {", ".join(f"{arm} {ratio:.1f}" for arm, ratio in ratios.items())}; other arms by the mean, {others:.1f}.'

DIVERGED = 'diverged.txt'      # in the folder of a run that ended in a NaN: the error

def diverged(folder):
    "The step at which a run's numbers ceased to be finite, or None. That is a result: such a run is not trained again, unless this file is deleted."
    path = Path(folder)/DIVERGED
    return int(re.search(r'at step (\d+)', path.read_text())[1]) if path.exists() else None

def left(runs, root):
    "Those that are not finished."
    return [run for run, p in zip(runs, planned([at(r, root) for r in runs])) if not finished(p) and diverged(p['out']) is None]

FAILED = {}       # folder -> error, of runs that `train` could not bring to their end

def train(runs, root, jobs, dry=False, missing=False):
    "Train what is not finished (or, if `missing`, not even in runs.json), after saying how long that takes."
    known = {e['command'] for e in recorded(runs[0].experiment)} if missing else ()
    todo = [r for r in left(runs, root) if r.command not in known]
    print(f'{runs[0].experiment}: {len(runs)} runs, {len(todo)} to do, about {sum(r.seconds for r in todo)/3600:.1f} core-hours', flush=True)
    if not todo or dry: return
    for folder, error in sweep([at(r, root) for r in todo], jobs, say=lambda text: print('  ' + text, flush=True)).items():
        if re.search(r'is (nan|-?inf|not finite) at step \d+', error): write_whole(folder/DIVERGED, lambda p: p.write_text(error + '\n'))
        else: FAILED[folder] = error

@contextmanager
def plainly():
    "What the user can put right is said in one line; runs that failed, at the end."
    try: yield
    except InputError as e: sys.exit(f'error: {e}')
    if FAILED: sys.exit(f'error: {len(FAILED)} runs failed, the first: {": ".join(map(str, next(iter(FAILED.items()))))}')

def short(v):
    "A number as runs.json has it."
    return float(f'{v:.6g}') if isinstance(v, float) else v

def entry(run, root, more):
    """One object of runs.json; of a run that diverged, the only metric is the step at which it did. The device is named if it was not the CPU;
    of a CPU its widest vector instructions, since seconds are to be compared with those of a like one."""
    folder = run.folder(root)
    last = lambda name: (read_jsonl(folder/name) or [{}])[-1]
    config = json.loads((folder/'config.json').read_text())
    evaluation = json.loads((folder/'evaluation.json').read_text()) if (step := diverged(folder)) is None else {}
    metrics = {'diverged': step} if step else {k: short(v) for k, v in {**last('metrics.jsonl'), **evaluation, **more(folder)}.items() if k not in ('step', 'category_match')}
    return {**{k: getattr(run, k) for k in ('experiment', 'arm', 'k', 'seed', 'command')}, 'steps': config['steps'], 'metrics': metrics,
            'cpu_seconds': round(last('timings.jsonl').get('cpu_seconds', 0), 1), 'versions': config['versions'], **({'device': config['device']} if config['device'] != 'cpu' else {'cpu': torch.backends.cpu.get_cpu_capability()})}

def recorded(experiment, samples=SAMPLES):
    "The entries of an experiment in runs.json."
    path = Path(samples)/'runs.json'
    return [e for e in json.loads(path.read_text()) if e['experiment'] == experiment] if path.exists() else []

def record(runs, root, samples=SAMPLES, more=lambda folder: {}):
    """Put the entries of finished runs, in the order of `runs`, into runs.json, with `more` metrics of each. Entries of runs that are not here stay;
    those of the same arms that are no longer among `runs` go, and are named."""
    path, unfinished, (name,) = Path(samples)/'runs.json', left(runs, root), {r.experiment for r in runs}
    old = {e['command']: e for e in recorded(name, samples)}
    found = {r: old.get(r.command) if r in unfinished else entry(r, root, more) for r in runs}
    new, missing, arms = [e for e in found.values() if e], [r for r, e in found.items() if not e], {r.arm for r in runs}
    for e in old.values():
        if e['arm'] in arms and e['command'] not in {r.command for r in runs}: print(f'{path.name}: no longer there: {e["command"]}', flush=True)
    others = [e for e in json.loads(path.read_text()) if e['experiment'] != name or e['arm'] not in arms] if path.exists() else []
    rows = sorted(others + new, key=lambda e: e['experiment'])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda p: p.write_text('[\n' + ',\n'.join(json.dumps(r) for r in rows) + '\n]\n'))
    print(f'{path.name}: {len(new)} runs of {name}' + f', {len(missing)} missing'*bool(missing), flush=True)

def scores(candidates, score, samples=SAMPLES):
    "Of each candidate (what can be chosen -> its runs) the mean `score(metrics)`, -inf for one that diverged; None before all of the runs are recorded."
    runs = [r for each in candidates.values() for r in each]
    found = {(e['arm'], e['command']): -inf if 'diverged' in e['metrics'] else score(e['metrics']) for e in recorded(runs[0].experiment, samples)} if runs else {}
    if not runs or any((r.arm, r.command) not in found for r in runs): return None
    return {c: mean(found[r.arm, r.command] for r in each) for c, each in candidates.items()}

def best(candidates, score, samples=SAMPLES):
    "The candidate with the highest of `scores`; None before all of the runs are recorded."
    found = scores(candidates, score, samples)
    return found and max(found, key=found.get)

def keep(run, root, target, files=KEPT):
    "The run's folder among the samples, without what only training needs; weights in half precision. What was there before stays until all is copied."
    new = Path(target).with_name(f'.{Path(target).name}.new')
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for file in [run.folder(root)/n for n in files] + sorted(run.folder(root).glob('*.png')): shutil.copy(file, new)
    if (weights := new/'model.safetensors').exists():
        tensors, meta = load_tensors(weights)
        del meta['sha256']
        save_tensors(weights, {k: t.half() if t.is_floating_point() else t for k, t in tensors.items()}, **meta)
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
