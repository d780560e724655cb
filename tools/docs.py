"""Build the documentation site into _docs/, without Quarto, and make sure that it is whole.

    python tools/docs.py        then: python -m http.server -d _docs

nbdev processes the notebooks; smalldocs lays the pages out from nbs/_quarto.yml, which real Quarto reads too; KaTeX comes from npm into node_modules/.
A page asks nothing of any other server. The check at the end fails the build for a dead link, a missing picture, a resource from outside,
an equation that KaTeX refuses, or text that nbdev would lose.
"""
import json, mimetypes, os, re, shutil, subprocess, sys
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote

import nbformat
from bs4 import BeautifulSoup
from nbdev import doclinks, quarto, serve
from nbdev.config import get_config
from smalldocs import layout, site

from disentangle_nb.cli import measured_controls
from disentangle_nb.explore import explorer_data
from disentangle_nb.training import load

ROOT = Path(__file__).resolve().parent.parent
NBS, PROC, OUT = ROOT/'nbs', ROOT/'_proc', ROOT/'_docs'
NPM = {'katex': '0.16.47'}
SHIPPED = {'node_modules/katex/dist': 'site_libs/katex'}          # folders that the site takes along

def stop(message): sys.exit(f'docs: {message}')

def run(*command, input=None):
    "What a node program prints."
    try: return subprocess.run(command, cwd=ROOT, input=input, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError: stop(f'{command[0]} is needed for the equations: install node and npm')
    except subprocess.CalledProcessError as e: stop(f'{" ".join(command[:2])} failed: ' + ' '.join(e.stderr.replace('npm error', '').split())[:200])

# --- build

def fetch():
    "The packages of `NPM`, at exactly these versions."
    def version(name):
        package = ROOT/'node_modules'/name/'package.json'
        return json.loads(package.read_text())['version'] if package.exists() else None
    if any(version(n) != v for n, v in NPM.items()):
        run('npm', 'install', *'--no-save --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error'.split(), *map('@'.join, NPM.items()))

def process():
    "The notebooks as readers should see them, in _proc/."
    quarto.refresh_quarto_yml()
    doclinks._build_modidx()
    quarto.nbdev_sidebar()
    serve.proc_nbs(n_workers=2, force=True)

SIGNATURE = re.compile(r'^```python\n.*?^```', re.M | re.S)
CODE_LINK = re.compile(r'\[(`[^`\n]+`)\]\([^)\n]+\)')

class Site(site.Site):
    """smalldocs, with each page under the name that nbdev's links give it (02_unroll.ipynb becomes unroll.html),
    and without the Markdown links that nbdev puts into the comments of signatures, where they stay raw."""
    def read(self, src):
        page = super().read(src)
        page.out = src.with_name(page.front.get('output-file', page.out.name))
        page.body = SIGNATURE.sub(lambda m: CODE_LINK.sub(r'\1', m[0]), page.body)
        return page

def render():
    layout.KATEX = SHIPPED['node_modules/katex/dist']
    made = Site(site.load(PROC), quiet=True)
    made.out = OUT
    made.build()
    for source, target in SHIPPED.items(): shutil.copytree(ROOT/source, OUT/target)

def brought_in(text):
    "The page with the repository's files that it names: pictures are copied into the site, sources are linked where they are kept."
    def place(m):
        attr, path, rest = m.groups()
        file, name = (NBS/unquote(path)).resolve(), path.removeprefix('../')
        if not file.exists() or name == path and (OUT/unquote(path)).exists(): return m[0]
        picture = (mimetypes.guess_type(path)[0] or '').startswith(('image/', 'video/', 'audio/'))
        if attr == 'href' and not picture: return f'href="{get_config().git_url}/blob/{get_config().branch}/{file.relative_to(ROOT)}{rest}"'
        copy = OUT/unquote(name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
        return f'{attr}="{name}{rest}"'
    return re.sub(r'\b(href|src)="([^":#?]+)([^":]*)"', place, text)

# runs once a reader asks for it: what is in the place gives way to controls and pictures that follow
LIVE = '''<script>for (const b of document.querySelectorAll('[data-explorer] button')) b.onclick = () => {
    b.disabled = true;
    document.body.append(Object.assign(document.createElement('script'), {src: b.dataset.src, onerror: () => b.textContent = 'could not be loaded'}));
};</script>'''

def explorers(text):
    "The page with a button in each place named by `data-explorer` (folders of shown models, with commas), that opens a live explorer there."
    places = []
    def button(m):
        folders = [(NBS/unquote(path)).resolve() for path in m[1].split(',')]
        told = [json.loads((f/'evaluation.json').read_text()) for f in folders]
        loaded = list(map(load, folders))
        models = {f'{type(m).__name__}, '*(len(loaded) == 1) + f'K = {m.config.unroll}': m for m in loaded}
        controls = {n: measured_controls(model, found, len(told) == 1)[0] for (n, model), found in zip(models.items(), told)}
        place, (parent, *_) = f'explorer-{len(places)}-{folders[0].name}', folders
        places.append(place)
        script = OUT/'explorers'/f'{parent.parent.name}-{"-".join(f.name for f in folders)}.js'
        script.parent.mkdir(exist_ok=True)
        told = json.dumps(explorer_data(models, controls, {'class': range(10)}))
        script.write_text('{' + (files('disentangle_nb')/'assets'/'explorer.js').read_text() + f"explorer.mount(document.getElementById('{place}'), {told}) }}")
        size = f'{script.stat().st_size/1e6:.1f} MB'
        return f'<div id="{place}" data-explorer><p><button type="button" class="btn btn-primary" data-src="explorers/{script.name}">Move its codes yourself ({size})</button></p>'
    text = re.sub(r'<div data-explorer="([^"]+)">', button, text)
    return text.replace('</body>', f'{LIVE}</body>') if places else text

def linked(pages):
    "The pages with nbdev's links to the API made relative; a name that the docs do not show (a private one) is no link."
    ids = {name: set(re.findall(r'\bid="([^"]+)"', text)) for name, text in pages.items()}
    def relative(m):
        page, anchor, label = m.groups()
        return f'<a href="{page}#{anchor}">{label}</a>' if anchor in ids.get(page, ()) else label
    api = re.compile(rf'<a href="{re.escape(get_config().doc_host + get_config().doc_baseurl)}/([^"#]+)#([^"]+)"[^>]*>(.*?)</a>', re.S)
    return {name: api.sub(relative, text) for name, text in pages.items()}

def numbered(text):
    "The page with the chapters' numbers in its sidebar: the text refers to chapters by them."
    chapters = {f'{p.stem[3:]}.html': f'{p.stem[:2]} ' for p in NBS.glob('[0-9][0-9]_*.ipynb')}
    return re.sub(r'(<a href="([^"]+)" class="sidebar-item-text[^>]*><span class="menu-text">)', lambda m: m[1] + chapters.get(m[2], ''), text)

def index():
    "llms.txt (llmstxt.org): what is where, for language models."
    def line(path):
        head = nbformat.read(path, 4).cells[0].source
        title, text = (re.search(rf'^{mark} (.+)', head, re.M)[1] for mark in '#>')
        return title, text, re.sub(r'^\d\d_', '', path.stem) + '.html'
    (title, text, _), *chapters = map(line, [NBS/'index.ipynb', *sorted(p for p in NBS.glob('*.ipynb') if p.stem != 'index')])
    return f'# {title}\n\n> {text}\n\n## Chapters\n\n' + ''.join(f'- [{t}]({get_config().doc_host}{get_config().doc_baseurl}/{page}): {what}\n' for t, what, page in chapters)

def unhurried(text):
    "The page with pictures fetched when they come into sight, but for the first."
    first, img, rest = text.partition('<img ')
    return first + img + rest.replace('<img ', '<img loading="lazy" ')

def finish():
    "The post-step: links, files, numbers, pictures, llms.txt, and themes without web fonts."
    pages = {p.name: unhurried(numbered(brought_in(explorers(p.read_text())))) for p in OUT.glob('*.html')}
    for name, text in linked(pages).items(): (OUT/name).write_text(text)
    (OUT/'llms.txt').write_text(index())
    for css in OUT.glob('site_libs/themes/*.css'): css.write_text(re.sub(r'@import url\([^)]*\);?', '', css.read_text()))

# --- check

OUTSIDE = re.compile(r'(https?:)?//(?!www\.w3\.org/)[\w-]+(\.[\w-]+)+')
RAW_TEX = re.compile(r'\$\$|\\begin\{|\$[^$\n]*[\\^_][^$\n]*\$')

def lost(path):
    "What the title's cell says beside title and description: nbdev makes front matter of that cell and drops the rest."
    cells = (c.source for c in nbformat.read(path, 4).cells if c.cell_type == 'markdown')
    text = next((s for s in cells if re.search(r'^#\s', s, re.M)), '')
    for known in (r'^#\s.*', r'^>\s.*'): text = re.sub(known, '', text, count=1, flags=re.M)
    return [f'{path.name}: would be lost, give it a cell of its own: {text.strip()[:60]!r}'] if text.strip() else []

def dead(url, page, pages):
    "Whether a relative link or file is not there."
    path, _, anchor = url.partition('#')
    target = OUT/(unquote(path.partition('?')[0]) or page)
    if target.is_dir(): target /= 'index.html'
    return not target.is_file() or bool(anchor) and target.name in pages and not pages[target.name].find(id=unquote(anchor))

def links(soup): return [a['href'] for a in soup.select('a[href]') if not re.match(r'[a-z]+:|#?$', a['href'])]

def equations(soup): return [(m.text[2:-2], 'display' in m['class']) for m in soup.select('.math')]

def faults(page, pages):
    "What is wrong with a page."
    soup = pages[page]
    wrong = [f'dead link {url}' for url in links(soup) if dead(url, page, pages)]
    for url in (t.get('src') or t['href'] for t in soup.select('[src], link[href]')):
        if OUTSIDE.match(url): wrong.append(f'outside resource {url}')
        elif not url.startswith('data:') and dead(url, page, pages): wrong.append(f'missing {url}')
    wrong += [f'outside address in a script or style: {m[0]}' for t in soup.select('script, style, [style]') if (m := OUTSIDE.search(t.get('style') or t.text))]
    if equations(soup) and not soup.select('script[src$="/auto-render.min.js"]'): wrong.append('equations, but no KaTeX')
    prose = BeautifulSoup(str(soup), 'html.parser')
    for t in prose.select('code, pre, script, style, .math'): t.decompose()
    wrong += [f'raw TeX: {m[0]}' for m in RAW_TEX.finditer(prose.text)]
    return [f'{page}: {w}' for w in wrong]

def refused(pages):
    "The equations that KaTeX cannot render, with its reasons."
    script = '''const katex = require("katex");
        for (const [page, all] of Object.entries(JSON.parse(require("fs").readFileSync(0))))
            for (const [tex, displayMode] of all)
                try { katex.renderToString(tex, {displayMode}) } catch (e) { console.log(`${page}: ${e.message}`) }'''
    return run('node', '-e', script, input=json.dumps({name: equations(soup) for name, soup in pages.items()})).splitlines()

def stray(css):
    "What a style sheet loads from outside, or misses."
    urls = map(''.join, re.findall(r'url\(["\']?([^"\')]+)|@import\s+["\']([^"\']+)', css.read_text()))
    here = lambda url: url.startswith(('data:', '#')) or (css.parent/re.split('[?#]', url)[0]).exists()
    return [f'{css.relative_to(OUT)}: outside or missing {url}' for url in urls if OUTSIDE.match(url) or not here(url)]

def check():
    "Everything that is wrong with the site, and how much was looked at."
    pages = {p.name: BeautifulSoup(p.read_text(), 'html.parser') for p in sorted(OUT.glob('*.html'))}
    wrong = [w for p in sorted(NBS.glob('*.ipynb')) for w in lost(p)] + [w for page in pages for w in faults(page, pages)]
    wrong += refused(pages) + [w for css in OUT.rglob('*.css') for w in stray(css)]
    count = lambda f: sum(len(f(soup)) for soup in pages.values())
    return wrong, f'{len(pages)} pages, {count(links)} links, {count(lambda s: s.select("img"))} images, {count(equations)} equations checked'

if __name__ == '__main__':
    os.chdir(ROOT)
    fetch(); process(); render(); finish()
    wrong, looked_at = check()
    print(*wrong, f'_docs: {looked_at}', sep='\n', flush=True)
    if wrong: stop(f'{len(wrong)} problems')
