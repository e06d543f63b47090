"""Pictures of data and detections."""
