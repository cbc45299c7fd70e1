"""A SavedModel run as TensorFlow Serving runs it: the strict loader, its methods, warm-up, and the local stand-in."""
