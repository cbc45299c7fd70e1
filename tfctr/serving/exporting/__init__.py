"""What goes into a SavedModel beside the model, and proves it: signatures, raw features, golden rows, the strict check."""
