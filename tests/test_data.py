"""Folders of images, MNIST and CelebA as people have them on their disks: what does not count, what is followed, what is named."""
import gzip
import os
import warnings
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image, features

from disentangle_nb import data
from disentangle_nb.data import InputError, celeba, fetch, image_folder, load_data, mnist_like, read_image


def paint(file, shade=100, size=8, **kw):
    "A grey image, in a folder made for it."
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new('L', (size, size), shade).save(file, **kw)
    return file


def shades(path, split='train', **kw):
    "The shades of a folder's images by class."
    d = image_folder(path, 8, split, **kw)
    names = [d.classes[i] for i in d.y] if d.y is not None else ['']*len(d)
    return sorted(zip(names, d.x[:, 0, 0, 0].tolist()))


def skipped(path):
    "What is read if what cannot be is skipped, and the warnings."
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        found = shades(path, corrupt='skip')
    return found, ' '.join(str(w.message) for w in said)


@pytest.mark.parametrize('name', ['._a.png', '.a.png', '__MACOSX/a/._x.png', '__MACOSX/x.png', '.ipynb_checkpoints/a-checkpoint.png', '.thumbnails/normal/x.png', 'a/.thumbnails/x.png',
                                  '@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg', '$RECYCLE.BIN/x.png', '.git/x.jpg', '.DS_Store', 'Thumbs.db', 'desktop.ini', 'a/Thumbs.db'])
@pytest.mark.parametrize('whole', [False, True])
def test_what_is_hidden_does_not_count(tmp_path, name, whole):
    "Neither an error nor an image nor a class, be it an image or not."
    paint(tmp_path/'a'/'0.png', 10); paint(tmp_path/'b'/'0.png', 20)
    (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
    if whole and Path(name).suffix in ('.png', '.jpg'): paint(tmp_path/name, 99)
    else: (tmp_path/name).write_bytes(b'\0\5\26\7no image')
    assert shades(tmp_path) == [('a', 10), ('b', 20)]


def test_a_folder_may_itself_be_hidden(tmp_path):
    paint(tmp_path/'.cache'/'__MACOSX'/'faces'/'0.png', 7)
    assert shades(tmp_path/'.cache'/'__MACOSX'/'faces') == [('', 7)]
    paint(tmp_path/'only'/'.hidden.png')
    with pytest.raises(InputError, match='has no images .*hidden ones do not count'): image_folder(tmp_path/'only')


def test_links_are_followed(tmp_path):
    "To a class, to a folder within one, to a file; the folder itself may be one."
    here, there = tmp_path/'here', tmp_path/'there'
    paint(here/'a'/'0.png', 10); paint(there/'b'/'0.png', 20); paint(there/'deep'/'more'/'0.png', 30); paint(there/'0.png', 40)
    (here/'b').symlink_to(there/'b'); (here/'a'/'deep').symlink_to(there/'deep'); (here/'a'/'1.png').symlink_to(there/'0.png')
    expected = [('a', 10), ('a', 40), ('a/deep/more', 30), ('b', 20)]
    assert shades(here) == expected
    (tmp_path/'link').symlink_to(here)
    assert shades(tmp_path/'link') == expected


def test_links_do_not_lead_round_in_circles(tmp_path):
    "Not to a folder that the link is in, directly or by way of another one."
    paint(tmp_path/'in'/'a'/'0.png', 10); paint(tmp_path/'in'/'b'/'0.png', 20)
    for link, to in (('in/a/up', '..'), ('in/self', '.'), ('in/out', '../..')): (tmp_path/link).symlink_to(to)
    assert shades(tmp_path/'in') == [('a', 10), ('b', 20)]
    (tmp_path/'in'/'a'/'to b').symlink_to(tmp_path/'in'/'b'); (tmp_path/'in'/'b'/'to a').symlink_to(tmp_path/'in'/'a')
    assert shades(tmp_path/'in') == [('a', 10), ('a/to b', 20), ('b', 20), ('b/to a', 10)]


@pytest.mark.parametrize('link, to', [('a/1.png', 'gone.png'), ('c', 'gone'), ('a/c', '/gone'), ('loop', 'loop')])
def test_broken_links_are_named(tmp_path, link, to):
    paint(tmp_path/'a'/'0.png', 10)
    (tmp_path/link).symlink_to(to)
    with pytest.raises(InputError, match=f'{link} is a link to {to}, which is not there'): image_folder(tmp_path, 8)
    found, said = skipped(tmp_path)
    assert found == [('', 10)] and f'{link} is a link to {to}' in said


def test_folders_that_cannot_be_read_are_named(tmp_path):
    paint(tmp_path/'a'/'0.png', 10); paint(tmp_path/'b'/'0.png', 20)
    real = os.scandir
    def scandir(path):                                         # whoever runs this may be root, whom no mode stops
        if str(path).endswith('/b'): raise PermissionError(13, 'Permission denied', str(path))
        return real(path)
    with patch('os.scandir', scandir):
        with pytest.raises(InputError, match='/b cannot be read .Permission denied'): image_folder(tmp_path, 8)
        found, said = skipped(tmp_path)
    assert found == [('', 10)] and '/b cannot be read' in said
    with pytest.raises(InputError, match='gone cannot be read'): image_folder(tmp_path/'gone', 8)


@pytest.mark.parametrize('train, test', [('train', 'test'), ('Train', 'Test'), ('training', 'testing'), ('train', 'val'), ('train', 'valid'), ('train', 'validation')])
def test_a_folder_that_is_split_already(tmp_path, train, test):
    "Its splits are kept, and its classes are those within them."
    for i in range(12): paint(tmp_path/train/'ab'[i % 2]/f'{i}.png', i)
    paint(tmp_path/test/'b'/'0.png', 50); paint(tmp_path/test/'c'/'0.png', 60)
    assert shades(tmp_path) == sorted(('ab'[i % 2], i) for i in range(12))
    assert shades(tmp_path, 'test') == [('b', 50), ('c', 60)]
    assert image_folder(tmp_path, 8).classes == image_folder(tmp_path, 8, 'test').classes == ('a', 'b', 'c')
    paint(tmp_path/'more'/'0.png')
    with pytest.raises(InputError, match='split into folders for training and testing, and .*more/0.png lies in none of them'): image_folder(tmp_path, 8)


@pytest.mark.parametrize('place, class_', [('{}', '{}'), ('archive/{}', 'archive/{}'), ('all/pictures/{}', 'all/pictures/{}')])
@pytest.mark.parametrize('within', [False, True])
def test_splits_at_any_level(tmp_path, place, class_, within):
    "In the one folder that an archive holds, or within each class."
    for i, split in enumerate(('train', 'test')):
        for j, name in enumerate('ab'): paint(tmp_path/place.format(f'{name}/{split}' if within else f'{split}/{name}')/'0.png', 10*j + i)
    assert shades(tmp_path) == [(class_.format('a'), 0), (class_.format('b'), 10)]
    assert shades(tmp_path, 'test') == [(class_.format('a'), 1), (class_.format('b'), 11)]


def test_validation_images_beside_a_test_split_are_for_training(tmp_path):
    for i, name in enumerate(('train', 'val', 'test')): paint(tmp_path/name/'0.png', i)
    assert shades(tmp_path) == [('', 0), ('', 1)] and shades(tmp_path, 'test') == [('', 2)]


@pytest.mark.parametrize('names', [('bus', 'train'), ('exam', 'test'), ('test', 'val')])
def test_other_folders_are_classes(tmp_path, names):
    "A train, among buses, is one."
    for i, name in enumerate(names): paint(tmp_path/name/'0.png', i)
    assert shades(tmp_path) == [(n, i) for i, n in enumerate(names)]


@pytest.mark.parametrize('suffix', ['.jpg', '.JPG', '.jpeg', '.jpe', '.jfif', '.png', '.apng', '.bmp', '.dib', '.webp', '.gif', '.tif', '.tiff', '.ppm', '.pgm', '.pnm', '.avif', '.jp2'])
def test_suffixes_that_are_read(tmp_path, suffix):
    if suffix == '.avif' and not features.check('avif'): pytest.skip('this Pillow reads no AVIF')
    kinds = {'.jpe': 'JPEG', '.jfif': 'JPEG', '.JPG': 'JPEG', '.apng': 'PNG', '.dib': 'BMP', '.pnm': 'PPM', '.pgm': 'PPM', '.avif': 'AVIF', '.jp2': 'JPEG2000'}
    paint(tmp_path/f'a{suffix}', 100, format=kinds.get(suffix))
    (_, shade), = shades(tmp_path)
    assert abs(shade - 100) <= 2


@pytest.mark.parametrize('suffix', ['.heic', '.HEIF', '.jxl', '.svg', '.psd', '.tga', '.ico', '.exr', '.dng', '.nef'])
def test_suffixes_that_are_not_read_are_named(tmp_path, suffix):
    paint(tmp_path/'0.png', 10)
    (tmp_path/f'a{suffix}').write_bytes(b'\0\0\0\30ftypheic')
    with pytest.raises(InputError, match=f'a{suffix} cannot be read as an image .*; convert, repair or remove it'): image_folder(tmp_path, 8)
    found, said = skipped(tmp_path)
    assert found == [('', 10)] and f'a{suffix}' in said


def test_a_pillow_without_a_format_names_its_files(tmp_path):
    paint(tmp_path/'0.png', 10); (tmp_path/'1.avif').write_bytes(b'\0\0\0\30ftypavif')
    with patch.object(data, '_decoders', lambda: ['PNG']), pytest.raises(InputError, match='1.avif cannot be read as an image'): image_folder(tmp_path, 8)


def test_home(tmp_path, monkeypatch):
    "`~` is expanded wherever a place is named; somebody unknown's is a folder like any other."
    monkeypatch.setenv('HOME', str(tmp_path))
    paint(tmp_path/'faces'/'0.png', 10)
    assert len(load_data('~/faces')) == len(image_folder('~/faces')) == 1 and load_data('~/faces').name == str(tmp_path/'faces')
    assert read_image('~/faces/0.png', (1, 8, 8)).shape == (1, 8, 8)
    assert data.data_root('~/data') == tmp_path/'data' and data.data_root().is_absolute()
    with pytest.raises(InputError, match='unknown data'): load_data('~nobody-of-that-name/faces')
    with pytest.raises(InputError, match='is missing'): mnist_like(root='~nobody-of-that-name')


# MNIST

def idx(a): return b'\0\0\x08' + bytes([a.ndim]) + np.array(a.shape, '>i4').tobytes() + a.tobytes()


@pytest.fixture
def unpacked(tmp_path):
    "MNIST's test split, unpacked, and what is in it."
    raw = tmp_path/'MNIST'/'raw'; raw.mkdir(parents=True)
    x = np.arange(10_000*28*28, dtype=np.int64).astype(np.uint8).reshape(10_000, 28, 28)
    y = (np.arange(10_000) % 10).astype(np.uint8)
    (raw/'t10k-images-idx3-ubyte').write_bytes(idx(x)); (raw/'t10k-labels-idx1-ubyte').write_bytes(idx(y))
    return raw, x, y


@pytest.mark.parametrize('dotted', [False, True])
def test_mnist_that_lies_there_unpacked(tmp_path, unpacked, dotted):
    raw, x, y = unpacked
    if dotted: [p.rename(p.with_name(p.name.replace('-idx', '.idx'))) for p in raw.iterdir()]
    d = mnist_like('mnist', 'test', tmp_path)
    assert (d.x[:, 0].numpy() == x).all() and (d.y.numpy() == y).all()
    with pytest.raises(InputError, match='train-images-idx3-ubyte.gz is missing'): mnist_like('mnist', 'train', tmp_path)


@pytest.mark.parametrize('content', [b'', b'\0\0\x08', b'junk'*9, idx(np.zeros((9, 28, 28), np.uint8)), idx(np.zeros(10_000, np.uint8))[:-1]])
def test_mnist_unpacked_but_not_whole(tmp_path, unpacked, content):
    for file in unpacked[0].iterdir():
        before = file.read_bytes(); file.write_bytes(content)
        with pytest.raises(InputError, match=f'{file.name} is not the published file'): mnist_like('mnist', 'test', tmp_path)
        file.write_bytes(before)


def test_an_archive_comes_before_what_was_unpacked(tmp_path, unpacked):
    (unpacked[0]/'t10k-images-idx3-ubyte.gz').write_bytes(gzip.compress(b'other'))
    with pytest.raises(InputError, match='t10k-images-idx3-ubyte.gz is corrupt'): mnist_like('mnist', 'test', tmp_path)


def test_what_lies_there_unpacked_is_not_fetched(tmp_path, unpacked):
    asked = []
    def download(url, root, md5): asked.append(url.rsplit('/', 1)[1])
    with patch('torchvision.datasets.utils.download_url', download): fetch('mnist', tmp_path)
    assert asked == ['train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz']
    (unpacked[0]/'t10k-labels-idx1-ubyte').write_bytes(b'damaged'); asked.clear()
    with patch('torchvision.datasets.utils.download_url', download): fetch('mnist', tmp_path)
    assert asked[2:] == ['t10k-labels-idx1-ubyte.gz']


# CelebA

ATTRIBUTES = [[1, -1], [-1, 1], [1, 1], [-1, -1]]


class CelebA:
    "Four images (train, train, valid, test), where and how somebody has them."
    def __init__(self, root, images='img_align_celeba', tables='', suffix='.jpg'):
        self.folder, self.tables = root/'celeba', tables
        for i in range(4):
            file = self.folder/images/f'{i+1:06}{suffix}'
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (178, 218), (60*i, 0, 0)).save(file, **({'quality': 95} if suffix == '.jpg' else {}))
        self.write('list_attr_celeba', '4\nMale Young\n' + ''.join(f'{i+1:06}.jpg {a:2} {b:2}\n' for i, (a, b) in enumerate(ATTRIBUTES)), 'Anno')
        self.write('list_eval_partition', ''.join(f'{i+1:06}.jpg {p}\n' for i, p in enumerate((0, 0, 1, 2))), 'Eval')

    def write(self, name, text, sub='', suffix='.txt', encoding='utf-8'):
        for old in self.folder.rglob(f'{name}.*'): old.unlink()
        file = self.folder/(sub if self.tables == 'drive' else '')/f'{name}{suffix}'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding)


def check(root):
    train, test = celeba('train', 8, root), celeba('test', 8, root)
    assert [abs(v - 60*i) <= 3 for d, own in ((train, (0, 1, 2)), (test, (3,))) for v, i in zip(d.x[:, 0, 4, 4].tolist(), own)] == [True]*4
    assert train.factors.tolist() == [[1, 0], [0, 1], [1, 1]] and test.factors.tolist() == [[0, 0]] and test.factor_names == ('Male', 'Young')


@pytest.mark.parametrize('how', [{}, dict(images='img_align_celeba/img_align_celeba'), dict(images='Img/img_align_celeba', tables='drive'), dict(images='img_align_celeba_png', suffix='.png'),
                                 dict(images='Img/img_align_celeba_png', tables='drive', suffix='.png'), dict(suffix='.png')])
def test_celeba_as_it_is_handed_out(tmp_path, how):
    CelebA(tmp_path, **how)
    check(tmp_path)


def test_celeba_by_the_name_of_the_shared_drive(tmp_path):
    CelebA(tmp_path, images='Img/img_align_celeba', tables='drive').folder.rename(tmp_path/'CelebA')
    check(tmp_path)


def table(head, rows, index=None, quote='', sep=','):
    lines = [[*([] if index is None else [index]), *head]] + [[*([] if index is None else [str(i)]), *map(str, r)] for i, r in enumerate(rows)]
    return '\n'.join(sep.join(f'{quote}{v}{quote}' for v in line) for line in lines) + '\n'


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
@pytest.mark.parametrize('how', [{}, dict(quote='"'), dict(index=''), dict(index='Unnamed: 0'), dict(index='index'), dict(index='', quote='"'), dict(sep=', '), dict(sep=';'), dict(sep='\t')])
def test_tables_of_celeba_as_programs_write_them(tmp_path, how, encoding):
    "With a byte-order mark, in quotes, with a column of row numbers, by other separators."
    d = CelebA(tmp_path)
    files = [f'{i+1:06}.jpg' for i in range(4)]
    d.write('list_attr_celeba', table(['image_id', 'Male', 'Young'], [[f, *a] for f, a in zip(files, ATTRIBUTES)], **how), suffix='.csv', encoding=encoding)
    d.write('list_eval_partition', table(['image_id', 'partition'], list(zip(files, (0, 0, 1, 2))), **how), suffix='.csv', encoding=encoding)
    check(tmp_path)


def test_a_byte_order_mark_before_the_number_of_images(tmp_path):
    d = CelebA(tmp_path)
    for name in ('list_attr_celeba', 'list_eval_partition'): d.write(name, (d.folder/f'{name}.txt').read_text(), encoding='utf-8-sig')
    check(tmp_path)


@pytest.mark.parametrize('name, text, says', [
    ('list_attr_celeba', '9\nMale Young\n000001.jpg 1 1\n', 'has lines for 1 images, and says 9'),
    ('list_attr_celeba', 'image_id,Male,Young\n000001.jpg,1,\n000002.jpg,1,1\n', 'list_attr_celeba.txt is not a table of integers, a line for each image, which begins with the name of its file: see 000002.jpg 1 1'),
    ('list_attr_celeba', 'image_id,Male,Young\n000001.jpg,True,False\n', 'is not a table of integers'),
    ('list_attr_celeba', 'Male Young\n000001.jpg 1 --1\n', 'names no images|is not a table of integers'),
    ('list_eval_partition', '1 0\n2 1\n', 'begins with the name of its file: see 2 1')])
def test_tables_of_celeba_that_cannot_be_read(tmp_path, name, text, says):
    CelebA(tmp_path).write(name, text)
    with pytest.raises(InputError, match=says): celeba('train', 8, tmp_path)


def test_a_table_in_another_encoding(tmp_path):
    CelebA(tmp_path).write('list_attr_celeba', '4\nMale Young\n', encoding='utf-16')
    with pytest.raises(InputError, match='is not text in UTF-8'): celeba('train', 8, tmp_path)


def test_images_of_celeba_that_are_missing(tmp_path):
    d = CelebA(tmp_path)
    (d.folder/'img_align_celeba'/'000002.jpg').unlink()
    with pytest.raises(InputError, match='img_align_celeba/000002.jpg is missing; unpack'): celeba('train', 8, tmp_path)
    (d.folder/'img_align_celeba').rename(d.folder/'img')
    with pytest.raises(InputError, match='img_align_celeba/000001.jpg is missing, and 2 more of 3 images; unpack'): celeba('train', 8, tmp_path)
    assert not list(tmp_path.rglob('*.npz'))
    (d.folder/'img').rename(d.folder/'img_align_celeba')
    assert len(celeba('test', 8, tmp_path)) == 1
    for p in (d.folder/'img_align_celeba').iterdir(): p.unlink()
    assert len(celeba('test', 8, tmp_path)) == 1             # it was kept


def test_hidden_parquet_files_do_not_count(tmp_path):
    CelebA(tmp_path)
    for name in ('.cache/train-0.parquet', '__MACOSX/data/._test-0.parquet', '._train.parquet'):
        (tmp_path/'celeba'/name).parent.mkdir(parents=True, exist_ok=True); (tmp_path/'celeba'/name).write_bytes(b'none')
    check(tmp_path)
