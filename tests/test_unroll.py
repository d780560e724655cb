"""The gradient through K steps against a naive float64 unroll: every optimiser, normalisation, K, mode, form of input and state.

Textbook updates in a plain `create_graph` loop are the reference; a second call must give the same bits.
"""
import copy
import gc
import io
import threading
import warnings
import weakref
from collections import Counter, OrderedDict, UserDict, defaultdict, namedtuple
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import softplus
from torch.utils.checkpoint import checkpoint

from disentangle_nb import unroll as engine
from disentangle_nb.training import _in_precision, autocast, model_class
from disentangle_nb.unroll import adam, adamw, optimizer_of, rmsprop, sgd, state_of, stateless, unroll

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

def as_on_a_gpu(monkeypatch):
    def record(f, args, pool, **first):
        with engine._Outside(engine._flat(args)): f(*args, **first)
        out = f(*args)
        return lambda: engine._copy(out, f(*args)), out, pool
    monkeypatch.setattr(engine, '_record', record)
    monkeypatch.setattr(engine, '_graphs', {})
    for name, value in (('failed', set()), ('unrolls', Counter()), ('recordings', Counter())): monkeypatch.setattr(engine._Engine, name, value)
    monkeypatch.setattr(engine._Engine, 'cuda', property(lambda self: True, lambda self, v: None), raising=False)

@pytest.mark.parametrize('model, options', [('gan', dict(norm='spectral')), ('infogan', dict(norm='batch')), ('infogan', dict(norm='none', penalty=1.)), ('vaeinfogan', dict(norm='group'))])
def test_training_records_each_step_once(monkeypatch, model, options):
    "What a GPU would record, by a stand-in that runs the function again on the same memory: falling rates and moving buffers need no new recording, and change nothing."
    as_on_a_gpu(monkeypatch)
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

# What other people's bug reports found: right values, or a word that says what is wrong.

def agree(loss, params, inputs, steps, optimizer, expected, wrt, tolerance=1e-10, modes=(dict(), dict(keep_all=False), dict(remat=False))):
    "The gradient of theta_K's sum of squares is `expected` in every mode."
    for mode in modes:
        torch.manual_seed(7)
        end = unroll(loss, params, inputs, steps, optimizer, **mode)
        got = torch.autograd.grad(sum((p**2).sum() for p in end.values()), wrt, retain_graph=True)
        assert (flat(got) - flat(expected)).norm() <= tolerance*flat(expected).norm(), mode

def by_hand(loss, params, inputs, steps, wrt, lr=.1):
    torch.manual_seed(7)
    for _ in range(steps):
        grads = torch.autograd.grad(loss(params, *inputs), list(params.values()), create_graph=True)
        params = {n: p - lr*g for (n, p), g in zip(params.items(), grads)}
    return torch.autograd.grad(sum((p**2).sum() for p in params.values()), wrt, retain_graph=True)

def theta_of(module): return {n: p.detach().clone().requires_grad_() for n, p in module.named_parameters()}

def small(*layers):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 5), *layers, nn.Softplus(), nn.Linear(5, 1)).double()

def batch(n=6):
    x, fake = torch.randn(2, n, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return x, fake.requires_grad_()

FRESH = {         # of a point, a leaf that has nothing to do with it, in every form that people write
    'requires_grad_': lambda z: z.detach().requires_grad_(),
    'attribute': lambda z: (leaf := z.detach(), setattr(leaf, 'requires_grad', True))[0],
    'Variable': lambda z: torch.autograd.Variable(z.detach(), requires_grad=True),
    'Parameter': lambda z: nn.Parameter(z.detach()),
    'tensor': lambda z: torch.tensor(z.tolist(), dtype=z.dtype, requires_grad=True),
    'clone': lambda z: z.detach().clone().requires_grad_(),
}
POINTS = {
    'WGAN-GP': lambda x, fake: x + torch.rand(len(x), 1, dtype=x.dtype)*(fake - x),
    'R1': lambda x, fake: x,
    'DRAGAN': lambda x, fake: x + .5*x.std()*torch.rand_like(x),
}

@pytest.mark.parametrize('form', FRESH)
def test_gradient_penalty_at_a_fresh_leaf(form):
    D = small()
    call, theta, (x, fake) = stateless(D), theta_of(D), batch()
    for points in POINTS.values():
        def loss(p, x, fake):
            z = FRESH[form](points(x, fake))
            slope, = torch.autograd.grad(call(p, z).sum(), z, create_graph=True)
            return (call(p, fake) - call(p, x)).mean() + ((slope.norm(dim=1) - 1)**2).mean()
        wrt = [fake, *theta.values()]
        agree(loss, theta, (x, fake), 3, sgd(.1), by_hand(loss, theta, (x, fake), 3, wrt), wrt)

def test_captured_is_told_from_made():
    "Next to a leaf that the loss makes, one from outside is refused, in whatever form; a module made in the loss is not one."
    D, G = small(), nn.Linear(3, 3).double()
    call, theta, (x, fake) = stateless(D), theta_of(D), batch()
    def penalty(p, z):
        z = z.detach().requires_grad_()
        return (torch.autograd.grad(call(p, z).sum(), z, create_graph=True)[0]**2).mean()
    memory = []
    def remembered(p, x):
        if not memory: memory.append(x.detach().requires_grad_())
        return call(p, memory[0]).mean()
    outside = {
        'leaf': lambda p, x: penalty(p, x) + call(p, fake).mean(), 'made': lambda p, x: penalty(p, x) + call(p, made).mean(),
        'weights': lambda p, x: penalty(p, x) + call(p, G(x)).mean(), 'remembered': remembered,
        'orphan': lambda p, x: penalty(p, x) + call(p, orphan).mean()}
    made, orphan = G(x), nn.Linear(3, 3).double()(x)              # whose weights nobody holds
    for name, loss in outside.items():
        with pytest.raises(ValueError, match='neither in params nor in inputs'): unroll(loss, theta, (x,), 2, sgd(.1))
        unroll(loss, theta, (x,), 2, sgd(.1), remat=False)
    def inside(p, x, fake):
        torch.manual_seed(3)
        return penalty(p, x) + call(p, nn.Linear(3, 3).double()(fake)).mean()
    wrt = [fake, *theta.values()]
    agree(inside, theta, (x, fake), 2, sgd(.1), by_hand(inside, theta, (x, fake), 2, wrt), wrt)

def test_random_numbers_of_a_loss_that_makes_leaves():
    "The loss is run once more to see what it makes; the global generator does not notice."
    D = small(nn.Dropout(.5))
    call, theta, (x, fake) = stateless(D), theta_of(D), batch()
    def loss(p, x, fake):
        z = (x + torch.rand_like(x)).requires_grad_()
        return call(p, fake).mean() + (torch.autograd.grad(call(p, z).sum(), z, create_graph=True)[0]**2).mean()
    ends = []
    for remat in (True, False):
        torch.manual_seed(5)
        unroll(loss, theta, (x, fake), 3, sgd(.1), remat=remat)
        ends.append(torch.rand(3))
    assert torch.equal(*ends)

class Frozen(nn.Module):
    "An affine map by running statistics, written out."
    def __init__(self, m): super().__init__(); self.m = m.eval()
    def forward(self, x):
        shape = [1, -1] + [1]*(x.ndim - 2)
        y = (x - self.m.running_mean.view(shape))/(self.m.running_var.view(shape) + self.m.eps)**.5
        return y if self.m.weight is None else y*self.m.weight.view(shape) + self.m.bias.view(shape)

def with_statistics(m):
    rng = torch.Generator().manual_seed(3)
    m.running_mean.copy_(torch.randn(m.num_features, generator=rng))
    m.running_var.copy_(torch.rand(m.num_features, generator=rng) + .5)
    return m

NORMED = {
    'batch 1d': lambda: (with_statistics(nn.BatchNorm1d(3)), (4, 3)), 'batch 2d': lambda: (with_statistics(nn.BatchNorm2d(3)), (4, 3, 2, 2)),
    'cumulative': lambda: (with_statistics(nn.BatchNorm1d(3, momentum=None)), (4, 3)), 'bare': lambda: (with_statistics(nn.BatchNorm1d(3, affine=False)), (4, 3)),
    'instance': lambda: (with_statistics(nn.InstanceNorm1d(3, track_running_stats=True, affine=True)), (4, 3, 5)),
    'one sample': lambda: (with_statistics(nn.BatchNorm1d(3)), (1, 3)),
}

@pytest.mark.parametrize('kind', NORMED)
def test_evaluation_mode_uses_running_statistics(kind):
    m, shape = NORMED[kind]()
    m, x = m.double().eval(), torch.randn(shape, dtype=torch.float64)
    before = {n: b.clone() for n, b in m.state_dict().items()}
    params, buffers = dict(m.named_parameters()), dict(m.named_buffers())
    torch.testing.assert_close(stateless(m)(params, x), Frozen(m)(x), rtol=1e-12, atol=1e-12)
    given = {**params, **buffers, 'running_mean': buffers['running_mean'] + 1}           # in `params` they count, too
    torch.testing.assert_close(stateless(m)(given, x), stateless(m)(params, x - 1), rtol=1e-12, atol=1e-12)
    if kind != 'one sample':                             # read when `stateless` is called, and of each part for itself
        frozen = stateless(m)
        trained = stateless(m.train())
        torch.testing.assert_close(trained(params, x), m(x), rtol=0, atol=0)
        m.load_state_dict(before)
        torch.testing.assert_close(frozen(params, x), Frozen(m)(x), rtol=1e-12, atol=1e-12)
    assert all(torch.equal(b, m.state_dict()[n]) for n, b in before.items())

def test_unrolled_through_frozen_layers():
    for frozen in ('all', 'one'):
        D, plain = (small(with_statistics(nn.BatchNorm1d(5)), nn.BatchNorm1d(5)) for _ in 'ab')
        (D if frozen == 'all' else D[1]).eval()
        plain[1] = Frozen(plain[1])
        if frozen == 'all': plain[2] = Frozen(plain[2])
        names = dict(zip(dict(D.named_parameters()), dict(plain.named_parameters())))
        (x, fake), theta = batch(), theta_of(D)
        def loss_by(call): return lambda p, x, fake: softplus(-call(p, x)).mean() + softplus(call(p, fake)).mean()
        reference = stateless(plain)
        wrt = [fake, *theta.values()]
        expected = by_hand(loss_by(lambda p, x: reference({names[n]: t for n, t in p.items()}, x)), theta, (x, fake), 3, wrt)
        agree(loss_by(stateless(D)), theta, (x, fake), 3, sgd(.1), expected, wrt)

LIVE = {       # a live optimiser's settings, and those of its second group
    'sgd': (torch.optim.SGD, dict(lr=.1), dict(lr=.03, momentum=.9, nesterov=True)),
    'momentum': (torch.optim.SGD, dict(lr=.1, momentum=.9), dict(dampening=.5, weight_decay=.1)),
    'adam': (torch.optim.Adam, dict(lr=.01, betas=(.5, .9)), dict(lr=.1, betas=(.1, .8), eps=1e-3, weight_decay=.1)),
    'adam, decoupled': (torch.optim.Adam, dict(lr=.01), dict(weight_decay=.3, decoupled_weight_decay=True)),
    'adamw': (torch.optim.AdamW, dict(lr=.01), dict(betas=(.5, .9), weight_decay=.3)),
    'rmsprop': (torch.optim.RMSprop, dict(lr=.01), dict(alpha=.9, momentum=.5, centered=True, weight_decay=.1)),
    'tensors': (torch.optim.Adam, dict(lr=torch.tensor(.01).double()), dict(lr=torch.tensor([.1]).double())),
}

def live_pair(kind):
    "A network and a live optimiser of two groups."
    (cls, first, second), D = LIVE[kind], small()
    if 'decoupled_weight_decay' in second and not issubclass(torch.optim.AdamW, torch.optim.Adam): pytest.skip('an older PyTorch')
    return D, cls([{'params': D[0].parameters()}, {'params': D[2].parameters(), **second}], **first)

def live_steps(D, opt, loss, n):
    for _ in range(n): opt.zero_grad(); loss(dict(D.named_parameters())).backward(); opt.step()

@pytest.mark.parametrize('kind', LIVE)
def test_twin_of_a_live_optimizer(kind):
    "Its groups' steps, from the first one and from where it is, are those of the live optimiser, whose settings move on the way."
    for mode in (dict(), dict(remat=False)):
        (D, opt), (x, fake) = live_pair(kind), batch()
        call, params, fake = stateless(D), dict(D.named_parameters()), fake.detach()
        def loss(p): return softplus(-call(p, x)).mean() + softplus(call(p, fake)).mean()
        for warm in range(2):
            end, first = unroll(loss, {n: p.detach() for n, p in params.items()}, (), 3, optimizer_of(opt, params), return_first=True, **mode)
            live_steps(D, opt, loss, 1)
            torch.testing.assert_close(first.params, {n: p.detach() for n, p in params.items()}, rtol=1e-10, atol=1e-12)
            live_steps(D, opt, loss, 2)
            torch.testing.assert_close(end, {n: p.detach() for n, p in params.items()}, rtol=1e-10, atol=1e-12)
            again = unroll(loss, params, (), 2, optimizer_of(opt, params), **mode)
            going_on = unroll(loss, params, (), 1, optimizer_of(opt, params), **mode)
            _, first = unroll(loss, params, (), 1, optimizer_of(opt, params), return_first=True, **mode)
            torch.testing.assert_close(unroll(loss, going_on, (), 1, optimizer_of(opt, params), first.state, **mode), again, rtol=1e-12, atol=1e-14)
            for g in opt.param_groups: g['lr'] = g['lr']*.5

@pytest.mark.parametrize('mode', [dict(), dict(remat=False), dict(compile=True)], ids=['replay', 'graph', 'compiled'])
def test_gradient_through_two_groups(mode):
    "By finite differences; compiled, it may run uncompiled."
    (D, opt), (x, fake) = live_pair('adam'), batch()
    call, params = stateless(D), dict(D.named_parameters())
    def loss(p, x, fake): return softplus(-call(p, x)).mean() + softplus(call(p, fake)).mean()
    live_steps(D, opt, lambda p: loss(p, x, fake.detach()), 2)
    twin = optimizer_of(opt, params)
    assert torch.autograd.gradcheck(lambda fake: loss(unroll(loss, params, (x, fake), 2, twin, **mode), x, fake), (fake[:2],))

def test_a_setting_that_appears_or_goes_on_the_way():
    for before, after in ((0., .9), (.9, 0.)):
        D, (x, _) = small(), batch()
        opt, call, params = torch.optim.SGD(D.parameters(), .1, momentum=before), stateless(D), dict(D.named_parameters())
        def loss(p): return softplus(call(p, x)).mean()
        live_steps(D, opt, loss, 2)
        opt.param_groups[0]['momentum'] = after
        end = unroll(loss, {n: p.detach() for n, p in params.items()}, (), 3, optimizer_of(opt, params))
        live_steps(D, opt, loss, 3)
        torch.testing.assert_close(end, {n: p.detach() for n, p in params.items()}, rtol=1e-10, atol=1e-12)

def test_momentum_that_appears_in_rmsprop():
    "PyTorch's own step fails there without a buffer; the twin starts at zero."
    D, (x, _) = small(), batch()
    opt, call, params = torch.optim.RMSprop(D.parameters(), .01), stateless(D), dict(D.named_parameters())
    def loss(p): return softplus(call(p, x)).mean()
    live_steps(D, opt, loss, 2)
    opt.param_groups[0]['momentum'] = .9
    end = unroll(loss, {n: p.detach() for n, p in params.items()}, (), 3, optimizer_of(opt, params))
    for p in params.values(): opt.state[p]['momentum_buffer'] = torch.zeros_like(p)
    live_steps(D, opt, loss, 3)
    torch.testing.assert_close(end, {n: p.detach() for n, p in params.items()}, rtol=1e-10, atol=1e-12)

def test_what_a_twin_cannot_follow_is_named():
    D = small()
    params, x = dict(D.named_parameters()), batch()[0]
    def refused(error, text, f, *args):
        with pytest.raises(error, match=text): f(*args)
    for make in (optimizer_of, state_of):
        refused(TypeError, 'no differentiable twin of Adagrad', make, torch.optim.Adagrad(D.parameters()), params)
        refused(TypeError, 'no differentiable twin of Mine', make, type('Mine', (torch.optim.Adam,), {})(D.parameters()), params)
        for flag in ('amsgrad', 'maximize'):            # in one group only
            groups = [{'params': D[0].parameters()}, {'params': D[2].parameters(), flag: True}]
            refused(ValueError, 'amsgrad and maximize are not supported', make, torch.optim.Adam(groups), params)
        refused(ValueError, "does not hold the parameter '2.weight'", make, torch.optim.Adam(D[0].parameters()), params)
        refused(ValueError, 'give the live ones', make, torch.optim.Adam(D.parameters()), {n: p.detach() for n, p in params.items()})
    opt = torch.optim.Adam(D.parameters())
    twin, call = optimizer_of(opt, {n: p for n, p in params.items() if n[0] == '0'}), stateless(D)
    refused(ValueError, "'2.weight', which optimizer_of was not given", unroll, lambda p: call(p, x).mean(), params, (), 1, twin)
    refused(TypeError, 'it is optimizer_of', unroll, lambda p: call(p, x).mean(), params, (), 1, opt)
    opt.register_step_post_hook(lambda *_: None)
    with pytest.warns(UserWarning, match='Adam has step hooks'): optimizer_of(opt, params)

@pytest.mark.parametrize('live, twin, says', [
    (lambda p: torch.optim.Adam(p, 1e-3), adam(1e-4), 'has lr 0.001, not 0.0001'), (lambda p: torch.optim.Adam(p), adam(betas=(.5, .999)), 'has beta1 0.9, not 0.5'),
    (lambda p: torch.optim.AdamW(p), adam(weight_decay=1e-2), 'is adamw, not adam'), (lambda p: torch.optim.SGD(p, .1, .9), sgd(.1, .9, nesterov=True), 'is sgd, not sgd, nesterov'),
    (lambda p: torch.optim.SGD(p, .1, .9), sgd(.1, .8), 'has momentum 0.9, not 0.8'), (lambda p: torch.optim.RMSprop(p, .1, weight_decay=.1), rmsprop(.1), 'has weight_decay 0.1, not 0.0'),
    (lambda p: torch.optim.Adam([{'params': p[:1]}, {'params': p[1:], 'lr': .1}], 1e-3), adam(1e-3), "has lr 0.1, not 0.001 .for '0.bias'"),
    (lambda p: torch.optim.Adam(p, 1e-3), adam(1e-3), None), (lambda p: torch.optim.Adam(p, torch.tensor(.5)), adam(torch.tensor(.5)), None)])
def test_state_of_with_other_settings_warns(live, twin, says):
    D = small()
    opt, call, params, x = live(list(D.parameters())), stateless(D), dict(D.named_parameters()), batch()[0]
    live_steps(D, opt, lambda p: call(p, x).mean(), 1)
    def go(state): unroll(lambda p: call(p, x).mean(), params, (), 1, twin, state)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        go(dict(state_of(opt, params)))
        if not says: return go(state_of(opt, params))
    with pytest.warns(UserWarning, match=says): go(state_of(opt, params))

def test_a_state_can_be_saved():
    D = small()
    opt, params, file = torch.optim.SGD(D.parameters(), .1, .9), dict(D.named_parameters()), io.BytesIO()
    live_steps(D, opt, lambda p: stateless(D)(p, batch()[0]).mean(), 1)
    state = state_of(opt, params)
    torch.save(state, file)
    file.seek(0)
    for again in (torch.load(file, weights_only=True), copy.deepcopy(state)):
        assert type(again) is OrderedDict
        torch.testing.assert_close(dict(again), dict(state), rtol=0, atol=0)

@pytest.mark.parametrize('make', [
    lambda v: sgd(v), lambda v: sgd(.1, v), lambda v: sgd(.1, .9, v), lambda v: sgd(.1, weight_decay=v), lambda v: adam(v), lambda v: adam(betas=(v, .9)), lambda v: adam(betas=(.9, v)),
    lambda v: adam(eps=v), lambda v: adamw(weight_decay=v), lambda v: rmsprop(v), lambda v: rmsprop(alpha=v), lambda v: rmsprop(momentum=v)])
def test_tensor_hyperparameters_are_checked(make):
    for wrong in (-1e-3, float('nan'), float('inf')):
        with pytest.raises(ValueError, match='must be in .0, '): make(torch.tensor(wrong))
    for wrong, says in ((torch.tensor([.1]), 'has no dimension'), (torch.tensor(.1j), 'must be in'), ('.1', 'must be in')):
        with pytest.raises(ValueError, match=says): make(wrong)
    for right in (.5, torch.tensor(.5), torch.tensor(.5, requires_grad=True), torch.tensor(0), torch.tensor(.5, device='meta')): make(right)

def test_betas_of_one_are_refused_as_tensors_too():
    for make in (lambda v: adam(betas=(v, .9)), lambda v: adam(betas=(.9, v)), lambda v: rmsprop(alpha=v)):
        with pytest.raises(ValueError, match='must be in .0, 1.'): make(torch.tensor(1.))

def test_numbers_keep_their_type():
    "A parameter without a dimension meets a double among the hyperparameters."
    for make in (sgd, lambda lr: sgd(lr, .9), adam, rmsprop):
        for p in (torch.tensor(2.), torch.tensor([2.])):
            for remat in (True, False):
                end, first = unroll(lambda p: p['w'].sum()**2, {'w': p}, (), 2, make(torch.tensor(.1).double()), return_first=True, remat=remat)
                tensors = [end['w'], first.params['w'], *(v for v in first.state['w'].values() if torch.is_tensor(v))]
                assert {t.dtype for t in tensors} == {torch.float32}

# Containers. Each is asked, inside the loss, for what a plain one has not.

class Attributes(dict): __getattr__ = dict.__getitem__
class Itself(dict):
    def __init__(self, **kw): super().__init__(**kw); self.__dict__ = self
class Named(dict):
    def __init__(self, x, name): super().__init__(x=x); self.name = name
class Wide(tuple):
    def __new__(cls, x, scale): return super().__new__(cls, (x,))
    def __init__(self, x, scale): self.scale = scale
class Listed(list): scale = 1.
class Point(NamedTuple):
    x:torch.Tensor
    scale:float
class Built(namedtuple('Built', 'x scale')):
    def __new__(cls, x): return super().__new__(cls, x, 1.)
@dataclass(frozen=True)
class Record:
    x:torch.Tensor
    inner:dict
    shape:tuple = field(init=False, default=())
@dataclass
class Slotted:
    __slots__ = ('x',)
    x:torch.Tensor

def listed(x):
    new = Listed([x])
    new.scale = 2.
    return new

CONTAINERS = {
    'attributes': (lambda x: Attributes(x=x), lambda b: b.x), 'itself': (lambda x: Itself(x=x), lambda b: b.x*(b['x'] == b.x)),
    'named': (lambda x: Named(x, 'a'), lambda b: b['x']*len(b.name)), 'defaultdict': (lambda x: defaultdict(lambda: 3., x=x), lambda b: b['x']*b['scale']),
    'ordered': (lambda x: OrderedDict(a=x, b=2.), lambda b: (b.move_to_end('a'), b['a']*list(b.values())[0])[1]),
    'counter': (lambda x: Counter({'x': 1, 'y': x}), lambda b: b['y']*(1 + b['nothing'])), 'user': (lambda x: UserDict(x=x), lambda b: b.data['x']),
    'tuple': (lambda x: Wide(x, 2.), lambda b: b[0]*b.scale), 'list': (listed, lambda b: b[0]*b.scale), 'named tuple': (lambda x: Point(x, 2.), lambda b: b.x*b.scale),
    'constructor': (lambda x: Built(x), lambda b: b.x*b.scale), 'dataclass': (lambda x: Record(x, {'y': [x, (x,)]}), lambda b: b.x*b.inner['y'][1][0]),
    'slots': (lambda x: Slotted(x), lambda b: b.x), 'namespace': (lambda x: SimpleNamespace(x=x, scale=2.), lambda b: b.x*b.scale), 'returned': (lambda x: torch.max(torch.stack([x, x - 1]), 0), lambda b: b.values*(1 + b.indices.sum())),
    'nested': (lambda x: Attributes(inner=[Point(Attributes(x=x), 2.)]), lambda b: b.inner[0].x.x*b.inner[0].scale),
    'packed': (lambda x: nn.utils.rnn.pack_sequence([x[None, None]]), lambda b: nn.utils.rnn.pad_packed_sequence(b)[0].sum()), 'none': (lambda x: (None, 'a', x), lambda b: b[2]*len(b[1])),
}

@pytest.mark.parametrize('kind', CONTAINERS)
def test_containers_keep_their_class(kind):
    make, read = CONTAINERS[kind]
    x, w = torch.tensor(2., dtype=torch.float64, requires_grad=True), torch.tensor(1., dtype=torch.float64, requires_grad=True)
    def loss(p, b): return (p['w']*read(b))**2/2
    def scale(x): return read(make(x)).item()/x.item()
    if kind == 'dataclass': expected = torch.autograd.grad((w*(1 - .1*x**4)**2)**2, [x, w])
    else: expected = torch.autograd.grad((w*(1 - .1*(scale(x)*x)**2)**2)**2, [x, w])
    agree(loss, {'w': w}, (make(x),), 2, sgd(.1), expected, [x, w], modes=(dict(), dict(remat=False)))
    agree(loss, {'w': w}, [(make(x),), (make(x),)], 2, sgd(.1), expected, [x, w], modes=(dict(), dict(remat=False)))

def test_a_container_that_cannot_be_copied_is_named():
    class Fixed(dict):
        def __setitem__(self, k, v): raise RuntimeError('fixed')
    for mode in (dict(), dict(remat=False)):
        with pytest.raises(TypeError, match='a Fixed cannot be copied with other tensors .fixed.; give a plain dict'):
            unroll(lambda p, b: p['w']*b['x'], {'w': torch.tensor(1.)}, (Fixed(x=torch.tensor(2., requires_grad=True)),), 1, sgd(.1), **mode)

def test_containers_are_left_alone():
    x = torch.tensor(2., requires_grad=True)
    given = Itself(x=x), Point(x, 2.), Record(x, {}), listed(x)
    seen = []
    unroll(lambda p, *b: (seen.append(b), p['w']*b[0].x*b[1].x*b[2].x*b[3][0])[1], {'w': torch.tensor(1.)}, given, 1, sgd(.1))
    assert given[0].x is given[1].x is given[2].x is given[3][0] is x
    assert [type(b) for b in seen[0]] == [type(b) for b in given]

def test_containers_compiled_or_told():
    x = torch.tensor(2., dtype=torch.float64, requires_grad=True)
    for make, read in (CONTAINERS['attributes'], CONTAINERS['dataclass'], CONTAINERS['named tuple']):
        def loss(p, b): return (p['w']*read(b))**2/2
        ends = []
        for mode in (dict(remat=False), dict(compile=True)):
            with warnings.catch_warnings():
                warnings.filterwarnings('ignore', message='compile=True runs uncompiled here')
                end = unroll(loss, {'w': torch.tensor(1.).double()}, (make(x),), 2, sgd(.1), **mode)['w']
            ends.append(torch.stack([end, *torch.autograd.grad(end, x)]))
        torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-14)

# Parts of a network, and what is around it.

class Checkpointed(nn.Module):
    def __init__(self, reentrant): super().__init__(); self.first, self.last, self.reentrant = nn.Linear(3, 5), nn.Linear(5, 1), reentrant
    def forward(self, x): return self.last(checkpoint(lambda x: softplus(self.first(x)), x, use_reentrant=self.reentrant))

@pytest.mark.filterwarnings('ignore:None of the inputs have requires_grad')
def test_checkpointing_is_named():
    for reentrant in (True, False):
        D, (x, fake) = Checkpointed(reentrant).double(), batch()
        call, theta = stateless(D), theta_of(D)
        def loss(p, x, fake): return softplus(-call(p, x)).mean() + softplus(call(p, fake)).mean()
        for mode in (dict(), dict(remat=False)):
            with pytest.raises(RuntimeError, match='torch.utils.checkpoint'):
                end = unroll(loss, theta, (x, fake), 2, sgd(.1), **mode)
                sum(p.sum() for p in end.values()).backward()
    with pytest.raises(RuntimeError, match='switch activation checkpointing off'): call(theta, fake).sum().backward()
    assert torch.equal(call(theta, x), torch.func.functional_call(D, theta, (x,)))

def test_checkpointing_of_the_loss_works():
    D = small()
    call, theta, (x, fake) = stateless(D), theta_of(D), batch()
    def loss(p, x, fake): return softplus(-call(p, x)).mean() + softplus(checkpoint(call, p, fake, use_reentrant=False)).mean()
    wrt = [fake, *theta.values()]
    agree(loss, theta, (x, fake), 3, sgd(.1), by_hand(lambda p, x, fake: softplus(-call(p, x)).mean() + softplus(call(p, fake)).mean(), theta, (x, fake), 3, wrt), wrt)

class Attention(nn.Module):
    def __init__(self): super().__init__(); self.mix = nn.Linear(3, 3)
    def forward(self, x): return nn.functional.scaled_dot_product_attention(*[self.mix(x)[None, None]]*3)[0, 0]

@contextmanager
def in_doubles():
    torch.set_default_dtype(torch.float64)
    try: yield
    finally: torch.set_default_dtype(torch.float32)

CONTEXTS = {           # that stand around `unroll` alone, and what the loss needs them for
    'attention kernel': (lambda: sdpa_kernel(SDPBackend.MATH), lambda call, p, x: call(p, x).pow(2).mean()),
    'default type': (in_doubles, lambda call, p, x: call(p, x).pow(2).mean()*torch.tensor([1/3]).to(x)),
    'device': (lambda: torch.device('meta'), lambda call, p, x: call(p, x).pow(2).mean()*(2. if torch.empty(1).is_meta else 1.)),
    'library': (lambda: torch.backends.mkldnn.flags(enabled=False), lambda call, p, x: call(p, x).pow(2).mean()*(1 + torch.backends.mkldnn.enabled)),
    'cudnn': (lambda: torch.backends.cudnn.flags(enabled=False), lambda call, p, x: call(p, x).pow(2).mean()*(1 + torch.backends.cudnn.enabled)),
}

@pytest.mark.parametrize('kind', CONTEXTS)
def test_a_context_around_unroll_alone(kind):
    context, by = CONTEXTS[kind]
    D = Attention().double() if kind == 'attention kernel' else small()
    call, theta, (x, fake) = stateless(D), theta_of(D), batch()
    def loss(p, x, fake): return by(call, p, x - fake).sum()
    grads = []
    for mode in (dict(remat=False), dict(), dict(keep_all=False)):
        with context(): end = unroll(loss, theta, (x, fake), 3, sgd(.1), **mode)
        before = engine._get_settings()
        grads.append(flat(torch.autograd.grad(sum(p.sum() for p in end.values()), fake)))
        assert engine._get_settings() == before and torch.get_default_device().type == 'cpu'
    for got in grads[1:]: torch.testing.assert_close(got, grads[0], rtol=1e-12, atol=1e-14)

@pytest.mark.filterwarnings('ignore:.*deprecated')
def test_modules_that_cannot_be_called_by_parameters():
    class Holder(nn.Module):
        def __init__(self, part): super().__init__(); self.part = part
        def forward(self, x): return self.part(x)
    linear = nn.Linear(3, 1)
    for module, says in (
        (nn.DataParallel(linear), r'^DataParallel wraps the network; give that itself, its `.module`'), (torch.compile(linear), r'^OptimizedModule wraps .* its `._orig_mod`'),
        (Holder(nn.DataParallel(linear)), r"^DataParallel \('part'\) wraps"), (torch.jit.script(linear), 'is a ScriptModule'), (torch.jit.trace(linear, torch.ones(2, 3)), 'is a ScriptModule'),
        (Holder(torch.jit.script(linear)), r"\('part'\) is a ScriptModule"), (nn.Sequential(nn.LazyLinear(2)), r"LazyLinear \('0'\) is lazy"), (nn.LazyBatchNorm1d(), 'is lazy'),
        (nn.Sequential(nn.utils.spectral_norm(linear)), r"Linear \('0'\) uses torch.nn.utils.spectral_norm")):
        with pytest.raises(TypeError, match=says): stateless(module)
    compiled = nn.Linear(3, 1)
    compiled.compile()                                   # in place: the copy is a plain one
    assert torch.equal(stateless(compiled)(dict(compiled.named_parameters()), torch.ones(2, 3)), nn.functional.linear(torch.ones(2, 3), compiled.weight, compiled.bias))

def test_state_dict_is_not_stepped():
    batch_normed = small(nn.BatchNorm1d(5))
    with pytest.raises(TypeError, match="'1.num_batches_tracked' is torch.int64"): unroll(lambda p, x: stateless(batch_normed)(p, x).mean(), batch_normed.state_dict(), batch()[:1], 1, sgd(.1))
    with pytest.raises(TypeError, match="'n' is int"): unroll(lambda p: p['n'], {'n': 3}, (), 1, sgd(.1))
    for module, name in ((nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)).double(), '_u'), (batch_normed.eval(), 'running_mean'), (batch_normed.train(), 'running_mean')):
        call, state = stateless(module), {n: t for n, t in module.state_dict().items() if t.is_floating_point()}
        for mode in (dict(), dict(remat=False)):
            with pytest.raises(ValueError, match=f'{name}. is a buffer and requires grad'): unroll(lambda p, x: call(p, x).pow(2).mean(), state, batch()[:1], 1, sgd(.1), **mode)
        assert call(state, batch()[0]).isfinite().all()   # not stepped, it may be given

def test_keyword_arguments():
    D, (x, fake) = nn.Bilinear(3, 3, 1).double(), batch()
    call, theta = stateless(D), theta_of(D)
    assert torch.equal(call(theta, x, input2=fake), D(x, fake)) and torch.equal(call(theta, input1=x, input2=fake), D(x, fake))
    class Takes(nn.Module):
        def forward(self, params, x): return params*x     # a name that `stateless` uses as well
    assert stateless(Takes())({}, params=2, x=3) == 6
    class Once(nn.Module):
        def forward(self, x=None): return nn.functional.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None])
    once, call = Once(), stateless(Once())
    with pytest.raises(RuntimeError, match='^Once cannot be differentiated twice'):
        for p in unroll(lambda p, x: call({}, x=p['w'] + x).pow(2).mean(), {'w': torch.ones(3)}, (torch.randn(4, 3, requires_grad=True),), 2, sgd(.1)).values(): p.sum().backward()

def test_a_module_that_is_used_twice_leaves_nothing_behind():
    linear = nn.Linear(3, 3)
    D, x = nn.Sequential(linear, nn.Softplus(), linear), torch.randn(2, 3)
    call, theta = stateless(D), {n: p.detach().clone() for n, p in D.named_parameters()}
    assert torch.equal(call(theta, x), D(x))
    kept = [weakref.ref(t) for t in theta.values()]
    del theta
    gc.collect()
    assert not any(r() for r in kept)

@pytest.mark.parametrize('remat', [True, False])
def test_two_groups_a_penalty_a_frozen_norm_and_a_dict(remat):
    "All at once, against a loop by hand in which nothing is ours."
    def network():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(3, 6), with_statistics(nn.BatchNorm1d(6)), nn.Softplus(), nn.Linear(6, 6), nn.LayerNorm(6), nn.Softplus(), nn.Linear(6, 1)).double()
    D, (x, fake) = network(), batch()
    D[1].eval()
    groups = [dict(params=[*D[0].parameters(), *D[1].parameters()], lr=.01, betas=(.5, .9)), dict(params=[p for m in D[3:] for p in m.parameters()], lr=.002, betas=(0., .99), eps=1e-6, weight_decay=.1)]
    opt, params, mix = torch.optim.Adam(groups), dict(D.named_parameters()), torch.rand(6, 1, dtype=torch.float64)
    def loss_by(call):
        def loss(p, b):
            z = (b.mix*b.real + (1 - b.mix)*b.fake).detach().requires_grad_()
            slope, = torch.autograd.grad(call(p, z).sum(), z, create_graph=True)
            return (call(p, b.fake) - call(p, b.real)).mean() + 10*((slope.norm(2, dim=1) - 1)**2).mean()
        return loss
    def by_functions(p, x):
        h, m = nn.functional.linear(x, p['0.weight'], p['0.bias']), D[1]
        h = softplus((h - m.running_mean)/(m.running_var + m.eps).sqrt()*p['1.weight'] + p['1.bias'])
        h = nn.functional.linear(h, p['3.weight'], p['3.bias'])
        h = softplus((h - h.mean(1, keepdim=True))/(h.var(1, keepdim=True, correction=0) + 1e-5).sqrt()*p['4.weight'] + p['4.bias'])
        return nn.functional.linear(h, p['6.weight'], p['6.bias'])
    given = Attributes(real=x, fake=fake, mix=mix)
    for _ in range(3): opt.zero_grad(); loss_by(by_functions)(params, given).backward(); opt.step()
    fake.grad, theta, loss = None, theta_of(D), loss_by(by_functions)
    moments = {n: {k: v.detach().clone() for k, v in opt.state[p].items()} for n, p in params.items()}
    settings = {n: g for g in opt.param_groups for n, p in params.items() if any(p is q for q in g['params'])}

    end = dict(theta)
    for t in range(4, 9):
        grads = torch.autograd.grad(loss(end, given), list(end.values()), create_graph=True)
        for (n, p), g in zip(list(end.items()), grads):
            s, (b1, b2), m = settings[n], settings[n]['betas'], moments[n]
            g = g + s['weight_decay']*p
            m['exp_avg'], m['exp_avg_sq'] = b1*m['exp_avg'] + (1 - b1)*g, b2*m['exp_avg_sq'] + (1 - b2)*g**2
            end[n] = p - s['lr']*(m['exp_avg']/(1 - b1**t))/(root(m['exp_avg_sq']/(1 - b2**t)) + s['eps'])
    ours, call = unroll(loss_by(stateless(D)), theta, (given,), 5, optimizer_of(opt, params), remat=remat), stateless(D)
    wrt = [fake, *theta.values()]
    got, expected = (flat(torch.autograd.grad(softplus(-f(e, fake)).mean(), wrt)) for f, e in ((call, ours), (by_functions, end)))
    assert (flat(ours.values()) - flat(end.values())).norm() < 1e-12*flat(end.values()).norm()
    assert (got - expected).norm() < 1e-10*expected.norm()

# Derivatives that PyTorch gets wrong in silence: the second of fused weight norm, the third of layer norm.

def penalised(call):
    def loss(p, x, fake):
        z = (x + fake).detach().requires_grad_()
        slope, = torch.autograd.grad(call(p, z).sum(), z, create_graph=True)
        return softplus(-call(p, x)).mean() + softplus(call(p, fake)).mean() + (slope**2).sum(1).mean()
    return loss

def without(module, p, x, layer):
    "The network of `small`, in elementary operations."
    h = nn.functional.linear(x, p['0.weight'], p['0.bias']) if '0.weight' in p else x@(p['0.parametrizations.weight.original1']*p['0.parametrizations.weight.original0']/p['0.parametrizations.weight.original1'].norm(dim=1, keepdim=True)).T + p['0.bias']
    return nn.functional.linear(softplus(layer(p, h)), p[f'{len(module) - 1}.weight'], p[f'{len(module) - 1}.bias'])

def layer_norm(p, h):
    h = (h - h.mean(1, keepdim=True))/(h.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    return h*p['1.weight'] + p['1.bias'] if '1.weight' in p else h

@pytest.mark.parametrize('kind', ['layer', 'bare layer', 'weight'])
def test_derivatives_that_are_wrong_in_pytorch(kind):
    D = small(*[nn.LayerNorm(5, elementwise_affine=kind == 'layer')]*(kind != 'weight')).double()
    if kind == 'weight': nn.utils.parametrizations.weight_norm(D[0])
    call, theta, (x, fake) = stateless(D), theta_of(D), batch()
    torch.testing.assert_close(call(theta, x), D(x), rtol=1e-12, atol=1e-12)
    by_definition = penalised(lambda p, x: without(D, p, x, (lambda p, h: h) if kind == 'weight' else layer_norm))
    wrt = [fake, *theta.values()]
    agree(penalised(call), theta, (x, fake), 3, sgd(.1), by_hand(by_definition, theta, (x, fake), 3, wrt), wrt)
    loss, own = penalised(call), penalised(lambda p, x: torch.func.functional_call(D, p, (x,)))          # PyTorch's
    for mode in (dict(), dict(remat=False)):
        with pytest.raises(RuntimeError, match=f'derivative of {kind.split()[-1]} norm, which PyTorch gets wrong'): unroll(own, theta, (x, fake), 2, sgd(.1), **mode)
    if kind != 'weight': unroll(lambda p, x: torch.func.functional_call(D, p, (x,)).mean(), theta, (x,), 2, sgd(.1))      # its second is right

def test_a_penalty_through_batch_statistics_is_named():
    x, fake = batch()
    for norm in (nn.BatchNorm1d(5), nn.Sequential(nn.Unflatten(1, (1, 5)), nn.InstanceNorm1d(1), nn.Flatten()), nn.BatchNorm1d(5).eval()):
        D = small(norm)
        call, theta = stateless(D), theta_of(D)
        for mode in (dict(), dict(remat=False)):
            def go(loss): unroll(loss, theta, (x, fake), 2, sgd(.1), **mode)
            go(lambda p, x, fake: softplus(-call(p, x)).mean() + softplus(call(p, fake)).mean())       # without one
            if not norm.training: go(penalised(call)); continue
            with pytest.raises(RuntimeError, match='third derivative of batch statistics, .* use group norm, or evaluation mode'): go(penalised(call))

def test_normalised_shapes_of_layer_norm():
    for shape, x in (((4, 2), torch.randn(3, 5, 4, 2)), ((2,), torch.randn(4, 2)), (2, torch.randn(2))):
        for kw in (dict(), dict(bias=False), dict(elementwise_affine=False, eps=.1)):
            m = nn.LayerNorm(shape, **kw)
            for p in m.parameters(): nn.init.normal_(p)
            torch.testing.assert_close(stateless(m)(dict(m.named_parameters()), x), m(x))

def test_weight_norm_along_other_dimensions():
    for dim in (0, 1, 2, -1, None):
        m, x = nn.utils.parametrizations.weight_norm(nn.ConvTranspose2d(3, 4, 2), dim=dim), torch.randn(2, 3, 4, 4)
        torch.testing.assert_close(stateless(m)(dict(m.named_parameters()), x), m(x))

# A step's loss may take a derivative by its inputs. In it, theta_k is a constant, which no plain loop says.

R1 = {
    'input': lambda call, p, x, fake: torch.autograd.grad(call(p, x).sum(), x, create_graph=True)[0],
    'in place': lambda call, p, x, fake: torch.autograd.grad(call(p, x.requires_grad_()).sum(), x, create_graph=True)[0],
    'fakes': lambda call, p, x, fake: torch.autograd.grad(call(p, fake).sum(), fake, create_graph=True)[0],
    'func': lambda call, p, x, fake: torch.func.grad(lambda x: call(p, x).sum())(x),
}

@pytest.mark.parametrize('kind', R1)
def test_derivative_by_an_input(kind):
    D = small()
    call, theta, (x, leaf) = stateless(D), theta_of(D), batch()
    if kind == 'input': x.requires_grad_()
    fake = torch.tanh(leaf)
    def loss(p, x, fake): return softplus(-call(p, x)).mean() + softplus(call(p, fake)).mean() + (R1[kind](call, p, x, fake)**2).sum(1).mean()
    def apart(p, x, fake):
        "The same, by the gradient of D's softplus network in closed form."
        at = fake if kind == 'fakes' else x
        h = nn.functional.linear(at, p['0.weight'], p['0.bias'])
        slope = (torch.sigmoid(h)*p['2.weight'])@p['0.weight']
        return softplus(-call(p, x)).mean() + softplus(call(p, fake)).mean() + (slope**2).sum(1).mean()
    wrt = [leaf, *theta.values()]
    expected = by_hand(apart, theta, (x, fake), 3, wrt)
    required = x.requires_grad
    agree(loss, theta, (x, fake), 3, sgd(.1), expected, wrt)
    agree(loss, theta, [(x, fake)]*3, 3, sgd(.1), expected, wrt)
    assert x.requires_grad == required

def test_derivative_by_an_input_that_made_theta():
    "Unrolled twice from the same fakes: the second theta_0 is made of them, too."
    D = small()
    call, theta, (x, fake) = stateless(D), theta_of(D), batch()
    def loss(p, fake): return softplus(call(p, fake)).mean() + (R1['fakes'](call, p, None, fake)**2).mean()
    grads = []
    for remat in (True, False):
        half = unroll(loss, theta, (fake,), 2, sgd(.1), remat=remat)
        end = unroll(loss, half, (fake,), 2, sgd(.1), remat=remat)
        grads.append(flat(torch.autograd.grad(sum((p**2).sum() for p in end.values()), [fake, *theta.values()])))
    whole = unroll(loss, theta, (fake,), 4, sgd(.1))
    grads.append(flat(torch.autograd.grad(sum((p**2).sum() for p in whole.values()), [fake, *theta.values()])))
    for got in grads[1:]: torch.testing.assert_close(got, grads[0], rtol=1e-10, atol=1e-13)

def test_a_batch_that_changes_before_backward():
    D = small()
    call, theta, (x, fake) = stateless(D), theta_of(D), batch()
    def loss(p, b, extra): return softplus(-call(p, b['x'])).mean() + softplus(call(p, b['fake'])).mean()*extra[0]
    grads = []
    for change in (False, True):
        b, extra, params = dict(x=x, fake=fake), [2., x], dict(theta)
        end = unroll(loss, params, (b, extra), 3, sgd(.1))
        if change:
            b.pop('x'); b['z'] = x; b['x'] = fake; extra.insert(0, x); params.clear()
        grads.append(torch.autograd.grad(sum((p**2).sum() for p in end.values()), fake)[0])
    assert torch.equal(*grads)

@pytest.mark.parametrize('error, says, f', [
    (TypeError, 'wants a torch.nn.Module, found function', lambda D, x: stateless(lambda x: x)), (TypeError, 'found generator', lambda D, x: stateless(D.parameters())),
    (TypeError, 'params must be a dict, name -> tensor, found Sequential', lambda D, x: stateless(D)(D, x)), (TypeError, 'found Tensor', lambda D, x: stateless(D)(x, theta_of(D))),
    (ValueError, r"'0.weight' has shape \(7, 3\), in the module \(5, 3\)", lambda D, x: stateless(D)(theta_of(nn.Sequential(nn.Linear(3, 7), nn.Softplus(), nn.Linear(7, 1))), x)),
    (ValueError, r"'0.bias' has shape \(1,\)", lambda D, x: stateless(D)({**theta_of(D), '0.bias': torch.zeros(1).double()}, x)),
    (TypeError, "Embedding .'0'. has max_norm", lambda D, x: stateless(nn.Sequential(nn.Embedding(5, 3, max_norm=1.)))), (TypeError, 'has max_norm', lambda D, x: stateless(nn.EmbeddingBag(5, 3, max_norm=1.))),
    (TypeError, 'cannot be copied: cannot pickle', lambda D, x: stateless(holding(threading.Lock()))), (TypeError, 'cannot be copied: it holds a computed tensor', lambda D, x: stateless(holding(torch.ones(1, requires_grad=True)*2))),
    (TypeError, r'params must be dict.module.named_parameters.... found Sequential', lambda D, x: optimizer_of(torch.optim.Adam(D.parameters()), D)), (TypeError, 'found list', lambda D, x: state_of(torch.optim.Adam(D.parameters()), list(D.parameters()))),
    (TypeError, 'state must be a dict, as from state_of, found Adam', lambda D, x: unroll(lambda p, x: stateless(D)(p, x).mean(), theta_of(D), (x,), 1, adam(), torch.optim.Adam(D.parameters()))),
    (TypeError, 'steps must be an integer', lambda D, x: unroll(lambda p, x: stateless(D)(p, x).mean(), theta_of(D), (x,), torch.tensor(2), adam())),
    (TypeError, 'found generator', lambda D, x: unroll(lambda p, x: stateless(D)(p, x).mean(), theta_of(D), (x for _ in 'a'), 2, adam())),
])
def test_mistakes_are_named(error, says, f):
    with pytest.raises(error, match=says): f(small(), batch()[0])

def holding(what):
    m = nn.Linear(3, 1)
    m.what = what
    return m

def test_a_loss_that_does_not_depend_on_params_is_named():
    (x, fake), theta = batch(), theta_of(small())
    for mode in (dict(), dict(remat=False), dict(compile=True)):
        for loss in (lambda p, x, fake: (fake**2).mean(), lambda p, x, fake: (x**2).mean()):
            for K in (1, 3):
                with pytest.raises(ValueError, match='does not depend on params'): unroll(loss, theta, (x, fake), K, sgd(.1), **mode)

def test_cached_parametrizations_are_refused():
    m, x = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 1)), torch.ones(2, 3)
    call = stateless(m)
    with nn.utils.parametrize.cached():
        with pytest.raises(RuntimeError, match='parametrize.cached'): call(dict(m.named_parameters()), x)
    call(dict(m.named_parameters()), x)

def test_recorded_with_a_penalty_two_groups_and_a_dict(monkeypatch):
    "As on a GPU: nothing runs unrecorded, and nothing is recorded anew, though twin and batch are made for each step."
    as_on_a_gpu(monkeypatch)
    (D, opt), (x, fake) = live_pair('adam'), batch()
    call, params = stateless(D), dict(D.named_parameters())
    of_pair = penalised(call)
    def loss(p, b): return of_pair(p, b.x, b.fake)
    for step in range(3):
        grads = []
        for mode in (dict(compile=True), dict(remat=False)):
            with warnings.catch_warnings():
                warnings.filterwarnings('error', message='compile=True')
                end = unroll(loss, params, (Attributes(x=x, fake=fake),), 3, optimizer_of(opt, params), **mode)
            grads.append(flat(torch.autograd.grad(sum((p**2).sum() for p in end.values()), [fake, *params.values()])))
        torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-12)
        live_steps(D, opt, lambda p: of_pair(p, x, fake.detach()), 1)
        for g in opt.param_groups: g['lr'] *= .9
    assert len(engine._graphs) == 2
