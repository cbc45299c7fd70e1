"""The local stand-in's versions: which one is served, and what is not, also while requests run."""
