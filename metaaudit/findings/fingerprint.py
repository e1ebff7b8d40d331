"""What makes two findings the same one, whatever the run, the ranks and the paths."""

from __future__ import annotations

import hashlib

from metaaudit.findings.rules import RuleName


def fingerprint(rule: RuleName, content: str) -> str:
    """SHA-256 of a rule and of the content hash of the task or instance that it flags."""
    return hashlib.sha256(f"{rule}\0{content}".encode()).hexdigest()
