# The functions of `keras.ops` are inferred to return None at times: all of them are `Any`. The rest of Keras is read from its source.
from typing import Any

def __getattr__(name: str) -> Any: ...
