"The docs site in a real browser: it is whole, asks nothing of anybody else, and its explorer makes PyTorch's pictures."
import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from disentangle_nb.cli import measured_controls
from disentangle_nb.training import load

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
pytestmark = pytest.mark.skipif(not (CHROMIUM and shutil.which('npm') and sys.version_info >= (3, 11)), reason='needs Chromium, npm and Python >= 3.11')

class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass

@pytest.fixture(scope='module')
def site(tree):
    "The address of the site, built from a copy of the tree and served here."
    if (ROOT/'node_modules').is_dir(): os.symlink(ROOT/'node_modules', tree/'node_modules')
    built = subprocess.run([sys.executable, 'tools/docs.py'], cwd=tree, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=tree/'_docs')) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}', tree/'_docs'
        server.shutdown()

@pytest.fixture(scope='module')
def browser():
    with pytest.importorskip('playwright.sync_api').sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu'])
        yield browser
        browser.close()

@pytest.fixture
def page(browser, site):
    "A page, and what went wrong in it or left the site."
    page = browser.new_page(viewport={'width': 1200, 'height': 900})
    page.wrong = []
    page.on('console', lambda m: page.wrong.append(m.text) if m.type == 'error' else None)
    page.on('pageerror', lambda e: page.wrong.append(str(e)))
    page.on('request', lambda r: None if r.url.startswith((site[0], 'data:')) else page.wrong.append(f'asked for {r.url}'))
    page.on('response', lambda r: page.wrong.append(f'{r.status} {r.url}') if r.status >= 400 else None)
    yield page
    assert page.wrong == []
    page.close()

def test_pages(site, page):
    address, folder = site
    names = sorted(p.name for p in folder.glob('*.html'))
    assert len(names) > 12
    equations = 0
    for name in names:
        page.goto(f'{address}/{name}', wait_until='load')
        raw, rendered = (page.locator(s).count() for s in ('.math:not(:has(.katex))', '.math .katex'))
        assert raw == 0, f'{name}: {raw} equations as text'
        equations += rendered
        wide = page.evaluate('document.documentElement.scrollWidth') - 1200
        assert wide <= 0, f'{name} is {wide} pixels too wide'
    assert equations > 300

def test_phone(site, page):
    page.set_viewport_size({'width': 390, 'height': 800})
    for name in sorted(p.name for p in site[1].glob('*.html')):
        page.goto(f'{site[0]}/{name}')
        assert page.evaluate('document.documentElement.scrollWidth') <= 390, f'{name} is wider than a phone'

def test_home_is_light(site, page):
    sizes = []
    page.on('response', lambda r: sizes.append(len(r.body())))
    page.goto(f'{site[0]}/index.html', wait_until='networkidle')
    assert 10_000 < sum(sizes) < 1_500_000

def test_search(site, page):
    page.goto(f'{site[0]}/index.html')
    page.locator('input[type=search], input[placeholder=Search]').first.fill('unroll')
    page.wait_for_selector('.smalldocs-search-results a')
    assert any('unroll.html' in a.get_attribute('href') for a in page.locator('.smalldocs-search-results a').all())

def pixels(page, i=0, model=0):
    "Of a canvas in the explorer, (H, W, 3), once it is drawn."
    page.wait_for_function('!document.querySelector("[data-explorer]").explorer.busy')
    read = '''([m, i]) => { const c = document.querySelector("[data-explorer]").explorer.shown[m].canvases[i];
        return [c.height, c.width, Array.from(c.getContext("2d").getImageData(0, 0, c.width, c.height).data)] }'''
    h, w, data = page.evaluate(read, [model, i])
    return np.array(data).reshape(h, w, 4)[..., :3]

def drawn(page, model=0, i=0):
    "The latent that a canvas shows."
    return page.evaluate('([m, i]) => document.querySelector("[data-explorer]").explorer.shown[m].drawn[i]', [model, i])

def test_explorer(site, page):
    page.goto(f'{site[0]}/index.html')
    button = page.locator('[data-explorer] button')
    assert 'MB)' in button.inner_text()
    button.focus()
    page.keyboard.press('Enter')
    page.wait_for_selector('[data-explorer] canvas')
    seen = [pixels(page)]
    page.locator('[data-explorer] input').first.focus()
    for _ in range(30): page.keyboard.press('ArrowRight')
    seen.append(pixels(page))
    page.get_by_role('button', name='7', exact=True).press('Enter')
    seen.append(pixels(page))
    page.get_by_role('button', name='new noise').press('Enter')
    seen.append(pixels(page))
    assert all(abs(a - b).mean() > 1 for a, b in zip(seen, seen[1:]))
    latent, match = drawn(page), json.loads((ROOT/'samples'/'digits'/'k5-s0'/'evaluation.json').read_text())['category_match']
    assert latent[-2] == pytest.approx(.6)                                                     # thirty steps of the slider
    assert latent[-12:-2] == [float(match[i] == 7) for i in range(10)]                         # the category of sevens
    model = load(ROOT/'samples'/'digits'/'k5-s0')
    with torch.no_grad(): x = model.generator(torch.tensor([latent]))[0]
    expected = (127.5*(x.permute(1, 2, 0) + 1)).expand(-1, -1, 3).numpy()
    assert abs(seen[-1] - expected).mean() < 1

def test_side_by_side(site, page):
    page.goto(f'{site[0]}/unrolling_infogan.html')
    page.locator('[data-explorer] button').press('Enter')
    page.wait_for_selector('[data-explorer] canvas')
    assert page.locator('[data-explorer] figcaption').all_inner_texts() == ['K = 0', 'K = 5', 'K = 7', 'K = 10']
    assert page.locator('[data-explorer] label').all_inner_texts() == ['nearest to thickness', 'nearest to slant']
    before = [pixels(page, 0, m) for m in range(4)]
    first, second = ([drawn(page, m, i) for m in range(4)] for i in (0, 1))
    assert all(z[:62] == first[0][:62] for z in first) and all(z[:62] == second[0][:62] for z in second)     # the same noise
    assert first[0][:62] != second[0][:62]
    page.locator('[data-explorer] input').first.focus()
    for _ in range(40): page.keyboard.press('ArrowLeft')
    assert all(abs(a - pixels(page, 0, m)).mean() > .5 for m, a in enumerate(before))

def test_faces(site, page):
    page.goto(f'{site[0]}/faces.html')
    page.locator('[data-explorer] button').press('Enter')
    page.wait_for_selector('[data-explorer] canvas')
    folder = ROOT/'samples'/'vaeinfogan'/'best'
    model, found = load(folder), json.loads((folder/'evaluation.json').read_text())
    expected, _ = measured_controls(model, found)
    assert page.locator('[data-explorer] label').all_inner_texts() == list(expected)
    before = pixels(page)
    page.get_by_label('hair colour').focus()
    for _ in range(50): page.keyboard.press('ArrowRight')
    after, latent = pixels(page), drawn(page)
    assert abs(after - before).mean() > 1
    with torch.no_grad(): x = model.generator(torch.tensor([latent]))[0]
    assert abs(after - (127.5*(x.permute(1, 2, 0) + 1)).numpy()).mean() < 1
    page.set_viewport_size({'width': 390, 'height': 800})          # a phone: the picture stays in sight, under the header
    last = page.locator('[data-explorer] label').last
    last.evaluate('e => e.scrollIntoView({block: "end", behavior: "instant"})')
    picture, slider, header = page.locator('[data-explorer] canvas').first.bounding_box(), last.bounding_box(), page.locator('#quarto-header').bounding_box()
    assert header['y'] + header['height'] <= picture['y'] and picture['y'] + picture['height'] <= slider['y'] < 800

def test_without_javascript(site, browser):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(f'{site[0]}/index.html')
    assert page.locator('[data-explorer] img').evaluate('i => i.naturalWidth') > 0
