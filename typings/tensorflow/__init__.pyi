# TensorFlow carries no types, and what can be inferred from its source is often wrong: all of it is `Any`.
from typing import Any

def __getattr__(name: str) -> Any: ...
