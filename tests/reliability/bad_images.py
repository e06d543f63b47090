"""Image files, as training meets them through the pipeline; tools/predict.py leaves out what it cannot read, see the commands."""

import cv2
import numpy as np
from PIL import Image

from .bad_annotations import load
from .bad_input import WORKS, Project, Row

CANNOT = 'Image 1.png cannot be read as an image ... Expected a readable image, as listed in train.json; repair it, or remove it'


def first(project: Project) -> str:
    """The first sample; what became of its image."""
    pixels = load(project)[0]['inputs']
    return f'{tuple(pixels.shape)}, {pixels.dtype}'.replace('torch.', '')


def row(goes_in: str, plant, reads: str, **more) -> Row:
    return Row(goes_in, plant, first, reads, **more)


def replaced(content: bytes):
    return lambda project: project.image().write_bytes(content)


def saved(mode: str, kind: str, size: tuple[int, int] = (64, 48), **options):
    """The image in another mode; the name keeps its ending, which readers do not look at."""

    def plant(project: Project) -> None:
        Image.new(mode, size, **options).save(project.image(), kind)
        project.edit(lambda content: content['images'][0].update(width=size[0], height=size[1]))

    return plant


def sixteen_bit(project: Project) -> None:
    cv2.imwrite(str(project.image()), np.full((48, 64), 40000, np.uint16))


def truncated(kind: str):
    def plant(project: Project) -> None:
        encoded = cv2.imencode(kind, np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))[1].tobytes()
        project.image().write_bytes(encoded[: len(encoded) // 2])

    return plant


def as_folder(project: Project) -> None:
    project.image().unlink()
    project.image().mkdir()


def turned(project: Project) -> None:
    """Stored 64 x 48, shown 48 x 64; the annotation states what is stored."""
    exif = Image.Exif()
    exif[274] = 6
    Image.new('RGB', (64, 48)).save(project.image(), 'JPEG', exif=exif)


def one_pixel(project: Project) -> None:
    Image.new('RGB', (1, 1)).save(project.image(), 'PNG')
    project.edit(lambda content: content['images'][0].update(width=1, height=1))
    project.edit(lambda content: content.update(annotations=[a for a in content['annotations'] if a['image_id'] == 2]))


EIGHT_BIT = '(3, 48, 64), uint8'

ROWS = [
    row(
        'an image that is missing',
        lambda project: project.image().unlink(),
        'Image 1.png is missing ... Expected a readable image, as listed',
    ),
    row('an empty image file', replaced(b''), CANNOT),
    row('a text with the name of an image', replaced(b'no image at all'), CANNOT),
    row('an image of random bytes', replaced(b'\x89PNG\r\n\x1a\n' + bytes(range(256))), CANNOT),
    row('a truncated PNG', truncated('.png'), CANNOT),
    row('a truncated JPEG', truncated('.jpg'), CANNOT),
    row('a folder with the name of an image', as_folder, CANNOT),
    row(
        'a photograph turned by EXIF, annotated as it is stored',
        turned,
        'Image 1.png is 48 x 64 pixels (width x height), train.json states 64 x 48, so that its boxes belong elsewhere ... EXIF',
    ),
    row('a CMYK JPEG', saved('CMYK', 'JPEG'), EIGHT_BIT, outcome=WORKS),
    row('a 16-bit PNG', sixteen_bit, EIGHT_BIT, outcome=WORKS),
    row('a grey image', saved('L', 'PNG'), EIGHT_BIT, outcome=WORKS),
    row('a transparent image', saved('RGBA', 'PNG'), EIGHT_BIT, outcome=WORKS),
    row('a palette image', saved('P', 'PNG'), EIGHT_BIT, outcome=WORKS),
    row('an image of 1 x 1', one_pixel, '(3, 1, 1), uint8', outcome=WORKS),
]
