"""What an installed plugin executable runs, and the text of that executable."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from . import invoke, skel


def main(plugin_type: str) -> NoReturn:
    """Runs one of our plugins as a program."""
    sys.exit(skel.run(lambda: invoke.module_of(plugin_type), os.environ, sys.stdin.buffer, sys.stdout))


def executable(plugin_type: str, interpreter: str) -> str:
    """The executable's text. The interpreter is absolute: a PATH look-up may find another one, or a slow shim."""
    return (
        f"#!{interpreter} -I\n"
        f"{invoke.MARK.decode()}: {plugin_type}. Written by `minikube-raw cni install`.\n"
        f"from netplugins.program import main\n\n"
        f'main("{plugin_type}")\n'
    )
