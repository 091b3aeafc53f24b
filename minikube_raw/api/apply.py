"""Server-side apply: several managers own fields of one object, and a configuration that takes another's field is refused.

`apply` merges one manager's whole opinion into the live object, `update` records what any other kind of write changed; both
answer the new object with its metadata.managedFields. They follow structured-merge-diff (v6, as Kubernetes 1.36 uses it):
`fieldset` holds sets of field paths, `fields_of` makes them of objects, `managed_fields` reads and writes the wire form.
"""

from __future__ import annotations
