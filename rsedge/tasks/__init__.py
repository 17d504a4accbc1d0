"""What differs between tasks: maps of scenes, samples, boxes, captions."""
