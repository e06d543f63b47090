"""Image files: broken, of another size than stated, in two splits."""

import os

import cv2
import numpy as np

from mmdet_detr_plugin.preflight import ERROR, NOTE, WARNING, data_findings, read_data
from mmdet_detr_plugin.preflight.duplicates import check_shared_images
from mmdet_detr_plugin.preflight.images import check_sample

from .planting import config, edit, find_in_data, first, saying


def test_copies_in_two_splits_are_found_whatever_their_names(root):
    os.replace(root / 'test' / '000001.png', root / 'test' / 'other.png')
    edit(root, 'test', first('images', file_name='other.png'))
    assert not saying(data_findings(config(root)), 'copies')
    (root / 'test' / 'other.png').write_bytes((root / 'train' / '000003.png').read_bytes())
    (root / 'test' / '000002.png').write_bytes((root / 'train' / '000002.png').read_bytes())
    find_in_data(
        config(root), WARNING, 'copies of images of train: 2 of 8 images', 'test/000002.png', 'train/000002.png', 'keep each image in one'
    )


def test_files_of_equal_size_but_other_content_are_no_copies(root):
    for split, value in (('train', 1), ('test', 2)):
        (root / split / '000001.png').write_bytes(bytes([value]) * 500)
    assert not saying(data_findings(config(root)), 'copies')


def test_what_time_did_not_suffice_for_is_said(root):
    (root / 'test' / '000002.png').write_bytes((root / 'train' / '000002.png').read_bytes())
    splits = read_data(config(root)).splits
    assert saying(check_shared_images(splits, seconds=-1.0), 'not all file sizes were read')
    note = saying(check_sample(splits[0], seconds=-1.0), '0 of 16 images were decoded')
    assert note and note[0].severity == NOTE


def test_training_images_used_for_evaluation(root):
    cfg = config(root)
    for loader in ('val', 'test'):
        cfg[f'{loader}_dataloader'].dataset.update(ann_file='annotations/train.json', data_prefix=dict(img='train/'))
        cfg[f'{loader}_evaluator'].ann_file = f'{root}/annotations/train.json'
    find_in_data(cfg, WARNING, 'image files in train too: 16 of 16 images of val and test')


def test_broken_images(root):
    content = (root / 'train' / '000002.png').read_bytes()
    (root / 'train' / '000002.png').write_bytes(content[: len(content) // 2])
    (root / 'train' / '000005.png').write_text('no image')
    find_in_data(config(root), ERROR, '2 of 16 decoded images cannot be read', 'train/00000', 'replace them')


def test_an_image_turned_by_exif_has_the_size_that_mmdet_sees(root):
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.zeros((100, 60, 3), np.uint8)).save(root / 'train' / 'turned.jpg', exif=exif)
    assert cv2.imread(str(root / 'train' / 'turned.jpg')).shape == (60, 100, 3)
    edit(root, 'train', first('images', file_name='turned.jpg', width=60, height=100))
    find_in_data(config(root), ERROR, '1 of 16', 'turned.jpg is 100 x 60, stated 60 x 100')
