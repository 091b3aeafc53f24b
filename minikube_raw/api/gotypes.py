"""What Kubernetes' published schemas leave out about its Go types, as tables (k8s.io/api, v1.36).

Go encodes an optional field of a plain type only when it is not zero, so `hostNetwork: false` is as good as absent, while
`enableServiceLinks: false` (a pointer) is kept. And a wrong type is answered with the Go type's name, which is not always
the one its schema suggests.
"""

from __future__ import annotations

# Optional booleans and integers that are plain values; all others are pointers. By struct, in the published spelling.
PLAIN_SCALARS: dict[str, frozenset[str]] = {
    name: frozenset(fields.split())
    for name, fields in {
        "ContainerPort": "hostPort",
        "Container": "stdin stdinOnce tty",
        "ContainerStateTerminated": "signal",
        "DeploymentSpec": "minReadySeconds paused",
        "DeploymentStatus": (
            "observedGeneration replicas updatedReplicas readyReplicas availableReplicas unavailableReplicas"
        ),
        "EphemeralContainer": "stdin stdinOnce tty",
        "Event": "count deprecatedCount",
        "EventSeries": "count",
        "ContainerImage": "sizeBytes",
        "NodeSpec": "unschedulable",
        "ObjectMeta": "generation",
        "PersistentVolumeClaimVolumeSource": "readOnly",
        "PodCondition": "observedGeneration",
        "PodSpec": "hostIPC hostNetwork hostPID",
        "PodStatus": "observedGeneration",
        "Probe": "failureThreshold initialDelaySeconds periodSeconds successThreshold timeoutSeconds",
        "ReplicaSetSpec": "minReadySeconds",
        "ReplicaSetStatus": "availableReplicas fullyLabeledReplicas observedGeneration readyReplicas",
        "ServicePort": "nodePort",
        "ServiceSpec": "healthCheckNodePort publishNotReadyAddresses",
        "VolumeMount": "readOnly",
        "NFSVolumeSource": "readOnly",
        "AWSElasticBlockStoreVolumeSource": "partition readOnly",
        "AzureFilePersistentVolumeSource": "readOnly",
        "AzureFileVolumeSource": "readOnly",
        "CephFSPersistentVolumeSource": "readOnly",
        "CephFSVolumeSource": "readOnly",
        "CinderPersistentVolumeSource": "readOnly",
        "CinderVolumeSource": "readOnly",
        "CSIPersistentVolumeSource": "readOnly",
        "FCVolumeSource": "readOnly",
        "FlexPersistentVolumeSource": "readOnly",
        "FlexVolumeSource": "readOnly",
        "GCEPersistentDiskVolumeSource": "partition readOnly",
        "GlusterfsPersistentVolumeSource": "readOnly",
        "GlusterfsVolumeSource": "readOnly",
        "ISCSIPersistentVolumeSource": "chapAuthDiscovery chapAuthSession readOnly",
        "ISCSIVolumeSource": "chapAuthDiscovery chapAuthSession readOnly",
        "PortworxVolumeSource": "readOnly",
        "QuobyteVolumeSource": "readOnly",
        "RBDPersistentVolumeSource": "readOnly",
        "RBDVolumeSource": "readOnly",
        "ScaleIOPersistentVolumeSource": "readOnly sslEnabled",
        "ScaleIOVolumeSource": "readOnly sslEnabled",
        "StorageOSPersistentVolumeSource": "readOnly",
        "StorageOSVolumeSource": "readOnly",
        "Condition": "observedGeneration",
        "ScaleSpec": "replicas",
    }.items()
}

# Optional strings that are pointers; all others are plain values.
POINTER_STRINGS: dict[str, frozenset[str]] = {
    name: frozenset(fields.split())
    for name, fields in {
        "Container": "restartPolicy restartPolicyRules",
        "CSIVolumeSource": "fsType",
        "EphemeralContainer": "restartPolicy",
        "HostPathVolumeSource": "type",
        "LeaseSpec": "holderIdentity preferredHolder strategy",
        "Lifecycle": "stopSignal",
        "ContainerStatus": "stopSignal",
        "GRPCAction": "service",
        "NetworkPolicyPort": "protocol",
        "LocalVolumeSource": "fsType",
        "PersistentVolumeClaimSpec": "storageClassName volumeAttributesClassName volumeMode",
        "PersistentVolumeClaimStatus": "currentVolumeAttributesClassName",
        "PersistentVolumeSpec": "volumeAttributesClassName volumeMode",
        "StorageClass": "reclaimPolicy volumeBindingMode",
        "TypedLocalObjectReference": "apiGroup",
        "TypedObjectReference": "apiGroup namespace",
        "PodDNSConfigOption": "value",
        "PodResourceClaim": "resourceClaimName resourceClaimTemplateName",
        "PodSecurityContext": "fsGroupChangePolicy seLinuxChangePolicy supplementalGroupsPolicy",
        "PodSpec": "hostnameOverride preemptionPolicy runtimeClassName",
        "SeccompProfile": "localhostProfile",
        "AppArmorProfile": "localhostProfile",
        "SecurityContext": "procMount",
        "ServicePort": "appProtocol",
        "ServiceSpec": "internalTrafficPolicy ipFamilyPolicy loadBalancerClass trafficDistribution",
        "TopologySpreadConstraint": "nodeAffinityPolicy nodeTaintsPolicy",
        "VolumeMount": "mountPropagation recursiveReadOnly",
        "ClusterTrustBundleProjection": "name signerName",
        "Endpoint": "hostname nodeName zone",
        "EndpointPort": "appProtocol name protocol",
        "IngressSpec": "ingressClassName",
        "HTTPIngressPath": "pathType",
    }.items()
}

# Optional fields Go writes even when nobody set them: times that are structs, and strings without omitempty.
WRITTEN: dict[str, dict[str, str | None]] = {
    "ContainerStateRunning": {"startedAt": None},
    "ContainerStateTerminated": {"startedAt": None, "finishedAt": None},
    "DeploymentCondition": {"lastUpdateTime": None, "lastTransitionTime": None},
    "Event": {
        "firstTimestamp": None,
        "lastTimestamp": None,
        "eventTime": None,
        "reportingComponent": "",
        "reportingInstance": "",
    },
    "NodeCondition": {"lastHeartbeatTime": None, "lastTransitionTime": None},
    "PersistentVolumeClaimCondition": {"lastProbeTime": None, "lastTransitionTime": None},
    "PodCondition": {"lastProbeTime": None, "lastTransitionTime": None},
    "ReplicaSetCondition": {"lastTransitionTime": None},
    "TypedLocalObjectReference": {"apiGroup": None},
    "TypedObjectReference": {"apiGroup": None},
}

# Lists whose emptiness says something: an empty managedFields forgets all managers, an absent one changes none.
TELLING_LISTS = {("ObjectMeta", "managedFields")}

# Fields that are structs and not pointers to them: Go writes `{}` where nobody set anything.
EMBEDDED: dict[str, tuple[str, ...]] = {
    name: tuple(fields.split())
    for name, fields in {
        "Binding": "metadata target",
        "ConfigMap": "metadata",
        "Container": "resources",
        "ContainerStatus": "state lastState",
        "Deployment": "metadata spec status",
        "DeploymentSpec": "strategy template",
        "EphemeralContainer": "resources",
        "Event": "metadata involvedObject source regarding deprecatedSource",
        "Lease": "metadata spec",
        "Namespace": "metadata spec status",
        "Node": "metadata spec status",
        "NodeDaemonEndpoints": "kubeletEndpoint",
        "NodeStatus": "daemonEndpoints nodeInfo",
        "PersistentVolume": "metadata spec status",
        "PersistentVolumeClaim": "metadata spec status",
        "PersistentVolumeClaimSpec": "resources",
        "PersistentVolumeClaimTemplate": "metadata spec",
        "Pod": "metadata spec status",
        "PodTemplateSpec": "metadata spec",
        "ReplicaSet": "metadata spec status",
        "ReplicaSetSpec": "template",
        "Scale": "metadata spec status",
        "Secret": "metadata",
        "Service": "metadata spec status",
        "ServiceAccount": "metadata",
        "ServiceStatus": "loadBalancer",
        "StorageClass": "metadata",
        "TokenRequest": "metadata spec status",
        "TokenReview": "metadata spec status",
    }.items()
}

# What identifies an item of a list where the item leaves it out.
KEY_DEFAULTS = {"protocol": "TCP"}
# Types whose optional name is the empty string there.
KEYED_BY_EMPTY_NAMES = frozenset({"v1.LocalObjectReference"})

# Named string types, as an error message writes them. By struct and field.
NAMED_STRINGS: dict[tuple[str, str], str] = {
    ("Container", "imagePullPolicy"): "v1.PullPolicy",
    ("Container", "restartPolicy"): "v1.ContainerRestartPolicy",
    ("Container", "terminationMessagePolicy"): "v1.TerminationMessagePolicy",
    ("ContainerPort", "protocol"): "v1.Protocol",
    ("DeploymentStrategy", "type"): "v1.DeploymentStrategyType",
    ("EmptyDirVolumeSource", "medium"): "v1.StorageMedium",
    ("HTTPGetAction", "scheme"): "v1.URIScheme",
    ("HostPathVolumeSource", "type"): "v1.HostPathType",
    ("LabelSelectorRequirement", "operator"): "v1.LabelSelectorOperator",
    ("NamespaceStatus", "phase"): "v1.NamespacePhase",
    ("NodeSelectorRequirement", "operator"): "v1.NodeSelectorOperator",
    ("ObjectMeta", "uid"): "types.UID",
    ("PersistentVolumeClaimSpec", "volumeMode"): "v1.PersistentVolumeMode",
    ("PersistentVolumeClaimStatus", "phase"): "v1.PersistentVolumeClaimPhase",
    ("PersistentVolumeSpec", "persistentVolumeReclaimPolicy"): "v1.PersistentVolumeReclaimPolicy",
    ("PersistentVolumeSpec", "volumeMode"): "v1.PersistentVolumeMode",
    ("PersistentVolumeStatus", "phase"): "v1.PersistentVolumePhase",
    ("ObjectReference", "uid"): "types.UID",
    ("OwnerReference", "uid"): "types.UID",
    ("PodSpec", "dnsPolicy"): "v1.DNSPolicy",
    ("PodSpec", "preemptionPolicy"): "v1.PreemptionPolicy",
    ("PodSpec", "restartPolicy"): "v1.RestartPolicy",
    ("PodStatus", "phase"): "v1.PodPhase",
    ("Secret", "type"): "v1.SecretType",
    ("SeccompProfile", "type"): "v1.SeccompProfileType",
    ("ServicePort", "protocol"): "v1.Protocol",
    ("StorageClass", "reclaimPolicy"): "v1.PersistentVolumeReclaimPolicy",
    ("StorageClass", "volumeBindingMode"): "v1.VolumeBindingMode",
    ("ServiceSpec", "externalTrafficPolicy"): "v1.ServiceExternalTrafficPolicy",
    ("ServiceSpec", "internalTrafficPolicy"): "v1.ServiceInternalTrafficPolicy",
    ("ServiceSpec", "sessionAffinity"): "v1.ServiceAffinity",
    ("ServiceSpec", "type"): "v1.ServiceType",
    ("Taint", "effect"): "v1.TaintEffect",
    ("Toleration", "effect"): "v1.TaintEffect",
    ("Toleration", "operator"): "v1.TolerationOperator",
    ("VolumeMount", "mountPropagation"): "v1.MountPropagationMode",
}
