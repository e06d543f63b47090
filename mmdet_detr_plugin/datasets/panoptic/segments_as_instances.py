"""Panoptic annotations as those of detection: one entry for each segment."""


def segments_as_instances(content: dict) -> dict:
    """The content of a COCO panoptic file with ``annotations`` as a detection file has them; any other content as it is.

    Segment ids are unique in one image only, so annotations are numbered anew.
    """
    annotations = content.get('annotations')
    if not (isinstance(annotations, list) and annotations and isinstance(annotations[0], dict) and 'segments_info' in annotations[0]):
        return content
    flat = [{**segment, 'image_id': item.get('image_id')} for item in annotations for segment in item.get('segments_info') or []]
    return {**content, 'annotations': [{**segment, 'id': number} for number, segment in enumerate(flat, start=1)]}


def things_as_instances(content: dict) -> dict:
    """As ``segments_as_instances``, but things alone; a file of detection as it is."""
    flat = segments_as_instances(content)
    if flat is content:
        return content
    things = [category for category in flat['categories'] if category.get('isthing', 1)]
    ids = {category['id'] for category in things}
    return {**flat, 'categories': things, 'annotations': [item for item in flat['annotations'] if item['category_id'] in ids]}
