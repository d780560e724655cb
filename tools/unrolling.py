"""Chapter 10's experiment: does unrolling disentangle? Its runs, numbers, shown models and figures.

    python tools/unrolling.py search|test|shown|limits|norms|cost|gradient --data digits|mnist [--runs runs] [--jobs 1] [--arms K=0 K=10 ...] [--missing] [--dry]

`search` trains every arm with each pair of learning rates, on seeds kept for that; `test` trains the arms with the rates chosen there;
`shown --data mnist` keeps the median models and draws the figures; `limits` (MNIST) trains K = 0 with one setting changed at a time, `norms` K = 0
and K = 10 with other normalisations of D; `cost` measures a step of every arm, in turns; `gradient` holds G's gradient through K steps against the
look-ahead's. Numbers of runs go to samples/runs.json, those of the last two to samples/unrolled_infogan/.
"""
import argparse, csv, io, json, shlex, sys, time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median

import matplotlib.pyplot as plt
import numpy as np
import torch

from disentangle_nb.cli import parser, plan
from disentangle_nb.data import load_data
from disentangle_nb.explore import plot_curves, plot_traversals, save_animation, save_figure, sway, tile
from disentangle_nb.infogan import Continuous
from disentangle_nb.training import load, load_checkpoint, model_class, read_config, write_json, write_whole
from runs import KEPT, ROOT, SAMPLES, Run, best, keep, plainly, record, recorded, short, train

@dataclass(frozen=True)
class Arm:
    options:str       # of `disentangle train`
    k:int
    ms:tuple          # CPU milliseconds a step, on digits and on MNIST
    seeds:tuple       # their number, on digits and on MNIST
    rates:str=''      # the arm whose learning rates it takes, if it has no search of its own
    steps:tuple=None  # if it has a number of its own

ARMS = {
    'K=0': Arm('', 0, (12, 45), (20, 6)),
    'K=1': Arm('', 1, (16, 0), (10, 0)),
    'K=5': Arm('', 5, (30, 230), (10, 6)),
    'K=7': Arm('', 7, (45, 310), (10, 6)),
    'K=10': Arm('', 10, (111, 430), (20, 6)),
    'look-ahead 5': Arm('--lookahead', 5, (29, 0), (10, 0)),
    'look-ahead 10': Arm('--lookahead', 10, (48, 150), (20, 6)),
    'extra-D 5': Arm('--d-steps 5', 0, (31, 0), (10, 0)),
    'extra-D 10': Arm('--d-steps 10', 0, (53, 170), (10, 6)),
    'matched': Arm('', 0, (12, 65), (10, 0), 'K=0', (23_000, 0)),
    **{f'{name}, K={k}': Arm(option, k, (12 if k == 0 else 111, 0), (5, 0), f'K={k}')
       for name, option in (('saddle', '--loss saddle'), ('alternating', '--alternating'), ('stop-q', '--stop-q')) for k in (0, 10)},
    'fresh, K=5': Arm('--fresh', 5, (0, 320), (0, 3), 'K=5'),
    'fresh, K=10': Arm('--fresh', 10, (140, 620), (5, 3), 'K=10'),
}
UNROLLED = ('K=0', 'K=5', 'K=7', 'K=10')       # the mission's table

@dataclass(frozen=True)
class Setting:
    options:str       # of every run
    steps:int         # of the test
    search_steps:int
    rates:tuple       # (Adam's rate of D and Q, G's as a multiple of it) that are searched
    search_seeds:tuple=(100, 101)

SETTINGS = {
    'digits': Setting('--data digits', 2500, 2500, tuple((lr, r) for lr in ('5e-4', '1e-3', '2e-3') for r in ('1', '3'))),
    'mnist': Setting('--data mnist --threads 1 --cont-weight .5', 4000, 1000, (('2e-4', '5'), ('5e-4', '1'), ('5e-4', '3'), ('1e-3', '3')), (100,)),
}
DATA = tuple(SETTINGS)
SECOND = {'mnist': (2000, (('5e-4', '3'), ('1e-3', '3')))}       # a second round of the search: steps, and pairs of rates

def run(data, arm, rate, seed, steps, search=False):
    "One run of an arm."
    s, a, i = SETTINGS[data], ARMS[arm], DATA.index(data)
    if a.steps: steps = a.steps[i]
    lr, ratio = rate
    preset = data == 'digits' and steps == 2500
    options = f'{s.options} {a.options} --lr {lr} --lr-ratio {ratio}' + f' --steps {steps}'*(not preset)
    name = '-'.join([arm.replace('=', '').replace(', ', '-').replace(' ', '-').lower(), f'lr{lr}', f'r{ratio}', f's{seed}', *[str(steps)]*(search and steps != s.search_steps)])
    return Run(f'unrolling-{data}' + '-rates'*search, arm, a.k, seed, options, a.ms[i]*steps/1000 + 8, name)

def arms_of(data, arms=ARMS): return [a for a in arms if ARMS[a].seeds[DATA.index(data)]]

def rounds(data, arm):
    "The search's runs of an arm: the first round, and the second, if there is one."
    s, (steps, rates) = SETTINGS[data], SECOND.get(data, (0, ()))
    return [[run(data, arm, r, seed, n, True) for r in pairs for seed in s.search_seeds] for n, pairs in ((s.search_steps, s.rates), (steps, rates)) if pairs]

def search_runs(data, arms=ARMS): return [r for a in arms_of(data, arms) if not ARMS[a].rates for each in rounds(data, a) for r in each]

def chosen(data, samples=SAMPLES):
    "arm -> its learning rates: those of the best mean match on training labels in the last round, if its search is complete."
    rates = {}
    for arm in arms_of(data):
        if ARMS[arm].rates: rates[arm] = rates.get(ARMS[arm].rates); continue
        candidates = {}
        for r in rounds(data, arm)[-1]: candidates.setdefault(rate_of(r), []).append(r)
        rates[arm] = best(candidates, lambda m: 1 - m['category_error_train'], samples)
    return {a: r for a, r in rates.items() if r}

def rate_of(run):
    words = run.options.split()
    return words[words.index('--lr') + 1], words[words.index('--lr-ratio') + 1]

def test_runs(data, arms=ARMS, samples=SAMPLES):
    "The runs of those arms whose learning rates are chosen."
    rates, s = chosen(data, samples), SETTINGS[data]
    return [run(data, a, rates[a], seed, s.steps) for a in arms_of(data, arms) if a in rates for seed in range(ARMS[a].seeds[DATA.index(data)])]

LIMITS = {        # options, CPU seconds
    'as it is': ('', 190), 'three times the steps': ('--steps 12000', 550), 'narrower D': ('--d-width 8', 150), 'wider D': ('--d-width 32', 330),
    'wider G': ('--width 64', 330), 'codes weigh three times as much': ('--info 3 --cont-weight .17', 190), 'codes weigh a third': ('--info .3', 190),
    'continuous codes weigh 0.1': ('--cont-weight .1', 190), 'group norm in D': ('--norm group', 220), 'spectral norm in D': ('--norm spectral', 220),
    '16 noise variables': ('--noise 16', 190), 'twice the batch': ('--batch-size 128', 350),
    "the InfoGAN paper's networks and rates": ('--width 64 --d-width 64 --batch-size 128 --lr 2e-4 --lr-ratio 5', 1900),
}

def overridden(options, more):
    "Options that take a value, with `more` in place of those that it repeats."
    words = shlex.split(options) + shlex.split(more)
    return ' '.join(f'{k} {v}' for k, v in dict(zip(words[::2], words[1::2])).items())

def limits_runs():
    "What might keep the category error of K = 0 on MNIST up: one setting changed at a time."
    s = SETTINGS['mnist']
    usual = f'{s.options} --lr 1e-3 --lr-ratio 3 --steps {s.steps}'
    return [Run('unrolling-mnist-limits', name, 0, seed, overridden(usual, more), seconds, f'{name.replace(" ", "-").replace(chr(39), "").lower()}-s{seed}')
            for name, (more, seconds) in LIMITS.items() for seed in (100, 101)]

def discarded():
    "Runs that were begun as tests before the second round of the search was over, and are told of in the chapter."
    runs = [run('mnist', 'K=5', ('1e-3', '3'), 0, SETTINGS['mnist'].steps), *(run('mnist', 'K=0', ('5e-4', '3'), s, SETTINGS['mnist'].steps) for s in range(3))]
    return [replace(r, experiment='unrolling-mnist-discarded') for r in runs]

def pilot():
    "K = 10 on fresh batches, as K = 10 in the second round of its search: what made two arms of it."
    return [replace(run('mnist', 'fresh, K=10', ('5e-4', '3'), 100, 2000), experiment='unrolling-mnist-pilot')]

def norms_runs():
    "K = 0 and K = 10 with other normalisations of D than batch norm, as in the first round of their search."
    s = SETTINGS['mnist']
    return [Run('unrolling-mnist-norms', f'K={k}, {norm}', k, 100, overridden(f'{s.options} --lr 5e-4 --lr-ratio 3 --steps {s.search_steps}', f'--norm {norm}'),
                (.05 if k == 0 else .43)*s.search_steps, f'k{k}-{norm}') for k in (0, 10) for norm in ('none', 'group', 'spectral')]

def cost(data, rounds=7):
    "CPU milliseconds of a step of every arm: the median over rounds in which they take turns, on one thread, after one step to warm up."
    torch.set_num_threads(1)
    steps = {}
    for arm in arms_of(data):
        if ARMS[arm].steps: continue                       # as its other arm
        options = {k: v for k, v in vars(parser().parse_args(shlex.split(run(data, arm, ('1e-3', '3'), 0, 1).command)[1:])).items() if v is not None}
        for k in ('command', 'device'): del options[k]
        _, asked, config, (train, _) = plan(**options)
        net = model_class(asked['model'])(config, 0)
        steps[arm] = [net, net.init(), train.batch(asked['batch_size']*net.batches, torch.Generator().manual_seed(0)), []]
    for _ in range(rounds + 1):
        for each in steps.values():
            net, state, x, ms = each
            start = time.process_time()
            each[1] = net.step(state, x, torch.Generator().manual_seed(0))[0]
            ms.append(1000*(time.process_time() - start))
    return {arm: round(median(ms[1:]), 1) for arm, (*_, ms) in steps.items()}

def write_cost(data, samples=SAMPLES):
    path = Path(samples)/'unrolled_infogan'/'cost.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**(json.loads(path.read_text()) if path.exists() else {}), data: cost(data)})

CURVES = ('run', 'arm', 'seed', 'step', 'q_cat', 'q_cont')

def write_curves(runs, root, path, every=20):
    "Q's losses against the step, of every run, as a table. Those of runs whose folder is gone stay as they are."
    old, text = rows_of(path), io.StringIO()
    w = csv.DictWriter(text, CURVES, lineterminator='\n')
    w.writeheader()
    for r in runs:
        log = r.folder(root)/'metrics.jsonl'
        rows = [row for row in map(json.loads, log.read_text().splitlines()) if row['step'] % every == 0] if log.exists() else []
        rows = [dict(zip(CURVES, (r.name, r.arm, r.seed, row['step'], *(f'{row[k]:.4g}' for k in CURVES[4:])))) for row in rows] or [row for row in old if row['run'] == r.name]
        if not rows: print(f'{path.name}: nothing is left of the curves of {r.name}', flush=True)
        w.writerows(rows)
    write_whole(path, lambda p: p.write_text(text.getvalue()))

def rows_of(path): return list(csv.DictReader(Path(path).open())) if Path(path).exists() else []

def read_curves(path):
    "arm -> logs, one for each seed."
    logs = {}
    for row in rows_of(path):
        log = logs.setdefault(row['arm'], {}).setdefault(row['seed'], [])
        log.append({'step': int(row['step']), **{k: float(row[k]) for k in ('q_cat', 'q_cont')}})
    return {arm: list(seeds.values()) for arm, seeds in logs.items()}

def ranked(entries, arm):
    "An arm's entries by category error, the best first."
    return sorted((e for e in entries if e['arm'] == arm), key=lambda e: (e['metrics']['category_error'], e['seed']))

def shown(runs, root, folder, samples=SAMPLES):
    """Keep each K's median run (of an even number, the better of the two in the middle), and the numbers of its best and worst; draw the figures.
    A run that is to be kept, and is not, and whose folder is gone, is trained again."""
    entries = recorded(runs[0].experiment, samples)
    by = {(r.arm, r.seed): r for r in runs}
    kept = {}
    for arm in UNROLLED:
        order = [by[arm, e['seed']] for e in ranked(entries, arm)]
        if not order: return print(f'no run of {arm} is finished: no figures')
        kept |= {f'k{order[0].k}': order[(len(order) - 1)//2], f'k{order[0].k}-best': order[0], f'k{order[0].k}-worst': order[-1]}
    new = {name: r for name, r in kept.items() if not stands(r, folder/name, entries)}
    if new: train(list(dict.fromkeys(new.values())), root, 1)
    record(runs, root, samples)
    for name, r in new.items(): keep(r, root, folder/name, ('config.json', 'evaluation.json') if '-' in name else KEPT)
    write_curves([by[e['arm'], e['seed']] for e in entries if e['arm'] in UNROLLED], root, folder/'curves.csv')
    draw(folder)

def stands(run, folder, entries):
    "Whether the folder holds this run, by its seed and what was measured of it."
    if not (folder/'evaluation.json').exists(): return False
    config, found = (json.loads((folder/n).read_text()) for n in ('config.json', 'evaluation.json'))
    told = next(e['metrics'] for e in entries if e['command'] == run.command)
    return config['seed'] == run.seed and all(short(found[k]) == told[k] for k in ('category_error', 'frechet'))

def table(folder):
    "The mission's table: for each K the median run's traversals of the code that goes best with thickness, and of the one that goes best with slant."
    models, classes = {}, tuple(map(str, range(10)))
    for arm in UNROLLED:
        path = folder/f'k{ARMS[arm].k}'
        found, seed = json.loads((path/'evaluation.json').read_text()), json.loads((path/'config.json').read_text())['seed']
        models[f'{arm}, seed {seed}'] = load(path), [found[f'{m}_code'] for m in ('thickness', 'slant')], found['category_match']
    return plot_traversals(models, ('thickness', 'slant'), classes=classes)

def q_losses(folder):
    "Q's losses against the step."
    fig, axs = plt.subplots(1, 2, figsize=(12, 4))
    for ax, name, what in zip(axs, ('q_cont', 'q_cat'), ('continuous codes', 'categorical code')):
        plot_curves(read_curves(folder/'curves.csv'), name, ax=ax)
        ax.set(title=what, ylabel='-log Q(c|x), nats')
    axs[1].set_yscale('log')
    fig.tight_layout()
    return fig

def searched(root, folder):
    "What K = 10 draws on MNIST in its search, and on fresh batches: the samples of four runs side by side. A picture that is there stays."
    if (folder/'k10-search.png').exists(): return
    first, second = ({rate_of(r): r for r in each} for each in rounds('mnist', 'K=10'))
    runs = [first['1e-3', '3'], first['5e-4', '3'], second['5e-4', '3'], *pilot()]
    train(runs, root, 1)
    pictures = [plt.imread(r.folder(root)/'samples.png') for r in runs]
    plt.imsave(folder/'k10-search.png', np.concatenate(pictures, 1))

def gradients(root, data='mnist', batches=5):
    """G's whole gradient through K steps beside the look-ahead's, without the part through the steps: the angle between them, degrees, and the ratio of
    their norms; means over batches, at the state of K = 10 after 2,000 steps of its search, the steps on one batch or each on a fresh one."""
    found, r = {}, rounds(data, 'K=10')[-1][0]
    train([r], root, 1)
    told = read_config(r.folder(root))
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in told['config'].items()}
    real = load_data(data)
    def one(seed, **change):
        net = model_class(told['model'])(model_class(told['model']).Config(**{**fields, **change}), 0)
        state, _ = load_checkpoint(r.folder(root), net.init(), torch.Generator())
        x = real.batch(told['batch_size']*net.batches, torch.Generator().manual_seed(seed))
        new = net.step(state, x, torch.Generator().manual_seed(seed))[0]['G']['opt']
        return torch.cat([(new[n]['exp_avg'] - net.config.beta1*s['exp_avg']).flatten() for n, s in state['G']['opt'].items()]).double()
    torch.set_num_threads(1)
    for k in (1, 5, 10):
        for fresh in (False, True):
            pairs = [(one(s, unroll=k, fresh=fresh), one(s, unroll=k, fresh=fresh, lookahead=True)) for s in range(batches)]
            angle = mean(torch.rad2deg(torch.acos(torch.cosine_similarity(a, b, 0))).item() for a, b in pairs)
            found[f'K={k}' + ', fresh'*fresh] = {'angle': round(angle, 1), 'ratio': round(mean((a.norm()/b.norm()).item() for a, b in pairs), 2)}
    return found

def moving(folder):
    "The median K = 0 model's continuous codes at work: a row for each, a column for each category."
    found, model = json.loads((folder/'k0'/'evaluation.json').read_text()), load(folder/'k0')
    names = sorted((c.name for c in model.codes if isinstance(c, Continuous)), key=lambda name: name != found['slant_code'])
    return sway(model, names, 16, match=found['category_match'])

def social(folder):
    "The picture that stands for the site where it is linked, 1200x630: a moment of `moving`, and the name."
    x = moving(folder)[[0, 5, 10, 15]]
    fig = plt.figure(figsize=(12, 6.3), facecolor='black')
    ax = fig.add_axes((.04, .06, .92, .6))
    ax.imshow(tile(x[:, :10].flatten(0, 1), 10, 0), interpolation='nearest')
    ax.axis('off')
    fig.text(.04, .84, 'disentangle_nb', color='white', size=52, weight='bold', va='center')
    fig.text(.04, .72, 'Unrolled GANs, InfoGAN and VAEInfoGAN, derived and tested in notebooks', color='white', size=21, va='center')
    return fig

def draw(folder):
    save_figure(table(folder), folder/'traversals.png')
    save_figure(q_losses(folder), folder/'q_losses.png')
    save_animation(moving(folder), folder/'moving.gif', 10)
    print(f'drawn: {folder}/traversals.png, q_losses.png, moving.gif', flush=True)

def everything(root, jobs, dry):
    for data in SETTINGS:
        for make in (search_runs, test_runs):              # which runs the test needs is known after the search
            if not (runs := make(data)): print(f'{data}: how long the test takes is known after the search'); continue
            train(runs, root, jobs, dry)
            if not dry: record(runs, root)
        if not dry: write_cost(data)
        if runs and not dry and data == 'mnist': shown(runs, root, SAMPLES/'unrolled_infogan'); searched(root, SAMPLES/'unrolled_infogan')
    if not dry: write_json(SAMPLES/'unrolled_infogan'/'gradient.json', gradients(root))
    for runs in (limits_runs(), norms_runs(), discarded(), pilot()):
        train(runs, root, jobs, dry)
        if not dry: record(runs, root)

def quick(root, jobs, steps=200, seeds=2):
    "The test on digits, far too short and with far too few seeds, drawn as the real one is."
    runs = [run('digits', a, ('1e-3', '3'), s, steps) for a in (*UNROLLED, 'look-ahead 10', 'extra-D 10') for s in range(seeds)]
    train(runs, root, jobs)
    record(runs, root, root/'samples')
    shown(runs, root, root/'samples'/'unrolled_infogan', root/'samples')

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('what', choices=('search', 'test', 'shown', 'limits', 'norms', 'cost', 'gradient'))
    p.add_argument('--data', choices=DATA, default='digits')
    p.add_argument('--runs', type=Path, default=ROOT/'runs', help='where runs are kept')
    p.add_argument('--jobs', type=int, default=1)
    p.add_argument('--arms', nargs='+', choices=ARMS, default=list(ARMS))
    p.add_argument('--missing', action='store_true', help='train only what runs.json lacks')
    p.add_argument('--dry', action='store_true')
    o = p.parse_args()
    with plainly():
        if o.what == 'cost': sys.exit(write_cost(o.data))
        if o.what == 'gradient': sys.exit(write_json(SAMPLES/'unrolled_infogan'/'gradient.json', gradients(o.runs)))
        runs = {'search': search_runs, 'limits': lambda *_: limits_runs(), 'norms': lambda *_: norms_runs()}.get(o.what, test_runs)
        if o.what != 'shown': train(runs(o.data, o.arms), o.runs, o.jobs, o.dry, o.missing)
        if not o.dry: record(runs(o.data), o.runs)
        if o.what == 'shown':
            shown(runs(o.data), o.runs, SAMPLES/'unrolled_infogan')
            searched(o.runs, SAMPLES/'unrolled_infogan')
            social(SAMPLES/'unrolled_infogan').savefig(ROOT/'nbs'/'social.png', dpi=100)
