"""COCO, VOC and YOLO folders become the same COCO JSON; everything left out is said."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmdet_detr_plugin.datasets.conversion import check_class_name, earlier_splits, with_splits, write_coco
from mmdet_detr_plugin.datasets.data_configs import config_for_dataset
from mmdet_detr_plugin.datasets.readers import read_dataset
from mmdet_detr_plugin.datasets.records import split_of

from ..conftest import ROOT

# Two images, three objects: name, x, y, w, h in pixels.
OBJECTS = {'a.png': [('cat', 10, 20, 30, 40), ('dog', 0, 0, 100, 60)], 'b.png': [('dog', 50, 10, 20, 30)]}
SIZE = (100, 80)  # width, height


def make_images(folder, names=OBJECTS):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        cv2.imwrite(str(folder / name), np.zeros((SIZE[1], SIZE[0], 3), np.uint8))


def make_coco(root):
    make_images(root / 'images')
    names = ['cat', 'dog']
    images = [dict(id=7 + i, file_name=name, width=SIZE[0], height=SIZE[1]) for i, name in enumerate(OBJECTS)]
    annotations = [
        dict(id=i, image_id=7 + list(OBJECTS).index(name), category_id=20 + names.index(label), bbox=list(box), area=1, iscrowd=0)
        for i, (name, label, *box) in enumerate((name, *item) for name, items in OBJECTS.items() for item in items)
    ]
    content = dict(images=images, annotations=annotations, categories=[dict(id=20 + i, name=name) for i, name in enumerate(names)])
    (root / 'labels.json').write_text(json.dumps(content))


def make_voc(root):
    make_images(root / 'JPEGImages')
    (root / 'Annotations').mkdir()
    for name, items in OBJECTS.items():
        objects = ''.join(
            f'<object><name>{label}</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox>'
            '</object>'
            for label, x, y, w, h in items
        )
        (root / 'Annotations' / f'{name[:-4]}.xml').write_text(f'<annotation><filename>{name}</filename>{objects}</annotation>')


def make_yolo(root, yaml='names: [cat, dog]\ntrain: images\n'):
    make_images(root / 'images')
    (root / 'labels').mkdir()
    for name, items in OBJECTS.items():
        lines = (
            f'{["cat", "dog"].index(label)} {(x + w / 2) / SIZE[0]} {(y + h / 2) / SIZE[1]} {w / SIZE[0]} {h / SIZE[1]}'
            for label, x, y, w, h in items
        )
        (root / 'labels' / f'{name[:-4]}.txt').write_text('\n'.join(lines))
    (root / 'data.yaml').write_text(yaml)


@pytest.mark.parametrize('layout, make', [('COCO', make_coco), ('VOC', make_voc), ('YOLO', make_yolo)])
def test_three_layouts_give_the_same_boxes(tmp_path, layout, make):
    make(tmp_path)
    records = read_dataset(tmp_path)
    assert records.layout == layout and records.classes == ['cat', 'dog'] and not records.notes
    found = {image.path.name: [(box.class_name, box.x, box.y, box.w, box.h) for box in image.boxes] for image in records.images}
    assert found.keys() == OBJECTS.keys()
    for name, items in OBJECTS.items():
        for (label, *box), (expected, *expected_box) in zip(found[name], items, strict=True):
            assert label == expected and box == pytest.approx(expected_box, abs=1e-3)


@pytest.mark.parametrize('make', [make_coco, make_voc, make_yolo])
def test_written_json_is_read_back_and_trains_any_config(tmp_path, make):
    make(tmp_path / 'src')
    files = write_coco(with_splits(read_dataset(tmp_path / 'src')), tmp_path / 'out', tmp_path / 'src')
    assert [path.name for path in files] == ['train.json', 'val.json']
    content = json.loads(files[0].read_text())
    image = content['images'][0]
    assert (tmp_path / 'out' / content['info']['image_root'] / image['file_name']).is_file()
    for name in (
        'detr/detr_r18_8xb2-1x_coco.py',
        'faster_rcnn/faster-rcnn_r18_fpn_8xb2-1x_coco.py',
        'shapes/detr_r18-half_1xb4-10e_shapes.py',
    ):
        path = tmp_path / 'out' / 'config.py'
        path.write_text(config_for_dataset(ROOT / 'configs' / name, tmp_path / 'out'))
        cfg = Config.fromfile(path)
        head = cfg.model.get('bbox_head') or cfg.model.roi_head.bbox_head
        assert head.num_classes == 2 and cfg.train_dataloader.dataset.metainfo.classes == ('cat', 'dog')
        assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == str(tmp_path.resolve() / 'out/annotations/val.json')
        from mmdet.registry import DATASETS

        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        assert len(dataset) == 1 and len(dataset[0]['data_samples'].gt_instances) >= 1


def test_split_is_random_by_seed_and_complete(tmp_path):
    make_images(tmp_path / 'images', [f'{i}.png' for i in range(20)])
    (tmp_path / 'labels').mkdir()
    (tmp_path / 'labels/0.txt').write_text('0 0.5 0.5 0.5 0.5')
    (tmp_path / 'data.yaml').write_text('names: {0: cat}\ntrain: images\n')
    records = read_dataset(tmp_path)
    splits = [[image.path.name for image in with_splits(records, 0.25, seed).images if image.split == 'val'] for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2] and len(splits[0]) == 5
    assert len(with_splits(records).images) == 20
    assert records.images[0].split == 'train'  # the records that were passed in are left alone


def test_a_division_is_kept_when_images_come_and_go(tmp_path):
    """Else most of the new validation images would be some that were trained on."""
    source, out = tmp_path / 'src', tmp_path / 'out'
    make_images(source / 'images', [f'{i:02}.png' for i in range(20)])
    (source / 'labels').mkdir()
    for number in range(20):
        (source / f'labels/{number:02}.txt').write_text('0 0.5 0.5 0.5 0.5')
    (source / 'data.yaml').write_text('names: {0: cat}\ntrain: images\n')

    def convert(seed=0):
        records = with_splits(read_dataset(source), seed=seed, earlier=earlier_splits(out, source, seed=seed))
        write_coco(records, out, source)
        return {image.path.name: image.split for image in records.images}

    first = convert()
    assert list(first.values()).count('val') == 4 and convert() == first
    assert first == {image.path.name: image.split for image in with_splits(read_dataset(source)).images}
    make_images(source / 'images', [f'new{i}.png' for i in range(10)])
    (source / 'images/00.png').unlink()
    second = convert()
    assert all(second[name] == split for name, split in first.items() if name in second)
    assert len(second) == 29 and list(second.values()).count('val') == 6 == round(0.2 * 29)
    other = convert(seed=1)
    assert other == {image.path.name: image.split for image in with_splits(read_dataset(source), seed=1).images}
    for name in [name for name, split in other.items() if split == 'val']:
        (source / 'images' / name).unlink()
    assert list(convert(seed=1).values()).count('val') == 5  # drawn anew


def test_splits_of_the_source_are_kept(tmp_path):
    make_voc(tmp_path)
    (tmp_path / 'ImageSets' / 'Main').mkdir(parents=True)
    (tmp_path / 'ImageSets/Main/train.txt').write_text('b\n')
    (tmp_path / 'ImageSets/Main/test.txt').write_text('a\n')
    assert {image.path.name: image.split for image in with_splits(read_dataset(tmp_path)).images} == {'a.png': 'val', 'b.png': 'train'}


def test_everything_left_out_is_reported(tmp_path):
    make_yolo(tmp_path)
    (tmp_path / 'labels/a.txt').write_text(
        '0 0.5 0.5 0.2 0.2\n9 0.5 0.5 0.1 0.1\nx y\n1 0.5 0.5 0 0\n1 3 3 0.1 0.1\n1 nan 0.5 0.1 0.1\n1 0.99 0.5 0.2 0.2\n'
    )
    (tmp_path / 'images/broken.png').write_bytes(b'nonsense')
    make_images(tmp_path / 'images', ['unlabelled.png'])
    records = read_dataset(tmp_path)
    assert {reason: len(items) for reason, items in records.notes.items()} == {
        'class number is not in names': 1,
        'line is not "class cx cy w h"': 1,
        'box smaller than a pixel, outside its image, or not a number': 3,
        'box clipped to its image (kept)': 1,
        'image not readable': 1,
        'no label file (kept as an image without objects)': 1,
    }
    clipped = next(image for image in records.images if image.path.name == 'a.png').boxes[1]
    assert clipped.x + clipped.w == SIZE[0]


def test_rotated_photographs_are_measured_as_they_are_shown(tmp_path):
    make_yolo(tmp_path)
    exif = Image.Exif()
    exif[274] = 6  # shown turned by 90 degrees
    Image.new('RGB', SIZE).save(tmp_path / 'images' / 'c.jpg', exif=exif)
    (tmp_path / 'labels/c.txt').write_text('0 0.5 0.5 1 1')
    record = next(image for image in read_dataset(tmp_path).images if image.path.name == 'c.jpg')
    shown = cv2.imread(str(tmp_path / 'images' / 'c.jpg'))
    assert (record.height, record.width) == shown.shape[:2] == (SIZE[0], SIZE[1])
    assert (record.boxes[0].w, record.boxes[0].h) == (SIZE[1], SIZE[0])


@pytest.mark.parametrize('orientation', range(1, 9))
def test_boxes_of_images_that_exif_turns_are_noted_or_left_out(tmp_path, orientation):
    """COCO states the stored size, which tells of a turn by 90 degrees only; YOLO states none."""
    exif = Image.Exif()
    exif[274] = orientation
    for make, folder in ((make_coco, tmp_path / 'coco'), (make_yolo, tmp_path / 'yolo')):
        make(folder)
        (image,) = folder.rglob('a.png')
        Image.new('RGB', SIZE).save(image, exif=exif)
        notes = read_dataset(folder).notes
        of_image = {reason.split(' (')[0] for reason, places in notes.items() if any('a.png' in place for place in places)}
        differs = 'size in the annotation differs from the image'
        turned = 'EXIF turns or mirrors the image'
        assert of_image == (set() if orientation == 1 else {differs} if make is make_coco and orientation >= 5 else {turned})


def test_a_box_given_twice_counts_once(tmp_path):
    make_yolo(tmp_path)
    label = tmp_path / 'labels/a.txt'
    lines = label.read_text().strip().splitlines()
    label.write_text('\n'.join([*lines, lines[0], '1 0.5 0.5 0.25 0.25']))
    records = read_dataset(tmp_path)
    image = next(image for image in records.images if image.path.name == 'a.png')
    assert len(image.boxes) == len(lines) + 1
    assert [place.rsplit(': ')[1] for place in records.notes['box given twice in its image (kept once)']] == [f'1 of {len(lines) + 2}']


def test_masks_that_are_not_converted_are_noted(tmp_path):
    make_coco(tmp_path)
    (file,) = tmp_path.rglob('*.json')
    content = json.loads(file.read_text())
    assert not any('masks' in reason for reason in read_dataset(tmp_path).notes)
    content['annotations'][0]['segmentation'] = [[0, 0, 9, 0, 9, 9]]
    file.write_text(json.dumps(content))
    (reason,) = [reason for reason in read_dataset(tmp_path).notes if 'masks of objects' in reason]
    assert read_dataset(tmp_path).notes[reason] == [file.name]


def test_entities_in_xml_are_refused(tmp_path):
    make_voc(tmp_path)
    (tmp_path / 'Annotations/a.xml').write_text('<!DOCTYPE x [<!ENTITY a "aaaa">]><annotation><filename>a.png</filename></annotation>')
    records = read_dataset(tmp_path)
    assert 'XML in UTF-16, with a document type or with entities is refused' in records.notes and len(records.images) == 1


def test_file_names_cannot_leave_the_folder(tmp_path):
    make_voc(tmp_path / 'src')
    make_images(tmp_path, ['secret.png'])
    (tmp_path / 'src/Annotations/a.xml').write_text('<annotation><filename>../../secret.png</filename></annotation>')
    records = read_dataset(tmp_path / 'src')
    assert all(image.path.is_relative_to(tmp_path / 'src') for image in records.images)


def test_unknown_layout_says_what_was_looked_for(tmp_path):
    (tmp_path / 'notes.txt').write_text('hello')
    with pytest.raises(ValueError, match='no layout known here. Looked for: a YOLO data.yaml'):
        read_dataset(tmp_path)
    with pytest.raises(FileNotFoundError, match='is not a folder'):
        read_dataset(tmp_path / 'nowhere')


@pytest.mark.parametrize(
    'text, message',
    [
        ('names: cat\ntrain: images\n', '"names" in .* must be a list'),
        ('names: [cat\ntrain: images', 'is not valid YAML'),
        ('names: [cat]\ntrain: pictures\n', "names 'pictures' for train, which is neither"),
        ('names: [!!python/object/apply:os.system ["touch hacked"]]\ntrain: images', 'is not valid YAML'),
    ],
)
def test_broken_yaml_is_named(tmp_path, text, message):
    make_yolo(tmp_path, text)
    with pytest.raises(ValueError, match=message):
        read_dataset(tmp_path)


def test_command_line_reports_counts_and_fails_without_a_trace(tmp_path):
    make_voc(tmp_path / 'src')
    done = subprocess.run(
        [sys.executable, ROOT / 'tools/convert_dataset.py', tmp_path / 'src', '--out', tmp_path / 'out'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'VOC data set with 2 classes' in done.stdout and 'nothing was left out or changed' in done.stdout
    assert 'no validation split was found: 1 of 2 images were drawn at random' in done.stdout
    (tmp_path / 'empty').mkdir()
    failed = subprocess.run([sys.executable, ROOT / 'tools/convert_dataset.py', tmp_path / 'empty'], capture_output=True, text=True)
    assert failed.returncode == 1 and failed.stderr.startswith('error:') and 'Traceback' not in failed.stderr


def test_real_voc_and_yolo_folders(shared_data, tmp_path):
    raccoon = with_splits(read_dataset(shared_data / 'raccoon'))
    assert (raccoon.layout, raccoon.classes, len(raccoon.images), raccoon.class_counts()['raccoon']) == ('VOC', ['raccoon'], 200, 217)
    assert sum(image.split == 'val' for image in raccoon.images) == 40
    coco128 = read_dataset(shared_data / 'coco128')
    assert coco128.layout == 'YOLO' and len(coco128.classes) == 80 and coco128.class_counts('train')['person'] == 254
    assert [sum(image.split == split for image in coco128.images) for split in ('train', 'val')] == [128, 128]


def test_files_of_others_are_never_replaced(tmp_path):
    make_coco(tmp_path / 'src')
    (tmp_path / 'src/annotations').mkdir()
    (tmp_path / 'src/labels.json').rename(tmp_path / 'src/annotations/train.json')
    before = (tmp_path / 'src/annotations/train.json').read_bytes()
    records = with_splits(read_dataset(tmp_path / 'src'))
    with pytest.raises(ValueError, match=r'annotations/train.json was not written by this tool .*--out'):
        write_coco(records, tmp_path / 'src', tmp_path / 'src')
    assert (tmp_path / 'src/annotations/train.json').read_bytes() == before
    write_coco(records, tmp_path / 'out', tmp_path / 'src')
    write_coco(records, tmp_path / 'out', tmp_path / 'src')  # its own files are replaced


def test_class_names_cannot_run_code(tmp_path):
    """mmengine evaluates double braces in the text of a config."""
    for name in ("{{$NOPE:.*\\}}', __import__('os').mkdir('attacked'), ('", '{{ fileDirname }}', 'two\nlines'):
        make_yolo(tmp_path / str(hash(name)), f'names: [{json.dumps(name)}, dog]\ntrain: images\n')
        records = with_splits(read_dataset(tmp_path / str(hash(name))))
        with pytest.raises(ValueError, match='double braces or control characters'):
            write_coco(records, tmp_path / 'out', tmp_path / str(hash(name)))
    for name in ("it's {one} brace", 'naïve "quoted" 猫', 'a\\b'):
        check_class_name(name)
        make_yolo(tmp_path / str(hash(name)), f'names: [{json.dumps(name)}, dog]\ntrain: images\n')
        write_coco(with_splits(read_dataset(tmp_path / str(hash(name)))), tmp_path / 'out', tmp_path / str(hash(name)))
        (tmp_path / 'config.py').write_text(config_for_dataset(ROOT / 'configs/detr/detr_r18_8xb2-1x_coco.py', tmp_path / 'out'))
        assert Config.fromfile(tmp_path / 'config.py').metainfo.classes == (name, 'dog')


def test_links_are_followed(tmp_path):
    make_yolo(tmp_path / 'src')
    (tmp_path / 'src/images').rename(tmp_path / 'elsewhere')
    (tmp_path / 'src/images').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'disk/deep').mkdir(parents=True)
    (tmp_path / 'data').symlink_to(tmp_path / 'disk/deep')
    write_coco(with_splits(read_dataset(tmp_path / 'src')), tmp_path / 'data/mine', tmp_path / 'src')
    (tmp_path / 'config.py').write_text(config_for_dataset(ROOT / 'configs/detr/detr_r18_8xb2-1x_coco.py', tmp_path / 'data/mine'))
    dataset = Config.fromfile(tmp_path / 'config.py').train_dataloader.dataset
    content = json.loads((tmp_path / 'data/mine/annotations/train.json').read_text())
    assert (Path(dataset.data_prefix.img) / content['images'][0]['file_name']).is_file()


def test_voc_lists_restrict_and_difficult_objects_are_ignored_regions(tmp_path):
    make_voc(tmp_path)
    (tmp_path / 'ImageSets/Main').mkdir(parents=True)
    (tmp_path / 'ImageSets/Main/trainval.txt').write_text('a\n')
    text = (tmp_path / 'Annotations/a.xml').read_text()
    (tmp_path / 'Annotations/a.xml').write_text(text.replace('<name>dog</name>', '<name>dog</name><difficult>1</difficult>'))
    records = read_dataset(tmp_path)
    assert [image.path.name for image in records.images] == ['a.png']
    assert [box.is_crowd for box in records.images[0].boxes] == [False, True]
    assert {'not listed in ImageSets/Main (left out)', 'difficult object (kept as a region to ignore, as VOC evaluates it)'} == set(
        records.notes
    )


def test_one_split_alone_is_divided(tmp_path):
    make_coco(tmp_path)
    (tmp_path / 'labels.json').rename(tmp_path / 'coco_test.json')
    assert {image.split for image in with_splits(read_dataset(tmp_path)).images} == {'train', 'val'}


@pytest.mark.parametrize(
    'yaml, lists',
    [
        ('names: [cat, dog]\ntrain: train.txt\nval: val.txt\n', {'train.txt': 'images/a.png', 'val.txt': './images/b.png'}),
        ('names: [cat, dog]\ntrain: /content/project/images\ntest: ../test/images\n', {}),
        ('path: ../datasets/mine\nnames: [cat, dog]\ntrain: ../images\n', {}),
    ],
)
def test_everyday_yolo_exports_are_found(tmp_path, yaml, lists):
    make_yolo(tmp_path, yaml)
    for name, line in lists.items():
        (tmp_path / name).write_text(line + '\n')
    records = read_dataset(tmp_path)
    assert len(records.images) == 2 and sum(records.class_counts().values()) == 3
    assert {image.split for image in records.images} == ({'train', 'val'} if lists else {'train'})


def test_keypoints_are_not_polygons_and_polygons_become_boxes(tmp_path):
    make_yolo(tmp_path)
    keypoints = ' '.join(['0.9 0.9'] * 6)
    (tmp_path / 'labels/a.txt').write_text(f'0 0.5 0.5 0.2 0.2 {keypoints}')
    (tmp_path / 'labels/b.txt').write_text('1 0.1 0.1 0.5 0.1 0.5 0.6')
    (tmp_path / 'data.yaml').write_text('names: [cat, dog]\ntrain: images\nkpt_shape: [6, 2]\n')
    box = read_dataset(tmp_path).images[0].boxes[0]
    assert (box.x, box.y, box.w, box.h) == pytest.approx((40, 32, 20, 16))
    (tmp_path / 'data.yaml').write_text('names: [cat, dog]\ntrain: images\n')
    box = read_dataset(tmp_path).images[1].boxes[0]
    assert (box.x, box.y, box.w, box.h) == pytest.approx((10, 8, 40, 40))


def test_an_image_in_two_coco_files_is_refused_and_other_tasks_are_left_alone(tmp_path):
    make_coco(tmp_path)
    (tmp_path / 'annotations').mkdir()
    for name in ('person_keypoints_val2017', 'captions_val2017', 'instances_val2017'):
        (tmp_path / f'annotations/{name}.json').write_text((tmp_path / 'labels.json').read_text())
    (tmp_path / '.vscode.json').write_text('// not JSON')
    (tmp_path / 'labels.json').unlink()
    assert len(read_dataset(tmp_path).images) == 2
    (tmp_path / 'annotations/instances_all.json').write_text((tmp_path / 'annotations/instances_val2017.json').read_text())
    with pytest.raises(ValueError, match=r'a.png is listed in .*instances_all.json and in .*instances_val2017.json'):
        read_dataset(tmp_path)


def test_coco_facts_survive(tmp_path):
    make_coco(tmp_path)
    content = json.loads((tmp_path / 'labels.json').read_text())
    content['annotations'][0].update(area=77.5)
    content['annotations'][1].update(iscrowd=1)
    content['categories'].insert(0, dict(id=0, name='pets'))
    for category in content['categories'][1:]:
        category['supercategory'] = 'pets'
    (tmp_path / 'labels.json').write_text('\ufeff' + json.dumps(content))  # with a byte order mark
    records = read_dataset(tmp_path)
    assert records.classes == ['cat', 'dog'] and 'category that only groups others (dropped)' in records.notes
    files = write_coco(with_splits(records), tmp_path / 'out', tmp_path)
    written = [item for path in files for item in json.loads(path.read_text())['annotations']]
    assert sorted((item['area'], item['iscrowd']) for item in written)[-1] == (77.5, 0)
    assert sum(item['iscrowd'] for item in written) == 1


def test_image_of_another_size_than_annotated_is_left_out(tmp_path):
    make_coco(tmp_path)
    make_images(tmp_path / 'images', ['a.png'])
    cv2.imwrite(str(tmp_path / 'images/a.png'), np.zeros((50, 50, 3), np.uint8))
    records = read_dataset(tmp_path)
    assert [image.path.name for image in records.images] == ['b.png']
    assert '100x80, it is 50x50' in records.notes['size in the annotation differs from the image (left out)'][0]


def test_boxes_whose_categories_tell_things_are_no_segments(tmp_path):
    """Also in a file without annotations, as of a test set."""
    make_coco(tmp_path)
    content = json.loads((tmp_path / 'labels.json').read_text())
    content['categories'] = [{**category, 'isthing': 1} for category in content['categories']]
    (tmp_path / 'labels.json').write_text(json.dumps(content))
    (tmp_path / 'test').mkdir()
    make_images(tmp_path / 'test', ['c.png'])
    images = [dict(id=1, file_name='c.png', width=SIZE[0], height=SIZE[1])]
    (tmp_path / 'test.json').write_text(json.dumps(content | dict(images=images, annotations=[])))
    assert sorted(image.path.name for image in read_dataset(tmp_path).images) == ['a.png', 'b.png', 'c.png']


def test_data_set_without_any_object_is_refused(tmp_path):
    make_yolo(tmp_path)
    for path in (tmp_path / 'labels').iterdir():
        path.unlink()
    with pytest.raises(ValueError, match='no image with an object could be used. no label file .*: 2'):
        read_dataset(tmp_path)


def test_test_split_is_used_for_testing(tmp_path):
    make_yolo(tmp_path / 'src', 'names: [cat, dog]\ntrain: train\nval: val\ntest: test\n')
    for split in ('train', 'val', 'test'):
        make_images(tmp_path / 'src' / split, ['a.png'])
        (tmp_path / 'src' / split / 'a.txt').write_text('0 0.5 0.5 0.5 0.5')
    write_coco(with_splits(read_dataset(tmp_path / 'src')), tmp_path / 'out', tmp_path / 'src')
    (tmp_path / 'config.py').write_text(config_for_dataset(ROOT / 'configs/detr/detr_r18_8xb2-1x_coco.py', tmp_path / 'out'))
    cfg = Config.fromfile(tmp_path / 'config.py')
    assert cfg.test_evaluator.ann_file.endswith('annotations/test.json') and cfg.val_evaluator.ann_file.endswith('annotations/val.json')
    assert cfg.test_dataloader.dataset.ann_file == 'annotations/test.json'


@pytest.mark.parametrize(
    'name', ['shapes/panoptic-local-detr_r18-half_1xb4-10e_shapes-panoptic', 'panoptic_detr/panoptic-detr_r50_8xb2-1x_coco']
)
def test_panoptic_configs_need_segments(tmp_path, name):
    make_yolo(tmp_path / 'src')
    write_coco(with_splits(read_dataset(tmp_path / 'src')), tmp_path / 'out', tmp_path / 'src')
    with pytest.raises(ValueError, match='is for panoptic data and .*out has boxes alone; expected .*--panoptic'):
        config_for_dataset(ROOT / f'configs/{name}.py', tmp_path / 'out')


def test_every_head_of_a_cascade_gets_the_class_count(tmp_path):
    make_yolo(tmp_path / 'src')
    write_coco(with_splits(read_dataset(tmp_path / 'src')), tmp_path / 'out', tmp_path / 'src')
    (tmp_path / 'base.py').write_text(
        "_base_ = 'mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py'\nmodel = dict(rpn_head=dict(num_classes=1))"
    )
    (tmp_path / 'config.py').write_text(config_for_dataset(tmp_path / 'base.py', tmp_path / 'out'))
    model = Config.fromfile(tmp_path / 'config.py').model
    assert [head.num_classes for head in model.roi_head.bbox_head] == [2, 2, 2]
    assert model.rpn_head.num_classes == 1  # objects against background, whatever the data


def lost_coco(root):
    make_coco(root)
    content = json.loads((root / 'labels.json').read_text())
    for split in ('train', 'val'):
        images = [{**image, 'file_name': f'{split}_{image["file_name"]}'} for image in content['images']]
        (root / f'instances_{split}.json').write_text(json.dumps({**content, 'images': images}))
    make_images(root / 'images', [f'train_{name}' for name in OBJECTS])
    (root / 'labels.json').unlink()
    return 'instances_val.json', 'image file missing: 2'


def lost_voc(root):
    make_voc(root)
    (root / 'ImageSets/Main').mkdir(parents=True)
    (root / 'ImageSets/Main/train.txt').write_text('a\n')
    (root / 'ImageSets/Main/val.txt').write_text('x\ny\n')
    return 'val.txt', 'without an XML file: 2'


def lost_voc_folders(root):
    for split in ('train', 'val'):
        make_voc(root / split)
        for image in (root / split / 'JPEGImages').iterdir():
            image.rename(root / split / 'Annotations' / image.name)
    for image in (root / 'val/Annotations').glob('*.png'):
        image.write_bytes(b'')
    return 'val/Annotations', 'image not readable: 2'


def lost_yolo(root):
    make_yolo(root, 'names: [cat, dog]\ntrain: images\nval: val.txt\n')
    (root / 'val.txt').write_text('images/x.png\nimages/y.png\n')
    return 'val in .*data.yaml', 'image file missing: 2'


@pytest.mark.parametrize('make', [lost_coco, lost_voc, lost_voc_folders, lost_yolo])
def test_a_split_that_is_lost_is_not_replaced_by_another(tmp_path, make):
    where, reason = make(tmp_path)
    with pytest.raises(ValueError, match=f'{where}: none of its 2 images could be used .*{reason}'):
        read_dataset(tmp_path)


@pytest.mark.parametrize('key', ['train', 'val'])
def test_an_empty_folder_is_no_split(tmp_path, key):
    make_yolo(tmp_path, 'names: [cat, dog]\n' + ''.join(f'{name}: {"empty" if name == key else "images"}\n' for name in ('train', 'val')))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match=f"data.yaml names 'empty' for {key}, where there is no image"):
        read_dataset(tmp_path)


def test_validation_and_test_alone_leave_nothing_to_train_on(tmp_path):
    make_voc(tmp_path)
    (tmp_path / 'ImageSets/Main').mkdir(parents=True)
    for name, split in (('a', 'val'), ('b', 'test')):
        (tmp_path / f'ImageSets/Main/{split}.txt').write_text(name)
    with pytest.raises(ValueError, match=r'leave none to train on \((val: 1, test: 1|test: 1, val: 1)\)'):
        with_splits(read_dataset(tmp_path))


def test_the_place_of_a_data_set_is_no_split(tmp_path):
    """Of its own folder and the one it lies in, whatever they are called."""
    for folder in (tmp_path / 'test/mine', tmp_path / 'mine/test'):
        make_coco(folder)
        content = json.loads((folder / 'labels.json').read_text())
        (folder / 'labels.json').write_text(json.dumps({**content, 'images': content['images'][:1]}))
        (folder / 'val').mkdir()
        (folder / 'val/labels.json').write_text(json.dumps({**content, 'images': content['images'][1:]}))
        assert {image.path.name: image.split for image in read_dataset(folder).images} == {'a.png': None, 'b.png': 'val'}


@pytest.mark.parametrize('has_val', [False, True])
def test_an_unlabelled_test_set_is_neither_validated_nor_tested_on(tmp_path, has_val):
    make_coco(tmp_path)
    content = json.loads((tmp_path / 'labels.json').read_text())
    names = ['t1.png', 't2.png', 't3.png']
    make_images(tmp_path / 'images', names)
    images = [dict(id=i, file_name=name, width=SIZE[0], height=SIZE[1]) for i, name in enumerate(names)]
    (tmp_path / 'test.json').write_text(json.dumps({**content, 'images': images, 'annotations': []}))
    if has_val:
        for index, split in enumerate(('train', 'val')):
            (tmp_path / f'{split}.json').write_text(json.dumps({**content, 'images': content['images'][index : index + 1]}))
        (tmp_path / 'labels.json').unlink()
    source = read_dataset(tmp_path)
    records = with_splits(source)
    assert sorted(image.split for image in records.images) == ['train', 'val']
    assert {image.path.name for image in records.images} == {'a.png', 'b.png'} and bool(records.division) != has_val
    note = 'test split without an object (left out, as nothing can be evaluated on it)'
    assert records.notes[note] == ['3 images'] and note not in source.notes and len(source.images) == 5


def test_a_val_split_without_an_object_is_refused(tmp_path):
    make_voc(tmp_path)
    (tmp_path / 'ImageSets/Main').mkdir(parents=True)
    for name, split in (('a', 'train'), ('b', 'val')):
        (tmp_path / f'ImageSets/Main/{split}.txt').write_text(name)
    (tmp_path / 'Annotations/b.xml').write_text('<annotation><filename>b.png</filename></annotation>')
    with pytest.raises(ValueError, match='the 1 images of the val split have none .* add them, or take this split out'):
        with_splits(read_dataset(tmp_path))


def test_annotations_to_ignore_become_regions_to_ignore(tmp_path):
    make_coco(tmp_path / 'src')
    content = json.loads((tmp_path / 'src/labels.json').read_text())
    for annotation, flags in zip(content['annotations'], (dict(ignore=1), dict(ignore=0), dict(ignore=1, iscrowd=1)), strict=True):
        annotation.update(flags)
    (tmp_path / 'src/labels.json').write_text(json.dumps(content))
    records = read_dataset(tmp_path / 'src')
    assert [box.is_crowd for image in records.images for box in image.boxes] == [True, False, True]
    assert records.notes == {'annotation with "ignore" (kept as a region to ignore, as a crowd is)': ['labels.json: annotation 0']}


@pytest.mark.parametrize(
    'rest',
    ['0.4 0.4 2 0.6 0.6 2', '0.9 17', '0.4 0.4 2 0.6 0.6 2 0.5 0.5 1', '3 4', 'nan 0.5', '-0.2 0.5'],
    ids=['keypoints', 'track', 'odd', 'pixels', 'nan', 'outside'],
)
def test_long_lines_that_are_no_polygons_give_no_box(tmp_path, rest):
    make_yolo(tmp_path)
    (tmp_path / 'labels/a.txt').write_text(f'0 0.5 0.5 0.2 0.2 {rest}\n0 -0.01 0.1 0.5 0.1 1.02 0.6 0.5 0.7\n')
    records = read_dataset(tmp_path)
    assert [len(image.boxes) for image in records.images] == [1, 1]
    (note,) = [reason for reason in records.notes if reason.startswith('line is not')]
    assert 'kpt_shape' in note and len(records.notes[note]) == 1


@pytest.mark.parametrize(
    'name, split',
    [
        *(('instances_train2017', 'train'), ('train.coco', 'train'), ('trainset', 'train'), ('TrainAnnotations', 'train')),
        *(('my Train (1)', 'train'), ('VALID', 'val'), ('dev', 'val'), ('eval', 'val'), ('evaluation_set', 'val'), ('cocoVal2017', 'val')),
        *(('test-dev2017', 'test'), ('testSet', 'test'), ('trainval', None), ('interval', None), ('contest', None), ('devkit', None)),
        *(('pr\xe9train', None), ('dataset', None), ('', None)),
    ],
)
def test_a_name_tells_the_split_by_a_whole_word(name, split):
    assert split_of(name) == split


@pytest.mark.parametrize('other, division', [('eval', False), ('train', True)])
def test_images_without_a_split_among_others_with_one_are_noted(tmp_path, other, division):
    for folder, image in (('mine', 'a'), (other, 'b')):
        make_voc(tmp_path / folder)
        for path in (tmp_path / folder / 'Annotations').iterdir():
            path.rename(tmp_path / folder / path.name) if path.stem == image else path.unlink()
        (tmp_path / folder / f'JPEGImages/{image}.png').rename(tmp_path / folder / f'{image}.png')
        (tmp_path / folder / 'Annotations').rmdir()
    records = with_splits(read_dataset(tmp_path))
    assert list(records.notes.items()) == [
        ('no file or folder name tells the split, as it does for other images (taken for training)', [str(tmp_path / 'mine/a.png')])
    ]
    assert {image.split for image in records.images} == {'train', 'val'} and bool(records.division) == division


def test_an_image_under_two_ids_has_the_objects_of_both(tmp_path):
    """As two images one would be validated on what the other was trained on, and each would lack the other's objects."""
    make_coco(tmp_path)
    content = json.loads((tmp_path / 'labels.json').read_text())
    content['images'].append({**content['images'][0], 'id': 99, 'file_name': './a.png'})
    content['annotations'] += [
        {**content['annotations'][0], 'id': 98, 'image_id': 99},
        {**content['annotations'][0], 'id': 99, 'image_id': 99, 'bbox': [1, 2, 3, 4]},
    ]
    (tmp_path / 'labels.json').write_text(json.dumps(content))
    records = read_dataset(tmp_path)
    assert {image.path.name: len(image.boxes) for image in records.images} == {'a.png': 3, 'b.png': 1} and len(records.images) == 2
    assert records.notes == {'image listed more than once (joined)': [str(tmp_path / 'images/a.png')]}


def test_repeated_lines_of_a_list_count_once(tmp_path):
    make_yolo(tmp_path, 'names: [cat, dog]\ntrain: [train.txt, images]\nval: val\nvalid: val\n')
    (tmp_path / 'train.txt').write_text('images/a.png\nimages/b.png\nimages/a.png\n')
    make_images(tmp_path / 'val', ['c.png'])
    (tmp_path / 'val/c.txt').write_text('0 0.5 0.5 0.5 0.5')
    records = read_dataset(tmp_path)
    assert sorted(image.path.name for image in records.images) == ['a.png', 'b.png', 'c.png'] and records.class_counts()['dog'] == 2
    assert {reason: len(where) for reason, where in records.notes.items()} == {'image listed more than once (joined)': 4}


@pytest.mark.parametrize('names', ['classes.txt', 'obj.names'])
def test_yolo_without_a_yaml_keeps_the_splits_of_folders(tmp_path, names):
    for split, image in (('train', 'a'), ('val', 'b')):
        make_images(tmp_path / 'images' / split, [f'{image}.png'])
        (tmp_path / 'labels' / split).mkdir(parents=True)
        (tmp_path / 'labels' / split / f'{image}.txt').write_text('0 0.5 0.5 0.5 0.5')
    (tmp_path / names).write_text('cat\ndog\n')
    records = with_splits(read_dataset(tmp_path))
    assert {image.path.name: image.split for image in records.images} == {'a.png': 'train', 'b.png': 'val'} and not records.division
    (tmp_path / 'images/val/b.png').write_bytes(b'')
    with pytest.raises(ValueError, match=f'val in .*{names}: none of its 1 images could be used'):
        read_dataset(tmp_path)


@pytest.mark.parametrize('start', ['data/obj', 'obj', 'src/obj', './obj'])
def test_lists_of_darknet_are_read(tmp_path, start):
    source = tmp_path / 'src'
    make_yolo(source)
    (source / 'images').rename(source / 'obj')
    (source / 'data.yaml').unlink()
    make_images(source / 'obj', ['unlisted.png'])
    (source / 'obj.names').write_text('cat\ndog\n')
    (source / 'train.txt').write_text(f'{start}/b.png\n')
    (source / 'valid.txt').write_text(f'{start}/a.png\n')
    records = with_splits(read_dataset(source))
    assert {image.path.name: image.split for image in records.images} == {'a.png': 'val', 'b.png': 'train'} and not records.notes


def test_a_train_txt_beside_classes_txt_may_be_a_label_file(tmp_path):
    make_images(tmp_path, ['train.png', 'other.png'])
    for name in ('train.txt', 'other.txt'):
        (tmp_path / name).write_text('0 0.5 0.5 0.5 0.5')
    (tmp_path / 'classes.txt').write_text('cat')
    assert read_dataset(tmp_path).class_counts() == {'cat': 2}


@pytest.mark.parametrize('name', ['IMG (1)', 'IMG 1', 'a.v2', 'a'])
@pytest.mark.parametrize('line', ['{}', '{}.jpg', 'sub/{}', 'sub\\{}.PNG', '  {}  ', '{}  1', '{} -1'])
def test_lines_of_voc_lists_find_their_file(tmp_path, name, line):
    make_voc(tmp_path)
    (tmp_path / 'Annotations/a.xml').rename(tmp_path / f'Annotations/{name}.xml')
    (tmp_path / 'JPEGImages/a.png').rename(tmp_path / f'JPEGImages/{name}.png')
    (tmp_path / 'ImageSets/Main').mkdir(parents=True)
    (tmp_path / 'ImageSets/Main/train.txt').write_text('b\n')
    (tmp_path / 'ImageSets/Main/val.txt').write_text(line.format(name) + '\n')
    records = read_dataset(tmp_path)
    assert {image.path.stem: image.split for image in records.images} == {name: 'val', 'b': 'train'} and not records.notes


def test_files_of_voc_in_other_places_are_noted(tmp_path):
    make_voc(tmp_path)
    for folder in ('extra', '.idea'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'c.xml').write_text('<annotation/>')
    records = read_dataset(tmp_path)
    note = 'XML file elsewhere than those that are read (left out)'
    assert records.notes == {note: [str(tmp_path / 'extra/c.xml')]} and len(records.images) == 2


def test_the_folder_of_years_is_read_with_images_and_lists_of_each(tmp_path):
    """Of equal names, too."""
    for year, (train, val) in (('VOC2007', 'ab'), ('VOC2012', 'ba')):
        make_voc(tmp_path / year)
        (tmp_path / year / 'ImageSets/Main').mkdir(parents=True)
        (tmp_path / year / 'ImageSets/Main/train.txt').write_text(train)
        (tmp_path / year / 'ImageSets/Main/val.txt').write_text(val)
    records = read_dataset(tmp_path)
    assert not records.notes and {image.path.relative_to(tmp_path).as_posix(): image.split for image in records.images} == {
        'VOC2007/JPEGImages/a.png': 'train',
        'VOC2007/JPEGImages/b.png': 'val',
        'VOC2012/JPEGImages/a.png': 'val',
        'VOC2012/JPEGImages/b.png': 'train',
    }
