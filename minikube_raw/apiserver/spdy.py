"""SPDY/3.1 framing without I/O: bytes in, frames out, and the other way round.

kubectl before 1.30 speaks nothing else for exec, attach and port-forward, and newer ones put the same frames into
WebSockets for port-forward. This module knows the wire format and its limits; streams over a connection are
`spdysession`, what the streams of an exec mean is `spdyexec`. Source: the SPDY protocol, draft 3.1.
"""

from __future__ import annotations
