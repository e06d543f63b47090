"""Annotation files that training and evaluation meet in ``StrictCocoDataset``, and tools/convert_dataset.py in its readers."""

import json
from collections.abc import Callable

import torch
from mmdet.registry import DATASETS

from mmdet_detr_plugin.datasets.conversion import with_splits
from mmdet_detr_plugin.datasets.readers import read_dataset
from mmdet_detr_plugin.models.targets import collate_targets

from ..builders import random_gt
from .bad_input import ANNOUNCED, CLASSES, WORKS, Project, Row, nothing

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]
FIX = 'Correct the file, or convert the data set anew'


def load(project: Project, split: str = 'train', classes: object = CLASSES, **changes):
    """The data set, as mmdet builds it."""
    return DATASETS.build(
        dict(
            type='mmdet_detr_plugin.StrictCocoDataset',
            data_root=f'{project.data}/',
            ann_file=f'annotations/{split}.json',
            data_prefix=dict(img=f'{split}/'),
            metainfo=dict(classes=classes),
            test_mode=split == 'test',
            pipeline=PIPELINE,
            **changes,
        )
    )


def change(key: str, split: str = 'train', **values) -> Callable[[Project], None]:
    """Set values of the first image, annotation or category; ``...`` removes one."""

    def plant(project: Project) -> None:
        def edit(content: dict) -> None:
            for name, value in values.items():
                if value is ...:
                    del content[key][0][name]
                else:
                    content[key][0][name] = value

        project.edit(edit, split)

    return plant


def file(text: str) -> Callable[[Project], None]:
    return lambda project: project.write(text)


def edited(edit: Callable[[dict], object], split: str = 'train') -> Callable[[Project], None]:
    return lambda project: project.edit(edit, split)


def row(goes_in: str, plant, reads: str, meets=load, **more) -> Row:
    return Row(goes_in, plant, meets, reads, **more)


def of_image(goes_in: str, reads: str, **values) -> Row:
    return row(goes_in, change('images', **values), f'train.json: image {reads}')


def of_annotation(goes_in: str, reads: str, **values) -> Row:
    return row(goes_in, change('annotations', **values), f'train.json: annotation 4 has {reads}')


def raw_box(numbers: str) -> Callable[[Project], None]:
    """Numbers that Python's JSON would not write."""
    return lambda project: project.file().write_text(project.file().read_text().replace('[0, 4, 20, 30]', numbers, 1))


def objects(project: Project) -> str:
    dataset = load(project)
    counts = [len(dataset.get_data_info(i)['instances']) for i in range(len(dataset))]
    return f'{len(dataset)} images with {counts} objects'


def label_of_no_class(project: Project) -> None:
    instances = random_gt(1, (48, 64))
    instances.labels = torch.tensor([4])
    collate_targets([instances], [dict(img_shape=(48, 64), img_path='1.png')], num_classes=4)


def convert(project: Project) -> str:
    notes = with_splits(read_dataset(project.data)).notes
    return '; '.join(f'{reason}: {where[0]}' for reason, where in notes.items())


BOX = 'expected [x, y, width, height] in pixels'

FILES = [
    row('no annotation file', lambda p: p.file().unlink(), 'annotation file train.json does not exist ... Expected a COCO JSON'),
    row('an empty annotation file', file(''), 'train.json: not a COCO JSON (JSONDecodeError ... expected an object with the lists'),
    row('a text that is no JSON', file('images: 3'), 'train.json: not a COCO JSON (JSONDecodeError ... expected an object'),
    row('a truncated JSON', file('{"images": [{"id": 1, "file'), 'train.json: not a COCO JSON (JSONDecodeError ... expected an object'),
    row('a JSON list', file('[1, 2]'), "train.json: not a COCO JSON (AssertionError: annotation file format <class 'list'> not supported)"),
    row('bytes that are no text', lambda p: p.file().write_bytes(b'\xff\xfe\x00\x81'), 'train.json: not a COCO JSON (UnicodeDecodeError'),
    row('no "images"', edited(lambda c: c.pop('images')), "train.json: not a COCO JSON: expected ... there is no 'images', only"),
    row(
        'no "categories"', edited(lambda c: c.pop('categories')), "train.json: not a COCO JSON: expected ... there is no 'categories', only"
    ),
    row('"annotations" is an object', edited(lambda c: c.update(annotations={})), "not a COCO JSON: expected ... 'annotations' is a dict"),
    row('no images in the list', edited(lambda c: c.update(images=[])), f'train.json: lists no images; expected at least one. {FIX}'),
    row(
        'no annotations to train on',
        edited(lambda c: c.update(annotations=[])),
        'train.json has no object to train on: its 2 images hold 0',
    ),
    row(
        'crowd regions only',
        edited(lambda c: [a.update(iscrowd=1) for a in c['annotations']]),
        'train.json has no object to train on: its 2 images hold 8 crowd regions ... Expected an annotation with iscrowd 0',
    ),
    row(
        'one image without objects',
        edited(lambda c: c.update(annotations=c['annotations'][:4])),
        '2 images with [4, 0] objects',
        objects,
        outcome=WORKS,
    ),
]

IMAGES = [
    row(
        'an image that is a number',
        edited(lambda c: c['images'].append(7)),
        'image number 2 (from 0) must be an object with an "id" ... got 7',
    ),
    of_image('an image without id', 'number 0 (from 0) must be an object with an "id", a number or text', id=...),
    of_image('two images of one id', 'id 2 is there twice; expected another one for each, or one of them would be lost', id=2),
    of_image('no file_name', '1 has the file_name None; expected the path of its file', file_name=...),
    of_image('no height', f'1 has the height None; expected pixels from 1 to 16777216. {FIX}', height=...),
    of_image('a height of 1e9 pixels', '1 has the height 1000000000; expected pixels from 1 to 16777216', height=10**9),
    of_image('a width of 0', '1 has the width 0; expected pixels from 1', width=0),
    of_image('a width as text', "1 has the width '64'; expected pixels from 1", width='64'),
    row(
        'another size than the image has',
        change('images', width=640, height=480),
        'Image 1.png is 64 x 48 pixels (width x height), train.json states 640 x 480, so that its boxes belong elsewhere',
        lambda project: load(project)[0],
    ),
]

OBJECTS = [
    of_annotation('no bbox', f'the bbox None; {BOX}', bbox=...),
    of_annotation('a bbox of three numbers', f'the bbox [1, 2, 3]; {BOX}', bbox=[1, 2, 3]),
    of_annotation('a bbox of texts', f"the bbox ['1', '2', '3', '4']; {BOX}", bbox=['1', '2', '3', '4']),
    of_annotation('null in a bbox', f'the bbox [1, 2, None, 4]; {BOX}', bbox=[1, 2, None, 4]),
    row('NaN in a bbox', raw_box('[NaN, 4, 20, 30]'), f'train.json: annotation 4 has the bbox [nan, 4, 20, 30]; {BOX}'),
    row('an infinite bbox', raw_box('[0, 4, 1e400, 30]'), f'train.json: annotation 4 has the bbox [0, 4, inf, 30]; {BOX}'),
    of_annotation('a bbox of 1e30 pixels', f'the bbox [0, 0, 1e+30, 5]; {BOX}, up to 16777216', bbox=[0, 0, 1e30, 5]),
    of_annotation(
        'a negative width', 'the bbox [30, 4, -20, 30] of negative size; expected ... Were corners given?', bbox=[30, 4, -20, 30]
    ),
    row(
        'a bbox of zero width',
        change('annotations', bbox=[0, 4, 0, 30]),
        'train.json: 1 boxes are smaller than a pixel or have no area: left out; the first: annotation 4, bbox [0, 4, 0, 30]',
        outcome=ANNOUNCED,
    ),
    row(
        'a bbox outside of its image',
        change('annotations', bbox=[70, 4, 20, 30]),
        'train.json: 1 boxes lie outside of their image: left out; the first: annotation 4, bbox [70, 4, 20, 30]',
        outcome=ANNOUNCED,
    ),
    row(
        'a bbox that reaches far beyond its image',
        change('annotations', bbox=[0, 4, 5000, 30]),
        'train.json: 1 boxes reach beyond their image: kept, and cut where the pipeline resizes; the first: annotation 4',
        outcome=ANNOUNCED,
    ),
    of_annotation('no area', "the area None; expected the object's pixels (width x height of its box will do)", area=...),
    row(
        'NaN as area',
        lambda p: p.file().write_text(p.file().read_text().replace('"area": 600', '"area": NaN', 1)),
        "train.json: annotation 4 has the area nan; expected the object's pixels",
    ),
    of_annotation('iscrowd as text', "iscrowd 'no'; expected 0 or 1", iscrowd='no'),
    row(
        'no iscrowd, in evaluation',
        change('annotations', 'test', iscrowd=...),
        'test.json: annotation 4 has no iscrowd, which evaluation needs; expected 0, or 1 for a crowd',
        lambda project: load(project, 'test'),
    ),
    row(
        '"ignore" without iscrowd',
        change('annotations', ignore=1),
        'train.json: 1 annotations have "ignore" without iscrowd, the first: annotation 4. Trained as background and evaluated as objects',
        outcome=ANNOUNCED,
    ),
    of_annotation('an image_id that is not listed', "image_id 99, which is not among the file's 2 images (1, 2)", image_id=99),
    of_annotation(
        'a category_id that is not listed', "category_id 0, which is not among the file's 4 categories (1, 2, 3, 4)", category_id=0
    ),
    of_annotation('a category_id as text', "category_id '1', which is not among the file's 4 categories", category_id='1'),
    row(
        'two annotations of one id',
        change('annotations', id=5),
        'train.json: annotation id 5 is there twice; expected another one for each',
    ),
    row(
        'a label that is no class of the head',
        nothing,
        "Label 4 of image 1.png is not one of the head's 4 classes (0 to 3). Set bbox_head.num_classes",
        label_of_no_class,
    ),
]

CATEGORIES = [
    row('two categories of one id', change('categories', id=2), 'train.json: category id 2 is there twice; expected another one for each'),
    row('two categories of one name', change('categories', name='star'), "category 4 has the name 'star', which another category has too"),
    row('a category without a name', change('categories', name=...), 'train.json: category 1 has the name None; expected a text'),
    row(
        'a misspelt class in the config',
        nothing,
        "metainfo.classes names ('circel'), which train.json does not have; its categories are ('circle', 'square', 'triangle', 'star')",
        lambda project: load(project, classes=('circel', *CLASSES[1:])),
    ),
    row(
        'classes in another order',
        nothing,
        "metainfo.classes is in another order than the categories of train.json: expected ('circle', ... got ('star', ... swapped",
        lambda project: load(project, classes=CLASSES[::-1]),
    ),
    row(
        'classes as one text',
        nothing,
        "metainfo.classes must be a tuple of names, got the string 'circle'; write ('circle', )",
        lambda project: load(project, classes='circle'),
    ),
]

CONVERTED = [
    row(
        'convert: two images of one id',
        change('images', id=2),
        'train.json: images must have different ids, and id 2 is there 2 times',
        convert,
    ),
    row('convert: a category_id that is a list', change('annotations', category_id=[1]), 'train.json: expected images with "id"', convert),
    row(
        'convert: an infinite bbox',
        raw_box('[0, 4, Infinity, 30]'),
        'annotation without a box of four numbers: train.json: annotation 4',
        convert,
        outcome=WORKS,
    ),
    row(
        'convert: "ignore" without iscrowd',
        change('annotations', ignore=1),
        'annotation with "ignore" (kept as a region to ignore, as a crowd is): train.json: annotation 4',
        convert,
        outcome=WORKS,
    ),
    row(
        'convert: a negative width',
        change('annotations', bbox=[30, 4, -20, 30]),
        'box smaller than a pixel, outside its image, or not a number: 1.png: circle 30 4 -20 30',
        convert,
        outcome=WORKS,
    ),
    row(
        'convert: two categories of one name',
        change('categories', name='star'),
        'categories of one name (joined): train.json: star',
        convert,
        outcome=WORKS,
    ),
    row(
        'convert: another size than the image has',
        change('images', width=640),
        'size in the annotation differs from the image (left out): 1.png: 640x48, it is 64x48',
        convert,
        outcome=WORKS,
    ),
    row(
        'convert: an image under two ids',
        edited(lambda c: c['images'][1].update(file_name='1.png')),
        'image listed more than once (joined): 1.png',
        convert,
        outcome=WORKS,
    ),
    row(
        'convert: a split without its images',
        lambda project: [project.image(number, 'test').unlink() for number in (1, 2)],
        'test.json: none of its 2 images could be used (image file missing: 2, the last: 2.png)',
        convert,
    ),
    row(
        'convert: a test split without an object',
        edited(lambda c: c.update(annotations=[]), 'test'),
        'test split without an object (left out, as nothing can be evaluated on it): 2 images',
        convert,
        outcome=WORKS,
    ),
    row(
        'convert: a val split without an object',
        lambda project: [
            project.file('test').rename(project.file('val')),
            project.image(1, 'test').parent.rename(project.data / 'val'),
            project.edit(lambda content: content.update(annotations=[]), 'val'),
        ],
        'training and validation both need objects, and the 2 images of the val split have none',
        convert,
    ),
    row(
        'convert: a folder of nothing known',
        lambda project: [project.file(split).write_text(json.dumps({'a': 1})) for split in ('train', 'test')],
        'has no layout known here. Looked for: a YOLO data.yaml',
        convert,
    ),
]

ROWS = [*FILES, *IMAGES, *OBJECTS, *CATEGORIES, *CONVERTED]
