"""Choose the 7,000 images of MNIST that come with the package: disentangle_nb/assets/mnist-small.npz.

    python tools/mnist_small.py [--data-root ROOT]

6,000 training and 1,000 test images at random (seed 0), in MNIST's order; needs all of MNIST (disentangle data mnist).
"""
import argparse
from pathlib import Path

import numpy as np

from disentangle_nb.data import mnist_like
from disentangle_nb.training import write_whole

ROOT = Path(__file__).resolve().parent.parent
SIZES = {'train': 6000, 'test': 1000}

def chosen(root, seed=0):
    "name -> array: images (N, 28, 28) and labels (N,) of each split, bytes."
    arrays, rng = {}, np.random.default_rng(seed)
    for split, n in SIZES.items():
        whole = mnist_like('mnist', split, root)
        idx = np.sort(rng.choice(len(whole), n, replace=False))
        arrays |= {f'{split}_images': whole.x[idx, 0].numpy(), f'{split}_labels': whole.y[idx].numpy().astype(np.uint8)}
    return arrays

def write(path, arrays):
    with open(path, 'wb') as f: np.savez_compressed(f, **arrays)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--data-root', help='where MNIST lies')
    arrays = chosen(p.parse_args().data_root)
    path = ROOT/'disentangle_nb'/'assets'/'mnist-small.npz'
    write_whole(path, lambda tmp: write(tmp, arrays))
    print(f'{path.name}: {path.stat().st_size/1e6:.2f} MB')
