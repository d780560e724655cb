"""Chapter 12's experiment: what each ingredient of VAEInfoGAN is worth, on cartoon faces and on MNIST. Its runs, numbers, shown model and figures.

    python tools/faces.py search|ladder|mnist|best|shown [--runs runs] [--jobs 1] [--missing] [--dry]

`search` changes one setting at a time, on a seed kept for that; `ladder` trains VAE, VAE/GAN, VAEInfoGAN and Unrolled VAEInfoGAN on faces of 32x32,
`mnist` on MNIST; `best` trains the model that is shown, on faces of 64x64; `shown` keeps it and draws the figures. All numbers go to samples/runs.json.
"""
import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from disentangle_nb.data import avatars, load_data
from disentangle_nb.explore import codes_of, interpolate, plot_edits, plot_reconstructions, save_figure, variables
from disentangle_nb.infogan import Categorical
from disentangle_nb.metrics import alignment, slant, thickness
from disentangle_nb.training import load
from runs import ROOT, SAMPLES, Run, keep, record, train

MISSION = ('age cue', 'gender cue', 'hair colour', 'hair length', 'eyewear')     # the rows of the figure, in this order

@dataclass(frozen=True)
class Arm:
    options:str       # of `disentangle train vaeinfogan`
    k:int
    ms:tuple          # CPU milliseconds a step, on faces and on MNIST

LADDER = {
    'VAE': Arm('--similarity pixels --adversarial 0 --info 0', 0, (70, 50)),
    'VAE/GAN': Arm('--info 0', 0, (110, 80)),
    'VAEInfoGAN': Arm('', 0, (110, 80)),
    'Unrolled VAEInfoGAN': Arm('', 2, (220, 170)),
}

def columns(read, model):
    "Codes and noise variables that the encoder read, (N, d), in the order of `variables`."
    return np.column_stack([*(read[n].cpu().numpy() for n in codes_of(model)), read['z'].cpu().numpy()])

def read_all(model, x, batch=500):
    "What the encoder reads off many images, (N, d)."
    return np.concatenate([columns(model.infer(b), model) for b in x.split(batch)])

def aligned(model, valid, test, names, bins=20):
    """For each factor the variable that knows most about it, chosen on validation images; on test images its normalised mutual information and
    the gap to any other. `valid` and `test` are (images, factors)."""
    discrete = [i for i, c in enumerate(model.codes) if isinstance(c, Categorical)]
    codes = [read_all(model, x) for x, _ in (valid, test)]
    chosen = alignment(codes[0], valid[1], discrete, bins=bins)['code']
    found = alignment(codes[1], test[1], discrete, chosen, bins)
    return {f'{what}_{name}': variables(model)[v] if what == 'code' else float(v) for what in ('code', 'nmi', 'gap') for name, v in zip(names, found[what])}

def faces(size, root=None):
    "Validation and test faces with their factors, and the factors' names."
    valid, test = (avatars(s, size, root) for s in ('valid', 'test'))
    return *((d.items(slice(len(d))), d.factors.numpy()) for d in (valid, test)), test.factor_names

def digits(n=5000):
    "MNIST's test digits in two halves with class, and fifths of measured thickness and slant, as factors."
    data = load_data('mnist', 'test')
    x = data.items(slice(2*n))
    fifths = lambda v: np.digitize(v, np.quantile(v, (.2, .4, .6, .8)))
    factors = np.stack([data.y[:2*n].numpy(), fifths(thickness(x).numpy()), fifths(slant(x).numpy())], 1)
    return (x[:n], factors[:n]), (x[n:], factors[n:]), ('class', 'thickness', 'slant')

FACES = '--data avatars --image-size 32 --threads 1'
SEARCH = {        # changes of one setting
    'as it is': '', 'beta 4': '--beta 4', 'beta 0.25': '--beta .25', 'sigma 0.5': '--sigma-x .5', 'sigma 2': '--sigma-x 2',
    'gamma 10': '--gamma 10', 'gamma 0.1': '--gamma .1', 'all layers': '--similarity layers', 'information weighs 0.1': '--info .1',
    'continuous codes weigh 1': '--cont-weight 1', 'spectral norm in D': '--norm spectral', 'no norm in D': '--norm none', 'lr 2e-3': '--lr 2e-3', 'lr 5e-4': '--lr 5e-4',
}

def search_runs(steps=3000):
    return [Run('faces-search', name, 0, 100, f'{FACES} --steps {steps} {more}'.strip(), LADDER['VAEInfoGAN'].ms[0]*steps/1000 + 20,
                name.replace(' ', '-'), 'vaeinfogan') for name, more in SEARCH.items()]
