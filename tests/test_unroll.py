"""The gradient through K steps against a naive float64 unroll: every optimiser, normalisation, K, mode, form of input and state.

Textbook updates in a plain `create_graph` loop are the reference; a second call must give the same bits.
"""
import warnings
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from disentangle_nb import unroll as engine
from disentangle_nb.training import _in_precision, autocast, model_class
from disentangle_nb.unroll import adam, adamw, rmsprop, sgd, state_of, stateless, unroll

NORMS = {
    'none': nn.Identity,
    'batch': lambda: nn.BatchNorm1d(6),
    'group': lambda: nn.GroupNorm(2, 6),
    'layer': lambda: nn.LayerNorm(6),
    'instance': lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2), nn.Flatten()),
    'spectral': nn.Identity,
    'dropout': lambda: nn.Dropout(.3),
}

def network(norm):
    torch.manual_seed(1)
    wrap = nn.utils.parametrizations.spectral_norm if norm == 'spectral' else lambda m: m
    return nn.Sequential(wrap(nn.Linear(3, 6)), NORMS[norm](), nn.Softplus(), wrap(nn.Linear(6, 1))).double()

# ours, and torch.optim's of the same settings (to make a live state)
OPTIMIZERS = {
    'sgd': (sgd, torch.optim.SGD, dict(lr=.1)),
    'momentum': (sgd, torch.optim.SGD, dict(lr=.1, momentum=.9, dampening=.2)),
    'nesterov': (sgd, torch.optim.SGD, dict(lr=.1, momentum=.9, nesterov=True, weight_decay=.1)),
    'adam': (adam, torch.optim.Adam, dict(lr=.01, betas=(.5, .9), weight_decay=.1)),
    'adamw': (adamw, torch.optim.AdamW, dict(lr=.01, betas=(.5, .9), weight_decay=.01)),
    'rmsprop': (rmsprop, torch.optim.RMSprop, dict(lr=.01, alpha=.9)),
    'centred': (rmsprop, torch.optim.RMSprop, dict(lr=.01, alpha=.9, momentum=.5, centered=True)),
}

def root(v): return (v + 1e-24).sqrt()

def textbook(kind, p, g, s):
    "One parameter's update by the formulas of the papers, with the settings above."
    if kind == 'sgd': return p - .1*g, s
    if kind in ('momentum', 'nesterov'):
        if kind == 'nesterov': g = g + .1*p
        kept = .8 if kind == 'momentum' else 1.
        b = .9*s['momentum_buffer'] + kept*g if s['step'] else g
        return p - .1*(b if kind == 'momentum' else g + .9*b), {'momentum_buffer': b, 'step': 1}
    if kind in ('adam', 'adamw'):
        if kind == 'adam': g = g + .1*p
        else: p = p - .01*.01*p
        t, m, v = s['step'] + 1, .5*s['exp_avg'] + .5*g, .9*s['exp_avg_sq'] + .1*g**2
        return p - .01*(m/(1 - .5**t))/(root(v/(1 - .9**t)) + 1e-8), {'exp_avg': m, 'exp_avg_sq': v, 'step': t}
    v = .9*s['square_avg'] + .1*g**2
    if kind == 'rmsprop': return p - .01*g/(root(v) + 1e-8), {'square_avg': v}
    a = .9*s['grad_avg'] + .1*g
    b = .5*s['momentum_buffer'] + g/(root(v - a**2) + 1e-8)
    return p - .01*b, {'square_avg': v, 'grad_avg': a, 'momentum_buffer': b}

def naive(loss, params, each, kind, state):
    for x in each:
        grads = torch.autograd.grad(loss(params, *x), list(params.values()), create_graph=True)
        new = {n: textbook(kind, p, g, state[n]) for (n, p), g in zip(params.items(), grads)}
        params, state = ({n: pair[i] for n, pair in new.items()} for i in (0, 1))
    return params

def flat(tensors): return torch.cat([t.flatten() for t in tensors])

@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

@pytest.mark.parametrize('kind', OPTIMIZERS)
def test_gradient(kind):
    make, live, settings = OPTIMIZERS[kind]
    for norm in NORMS:
        D, rng = network(norm), torch.Generator().manual_seed(0)
        call, params, ours = stateless(D), dict(D.named_parameters()), make(**settings)
        loss = lambda p, x, fake: softplus(-call(p, x)).mean() + softplus(call(p, fake)).mean()
        draw = lambda: torch.randn(8, 3, generator=rng, dtype=torch.float64)
        data = [(draw(), draw().requires_grad_()) for _ in range(10)]
        for warm in (0, 2):
            opt = live(D.parameters(), **settings)
            for _ in range(warm): opt.zero_grad(); loss(params, *data[0]).backward(); opt.step()
            theta = {n: p.detach().clone().requires_grad_() for n, p in params.items()}
            state = state_of(opt, params)
            full = {n: state[n] or ours.init(p) for n, p in theta.items()}
            for K in (0, 1, 3, 10):
                for inputs, each in ((data[0], data[:1]*K), (data[:K], data[:K])):
                    wrt = [*dict.fromkeys(fake for _, fake in each or data[:1]), *theta.values()]
                    def gradient(unrolled):
                        torch.manual_seed(7)                   # of the dropout
                        return flat(torch.autograd.grad(loss(unrolled(), *data[0]), wrt))
                    expected = gradient(lambda: naive(loss, theta, each, kind, full))
                    for remat in (True, False):
                        got, again = (gradient(lambda: unroll(loss, theta, inputs, K, ours, state, remat=remat)) for _ in range(2))
                        assert torch.equal(got, again)
                        error = ((got - expected).norm()/expected.norm()).item()
                        assert error < 1e-10, (norm, warm, K, isinstance(inputs, list), remat, error)

@pytest.mark.parametrize('model, options', [('gan', dict(norm='spectral')), ('infogan', dict(norm='batch')), ('infogan', dict(norm='none', penalty=1.)), ('vaeinfogan', dict(norm='group'))])
def test_training_records_each_step_once(monkeypatch, model, options):
    "What a GPU would record, by a stand-in that runs the function again on the same memory: falling rates and moving buffers need no new recording, and change nothing."
    def record(f, args, pool, **first):
        with engine._Outside(engine._flat(args)): f(*args, **first)
        out = f(*args)
        return lambda: engine._copy(out, f(*args)), out, pool
    monkeypatch.setattr(engine, '_record', record)
    monkeypatch.setattr(engine, '_graphs', {})
    for name, value in (('failed', set()), ('unrolls', Counter()), ('recordings', Counter())): monkeypatch.setattr(engine._Engine, name, value)
    monkeypatch.setattr(engine._Engine, 'cuda', property(lambda self: True, lambda self, v: None), raising=False)
    cls, x, ends = model_class(model), torch.rand(2*8, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double(), []
    for compile in (True, False):
        net, rng = cls(cls.Config(shape=(1, 8, 8), width=4, d_width=4, unroll=2, decay=4, compile=compile, **options)), torch.Generator().manual_seed(0)
        state = _in_precision(net.init(), 'fp64')
        for step in range(5):
            with warnings.catch_warnings(), autocast(x.device, 'fp64'):
                warnings.filterwarnings('error', message='compile=True')
                state, _ = net.step(state, x[:8*net.batches], rng)
            if compile and step == 0: first = len(engine._graphs)
        ends.append(torch.cat([t.flatten().double() for t in engine._flat(state)]))
    assert 0 < len(engine._graphs) == first <= 4
    assert (ends[0] - ends[1]).norm() < 1e-8*ends[1].norm()
