"""Write README.md from nbs/index.ipynb, without Quarto: the same bytes every time.

    python tools/readme.py

Cells marked `#| hide` or `include: false` are left out, `echo: false` and `output: false` hide a cell's code or output, here as in the docs.
Links are rewritten to hold at the top of the repository; saved pictures of cells go to samples/readme/.
"""
import posixpath, re, shutil, sys
from configparser import ConfigParser
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
PICTURES = 'samples/readme'
HIDING = Config(TagRemovePreprocessor=dict(
    enabled=True, remove_cell_tags={'hide', 'include: false'}, remove_input_tags={'echo: false'}, remove_all_outputs_tags={'output: false'}))

def flags(cell): return re.findall(r'^#\|\s*(.+?)\s*$', cell.source, re.M)

def rooted(text):
    "Markdown whose links start at the top of the repository instead of in nbs/."
    def at(m): return m[1] + posixpath.normpath(posixpath.join('nbs', m[2]))
    return re.sub(r'(\]\(|\b(?:src|href)=")(?![a-z]+:|[#/])([^)"#\s]+)', at, text)

def prepared(nb):
    "The notebook as nbconvert should see it: flags as tags, links from the top, no front matter, no output that needs a browser to run it."
    nb.metadata.language_info = {'name': 'python'}
    nb.cells = [c for c in nb.cells if c.cell_type != 'raw']
    for c in nb.cells:
        if c.cell_type == 'markdown': c.source = rooted(c.source)
        else:
            c.metadata.tags = flags(c)
            c.source = re.sub(r'^#\|.*\n?', '', c.source, flags=re.M)
            c.outputs = [o for o in c.outputs if '<script' not in o.get('data', {}).get('text/html', '')]
            for data in (o.get('data', {}) for o in c.outputs):
                if 'text/markdown' in data: data['text/markdown'] = rooted(data['text/markdown'])
    nb.cells = [c for c in nb.cells if c.source.strip()]
    return nb

def markdown(nb):
    "The text, and its pictures by path."
    text, resources = MarkdownExporter(config=HIDING).from_notebook_node(nb, {'unique_key': 'figure', 'output_files_dir': PICTURES})
    text = re.sub(r'<style.*?</style>\n?|</?div.*?>\n+', '', text, flags=re.S)      # of data frames; the site's places for explorers
    return re.sub(r'\n\s*\n', '\n\n', text).strip() + '\n', resources['outputs']

if __name__ == '__main__':
    cfg = ConfigParser(delimiters=['='])
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    text, pictures = markdown(prepared(nbformat.read(ROOT/'nbs/index.ipynb', 4)))
    title = '# ' + cfg['DEFAULT']['title']
    if text.splitlines()[0] != title: sys.exit(f'readme: nbs/index.ipynb must start with "{title}"')
    shutil.rmtree(ROOT/PICTURES, ignore_errors=True)
    for path, data in pictures.items():
        (ROOT/path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT/path).write_bytes(data)
    (ROOT/'README.md').write_text(text, encoding='utf-8')
    print(f'README.md: {len(text.splitlines())} lines, {len(pictures)} pictures')
