"""What is looked at in a COCO JSON before anything is built from it."""

from collections.abc import Iterator

from mmdet.datasets.api_wrappers import COCO

from .readers.coco import is_ignored

LARGEST = 2**24  # pixels; beyond it float32 does not even hold whole numbers
FIX = 'Correct the file, or convert the data set anew with tools/convert_dataset.py, which leaves out and reports what it cannot use.'


class CheckedCOCO(COCO):
    """mmdet's ``COCO`` whose content is checked before it is indexed: an index keeps one of two equal ids, and fails without a name.

    Raises:
        ValueError: for content that is not COCO's, naming the entry; the file is for the caller to name.
    """

    def createIndex(self) -> None:
        check_content(self.dataset)
        super().createIndex()


def check_content(content: dict) -> None:
    """Look at every image, category and annotation.

    Raises:
        ValueError: as ``CheckedCOCO``.
    """
    check_lists(content)
    category_ids = check_categories(content['categories'])
    image_ids = check_images(content['images'])
    annotations = content.get('annotations', [])
    _checked_ids('annotation', annotations)
    for annotation in annotations:
        _check_annotation(annotation, image_ids, category_ids)


def check_lists(content: dict, kind: str = 'COCO JSON', fix: str = FIX) -> None:
    """Look at what the file consists of.

    Raises:
        ValueError: as ``CheckedCOCO``.
    """
    for key in ('images', 'categories', 'annotations'):
        # files of test sets have no annotations
        if not isinstance(content.get(key, [] if key == 'annotations' else None), list):
            found = f'{key!r} is a {type(content[key]).__name__}' if key in content else f'there is no {key!r}, only {list(content)[:6]}'
            raise ValueError(f'not a {kind}: expected an object with the lists "images", "annotations" and "categories", {found}.')
    if not content['images']:
        raise ValueError(f'lists no images; expected at least one. {fix}')


def check_categories(categories: list, fix: str = FIX) -> set:
    """Look at ids and names; ``fix`` is the advice of the messages.

    Raises:
        ValueError: as ``CheckedCOCO``.
    """
    ids = _checked_ids('category', categories, fix)
    names = [category.get('name') for category in categories]
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name or name in names[:number]:
            what = f'has the name {name!r}, which another category has too' if name in names[:number] else f'has the name {name!r}'
            raise ValueError(f'category {categories[number]["id"]} {what}; expected a text, another one for each. {fix}')
    return ids


def check_images(images: list, fix: str = FIX) -> set:
    """Look at ids, file names and sizes.

    Raises:
        ValueError: as ``CheckedCOCO``.
    """
    ids = _checked_ids('image', images, fix)
    for image in images:
        if not isinstance(image.get('file_name'), str) or not image['file_name']:
            raise ValueError(f'image {image["id"]} has the file_name {image.get("file_name")!r}; expected the path of its file. {fix}')
        for key in ('width', 'height'):
            if not (is_number(image.get(key)) and 1 <= image[key] <= LARGEST):
                raise ValueError(f'image {image["id"]} has the {key} {shown(image.get(key))}; expected pixels from 1 to {LARGEST}. {fix}')
    return ids


def _checked_ids(what: str, entries: list, fix: str = FIX) -> set:
    seen = set()
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or type(entry.get('id')) not in (int, str):
            raise ValueError(f'{what} number {number} (from 0) must be an object with an "id", a number or text; got {entry!r:.100}. {fix}')
        if entry['id'] in seen:
            raise ValueError(f'{what} id {entry["id"]} is there twice; expected another one for each, or one of them would be lost. {fix}')
        seen.add(entry['id'])
    return seen


def _check_annotation(annotation: dict, image_ids: set, category_ids: set) -> None:
    where = f'annotation {annotation["id"]}'
    for key, ids in (('image_id', image_ids), ('category_id', category_ids)):
        value = annotation.get(key)
        if type(value) not in (int, str) or value not in ids:
            of = 'images' if key == 'image_id' else 'categories'
            raise ValueError(f"{where} has {key} {shown(value)}, which is not among the file's {len(ids)} {of} {listed_ids(ids)}. {FIX}")
    box = annotation.get('bbox')
    if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box)) and all(abs(value) <= LARGEST for value in box)):
        raise ValueError(f'{where} has the bbox {shown(box)}; expected [x, y, width, height] in pixels, up to {LARGEST}. {FIX}')
    if box[2] < 0 or box[3] < 0:
        raise ValueError(f'{where} has the bbox {box} of negative size; expected [x, y, width, height]. Were corners given? {FIX}')
    if not is_number(annotation.get('area')):
        area = shown(annotation.get('area'))
        raise ValueError(f"{where} has the area {area}; expected the object's pixels (width x height of its box will do). {FIX}")
    if annotation.get('iscrowd', 0) not in (0, 1):
        raise ValueError(f'{where} has iscrowd {shown(annotation["iscrowd"])}; expected 0 or 1. {FIX}')


def check_for_evaluation(content: dict) -> None:
    """pycocotools reads ``iscrowd`` of every annotation, after a whole epoch of training.

    Raises:
        ValueError: when it is missing.
    """
    for annotation in content.get('annotations', []):
        if 'iscrowd' not in annotation:
            raise ValueError(f'annotation {annotation["id"]} has no iscrowd, which evaluation needs; expected 0, or 1 for a crowd. {FIX}')


def odd_boxes(content: dict) -> Iterator[str]:
    """What mmdet drops or keeps without a word, as COCO itself has a few of them: for people, how many and the first."""
    sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
    small, outside, beyond = [], [], []
    for annotation in content.get('annotations', []):
        (x, y, w, h), (width, height) = annotation['bbox'], sizes[annotation['image_id']]
        if w < 1 or h < 1 or annotation['area'] <= 0:
            small.append(annotation)
        elif x >= width or y >= height or x + w <= 0 or y + h <= 0:
            outside.append(annotation)
        elif min(x, y) < -1 or x + w > width + 1 or y + h > height + 1:
            beyond.append(annotation)
    for found, what in (
        (small, 'are smaller than a pixel or have no area: left out'),
        (outside, 'lie outside of their image: left out'),
        (beyond, 'reach beyond their image: kept, and cut where the pipeline resizes'),
    ):
        if found:
            yield f'{len(found)} boxes {what}; the first: annotation {found[0]["id"]}, bbox {found[0]["bbox"]}'
    if ignored := [annotation['id'] for annotation in content.get('annotations', []) if is_ignored(annotation)]:
        yield (
            f'{len(ignored)} annotations have "ignore" without iscrowd, the first: annotation {ignored[0]}. Trained as background '
            'and evaluated as objects; convert the data set with tools/convert_dataset.py, which makes them regions to ignore'
        )


def is_number(value: object) -> bool:
    """NaN is none: it compares with nothing."""
    return type(value) in (int, float) and abs(value) < float('inf')


def shown(value: object) -> str:
    return f'{value!r:.80}'


def listed_ids(ids: set, most: int = 12) -> str:
    first = ', '.join(map(repr, sorted(ids, key=lambda value: (isinstance(value, str), value))[:most]))
    return f'({first}{", ..." if len(ids) > most else ""})'
