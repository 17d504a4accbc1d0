"""What flies: whole scenes, detections, vectors and captions of a bundle's session."""
