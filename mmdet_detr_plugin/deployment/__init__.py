"""Detectors as ONNX files: ``export`` writes them, ``runtime`` runs them with onnxruntime, numpy and OpenCV alone.

The call is mmdet's; only the import changes::

    from mmdet_detr_plugin.deployment import inference_detector, init_detector

    detector = init_detector('detector.onnx')
    result = inference_detector(detector, 'photo.jpg')
    print(result.pred_instances.bboxes, result.pred_instances.scores, result.pred_instances.labels)
"""

from .runtime import Detections, OnnxDetector, Result, inference_detector, init_detector

__all__ = ['Detections', 'OnnxDetector', 'Result', 'inference_detector', 'init_detector']
