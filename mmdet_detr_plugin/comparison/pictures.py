"""Images that show how the models of a comparison differ."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..visualization.side_by_side import draw_one_image
from .analysis.examples import choose_examples
from .analysis.matches import Matches

LONGEST_TITLE = 34


def draw_examples(
    matches: Mapping[str, Matches],
    detections: Mapping[str, Sequence[dict]],
    score_thrs: Mapping[str, float],
    truth: Path,
    images: Path,
    folder: Path,
) -> list[dict]:
    """Draw the images that ``choose_examples`` chooses into ``folder/examples``.

    Args:
        matches: model -> one of its runs.
        detections: model -> COCO results of that run.
        score_thrs: model -> score from which its detections are shown.
        truth: annotation file.
        images: its image folder.

    Returns:
        ``examples`` of a results.json.
    """
    content = json.loads(truth.read_text())
    names = {category['id']: category['name'] for category in content['categories']}
    files = {image['id']: image['file_name'] for image in content['images']}
    judged = set(next(iter(matches.values())).annotations.category_ids.tolist())
    objects = [item for item in content['annotations'] if item['category_id'] in judged]
    groups = []
    for number, group in enumerate(choose_examples(matches, score_thrs), start=1):
        pictures = []
        for image_id in group.image_ids:
            columns = {'ground truth': [item for item in objects if item['image_id'] == image_id]}
            for model, found in detections.items():
                shown = [item for item in found if item['image_id'] == image_id and item['score'] >= score_thrs[model]]
                title = model if len(model) <= LONGEST_TITLE else f'{model[: LONGEST_TITLE - 3]}...'
                columns[f'{title} (≥ {score_thrs[model]:.2f})'] = shown
            safe = re.sub(r'[^A-Za-z0-9]+', '-', Path(files[image_id]).stem)[:40]
            picture = Path('examples') / f'{number}-{image_id}-{safe}.jpg'
            draw_one_image(images / files[image_id], columns, names, folder / picture)
            counts = ', '.join(f'{len(boxes)} {title}' for title, boxes in columns.items())
            pictures.append(dict(file=picture.as_posix(), alt=f'{files[image_id]}: boxes of {counts}', image=files[image_id]))
        if pictures:
            groups.append(dict(group=group.group, rule=group.rule, pictures=pictures))
    return groups
