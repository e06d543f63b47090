"""Running a trained detector on images, folders and videos."""
