"""Execute notebooks in place and save their outputs, which are what readers of the docs see.

    python tools/run_notebooks.py [--slow] [NAME ...]       e.g. 04_unrolled_gan

Without --slow, cells marked `#| slow` are not run and keep the outputs they have. Cells marked `#| notest` or `#| eval: false` are never run.
"""
import argparse, os, re, sys, time, traceback
from pathlib import Path

from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell
from nbdev.clean import clean_nb

ROOT = Path(__file__).resolve().parent.parent

def flags(cell): return set(re.findall(r'^#\|\s*(.+?)\s*$', cell.source, re.M))

def run(path, slow):
    "Run one notebook in a fresh shell; the first error stops it, and nothing is written."
    nb, shell = read_nb(path), CaptureShell(path=path.parent, mpl_format='png')
    skip = {'notest', 'eval: false'} | (set() if slow else {'slow'})
    os.chdir(path.parent)
    for i, cell in enumerate(nb.cells):
        if cell.cell_type != 'code' or flags(cell) & skip: continue
        start, shown, cell.outputs = time.time(), bool(cell.outputs), []
        shell.cell(cell)
        if shell.exc: sys.exit(f'{path.name}, cell {i}:\n{cell.source}\n' + ''.join(traceback.format_exception(shell.exc)))
        for o in cell.outputs:      # warnings are for whoever runs this, not for readers
            if o.get('name') == 'stderr': print(''.join(o['text']), end='', file=sys.stderr)
        cell.outputs = [o for o in cell.outputs if o.get('name') != 'stderr']
        if shown and not cell.outputs: print(f'  {path.name}, cell {i}: showed something before, and nothing now (are its data there?)', flush=True)
        if (took := time.time() - start) > 10: print(f'  {path.name}, cell {i}: {took:.0f} s', flush=True)
    clean_nb(nb, clean_ids=True)
    write_nb(nb, path)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('names', nargs='*', help='notebooks without .ipynb; all by default')
    p.add_argument('--slow', action='store_true', help='run the cells marked slow too')
    args = p.parse_args()
    for path in sorted((ROOT/'nbs').glob('*.ipynb')):
        if args.names and path.stem not in args.names: continue
        start = time.time()
        run(path, args.slow)
        print(f'{path.name}: {time.time()-start:.0f} s', flush=True)
