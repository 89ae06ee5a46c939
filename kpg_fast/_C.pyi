# The functions are declared, with shapes and errors, in csrc; their only callers are thin typed wrappers.
from typing import Any

def __getattr__(name: str) -> Any: ...
