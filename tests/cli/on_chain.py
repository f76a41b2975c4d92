"""Files that commands on a real chain are given."""

from __future__ import annotations

import json
from pathlib import Path

from marketplace.client.bundle import Bundle
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.signing import Signer
from tests.hardhat import key

RELAYER = key(1)


def wallet(tmp_path: Path, signer: Signer) -> Path:
    path = tmp_path / f"{signer.address}.key"
    if not path.exists():
        path.write_text(to_hex(signer.secret))
        path.chmod(0o600)
    return path


def saved(bundle: Bundle, path: Path) -> Path:
    path.write_text(json.dumps(bundle.to_json()))
    return path
