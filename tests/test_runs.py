"""Runs whose surroundings change: data that were moved, a sweep or a terminal that is gone, logs with holes, a newer version."""
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from disentangle_nb import __version__
from disentangle_nb.cli import main, train
from disentangle_nb.data import InputError
from disentangle_nb.explore import explore, interpolate, plot_edits, plot_reconstructions
from disentangle_nb.training import checkpoints, fit, load, on_signals, read_config, read_jsonl, write_json

COMMAND = [sys.executable, '-m', 'disentangle_nb.cli']
SMALL = ['--width', '4', '--d-width', '4', '--batch-size', '8']


@pytest.fixture
def cli(capsys):
    "The command in this process: (exit status, standard output, standard error)."
    def run(*args):
        status = 0
        try: main(list(map(str, args)))
        except SystemExit as e: status = e.code
        return status, *capsys.readouterr()
    return run


@pytest.fixture
def unmeasured(monkeypatch):
    "Runs are not evaluated, which takes longer than their few steps."
    monkeypatch.setattr('disentangle_nb.cli.evaluation', lambda *splits: {})


def refused(answer, says):
    status, out, err = answer
    assert (status, out, err.count('\n')) == (2, '', 1) and err.startswith('error: ') and says in err, answer


def drawings(folder, n=20, seed=0):
    "Small images of noise, in two classes."
    rng = np.random.default_rng(seed)
    for i in range(n):
        file = folder/'ab'[i % 2]/f'{i:02}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(file)
    return folder


def contents(folder): return {p: p.read_bytes() for p in Path(folder).rglob('*') if p.is_file()}


def until(met, seconds=60):
    "Wait for something to come about."
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, 'it did not come about'
        time.sleep(.05)


# data that were moved

@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "A run on a folder of images: (the run, the images)."
    tmp = tmp_path_factory.mktemp('trained')
    images = drawings(tmp/'images')
    main(['train', 'vaeinfogan', '--data', str(images), '--image-size', '16', '--steps', '2', *SMALL, '--e-width', '4', '--out', str(tmp/'run')])
    return tmp/'run', images


@pytest.fixture
def run(trained, tmp_path):
    "A copy of that run and of its images, which the run does not know of."
    shutil.copytree(trained[0], tmp_path/'run'); shutil.copytree(trained[1], tmp_path/'images')
    config = read_config(tmp_path/'run')
    write_json(tmp_path/'run'/'config.json', {**config, 'data': str(tmp_path/'images')})
    return tmp_path/'run', tmp_path/'images'


RESUME = ['train', 'vaeinfogan', '--image-size', 16, *SMALL, '--e-width', 4, '--resume']


def test_a_run_goes_on_with_its_images_in_another_place(trained, run, cli, tmp_path, unmeasured):
    "And ends with the same bits as one whose images stayed."
    run, images = run
    stays = tmp_path/'stays'; shutil.copytree(trained[0], stays)
    assert cli(*RESUME, '--steps', 4, '--data', trained[1], '--out', stays)[0] == 0
    images.rename(tmp_path/'elsewhere')
    status, out, err = cli(*RESUME, '--steps', 4, '--data', tmp_path/'elsewhere', '--out', run)
    assert (status, err) == (0, '')
    assert (run/'model.safetensors').read_bytes() == (stays/'model.safetensors').read_bytes()
    assert read_config(run)['data'] == str(tmp_path/'elsewhere')
    assert cli('evaluate', run)[0] == 0                      # it knows of the new place


def test_a_run_does_not_go_on_with_other_images(run, cli, tmp_path, unmeasured):
    run, images = run
    before = contents(run)
    refused(cli(*RESUME, '--steps', 4, '--data', drawings(tmp_path/'other', 22), '--out', run), 'was started with images 20, not 22')
    refused(cli(*RESUME, '--steps', 4, '--data', drawings(tmp_path/'noise', seed=1), '--out', run), 'was started with pixels ')
    shutil.copytree(images, tmp_path/'relabelled')
    (tmp_path/'relabelled'/'b').rename(tmp_path/'relabelled'/'0')
    refused(cli(*RESUME, '--steps', 4, '--data', tmp_path/'relabelled', '--out', run), 'was started with pixels ')
    assert contents(run) == before


@pytest.mark.parametrize('command', ['evaluate', 'infer', 'reconstruct', 'edit', 'interpolate'])
def test_commands_that_need_the_images_find_them_in_another_place(run, cli, tmp_path, command):
    run, images = run
    out = [] if command in ('evaluate', 'infer') else ['--out', tmp_path/'out.png']
    stayed = cli(command, run, *out)
    assert stayed[0] == 0
    images.rename(tmp_path/'elsewhere')
    refused(cli(command, run, *out), f"unknown data '{images}': if the images were moved, give their folder by --data")
    moved = cli(command, run, *out, '--data', tmp_path/'elsewhere')
    assert moved == (0, stayed[1].replace(str(images), str(tmp_path/'elsewhere')), '')
    (tmp_path/'out.png').unlink(missing_ok=True)
    before = contents(tmp_path)
    for place, says in ((drawings(tmp_path/'other', 22), 'holds other images than those that the model was trained on'), (tmp_path/'none', 'none is not a folder')):
        refused(cli(command, run, *out, '--data', place), says)
    assert contents(tmp_path).keys() - before.keys() == {p for p in (tmp_path/'other').rglob('*.png')}


def test_images_that_changed_where_they_are_are_warned_of(run, cli, unmeasured):
    run, images = run
    drawings(images, 1, seed=1)
    status, out, err = cli('evaluate', run)
    assert status == 0 and f'warning: {images} is not as it was when the model was trained' in err


def test_a_run_that_knows_no_contents_takes_a_place_with_a_warning(run, cli, tmp_path, unmeasured):
    run, images = run
    config = read_config(run); del config['contents']
    write_json(run/'config.json', config)
    images.rename(tmp_path/'elsewhere')
    status, out, err = cli('evaluate', run, '--data', tmp_path/'elsewhere')
    assert status == 0 and f'config.json does not say what was in {images}; {tmp_path/"elsewhere"} is taken for the same' in err


def test_a_place_is_for_folders(cli, tmp_path, unmeasured):
    assert cli('train', 'infogan', '--steps', 1, *SMALL, '--out', tmp_path/'digits')[0] == 0
    refused(cli('evaluate', tmp_path/'digits', '--data', tmp_path), 'the model was trained on digits, which --data-root finds; --data is for a folder of images')
    assert cli('evaluate', tmp_path/'digits', '--data', 'digits')[0] == 0


def test_a_sweep_goes_on_with_its_images_in_another_place(cli, tmp_path):
    grid = lambda data, seeds='0', *more: cli('sweep', 'gan', '--seeds', seeds, '--data', data, '--image-size', 16, '--steps', 1, *SMALL, '--out', tmp_path/'sweep', *more)
    images = drawings(tmp_path/'images')
    assert grid(images)[0] == 0
    images.rename(tmp_path/'elsewhere')
    status, out, err = grid(tmp_path/'elsewhere', '0,1')
    assert (status, err) == (0, '') and '2 runs: 1 finished, 1 to do' in out
    refused(grid(drawings(tmp_path/'other', seed=1), '2'), 'is there already, and its images are others; choose another --out')
    refused(grid(drawings(tmp_path/'elsewhere', seed=1), '2'), 'is there already, and its images are others; choose another --out')


# the size of images

def test_only_images_without_a_size_of_their_own_have_one_in_the_configuration(cli, tmp_path, trained, unmeasured):
    one = ['train', 'infogan', *SMALL, '--out', tmp_path/'digits', '--steps']
    assert cli(*one, 2)[0] == 0 and 'image_size' not in read_config(tmp_path/'digits')
    assert read_config(trained[0])['image_size'] == 16


def test_a_run_from_when_all_had_one_goes_on(cli, tmp_path, unmeasured):
    one = ['train', 'infogan', *SMALL, '--out', tmp_path/'digits', '--steps']
    with pytest.MonkeyPatch.context() as m:
        m.setattr('disentangle_nb.cli.SIZED', ('digits',))       # as it was written then
        assert cli(*one, 2)[0] == 0
    assert read_config(tmp_path/'digits')['image_size'] == 64
    assert cli('evaluate', tmp_path/'digits')[0] == 0 and load(tmp_path/'digits').config.shape == (1, 8, 8)
    assert cli(*one, 4, '--resume')[::2] == (0, '') and read_config(tmp_path/'digits')['image_size'] == 64
    assert cli('train', 'infogan', *SMALL, '--out', tmp_path/'new', '--steps', 4)[0] == 0
    assert (tmp_path/'new'/'model.safetensors').read_bytes() == (tmp_path/'digits'/'model.safetensors').read_bytes()


# signals

def alive(out):
    "The processes, other than this one, whose command line names a folder."
    found = []
    for p in Path('/proc').glob('[0-9]*'):
        try: words = (p/'cmdline').read_bytes().split(b'\0')
        except OSError: continue
        if str(out).encode() in b' '.join(words): found.append(int(p.name))
    return found


needs_proc = pytest.mark.skipif(not Path('/proc/self/cmdline').exists(), reason='processes are found by /proc')
LONG = ['infogan', *SMALL, '--steps', '1000000', '--checkpoint-every', '100000']


@needs_proc
@pytest.mark.parametrize('number, status', [(signal.SIGKILL, -9), (signal.SIGHUP, 129), (signal.SIGTERM, 143)])
def test_trainings_end_with_their_sweep(tmp_path, number, status):
    "They save, end, and the same sweep goes on."
    out = tmp_path/'sweep'
    at = lambda: [r['step'] for f in out.glob('*/metrics.jsonl') for r in read_jsonl(f)[-1:]]
    p = subprocess.Popen([*COMMAND, 'sweep', *LONG, '--seeds', '0,1', '--jobs', '2', '--out', str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until(lambda: len(at()) == 2 and min(at()) >= 10)
    p.send_signal(number)
    assert p.wait(60) == status
    err = p.stderr.read()
    assert 'Traceback' not in err and (number == signal.SIGKILL or f'interrupted by {number.name}; the same sweep goes on where it was' in err)
    until(lambda: not alive(out))
    saved = [int(checkpoints(f)[-1].stem) for f in sorted(out.iterdir())]
    assert len(saved) == 2 and min(saved) >= 10
    if number != signal.SIGKILL: return
    p = subprocess.Popen([*COMMAND, 'sweep', *LONG, '--seeds', '0,1', '--jobs', '2', '--out', str(out)], stdout=subprocess.PIPE, text=True)
    until(lambda: min(at()) > max(saved))
    p.terminate()
    assert 'in use' not in p.communicate()[0] and not alive(out)


@needs_proc
def test_a_training_that_nobody_holds_is_not_watched(tmp_path):
    "Only a sweep's end with it: of others the input may end as it likes."
    p = subprocess.run([*COMMAND, 'train', 'gan', '--data', 'ring', *SMALL, '--steps', '3', '--out', str(tmp_path/'run')], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (p.returncode, p.stderr) == (0, '')


@pytest.mark.parametrize('command', ['train', 'sweep'])
def test_what_is_trained_is_saved_when_its_terminal_goes(tmp_path, command):
    out = tmp_path/'run'
    logs = lambda: [f for f in out.rglob('metrics.jsonl') if len(read_jsonl(f)) >= 2]
    more = ['--seeds', '0,1', '--jobs', '2'] if command == 'sweep' else []
    pid, terminal = os.forkpty()
    if not pid: os.execv(sys.executable, [*COMMAND, command, *LONG, *more, '--out', str(out)])
    until(lambda: len(logs()) == 1 + len(more)//4)
    os.close(terminal)
    status = []
    until(lambda: status.append(os.waitpid(pid, os.WNOHANG)) or status[-1][0])
    assert os.waitstatus_to_exitcode(status[-1][1]) == 129
    for f in logs(): assert int(checkpoints(f.parent)[-1].stem) >= 20


def test_nohup_is_heeded(tmp_path):
    "A hangup that is ignored stays so; `kill` works all the same."
    out = tmp_path/'run'
    p = subprocess.Popen([*COMMAND, 'train', *LONG, '--out', str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                         preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    at = lambda: (read_jsonl(out/'metrics.jsonl') or [{'step': 0}])[-1]['step']
    until(lambda: at() >= 10)
    p.send_signal(signal.SIGHUP)
    step = at()
    until(lambda: at() >= step + 30)
    p.terminate()
    assert 'interrupted by SIGTERM' in p.communicate()[1] and p.returncode == 143


def test_handlers_are_put_back():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before, got = [signal.getsignal(s) for s in numbers], []
    with on_signals(lambda number, frame: got.append(number)):
        for s in numbers: signal.raise_signal(s)
    assert got == list(numbers) and [signal.getsignal(s) for s in numbers] == before


@pytest.mark.parametrize('wait', [0, .3, 1.])
@pytest.mark.parametrize('entry', ['module', 'script'])
def test_ctrl_c_while_pytorch_is_imported(tmp_path, wait, entry):
    "One line, and exit status 130; the clock starts with the first import that takes long."
    script = tmp_path/'disentangle'
    script.write_text('import sys\nfrom disentangle_nb.cli import main\nsys.exit(main())\n')       # as pip writes it
    started = tmp_path/'started'
    (tmp_path/'sitecustomize.py').write_text(f"""import sys
class Told:
    def find_spec(self, name, *_):
        if name == 'joblib': open({str(started)!r}, 'w').close()
sys.meta_path.insert(0, Told())
""")
    env = {**os.environ, 'PYTHONPATH': f'{tmp_path}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'}
    command = COMMAND if entry == 'module' else [sys.executable, str(script)]
    p = subprocess.Popen([*command, 'train', *LONG, '--out', str(tmp_path/'run')], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    until(started.exists)
    time.sleep(wait)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=60)
    assert p.returncode == 130 and out == '' and err.strip().count('\n') == 0 and 'interrupted' in err, err


def test_importing_the_command_changes_no_handler():
    code = 'import signal; before = signal.getsignal(signal.SIGINT); import disentangle_nb.cli; print(signal.getsignal(signal.SIGINT) == before)'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout == 'True\n'


# logs with holes

def steps(out, n, **kw):
    "n steps of nothing; what was warned of."
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        fit(lambda state, batch, rng: (state, {'loss': torch.tensor(1.)}), {'w': torch.zeros(1)}, lambda rng: torch.zeros(1), steps=n, rng=torch.Generator(), out=out, config={}, checkpoint_every=20, **kw)
    return ' '.join(str(w.message) for w in said)


def drop(file, *gone):
    "A log without the lines of some steps."
    file.write_text(''.join(json.dumps(r) + '\n' for r in read_jsonl(file) if r['step'] not in gone))


@pytest.mark.parametrize('gone, says', [((20,), '1 steps up to 50, the first of step 20'), ((30, 40, 50), '3 steps up to 50, the first of step 30'), ((10, 20, 30, 40, 50), '5 steps up to 50, the first of step 10')])
@pytest.mark.parametrize('name', ['metrics', 'timings'])
def test_a_run_whose_log_lacks_lines_goes_on_with_a_warning(tmp_path, name, gone, says):
    assert steps(tmp_path/'run', 50) == ''
    drop(tmp_path/'run'/f'{name}.jsonl', *gone)
    assert f'{name}.jsonl lacks the lines of {says}; they cannot be made again' in steps(tmp_path/'run', 70, resume=True)
    assert [r['step'] for r in read_jsonl(tmp_path/'run'/f'{name}.jsonl')] == [s for s in range(10, 80, 10) if s not in gone]


def test_a_short_run_that_lacks_its_only_line(tmp_path):
    steps(tmp_path/'run', 7); (tmp_path/'run'/'metrics.jsonl').unlink()
    assert 'metrics.jsonl lacks the lines of 1 steps up to 7, the first of step 7' in steps(tmp_path/'run', 31, resume=True)
    assert steps(tmp_path/'run', 40, resume=True) == ''


@pytest.mark.parametrize('first, then', [(50, 70), (45, 70), (45, 45), (7, 31)])
def test_a_run_whose_log_is_whole_goes_on_without_one(tmp_path, first, then):
    assert steps(tmp_path/'run', first) == '' and steps(tmp_path/'run', then, resume=True) == ''


def test_a_last_line_without_its_end_counts_if_it_is_whole(tmp_path):
    log = tmp_path/'log.jsonl'
    for text, at in (('', []), ('{"step": 1}\n', [1]), ('{"step": 1}\n{"step": 2}', [1, 2]), ('{"step": 1}\n{"step": 2', [1]), ('{"step": 1}\r\n{"step": 2}\r\n', [1, 2])):
        log.write_bytes(text.encode())
        assert [r['step'] for r in read_jsonl(log)] == at
    log.write_text('{"step": 1}\n\n{"step": 2}\n')
    with pytest.raises(InputError, match='is damaged'): read_jsonl(log)


def test_a_table_names_what_its_runs_lack(cli, tmp_path):
    sweep = ['sweep', 'gan', '--data', 'ring', '--seeds', '0-2', '--steps', 20, *SMALL, '--out', tmp_path/'sweep']
    assert cli(*sweep)[0] == 0
    rows = lambda: {r['seed']: r for r in csv.DictReader((tmp_path/'sweep'/'summary.csv').open())}
    whole = rows()
    drop(tmp_path/'sweep'/'k0-s1'/'metrics.jsonl', 20)
    (tmp_path/'sweep'/'k0-s2'/'metrics.jsonl').write_text('{"step": 10}\nno line\n{"step": 20}\n')
    status, out, err = cli(*sweep)
    assert status == 0 and '3 runs: 3 finished' in out
    assert 'k0-s1: metrics.jsonl without a line of step 20; the table has what else there is' in err
    assert 'metrics.jsonl is damaged' in err and 'the table is without that run' in err
    assert rows().keys() == {'0', '1'} and rows()['0'] == whole['0']
    assert rows()['1'] == {**whole['1'], 'd_loss': '', 'g_loss': ''} | {k: '' for k in whole['1'] if k not in rows()['1'] or not rows()['1'][k]}
    assert rows()['1']['modes'] == whole['1']['modes'] and rows()['1']['step'] == '20'


# configurations of other versions

NEWER = '.'.join([str(int(__version__.split('.')[0]) + 1), '0', '0'])


@pytest.mark.parametrize('change, says', [
    ({'config': {'warp': 9}}, f"config.json was written by disentangle_nb {__version__}, and this is {__version__}, which has no setting 'warp'; upgrade disentangle_nb"),
    ({'config': {'warp': 9}, 'versions': {'disentangle_nb': NEWER}}, f"was written by disentangle_nb {NEWER}, and this is {__version__}, which has no setting 'warp'; upgrade disentangle_nb"),
    ({'versions': {'disentangle_nb': NEWER}}, f'was written by disentangle_nb {NEWER}, and this is {__version__}; upgrade disentangle_nb'),
    ({'model': 'warpgan', 'versions': {'disentangle_nb': NEWER}}, f'was written by disentangle_nb {NEWER}, and this is'),
    ({'config': {'warp': 9}, 'versions': None}, "was written by disentangle_nb of another version, and this is")])
def test_a_newer_run_is_refused_by_its_version(trained, run, cli, tmp_path, change, says):
    run, images = run
    config = read_config(run)
    write_json(run/'config.json', {**config, **change, 'config': {**config['config'], **change.get('config', {})}})
    before = contents(tmp_path)
    for command in (['sample', run, '--out', tmp_path/'x.png'], ['evaluate', run], [*RESUME, '--data', images, '--out', run, '--steps', 4]):
        answer = cli(*command)
        refused(answer, says)
        assert '__init__' not in answer[2]
    with pytest.raises(InputError, match='upgrade disentangle_nb'): load(run)
    assert contents(tmp_path) == before


@pytest.mark.parametrize('version', ['0.0.1', __version__, '.'.join(__version__.split('.')[:2] + ['99']), None, 'dev'])
def test_an_older_run_and_a_later_patch_are_not(run, version):
    write_json(run[0]/'config.json', {**read_config(run[0]), 'versions': {'disentangle_nb': version}})
    assert load(run[0]).name == 'vaeinfogan'


@pytest.mark.parametrize('change, says', [({'config': None}, 'config must be an object, found None'), ({'config': 'x'}, "config must be an object, found 'x'")])
def test_a_damaged_configuration_in_the_folder_of_a_sweep(trained, run, cli, tmp_path, change, says):
    write_json(run[0]/'config.json', {**read_config(run[0]), **change})
    run[0].rename(tmp_path/'k0-s7')
    before = contents(tmp_path)
    refused(cli('sweep', 'gan', '--data', 'ring', '--seeds', 0, *SMALL, '--out', tmp_path), says)
    assert contents(tmp_path) == before


@pytest.mark.parametrize('change, says', [({'model': ['a']}, "was started with model ['a'], not 'vaeinfogan'"), ({'steps': 'x'}, "steps is 'x'"), ({'seed': 'a'}, "was started with seed 'a', not 0"), ({'contents': 5}, 'was started with contents 5'),
                                          ({'contents': {}}, 'was started with classes None, not 2'), ({'image_size': 'x'}, "was started with image_size 'x', not 16"), ({'config': [1]}, 'was started with config [1], not')])
def test_a_run_with_a_damaged_configuration_does_not_go_on(run, cli, tmp_path, change, says):
    write_json(run[0]/'config.json', {**read_config(run[0]), **change})
    before = contents(tmp_path)
    refused(cli(*RESUME, '--data', run[1], '--out', run[0], '--steps', 4), says)
    assert contents(tmp_path) == before


@pytest.mark.parametrize('threads', ['x', 0, -1, 1.5, True])
def test_a_run_with_damaged_threads_does_not_go_on(run, cli, threads):
    write_json(run[0]/'config.json', {**read_config(run[0]), 'threads': threads})
    refused(cli(*RESUME, '--data', run[1], '--out', run[0], '--steps', 4), f'threads must be an integer >= 1, found {threads!r}')


# options

@pytest.mark.parametrize('option, says', [
    (['--lr', '-1e-3'], 'lr must be a number > 0'), (['--lr', '-inf'], '--lr: must be a number, found'), (['--lr', '-.5'], 'lr must be a number > 0'), (['--lr=-1e-3'], 'lr must be a number > 0'),
    (['--seed', '-1'], '--seed: must be an integer from 0'), (['--steps', '-1e5'], "--steps: must be an integer >= 1, found '-1e5'"), (['--cats', '-1,2'], 'cats must be a tuple of integers > 1'),
    (['--lr'], '--lr: must be followed by a value'), (['--lr', '--resume'], '--lr: must be followed by a value'), (['--resume', '-5'], '--resume: ignored explicit argument')])
def test_negative_numbers_are_values(cli, tmp_path, option, says):
    refused(cli('train', 'infogan', '--out', tmp_path/'run', *option), says)
    if 'seed' not in option[0] and 'resume' not in ' '.join(option): refused(cli('sweep', 'infogan', '--out', tmp_path/'sweep', *option), says)
    assert not list(tmp_path.iterdir())


def test_blanks_between_names(trained, cli, tmp_path, unmeasured):
    out = tmp_path/'edits.png'
    assert cli('edit', trained[0], '--variables', 'c_cont1, z0', '--out', out)[1].endswith('2 variables\n')
    gif = tmp_path/'sway.gif'
    assert cli('sample', trained[0], '--codes', 'c_cont1 , c_cont2', '--out', gif)[1] == f'{gif}: c_cont1,c_cont2 from one end to the other, seed 0\n'
    for bad in ('c_cont1,', ',', 'a,,b'): refused(cli('sample', trained[0], '--codes', bad, '--out', tmp_path/'x.gif'), '--codes: must be names separated by commas')
    assert cli('train', 'infogan', *SMALL, '--steps', 1, '--cats', ' 10, 3', '--conts', '1', '--out', tmp_path/'a')[0] == 0
    assert cli('train', 'infogan', *SMALL, '--steps', 1, '--cats', ' none ', '--conts', '1', '--out', tmp_path/'b')[0] == 0
    assert read_config(tmp_path/'a')['config']['cats'] == [10, 3] and read_config(tmp_path/'b')['config']['cats'] == []


def test_home(trained, cli, tmp_path, monkeypatch, unmeasured):
    "`~` is expanded in every path, of Python and of the command."
    monkeypatch.setenv('HOME', str(tmp_path))
    shutil.copytree(trained[0], tmp_path/'run'); shutil.copytree(trained[1], tmp_path/'images')
    assert load('~/run').name == 'vaeinfogan' and read_config('~/run')['model'] == 'vaeinfogan'
    for command in (['sample', '~/run', '--out=~/a.png'], ['edit', '~/run', '~/images/a/00.png', '--out=~/b.png'], ['reconstruct', '~/run', '--data=~/images', '--out=~/c.png'], ['explore', '~/run', '--out=~/d.html'],
                    ['data', '~/images', '--out=~/e.png'], ['evaluate', '~/run', '--data=~/images'], ['train', 'gan', '--data=~/images', '--image-size', '16', '--steps', '1', *SMALL, '--out=~/f'],
                    ['sweep', 'gan', '--data=~/images', '--image-size', '16', '--steps', '1', '--seeds', '0', *SMALL, '--out=~/g'], ['train', 'gan', '--data', 'ring', '--steps', '1', *SMALL, '--out=~/f2']):
        status, out, err = cli(*command)
        assert status == 0, (command, err)
    assert {'a.png', 'b.png', 'c.png', 'd.html', 'e.png', 'f', 'g', 'f2'} <= {p.name for p in tmp_path.iterdir()} and not Path('~').exists()
    assert read_config(tmp_path/'f')['data'] == str(tmp_path/'images')
    refused(cli('sample', '~nobody-of-that-name/run', '--out', tmp_path/'h.png'), 'holds no run')
    out, _, _ = train('gan', 'ring', '~/h', steps=1, width=4, d_width=4)
    assert out == tmp_path/'h' and (tmp_path/'h'/'model.safetensors').exists()


# models of points

def test_models_of_points_are_named_so(cli, tmp_path):
    for model, more in (('infogan', []), ('vaeinfogan', ['--e-width', '4'])):
        run = tmp_path/model
        assert cli('train', model, '--data', 'ring', '--steps', 1, *SMALL, *more, '--out', run)[0] == 0
        before = contents(tmp_path)
        for command in ('edit', 'reconstruct', 'interpolate'): refused(cli(command, run, '--out', tmp_path/'x.png'), 'this is for images, and the model is of points')
        refused(cli('explore', run, '--out', tmp_path/'x.html'), 'explore is for images; ')
        for f in (explore, lambda m: plot_edits(m, torch.zeros(1, 2), ['z0']), lambda m: plot_reconstructions(m, torch.zeros(1, 2)), lambda m: interpolate(m, torch.zeros(1, 2), torch.zeros(1, 2))):
            with pytest.raises(InputError, match='the model is of points'): f(load(run))
        assert contents(tmp_path) == before


@pytest.mark.parametrize('option', ['--lookahead', '--fresh'])
def test_options_without_effect_are_told(cli, tmp_path, option):
    "Without unrolled steps there is nothing to cut, and nothing to take fresh batches for."
    old = ['--game', 'one-batch', '--steps', 1, *SMALL]
    status, _, err = cli('train', 'infogan', *old, option, '--out', tmp_path/'none')
    assert status == 0 and f'warning: {option} changes nothing with --unroll 0' in err
    status, _, err = cli('train', 'infogan', *old, option, '--unroll', 1, '--out', tmp_path/'one')
    assert status == 0 and 'warning' not in err
