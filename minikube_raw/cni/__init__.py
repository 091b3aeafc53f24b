"""The runtime's side of CNI: configuration lists, results, and running a list's plugins over a container."""

from .install import install
from .libcni import Network
from .types import Result

__all__ = ["Network", "Result", "install"]
