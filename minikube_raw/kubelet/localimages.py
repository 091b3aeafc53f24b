"""Images of a host without a master: the store, recipes, and what is named by a path (dir:/path, tar:/path, checkpoint:/path)."""

from __future__ import annotations

from minikube_raw.kubelet.images import NodeImage, StoredImages
from minikube_raw.oci import plainroots


class LocalImages(StoredImages):
    """An ImageSource that also takes paths."""

    def __init__(self, store: plainroots.PlainRootStore) -> None:
        super().__init__(store)
        self._plain = store

    def obtain(self, name: str) -> NodeImage | None:
        """See ImageSource."""
        return self._plain.take_in(name) if plainroots.is_plain(name) else super().obtain(name)
