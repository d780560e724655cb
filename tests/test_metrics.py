"""The metrics of chapter 07 against published implementations, on five random data sets each.

disentanglement_lib (Locatello et al. 2019) was written for TensorFlow 1, but its metrics are numpy and scikit-learn: with stand-ins for `gin` and `absl`
they run as they are. It and torch-fidelity are installed into a folder of their own, without dependencies.
"""
import subprocess, sys, types
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from disentangle_nb import metrics

PEERS = Path(__file__).resolve().parent.parent/'.venv'/'peers'
SEEDS = range(5)


@pytest.fixture(scope='module', autouse=True)
def peers():
    with FileLock(PEERS.with_name('peers.lock')):          # tests run two at a time
        if not PEERS.is_dir():
            new = PEERS.with_name('peers.new')
            subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-deps', '--target', str(new),
                            'disentanglement_lib==1.5', 'torch-fidelity==0.4.0', 'six'], check=True)
            new.rename(PEERS)
    sys.path.append(str(PEERS))
    configurable = lambda *a, **k: lambda f: f
    gin = types.ModuleType('gin')
    gin.tf = types.ModuleType('gin.tf')
    for m in (gin, gin.tf): m.configurable, m.REQUIRED = configurable, None
    absl = types.ModuleType('absl')
    absl.logging = types.SimpleNamespace(info=lambda *a: None)
    before = {name: sys.modules.get(name) for name in ('gin', 'gin.tf', 'absl')}
    sys.modules.update({'gin': gin, 'gin.tf': gin.tf, 'absl': absl})
    yield
    for name, m in before.items(): sys.modules.pop(name) if m is None else sys.modules.update({name: m})


@pytest.fixture
def lib():
    from disentanglement_lib.evaluation.metrics import beta_vae, dci, factor_vae, mig, modularity_explicitness, sap_score, utils
    utils.make_discretizer = partial(utils._histogram_discretize, num_bins=20)
    return types.SimpleNamespace(mig=mig, dci=dci, sap=sap_score, factor_vae=factor_vae, modularity=modularity_explicitness, beta_vae=beta_vae)


class World:
    "Random factors, and codes that mix them, the first ones less than the last, with noise."
    def __init__(self, seed, n=6000, noise=.05):
        self.rng, self.noise = np.random.default_rng(seed), noise
        self.sizes = self.rng.integers(2, 12, 4)
        self.num_factors = len(self.sizes)
        self.mix = np.eye(4, 6) + self.rng.random()*self.rng.standard_normal((4, 6))*np.linspace(0, .8, 6)
        self.factors = self.sample_factors(n)
        self.codes = self.sample_observations_from_factors(self.factors)
        self.fit, self.test = metrics._halves(n, 0)

    # disentanglement_lib's interface; the observations are the codes
    def sample_factors(self, n, random_state=None): return np.stack([self.rng.integers(0, k, n) for k in self.sizes], 1)
    def sample_observations_from_factors(self, factors, random_state=None):
        return (factors/self.sizes) @ self.mix + self.noise*self.rng.standard_normal((len(factors), 6))
    def sample_observations(self, n, random_state=None): return self.sample_observations_from_factors(self.sample_factors(n))
    def sample(self, n, random_state=None):
        factors = self.sample_factors(n)
        return factors, self.sample_observations_from_factors(factors)

    @property
    def halves(self): return self.codes[self.fit].T, self.factors[self.fit].T, self.codes[self.test].T, self.factors[self.test].T


@pytest.mark.parametrize('seed', SEEDS)
def test_information(seed, lib):
    w = World(seed)
    assert metrics.mig(w.codes, w.factors) == pytest.approx(lib.mig._compute_mig(w.codes.T, w.factors.T)['discrete_mig'], abs=1e-9)
    table, _ = metrics.mutual_information(w.codes, w.factors)
    assert metrics.modularity(w.codes, w.factors) == pytest.approx(lib.modularity.modularity(table), abs=1e-9)


@pytest.mark.parametrize('seed', SEEDS)
def test_predictors(seed, lib):
    w = World(seed)
    whole = w.codes.T, w.factors.T, w.codes.T, w.factors.T
    assert metrics.sap(w.codes, w.factors) == pytest.approx(lib.sap._compute_sap(*whole, True)['SAP_score'], abs=1e-9)
    standard = World(seed)                          # ours standardises the codes, on whose scale the SVM's penalty depends
    standard.codes = (w.codes - w.codes.mean(0))/w.codes.std(0)
    standard.factors = w.factors
    assert metrics.sap(w.codes, w.factors, ordered=False) == pytest.approx(lib.sap._compute_sap(*standard.halves, False)['SAP_score'], abs=.02)
    scaled = [(x - w.codes[w.fit].mean(0)[:, None])/w.codes[w.fit].std(0)[:, None] if i % 2 == 0 else x for i, x in enumerate(w.halves)]
    per_factor = [lib.modularity.explicitness_per_factor(scaled[0], y, scaled[2], z)[1] if len(set(y)) > 2 else None for y, z in zip(scaled[1], scaled[3])]
    several = [j for j, v in enumerate(per_factor) if v is not None]       # for two values the library's call of roc_auc_score fails
    by_value = np.average([per_factor[j] for j in several], weights=[w.sizes[j] for j in several])     # ours: mean over values, theirs: over factors
    assert metrics.explicitness(w.codes, w.factors[:, several]) == pytest.approx(by_value, abs=.02)


@pytest.mark.parametrize('seed', SEEDS)
def test_dci(seed, lib):
    from sklearn.ensemble import GradientBoostingClassifier
    w = World(seed, 1000)
    theirs = lib.dci._compute_dci(*w.halves)
    ours = metrics.dci(w.codes, w.factors, model=partial(GradientBoostingClassifier, random_state=0))
    for mine, name in (('disentanglement',)*2, ('completeness',)*2, ('informativeness', 'informativeness_test')):
        assert ours[f'dci_{mine}'] == pytest.approx(theirs[name], abs=.02)
    print({k: f'{v:.3f}, forest {f:.3f}' for (k, v), f in zip(ours.items(), metrics.dci(w.codes, w.factors).values())})


@pytest.mark.parametrize('seed', SEEDS)
def test_interventions(seed, lib):
    w = World(seed, 20_000, noise=.4)          # so much that the scores are well below 1
    order = np.lexsort(w.factors.T)             # sorted rows: the drawing must not depend on them
    codes, factors = w.codes[order], w.factors[order]
    state = np.random.RandomState(seed)
    theirs = lib.factor_vae.compute_factor_vae(w, lambda x: x, state, batch_size=64, num_train=10_000, num_eval=10_000, num_variance_estimate=20_000)
    ours = metrics.factor_vae_score(codes, factors, votes=10_000)
    assert ours == pytest.approx(theirs['eval_accuracy'], abs=.02) and .3 < ours < .97
    theirs = lib.beta_vae.compute_beta_vae_sklearn(w, lambda x: x, state, batch_size=64, num_train=10_000, num_eval=5000)
    ours_beta = metrics.beta_vae_score(codes, factors, votes=10_000)
    assert ours_beta == pytest.approx(theirs['eval_accuracy'], abs=.02) and .3 < ours_beta < .99
    print(f"FactorVAE {ours:.3f}; beta-VAE {ours_beta:.3f}, theirs {theirs['eval_accuracy']:.3f}")


class Polar(World):
    "Two factors are a radius and an angle, and so are the other two: how far apart two images are depends on the value that they share."
    def sample_observations_from_factors(self, factors, random_state=None):
        radius, angle = 1 + 4*factors[:, ::2]/self.sizes[::2], 2*np.pi*factors[:, 1::2]/self.sizes[1::2]
        return np.concatenate([radius*np.cos(angle), radius*np.sin(angle)], 1) + self.noise*self.rng.standard_normal((len(factors), 4))


@pytest.mark.parametrize('seed', SEEDS[:2])
def test_interventions_on_curves(seed, lib):
    w = Polar(seed, 20_000)
    theirs = lib.factor_vae.compute_factor_vae(w, lambda x: x, np.random.RandomState(seed), batch_size=64, num_train=5000, num_eval=5000, num_variance_estimate=20_000)
    assert metrics.factor_vae_score(w.codes, w.factors) == pytest.approx(theirs['eval_accuracy'], abs=.03)
    theirs = lib.beta_vae.compute_beta_vae_sklearn(w, lambda x: x, np.random.RandomState(seed), batch_size=64, num_train=5000, num_eval=5000)
    ours = metrics.beta_vae_score(w.codes, w.factors, votes=5000)
    assert ours == pytest.approx(theirs['eval_accuracy'], abs=.02)
    print(f"beta-VAE {ours:.3f}, theirs {theirs['eval_accuracy']:.3f}")


@pytest.mark.parametrize('seed', SEEDS)
def test_sets(seed):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kernel_mmd
    from torch_fidelity.metric_prc import calculate_precision_recall_full
    rng = torch.Generator().manual_seed(seed)
    real, fake = (torch.randn(n, 8, generator=rng, dtype=torch.float64) @ torch.randn(8, 8, generator=rng, dtype=torch.float64) for n in (1200, 700))
    theirs = fid_statistics_to_metric(*map(fid_features_to_statistics, (real, fake)), False)['frechet_inception_distance']
    assert metrics.frechet_distance(real, fake) == pytest.approx(theirs, rel=1e-6)
    kid = kernel_mmd(real[:700].numpy(), fake.numpy(), kid_kernel='poly', kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1.)
    assert metrics.kernel_distance(real[:700], fake) == pytest.approx(kid, rel=1e-9)
    for measure in (metrics.frechet_distance, metrics.kernel_distance, metrics.precision_recall):
        for bad in (real*float('nan'), real[:, :7], real[0]):
            with pytest.raises(ValueError, match='features must be finite numbers'): measure(bad, fake)
    with pytest.raises(ValueError, match='k must be 1 or more'): metrics.precision_recall(real, fake, 0)
    assert list(metrics.precision_recall(real, fake).values()) == pytest.approx([float(v) for v in calculate_precision_recall_full(fake, real, 3)], abs=1e-6)
