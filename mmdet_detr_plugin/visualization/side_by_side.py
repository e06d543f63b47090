"""Ground truth and the detections of several models, side by side for the same images."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle
from PIL import Image, ImageOps

# Okabe and Ito's colours, distinguishable for colour-blind eyes.
PALETTE = ('#E69F00', '#56B4E9', '#009E73', '#F0E442', '#0072B2', '#D55E00', '#CC79A7', '#FFFFFF')


def draw_side_by_side(
    annotation_file: Path, image_root: Path, detection_files: Mapping[str, Path], out: Path, num_images: int = 5, score_thr: float = 0.7
) -> None:
    """Write one picture: a column of ground truth and one for each model, a row for each image.

    The images are taken by rule: evenly spaced among those with two to six objects.

    Args:
        detection_files: title of the column -> COCO detections.
        score_thr: detections below are not drawn (the paper's 0.7; evaluation uses all).
    """
    truth = json.loads(annotation_file.read_text())
    names = {category['id']: category['name'] for category in truth['categories']}
    colours = {category_id: PALETTE[index % len(PALETTE)] for index, category_id in enumerate(names)}
    columns = {'ground truth': _by_image(truth['annotations'], 0.0)}
    columns.update({title: _by_image(json.loads(path.read_text()), score_thr) for title, path in detection_files.items()})

    objects = columns['ground truth']
    candidates = [image for image in truth['images'] if 2 <= len(objects.get(image['id'], [])) <= 6] or truth['images']
    chosen = candidates[:: max(1, len(candidates) // num_images)][:num_images]
    figure, axes = plt.subplots(len(chosen), len(columns), figsize=(2.6 * len(columns), 2.6 * len(chosen)), squeeze=False)
    for row, image in zip(axes, chosen):
        pixels = _pixels(image_root / image['file_name'])
        for axis, (title, boxes) in zip(row, columns.items()):
            _draw(axis, pixels, boxes.get(image['id'], []), names, colours)
            if image is chosen[0]:
                axis.set_title(title if title == 'ground truth' else f'{title} (score ≥ {score_thr:g})', fontsize=10)
    figure.tight_layout(pad=0.4)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def draw_one_image(
    image_file: Path, columns: Mapping[str, Sequence[dict]], names: Mapping[int, str], out: Path, width_inches: float = 2.8
) -> None:
    """Write one image with several sets of boxes side by side.

    Args:
        columns: title -> COCO annotations or detections of this image.
        names: class name by category id.
    """
    pixels = _pixels(image_file)
    colours = {category_id: PALETTE[index % len(PALETTE)] for index, category_id in enumerate(names)}
    height = min(max(width_inches * pixels.height / pixels.width, 0.5), 3 * width_inches) + 0.3
    figure, axes = plt.subplots(1, len(columns), figsize=(width_inches * len(columns), height), squeeze=False)
    for axis, (title, boxes) in zip(axes[0], columns.items()):
        _draw(axis, pixels, boxes, names, colours)
        axis.set_title(title, fontsize=8)
    figure.tight_layout(pad=0.4)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=100, pil_kwargs=dict(quality=88) if out.suffix == '.jpg' else {})
    plt.close(figure)


def _pixels(image_file: Path) -> Image.Image:
    with Image.open(image_file) as file:
        return ImageOps.exif_transpose(file).convert('RGB')  # as mmdet shows it


def _by_image(boxes: Sequence[dict], score_thr: float) -> dict[int, list[dict]]:
    grouped: dict[int, list[dict]] = {}
    for box in boxes:
        if box.get('score', 1.0) >= score_thr:
            grouped.setdefault(box['image_id'], []).append(box)
    return grouped


def _draw(axis, pixels, boxes: Sequence[dict], names: Mapping[int, str], colours: Mapping[int, str]) -> None:
    axis.imshow(pixels)
    axis.set_axis_off()
    for box in boxes:
        x, y, w, h = box['bbox']
        colour = colours[box['category_id']]
        axis.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=colour, linewidth=1.6))
        text = names[box['category_id']] + (f' {box["score"]:.2f}' if 'score' in box else '')
        axis.text(x, y, text, fontsize=6, color='black', va='bottom', bbox=dict(facecolor=colour, edgecolor='none', pad=0.6, alpha=0.85))
