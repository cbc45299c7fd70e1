# The functions of `keras.ops` are inferred to return None at times: all of them are `Any` instead.
from typing import Any

def __getattr__(name: str) -> Any: ...
