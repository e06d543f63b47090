"""Detect objects with an exported DETR: onnxruntime, numpy and OpenCV are all it takes. Copy it into your own program.

python run_onnx.py detector.onnx photo.jpg [drawn.jpg]
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
metadata = session.get_modelmeta().custom_metadata_map
classes, settings = json.loads(metadata['classes']), json.loads(metadata['preprocess'])
num_things = json.loads(metadata.get('panoptic', '{}')).get('num_things_classes', len(classes))  # labels from here on are stuff


def prepare(image: np.ndarray) -> np.ndarray:
    """BGR pixels (H, W, 3) -> the network's input (3, h, w)."""
    if settings['resize']:
        width, height = settings['resize']['scale']
        if settings['resize']['keep_ratio']:
            long, short = max(width, height), min(width, height)
            factor = min(long / max(image.shape[:2]), short / min(image.shape[:2]))
            height, width = (int(side * factor + 0.5) for side in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if settings['channels'] == 'RGB':
        image = image[..., ::-1]
    mean, std = np.float32(settings['mean']), np.float32(settings['std'])
    return ((image.astype(np.float32) - mean) / std).transpose(2, 0, 1)


def detect(images: list[np.ndarray]) -> list[list[tuple[str, float, list[float]]]]:
    """Class, score and box (x0, y0, x1, y1 in pixels) of every detection, best first, for each of the BGR images."""
    prepared = [prepare(image) for image in images]
    sizes = np.array([image.shape[1:] for image in prepared])
    divisor = settings['pad_size_divisor']
    height, width = -(-sizes.max(axis=0) // divisor) * divisor
    batch = np.full((len(images), 3, height, width), settings['pad_value'], np.float32)  # images lie at the top left
    for slot, image in zip(batch, prepared):
        slot[:, : image.shape[1], : image.shape[2]] = image
    found = []
    for image, boxes, scores, labels in zip(images, *session.run(['boxes', 'scores', 'labels'], dict(images=batch, sizes=sizes))):
        boxes = boxes * np.float32([image.shape[1], image.shape[0]] * 2)
        best = np.argsort(-scores, kind='stable')[: int(metadata['max_per_img'])]
        found.append([(classes[labels[i]], float(scores[i]), boxes[i].tolist()) for i in best if labels[i] < num_things])
    return found


image = cv2.imread(sys.argv[2])
if image is None:
    sys.exit(f'{sys.argv[2]} is missing, or no image that OpenCV can read')
for name, score, box in detect([image])[0]:
    if score >= 0.5:
        print(f'{name} {score:.3f}', *(f'{side:.1f}' for side in box))
        cv2.rectangle(image, *np.int32(box).reshape(2, 2).tolist(), (0, 200, 255), 2)
if len(sys.argv) > 3 and not cv2.imwrite(sys.argv[3], image):
    sys.exit(f'{sys.argv[3]} cannot be written')
