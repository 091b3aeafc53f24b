import functools
import json
from pathlib import Path

import kubernetes_validate


@functools.lru_cache(1)
def definitions():
    p = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema/v1.36.0-local/_definitions.json"
    return json.loads(p.read_text())["$defs"]
