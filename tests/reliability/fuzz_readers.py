"""Coverage-guided fuzzing of the data set readers with atheris, byte by byte; run by hand, for as long as you like.

    pip install atheris
    python tests/reliability/fuzz_readers.py coco -runs=100000         # or voc, yolo, labels; further options are libFuzzer's

It stops at the first error that is no refusal, prints the input and writes it to ``crash-...``. What is random but has the form of a data
set is tried by ``test_fuzzing_readers.py``.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=['mmdet_detr_plugin', 'yaml', 'json', 'xml']):
    from mmdet_detr_plugin.datasets.readers import read_dataset

from PIL import Image

COCO = (
    b'{"images": [{"id": 0, "file_name": "0.png", "width": 40, "height": 30}], "categories": [{"id": 1, "name": "cat"}], '
    b'"annotations": [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [2, 3, 9, 8.5], "area": 70, "iscrowd": 0}]}'
)
VOC = (
    b'<annotation><filename>0.png</filename><size><width>40</width><height>30</height></size><object><name>cat</name><bndbox>'
    b'<xmin>2</xmin><ymin>3</ymin><xmax>20</xmax><ymax>22</ymax></bndbox></object></annotation>'
)
YOLO = b'path: .\nnames: {0: cat, 1: dog}\ntrain: images\nval: [images]\n'
# file that is fuzzed, a valid one, and what else there is
KINDS = dict(
    coco=('labels.json', COCO, {}),
    voc=('Annotations/0.xml', VOC, {}),
    yolo=('data.yaml', YOLO, {'labels/0.txt': b'0 0.5 0.5 0.5 0.5'}),
    labels=('labels/0.txt', b'0 0.5 0.5 0.5 0.5\n1 0.1 0.1 0.5 0.1 0.5 0.6\n', {'data.yaml': YOLO}),
)


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in KINDS:
        sys.exit(f'usage: fuzz_readers.py {"|".join(KINDS)} [-runs=N ...]')
    name, valid, others = KINDS[sys.argv.pop(1)]
    with tempfile.TemporaryDirectory() as folder:
        root, corpus = Path(folder) / 'data', Path(folder) / 'corpus'
        for path, content in {f'data/{name}': valid, 'corpus/valid': valid, **{f'data/{k}': v for k, v in others.items()}}.items():
            (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / path).write_bytes(content)
        (root / 'images').mkdir()
        Image.new('RGB', (40, 30)).save(root / 'images' / '0.png')

        def read(raw: bytes) -> None:
            (root / name).write_bytes(raw)
            try:
                read_dataset(root)
            except (ValueError, OSError) as error:
                if str(root) not in str(error):
                    raise

        read_dataset(root)  # the valid one is valid
        atheris.Setup([*sys.argv, str(corpus)], read)
        atheris.Fuzz()


if __name__ == '__main__':
    main()
