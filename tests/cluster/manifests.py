"""The manifests the end-to-end tests apply: ordinary Kubernetes YAML, as users write it."""

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
spec:
  replicas: 3
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: httpd
        image: httpd
        ports:
        - {containerPort: 80, name: http}
        resources:
          requests: {cpu: 10m, memory: 8Mi}
          limits: {memory: 64Mi}
"""

TWO_CONTAINERS = """
apiVersion: v1
kind: Pod
metadata:
  name: pair
  labels: {app: pair}
spec:
  terminationGracePeriodSeconds: 1
  volumes:
  - name: shared
    emptyDir: {}
  containers:
  - name: server
    image: busybox
    command: [sh, -c, "echo from-server > /data/greeting; exec httpd -f -p 8080 -h /data"]
    volumeMounts:
    - {name: shared, mountPath: /data}
  - name: client
    image: busybox
    command: [sh, -c, "until wget -qO- http://localhost:8080/greeting; do sleep 0.1; done; cat /mnt/greeting; exec sleep 3600"]
    volumeMounts:
    - {name: shared, mountPath: /mnt}
"""


def pod(name: str, script: str = "exec sleep 3600", *, node: str = "", spec: str = "", container: str = "") -> str:
    """A busybox pod running a shell script. `spec` and `container` are further lines of YAML in flow style, e.g. 'restartPolicy: Never'."""
    lines = [
        "apiVersion: v1",
        "kind: Pod",
        f"metadata: {{name: {name}, labels: {{test: pod}}}}",
        "spec:",
        "  terminationGracePeriodSeconds: 1",
        *([f"  nodeSelector: {{kubernetes.io/hostname: {node}}}"] if node else []),
        *[f"  {line}" for line in spec.splitlines()],
        "  containers:",
        "  - name: main",
        "    image: busybox",
        f"    command: [sh, -c, {script!r}]".replace("\\\\", "\\"),
        *[f"    {line}" for line in container.splitlines()],
    ]
    return "\n".join(lines) + "\n"
