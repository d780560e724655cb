"On a GPU: the same gradient, the same training, and a run that goes on and opens anywhere. Skipped where there is none."
import json
import time
import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from disentangle_nb.cli import main, train
from disentangle_nb.infogan import InfoGAN, InfoGANConfig
from disentangle_nb.training import load, load_tensors, map_tensors, read_jsonl
from disentangle_nb.unroll import adam, stateless, unroll

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')

def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 8, 4, 2, 1), nn.LeakyReLU(.1), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 4, 2, 1), nn.GELU(), nn.Flatten(), nn.Linear(64, 1))

def gradient(device, dtype, K=4, net=network, **how):
    "Of a generator loss with respect to the generated images, through K steps of Adam."
    D, (x, fake) = net().to(device, dtype), torch.randn(2, 32, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    call = stateless(D)
    def loss(p, x, fake): return softplus(-call(p, x)).mean() + softplus(call(p, fake)).mean()
    torch.manual_seed(2)
    fake.requires_grad_()
    theta = unroll(loss, dict(D.named_parameters()), (x, fake), K, adam(1e-2, (.5, .999)), **how)
    return torch.autograd.grad(softplus(-call(theta, fake)).mean(), fake)[0].double().cpu()

@pytest.mark.parametrize('how', [dict(), dict(remat=False), dict(compile=True)], ids=['replay', 'graph', 'compiled'])
def test_gradient(how):
    warnings.simplefilter('error')          # a fallback of `compile` would be one
    want = gradient('cpu', torch.float64)
    torch.testing.assert_close(gradient('cuda', torch.float64, **how), want, rtol=1e-8, atol=1e-12)
    error = (gradient('cuda', torch.float32, **how) - want).norm()/want.norm()
    assert error < 1e-2, error          # TF32 in convolutions

def test_recording_pays():
    "Forty steps of a small InfoGAN that looks five steps ahead, with and without: seconds of wall time."
    took = {}
    for compile in (True, False, True, False):
        net, rng = InfoGAN(InfoGANConfig(shape=(1, 28, 28), width=8, d_width=4, unroll=5, compile=compile)), torch.Generator().manual_seed(0)
        state, x = map_tensors(lambda t: t.cuda(), net.init()), torch.randn(32, 1, 28, 28, device='cuda')
        for n in (5, 40):
            start = time.perf_counter()
            for _ in range(n): state, metrics = net.step(state, x, rng)
            assert all(v.isfinite() for v in metrics.values())
            took[compile] = time.perf_counter() - start
    print(took)
    assert took[True] < took[False]/2

def test_dropout_in_the_replay():
    "The replay sees the masks that the forward pass saw, and leaves the GPU's generator as the graph does."
    def net(): return nn.Sequential(network()[:-1], nn.Dropout(.3), nn.Linear(64, 1))
    kept = gradient('cuda', torch.float64, net=net, remat=False), torch.cuda.get_rng_state()
    replayed = gradient('cuda', torch.float64, net=net), torch.cuda.get_rng_state()
    torch.testing.assert_close(replayed, kept, rtol=1e-9, atol=1e-13)

SMALL = dict(width=8, d_width=4, steps=20, batch_size=32, unroll=2, progress=False)
WHAT = {'gan': ('ring', dict(steps=20, batch_size=64, unroll=2, progress=False)), 'infogan': ('digits', SMALL), 'vaeinfogan': ('digits', SMALL)}

@pytest.mark.parametrize('how', [dict(), dict(precision='bf16'), dict(precision='fp64'), dict(compile=True)], ids=['fp32', 'bf16', 'fp64', 'compiled'])
@pytest.mark.parametrize('model', WHAT)
def test_training_is_that_of_the_cpu(tmp_path, model, how, monkeypatch):
    "The first steps: later, rounding has grown."
    monkeypatch.setattr('disentangle_nb.cli.evaluation', lambda *data: {})
    data, options = WHAT[model]
    warnings.filterwarnings('error', message='compile=True')
    logs = {}
    for device, how in (('cuda', how), ('cpu', {k: v for k, v in how.items() if k != 'compile'})):
        out, *_ = train(model, data, tmp_path/device, device=device, **options, **how)
        logs[device] = read_jsonl(out/'metrics.jsonl')[0]
        assert json.loads((out/'config.json').read_text())['device'] == ('cuda:0' if device == 'cuda' else 'cpu')
    for k, v in logs['cpu'].items(): assert abs(logs['cuda'][k] - v) < {'fp64': 1e-6, 'bf16': .2}.get(how.get('precision'), .05)*(abs(v) + .1), (k, v, logs['cuda'][k])

@pytest.mark.parametrize('compile', [False, True], ids=['', 'compiled'])
@pytest.mark.parametrize('model', WHAT)
def test_an_interrupted_run_goes_on_and_opens_on_the_cpu(tmp_path, model, compile, capsys):
    data, options = WHAT[model]
    options = {**options, 'compile': compile}
    whole, net, _ = train(model, data, tmp_path/'whole', device='cuda', **options)
    train(model, data, tmp_path/'parts', device='cuda', **{**options, 'steps': 10})
    parts, *_ = train(model, data, tmp_path/'parts', device='cuda', resume=True, **options)
    a, b = (load_tensors(f/'model.safetensors')[0] for f in (whole, parts))
    assert not (differ := [k for k in a if not torch.equal(a[k], b[k])]), differ
    here, there = load(whole), load(whole, 'cuda')
    latent = here.sample_latent(16, torch.Generator().manual_seed(0))
    torch.testing.assert_close(there.generate({k: v.cuda() for k, v in latent.items()}).cpu(), here.generate(latent), rtol=1e-2, atol=1e-2)
    main(['evaluate', str(whole)])
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])
