"""URIs as they may be shown."""

from __future__ import annotations

import re


def redact_uri(uri: str) -> str:
    """Returns a URI without its password, for messages, logs and stored records."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", uri)
