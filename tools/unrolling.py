"""Chapter 10's experiment: does unrolling disentangle? Its runs, numbers, shown models and figures.

    python tools/unrolling.py search|test --data digits|mnist [--arms K=0 K=10 ...] [--runs runs] [--jobs 1] [--missing] [--dry]
    python tools/unrolling.py limits|why|ring [--runs runs] [--jobs 1] [--missing] [--dry]
    python tools/unrolling.py shown|gradient [--runs runs]
    python tools/unrolling.py cost --data digits|mnist

Numbers of runs go to samples/runs.json, models, figures and other numbers to samples/unrolled_infogan/; `--help` says what each does.
"""
import argparse, csv, io, json, shlex, sys, time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.metrics import confusion_matrix

from disentangle_nb.cli import MOST, first_categorical, parser, plan, read_codes
from disentangle_nb.data import load_data
from disentangle_nb.explore import plot_curves, plot_traversals, save_animation, save_figure, sway, tile
from disentangle_nb.gan import discriminator_loss
from disentangle_nb.infogan import Continuous, split_q
from disentangle_nb.metrics import category_error
from disentangle_nb.networks import judged
from disentangle_nb.training import load, load_checkpoint, model_class, read_config, write_json, write_whole
from runs import KEPT, ROOT, SAMPLES, Run, best, keep, left, overridden, plainly, record, recorded, short, train

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
    **{f'{name}, K={k}': Arm(option, k, (12 if k == 0 else 111, 0), (14 if name == 'alternating' else 5, 0), f'K={k}')
       for name, option in (('saddle', '--loss saddle'), ('alternating', '--alternating'), ('stop-q', '--stop-q')) for k in (0, 10)},
    'alternating, look-ahead 10': Arm('--alternating --lookahead', 10, (50, 0), (14, 0), 'look-ahead 10'),
    'fresh, K=5': Arm('--fresh', 5, (0, 320), (0, 3), 'K=5'),
    'fresh, K=10': Arm('--fresh', 10, (140, 620), (5, 3), 'K=10'),
    'K=0, codes x3': Arm('--cont-weight .3', 0, (12, 0), (5, 0), 'K=0'),
    'look-ahead 10, codes x3': Arm('--lookahead --cont-weight .3', 10, (48, 0), (5, 0), 'look-ahead 10'),
    'extra-D 10, codes x10': Arm('--d-steps 10 --cont-weight 1', 0, (53, 0), (5, 0), 'extra-D 10'),
    **{f'no norm, K={k}': Arm('--norm none', k, (0, 42 if k == 0 else 360), (0, 3), 'K=10') for k in (0, 10)},
}
UNROLLED = ('K=0', 'K=5', 'K=7', 'K=10')       # the arms of the figure

@dataclass(frozen=True)
class Setting:
    options:str       # of every run
    steps:int         # of the test
    search_steps:int
    rates:tuple       # (Adam's rate of D and Q, G's as a multiple of it) that are searched
    search_seeds:tuple=(100, 101)

SETTINGS = {
    'digits': Setting('--data digits --game one-batch --loss nonsaturating --cont-weight .1', 2500, 2500, tuple((lr, r) for lr in ('5e-4', '1e-3', '2e-3') for r in ('1', '3'))),
    'mnist': Setting('--data mnist --game one-batch --loss nonsaturating --threads 1 --cont-weight .5', 4000, 1000, (('2e-4', '5'), ('5e-4', '1'), ('5e-4', '3'), ('1e-3', '3')), (100,)),
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
    'wider G': ('--width 64', 330), 'the category weighs three times as much': ('--info 3 --cont-weight .17', 190), 'all codes weigh a third': ('--info .3', 190),
    'continuous codes weigh 0.1': ('--cont-weight .1', 190), 'group norm in D': ('--norm group', 220), 'spectral norm in D': ('--norm spectral', 220),
    '16 noise variables': ('--noise 16', 190), 'twice the batch': ('--batch-size 128', 350),
    "the InfoGAN paper's networks and rates": ('--width 64 --d-width 64 --batch-size 128 --lr 2e-4 --lr-ratio 5', 1900),
}

def limits_runs():
    "What might keep the category error of K = 0 on MNIST up: one thing changed at a time."
    s = SETTINGS['mnist']
    usual = f'{s.options} --lr 1e-3 --lr-ratio 3 --steps {s.steps}'
    return [Run('unrolling-mnist-limits', name, 0, seed, overridden(usual, more), seconds, f'{name.replace(" ", "-").replace(chr(39), "").lower()}-s{seed}')
            for name, (more, seconds) in LIMITS.items() for seed in (100, 101)]

RING = {          # options, K, seeds, CPU seconds
    'lambda 0': ('--cats 8 --info 0', 0, 10, 60), 'lambda 0.1': ('--cats 8 --info .1', 0, 10, 60), 'lambda 1': ('--cats 8', 0, 10, 60), 'lambda 1, ten categories': ('--cats 10', 0, 10, 60),
    'lambda 0, K=10': ('--cats 8 --info 0', 10, 3, 470), 'lambda 1, K=10': ('--cats 8', 10, 3, 470),
    'lambda 0.1, look-ahead 10': ('--cats 8 --info .1 --lookahead', 10, 6, 200), 'lambda 0.1, K=10': ('--cats 8 --info .1', 10, 6, 470),
    'lambda 1, ten categories, look-ahead 10': ('--cats 10 --lookahead', 10, 6, 200), 'lambda 1, ten categories, K=10': ('--cats 10', 10, 6, 470),
}

def ring_runs():
    "InfoGAN on the ring, where a GAN loses modes, with and without its information."
    return [Run('unrolling-ring', name, k, seed, f'--data ring {"--compile "*(k > 0)}--checkpoint-every 1000 --conts 0 {options} --lr 1e-3 --lr-ratio 1 --steps 10000 --decay 10000', seconds,
                f'{name.replace(" ", "-").replace(",", "").replace("=", "").lower()}-s{seed}') for name, (options, k, seeds, seconds) in RING.items() for seed in range(seeds)]

RING_PICTURES = {      # file -> rows of arms
    'ring.png': [[name for name, (_, k, *_) in RING.items() if k == 0]],
    'ring_unrolled.png': [[base, f'{base}, look-ahead 10', f'{base}, K=10'] for base in ('lambda 0.1', 'lambda 1, ten categories')],
}

def draw_ring(root, seed=0):
    "What one seed of each arm draws, coloured by its category; a picture whose runs are gone stays."
    by_arm, centres = {r.arm: r for r in ring_runs() if r.seed == seed}, load_data('ring').centres
    for file, rows in RING_PICTURES.items():
        runs = [by_arm[a] for row in rows for a in row]
        if left(runs, root):
            print(f'{file}: stays as it is, seed {seed} is not finished')
            continue
        fig, axs = plt.subplots(len(rows), len(rows[0]), figsize=(3*len(rows[0]), 3.2*len(rows)), layout='constrained', squeeze=False)
        for ax, r in zip(axs.flat, runs):
            model = load(r.folder(root))
            latent = model.sample_latent(1000, torch.Generator().manual_seed(seed))
            ax.scatter(*centres.T, s=90, facecolors='none', edgecolors='.6')
            ax.scatter(*model.generate(latent).T, s=3, c=latent['c_cat1'], cmap='tab10', vmin=0, vmax=9)
            ax.set(title=r.arm if len(rows) == 1 else '{}\n{}'.format(*(r.arm + ', K=0'*(r.k == 0)).rsplit(', ', 1)), xlim=(-3, 3), ylim=(-3, 3), xticks=[], yticks=[], aspect='equal')
        save_figure(fig, SAMPLES/'unrolled_infogan'/file)

def discarded():
    "Runs that were begun as tests before the second round of the search was over, and are told of in the chapter."
    runs = [run('mnist', 'K=5', ('1e-3', '3'), 0, SETTINGS['mnist'].steps), *(run('mnist', 'K=0', ('5e-4', '3'), s, SETTINGS['mnist'].steps) for s in range(3))]
    return [replace(r, experiment='unrolling-mnist-discarded') for r in runs]

def pilot():
    "K = 10 on fresh batches, as K = 10 in the second round of its search: what made two arms of it."
    return [replace(run('mnist', 'fresh, K=10', ('5e-4', '3'), 100, 2000), experiment='unrolling-mnist-pilot')]

WHY = {'no norm': '--norm none', 'group norm': '--norm group', 'spectral norm': '--norm spectral', 'codes weigh a fifth': '--info .2'}

def why_runs():
    "What makes K = 10 fail on MNIST: the first round of its search with one thing changed in D or in the loss, and K = 0 beside it."
    s = SETTINGS['mnist']
    return [Run('unrolling-mnist-why', f'K={k}, {name}', k, 100, overridden(f'{s.options} --lr 5e-4 --lr-ratio 3 --steps {s.search_steps}', more),
                (.05 if k == 0 else .43)*s.search_steps, f'k{k}-{name.replace(" ", "-")}') for k in (0, 10) for name, more in WHY.items()]

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
    """Keep each K's median run (of an even number, the better of the two in the middle), the best of K = 0, for `moving`, and else the numbers and
    pictures of the best and the worst; draw the figures.
    A run that is to be kept, and is not, and whose folder is gone, is trained again."""
    entries = recorded(runs[0].experiment, samples)
    by = {(r.arm, r.seed): r for r in runs}
    kept = {}
    for arm in UNROLLED:
        order = [by[arm, e['seed']] for e in ranked(entries, arm)]
        if not order: return print(f'no run of {arm} is finished: no figures')
        kept |= {f'k{order[0].k}': order[(len(order) - 1)//2], f'k{order[0].k}-best': order[0], f'k{order[0].k}-worst': order[-1]}
    files = {name: ('config.json', 'evaluation.json') if '-' in name and name != 'k0-best' else KEPT for name in kept}
    new = {name: r for name, r in kept.items() if not stands(r, folder/name, files[name], entries)}
    if new: train(list(dict.fromkeys(new.values())), root, 1)
    record(runs, root, samples)
    for name, r in new.items(): keep(r, root, folder/name, files[name])
    write_curves([by[e['arm'], e['seed']] for e in entries if e['arm'] in UNROLLED], root, folder/'curves.csv')
    draw(folder, recorded(runs[0].experiment, samples))

def stands(run, folder, files, entries):
    "Whether the folder holds these files of this run, by its seed and what was measured of it."
    if not all((folder/f).exists() for f in files): return False
    config, found = (json.loads((folder/n).read_text()) for n in ('config.json', 'evaluation.json'))
    told = next(e['metrics'] for e in entries if e['command'] == run.command)
    return config['seed'] == run.seed and all(short(found[k]) == told[k] for k in ('category_error', 'frechet'))

def table(folder, entries):
    """For each K the median run's traversals of the code that goes best with thickness, and of the one that goes best with slant, each with
    its rank correlation, and the median of that over the arm's seeds."""
    models, classes, measured, titles = {}, tuple(map(str, range(10))), ('thickness', 'slant'), []
    for arm in UNROLLED:
        path = folder/f'k{ARMS[arm].k}'
        found, seed = json.loads((path/'evaluation.json').read_text()), json.loads((path/'config.json').read_text())['seed']
        models[arm] = load(path), [found[f'{m}_code'] for m in measured], found['category_match']
        usual = {m: median(e['metrics'][f'{m}_rho'] for e in entries if e['arm'] == arm) for m in measured}
        titles += [f'{arm}, seed {seed}, {m}: {found[f"{m}_rho"]:.2f} (all seeds {usual[m]:.2f})' for m in measured]
    fig = plot_traversals(models, measured, classes=classes)
    for ax, title in zip(fig.axes, titles): ax.set_title(title, fontsize=10)
    return fig

def q_losses(folder):
    "Q's losses against the step."
    fig, axs = plt.subplots(1, 2, figsize=(12, 4))
    for ax, name, what in zip(axs, ('q_cont', 'q_cat'), ('continuous codes', 'categorical code')):
        plot_curves(read_curves(folder/'curves.csv'), name, ax=ax, log=name == 'q_cat')
        ax.set(title=what, ylabel='-log Q(c|x), nats')
    fig.tight_layout()
    return fig

TITLE = 26        # pixels of the title of samples.png

def draw_searched(pictures):
    "Side by side, with titles of their own."
    fig, axs = plt.subplots(1, len(pictures), figsize=(4.58*len(pictures), 4.9), layout='constrained')
    for ax, picture, title in zip(axs, pictures, ('1,000 steps, rates 0.001 x 3', '1,000 steps, rates 0.0005 x 3', '2,000 steps, rates 0.0005 x 3', 'the same, a fresh batch for each unrolled step')):
        ax.imshow(picture[TITLE:])
        ax.axis('off')
        ax.set_title(title)
    return fig

def searched(root, folder):
    "What K = 10 draws on MNIST in its search, and on fresh batches: the samples of four runs. A picture that is there stays."
    if (folder/'k10-search.png').exists(): return
    first, second = ({rate_of(r): r for r in each} for each in rounds('mnist', 'K=10'))
    runs = [first['1e-3', '3'], first['5e-4', '3'], second['5e-4', '3'], *pilot()]
    train(runs, root, 1)
    save_figure(draw_searched([plt.imread(r.folder(root)/'samples.png') for r in runs]), folder/'k10-search.png')

MEASURED = (('K=0', 3), ('look-ahead 10', 2), *(('K=10', s) for s in (2, 3, 4, 5)), ('no norm, K=10', 0))      # whose last states `gradients` measures

def opened(run, root, **change):
    "A run's model with settings changed, its last state, and its batch size."
    told = read_config(run.folder(root))
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in told['config'].items()}
    net = model_class(told['model'])(model_class(told['model']).Config(**{**fields, **change}), 0)
    return net, load_checkpoint(run.folder(root), net.init(), torch.Generator())[0], told['batch_size']

def looked(net, state, x, x_new, rng):
    """At a state, on the batch x: the part of G's gradient that is adversarial, through D's K steps and with these cut off, and the information part; and D's loss
    before and after the steps, on their batch and on another one."""
    theta = {'G': {n: p.detach().requires_grad_() for n, p in state['G']['params'].items()}}
    batch, other = (net.draw(b, rng) for b in (x, x_new))
    fake, latent, *_ = net.make(theta, state, batch)
    fake_new = net.make(theta, state, other).fake.detach()
    def gradient(loss): return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(theta['G'].values()), retain_graph=True)]).double()
    def ahead(fake):
        now, then, _ = net.ahead(state['D'], [(x, fake, *latent.values())], list(latent))
        return ({**state['D']['buffers'], **t} for t in (now, then))
    now, then = ahead(fake)
    cut = {k: v.detach() for k, v in list(ahead(fake.detach()))[1].items()}
    true, look, information = (gradient(l) for l in (net.adversarial(then, x, net._D(then, fake)[0]), net.adversarial(cut, x, net._D(cut, fake)[0]), net.information(net._D(now, fake)[1], latent)[0]))
    with torch.no_grad(): loss = [discriminator_loss(net._D(t, r)[0], net._D(t, f)[0]).item() for t in (now, then) for r, f in ((x, fake), (x_new, fake_new))]
    return {'angle': torch.rad2deg(torch.acos(torch.cosine_similarity(true, look, 0))).item(), 'adversarial': true.norm().item(), 'look-ahead': look.norm().item(),
            'information': information.norm().item(), **dict(zip(('before, own', 'before, other', 'after, own', 'after, other'), loss))}

def gradients(root, batches=20):
    """`looked` at the last states of some of the test's MNIST runs, for K = 1, 5, 10: means over batches, a row for each run and K. Rows that are there,
    of runs whose folder is gone, stay."""
    path, by, real = SAMPLES/'unrolled_infogan'/'gradient.json', {(r.arm, r.seed): r for r in test_runs('mnist')}, load_data('mnist')
    known, rows = json.loads(path.read_text()) if path.exists() else [], []
    torch.set_num_threads(1)
    for m in MEASURED:
        if (old := [row for row in known if (row['arm'], row['seed']) == m]) and left([by[m]], root):
            rows += old
            continue
        train([by[m]], root, 1)
        for k in (1, 5, 10):
            net, state, size = opened(by[m], root, unroll=k, lookahead=False)
            found = [looked(net, state, *real.batch(2*size, rng := torch.Generator().manual_seed(s)).chunk(2), rng) for s in range(batches)]
            rows.append({'arm': m[0], 'seed': m[1], 'k': k, **{key: round(mean(f[key] for f in found), 3) for key in found[0]}})
    return rows

def moving(folder):
    "The continuous codes of K = 0's best model at work: a row for each, a column for each category."
    found, model = json.loads((folder/'k0-best'/'evaluation.json').read_text()), load(folder/'k0-best')
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

def confusion(folder, n=5000):
    """Of a finished run, two squares of shares. `read`: the test images of each class (rows), by the class that the category which Q gives them was matched
    to (columns). `drawn`: what G draws for the category of each class (rows), by the class that a classifier sees there (columns). And the
    category `error`, as `batch_error` with the statistics of each 64 test images, as while training, instead of batch norm's running averages."""
    model, test, match = load(folder), load_data(read_config(folder)['data'], 'test'), torch.tensor(json.loads((folder/'evaluation.json').read_text())['category_match'])
    code, latent = first_categorical(model).name, model.sample_latent(n, torch.Generator().manual_seed(0))
    read, seen = read_codes(model, test, idx := test.some(MOST))[code], torch.cat([judged(model.generate({k: v[i] for k, v in latent.items()}))[0] for i in torch.arange(n).split(1000)])
    square = lambda a, b: confusion_matrix(a, b, labels=range(len(test.classes)), normalize='true').round(4).tolist()
    D = model.discriminator.train()
    with torch.no_grad(): batchwise = torch.cat([split_q(D(test.items(i))[1], model.codes)[code].argmax(1) for i in idx.split(64)])
    return {'read': square(test.y[idx], match[read]), 'drawn': square(match[latent[code]], seen), 'error': round(category_error(match, read, test.y[idx]), 4), 'batch_error': round(category_error(match, batchwise, test.y[idx]), 4)}

CONFUSIONS = {'read': ('test image', "digit of its category, by Q"), 'drawn': ('category of', 'digit that G draws')}

def draw_confusions(found):
    "For each model a square for either direction, the darker the more; shares from a tenth up in per cent."
    fig, axs = plt.subplots(2, len(found), figsize=(2.6*len(found), 5.8), layout='constrained', sharey='row')
    for column, (name, squares) in zip(axs.T, found.items()):
        column[0].set_title(name)
        for ax, (which, (_, below)) in zip(column, CONFUSIONS.items()):
            ax.imshow(squares[which], cmap='Greys', vmin=0, vmax=1)
            ax.set(xticks=range(10), yticks=range(10), xlabel=below)
            ax.tick_params(labelsize=7, length=0)
            for i, row in enumerate(squares[which]):
                for j, v in enumerate(row):
                    if v >= .1: ax.text(j, i, f'{100*v:.0f}', size=6, ha='center', va='center', color='white' if v > .5 else 'black')
    for ax, (beside, _) in zip(axs[:, 0], CONFUSIONS.values()): ax.set_ylabel(beside)
    return fig

def confusions(folder):
    "Of the best model of K = 0, and of each K's median one."
    titles = {'k0-best': 'K=0, its best', **{f'k{ARMS[a].k}': a for a in UNROLLED}}
    found = {title: confusion(folder/name) for name, title in titles.items()}
    write_json(folder/'confusions.json', found)
    return draw_confusions(found)

def named(folder):
    "The share of each class's test images that is named right, as `record` wants it."
    return {'named': np.diag(confusion(folder)['read']).tolist()}

def draw(folder, entries):
    save_figure(table(folder, entries), folder/'traversals.png')
    save_figure(q_losses(folder), folder/'q_losses.png')
    save_figure(confusions(folder), folder/'confusions.png')
    save_animation(moving(folder), folder/'moving.gif', 10)
    print(f'drawn: {folder}/traversals.png, q_losses.png, confusions.png, moving.gif', flush=True)

def published(runs, root):
    "All that the pages show of the MNIST runs."
    folder = SAMPLES/'unrolled_infogan'
    shown(runs, root, folder)
    searched(root, folder)
    social(folder).savefig(ROOT/'nbs'/'social.png', dpi=100)

def everything(root, jobs, dry):
    for data in SETTINGS:
        for make in (search_runs, test_runs):              # which runs the test needs is known after the search
            if not (runs := make(data)): print(f'{data}: how long the test takes is known after the search'); continue
            train(runs, root, jobs, dry)
            if not dry: record(runs, root)
        if not dry: write_cost(data)
        if runs and not dry and data == 'mnist': published(runs, root)
    if not dry: write_json(SAMPLES/'unrolled_infogan'/'gradient.json', gradients(root))
    for runs in (limits_runs(), why_runs(), discarded(), pilot()):
        train(runs, root, jobs, dry)
        if not dry: record(runs, root, more=named)
    train(ring_runs(), root, jobs, dry)
    if not dry:
        record(ring_runs(), root)
        draw_ring(root)

def quick(root, jobs, steps=200, seeds=2):
    "The test on digits, far too short and with far too few seeds, drawn as the real one is."
    runs = [run('digits', a, ('1e-3', '3'), s, steps) for a in (*UNROLLED, 'look-ahead 10', 'extra-D 10') for s in range(seeds)]
    train(runs, root, jobs)
    record(runs, root, root/'samples')
    shown(runs, root, root/'samples'/'unrolled_infogan', root/'samples')

def options():
    "The command line: every verb has the options that apply to it."
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = p.add_subparsers(dest='what', required=True)
    def verb(name, help, *wanted):
        v = verbs.add_parser(name, help=help)
        if 'data' in wanted: v.add_argument('--data', choices=DATA, default='digits')
        if 'arms' in wanted: v.add_argument('--arms', nargs='+', choices=ARMS, default=list(ARMS))
        if 'runs' in wanted: v.add_argument('--runs', type=Path, default=ROOT/'runs', help='where runs are kept')
        if 'train' in wanted:
            v.add_argument('--jobs', type=int, default=1)
            v.add_argument('--missing', action='store_true', help='train only what runs.json lacks')
            v.add_argument('--dry', action='store_true', help='only say what is left to do')
    verb('search', 'train every arm with each pair of learning rates, on seeds kept for that', 'data', 'arms', 'runs', 'train')
    verb('test', 'train the arms with the rates chosen there', 'data', 'arms', 'runs', 'train')
    verb('limits', 'on MNIST, K = 0 with one thing changed at a time', 'runs', 'train')
    verb('why', 'on MNIST, K = 10 with one thing changed, and K = 0 beside it', 'runs', 'train')
    verb('ring', 'on the ring, where a GAN loses modes, InfoGAN with and without its information', 'runs', 'train')
    verb('shown', 'on MNIST, keep the median models and draw the figures', 'runs')
    verb('cost', 'measure a step of every arm, in turns', 'data')
    verb('gradient', "on MNIST, hold G's gradient through K steps against the look-ahead's", 'runs')
    return p.parse_args()

if __name__ == '__main__':
    o = options()
    with plainly():
        if o.what == 'cost': write_cost(o.data)
        elif o.what == 'gradient': write_json(SAMPLES/'unrolled_infogan'/'gradient.json', gradients(o.runs))
        elif o.what == 'shown': published(test_runs('mnist'), o.runs)
        else:
            runs = {'search': lambda: search_runs(o.data, o.arms), 'test': lambda: test_runs(o.data, o.arms), 'limits': limits_runs, 'why': why_runs, 'ring': ring_runs}[o.what]()
            if not runs: sys.exit('error: there is nothing to train: these arms have no search of their own, none on these data, or one that is not complete')
            train(runs, o.runs, o.jobs, o.dry, o.missing)
            if not o.dry: record(runs, o.runs, **({'more': named} if o.what in ('limits', 'why') else {}))
            if not o.dry and o.what == 'ring': draw_ring(o.runs)
