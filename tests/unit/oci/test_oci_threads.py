"""Image documents are decoded by several threads of a node, and msgspec does not lock what it prepares at a type's first use."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os, sys, threading
from minikube_raw.oci import manifests

descriptor = b'{"mediaType": "m", "digest": "sha256:%s", "size": 1}' % (64 * b"0")
manifest = b'{"config": %s, "layers": [%s]}' % (descriptor, descriptor)
begin = threading.Barrier(8)

def work():
    begin.wait()
    manifests.decode_index(b'{"manifests": [%s]}' % descriptor)
    manifests.decode_manifest(manifest)
    manifests.decode_config(b'{"rootfs": {"diff_ids": []}, "config": {"Env": ["a=b"]}}')

sys.setswitchinterval(1e-6)
for _ in range(40):
    child = os.fork()
    if child == 0:
        threads = [threading.Thread(target=work) for _ in range(begin.parties)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_threads_that_decode_a_nodes_first_image_at_once_live() -> None:
    found = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    assert found.stdout.split() == ["0"] * 40
