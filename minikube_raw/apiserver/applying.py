"""interim"""

from minikube_raw.api import status


class ApplyMerge:
    creates = True
    warnings = ()

    def __init__(self, kind, strategy, request, context, subresource):
        raise status.unsupported_media_type(("application/json-patch+json",))
