"""resolv.conf(5) as a CNI dns dictionary."""

from __future__ import annotations

from typing import Any


def read(path: str) -> dict[str, Any]:
    """Parses nameserver, domain, search and options; comments are skipped. Raises OSError when the file is missing."""
    dns: dict[str, Any] = {}
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.split()
            if not words or words[0][0] in "#;":
                continue
            keyword, values = words[0], words[1:]
            if keyword == "nameserver" and values:
                dns.setdefault("nameservers", []).append(values[0])
            elif keyword == "domain" and values:
                dns["domain"] = values[0]
            elif keyword in ("search", "options"):
                dns.setdefault(keyword, []).extend(values)
    return dns
