"""What is looked at in a panoptic COCO JSON before anything is built from it."""

from collections import Counter
from collections.abc import Iterator, Sequence

from mmdet.datasets.api_wrappers import COCOPanoptic

from ..coco_checks import check_categories, check_images, check_lists, is_number, listed_ids, shown
from ..data_files import check_file_name
from .segment_ids import LARGEST_ID

FIX = "Correct the file; its format is that of COCO's panoptic annotations (https://cocodataset.org/#format-data)."


class CheckedCOCOPanoptic(COCOPanoptic):
    """mmdet's ``COCOPanoptic`` whose content is checked before it is indexed, and whose PNGs have the names that the file gives them.

    mmdet takes a PNG's name from its image's, and keeps one of two equal ids.

    Raises:
        ValueError: for content that is not COCO's, naming the entry; the file is for the caller to name.
    """

    def createIndex(self) -> None:
        check_panoptic_content(self.dataset)
        super().createIndex()
        for image in self.imgs.values():
            image['segm_file'] = None  # of an image without annotation
        for annotation in self.dataset.get('annotations', []):
            self.imgs[annotation['image_id']]['segm_file'] = annotation['file_name']
        # ids are unique within an image only: mmdet gives those of all images for each, which takes the square of the time
        self.anns = {(segment['image_id'], segment['id']): [segment] for segments in self.imgToAnns.values() for segment in segments}

    def get_ann_ids(self, img_ids: Sequence = ()) -> list[tuple]:
        """Of some images' segments: image id and segment id, which ``load_anns`` takes."""
        return [(segment['image_id'], segment['id']) for image_id in img_ids for segment in self.imgToAnns[image_id]]


def check_panoptic_content(content: dict) -> None:
    """Look at every image, category, annotation and segment.

    Raises:
        ValueError: as ``CheckedCOCOPanoptic``.
    """
    check_lists(content, 'panoptic COCO JSON', FIX)
    category_ids = check_categories(content['categories'], FIX)
    for category in content['categories']:
        if category.get('isthing') not in (0, 1):
            raise ValueError(
                f'category {category["id"]} ({category["name"]!r}) has isthing {shown(category.get("isthing"))}; expected 1 for a thing, '
                f'which is counted, or 0 for stuff. {FIX}'
            )
    image_ids = check_images(content['images'], FIX)
    seen = set()
    for annotation in content.get('annotations', []):
        _check_annotation(annotation, image_ids, category_ids)
        if annotation['image_id'] in seen:
            raise ValueError(f'image {annotation["image_id"]} has two annotations; expected one, with all of its segments. {FIX}')
        seen.add(annotation['image_id'])


def _check_annotation(annotation: dict, image_ids: set, category_ids: set) -> None:
    if not isinstance(annotation, dict) or not isinstance(annotation.get('segments_info'), list):
        text = shown(annotation)
        raise ValueError(f'an annotation must be an object with "image_id", "file_name" and the list "segments_info"; got {text}. {FIX}')
    image_id = annotation.get('image_id')
    if type(image_id) not in (int, str) or image_id not in image_ids:
        raise ValueError(
            f"an annotation has image_id {shown(image_id)}, which is not among the file's images {listed_ids(image_ids)}. {FIX}"
        )
    where = f'the annotation of image {image_id}'
    try:
        check_file_name(annotation.get('file_name'), 'it')
    except ValueError as error:
        name = shown(annotation.get('file_name'))
        raise ValueError(f'{where} has the file_name {name}; expected the path of its PNG of segments. {FIX}') from error
    seen = set()
    for segment in annotation['segments_info']:
        _check_segment(segment, where, category_ids)
        if segment['id'] in seen:
            raise ValueError(f'{where} has segment {segment["id"]} twice; expected another id for each. {FIX}')
        seen.add(segment['id'])


def _check_segment(segment: dict, where: str, category_ids: set) -> None:
    if not isinstance(segment, dict) or type(segment.get('id')) is not int or not 1 <= segment['id'] <= LARGEST_ID:
        raise ValueError(
            f'{where} has the segment {shown(segment)}; expected an object with an "id" from 1 to {LARGEST_ID} (0: void). {FIX}'
        )
    where = f'segment {segment["id"]} in {where}'
    category = segment.get('category_id')
    if type(category) not in (int, str) or category not in category_ids:
        raise ValueError(f'{where} has category_id {shown(category)}, which is not among {listed_ids(category_ids)}. {FIX}')
    box = segment.get('bbox')
    if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box)) and min(box[2:]) >= 0):
        raise ValueError(f'{where} has the bbox {shown(box)}; expected [x, y, width, height] in pixels. {FIX}')
    if not is_number(segment.get('area')):
        raise ValueError(f'{where} has the area {shown(segment.get("area"))}; expected its pixels. {FIX}')
    if segment.get('iscrowd', 0) not in (0, 1):
        raise ValueError(f'{where} has iscrowd {shown(segment["iscrowd"])}; expected 0 or 1. {FIX}')


def check_things_first(categories: list[dict]) -> None:
    """mmdet's and the plugin's panoptic models take the first labels for things, in the file's order.

    Raises:
        ValueError: when stuff comes before a thing.
    """
    flags = [bool(category['isthing']) for category in categories]
    if flags != sorted(flags, reverse=True):
        first = flags.index(False)
        later = first + flags[first:].index(True)
        raise ValueError(
            f'lists the stuff {categories[first]["name"]!r} before the thing {categories[later]["name"]!r}; expected things (isthing 1) '
            'first, as labels follow the order of "categories" and panoptic models take the first ones for things. Reorder that list.'
        )


def small_segments(content: dict) -> Iterator[str]:
    """What mmdet leaves out without a word: for people, how many and the first."""
    small = [
        (annotation['image_id'], segment)
        for annotation in content.get('annotations', [])
        for segment in annotation['segments_info']
        if segment['area'] <= 0 or min(segment['bbox'][2:]) < 1
    ]
    if small:
        image_id, segment = small[0]
        yield (
            f'{len(small)} segments have no area or a box smaller than a pixel: left out; the first: segment {segment["id"]} in image '
            f'{image_id}, bbox {segment["bbox"]}'
        )


def divided_stuff(content: dict) -> Iterator[str]:
    """Stuff in several segments of an image, of which a model's one can match one at most."""
    is_stuff = {category['id'] for category in content['categories'] if not category.get('isthing', 1)}
    divided = []
    for annotation in content.get('annotations', []):
        found = [segment['category_id'] for segment in annotation['segments_info'] if not segment.get('iscrowd')]
        divided += [(annotation['image_id'], number) for number, count in Counter(found).items() if count > 1 and number in is_stuff]
    if divided:
        image_id, number = divided[0]
        yield (
            f'{len(divided)} times an image has several segments of one stuff class, which panoptic segmentation predicts as one: each '
            f'counts as missed, unless it is most of their area; the first: category {number} in image {image_id}. Give the regions of a '
            'stuff class in an image one id'
        )
