"""Publishes a model of this node and names it; what is done already is not sent again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from marketplace.chain import models
from marketplace.chain.calls import Call
from marketplace.chain.client import ChainClient
from marketplace.chain.deployment import Deployment
from marketplace.chain.sender import Sender
from marketplace.protocol.signing import Signer
from worker.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What shall be on the chain: the id, and `name@version` and `name@channel` for it."""

    model_id: bytes
    name: str
    version: str | None
    channel: str | None
    uri: str


def publish_model(
    rpc_url: str, deployment_path: Path, ledger: Ledger, owner: Signer, wanted: Publication
) -> list[str]:
    """Sends what is missing, in order; gives what was sent, in words.

    Raises:
        BadRequest: there is no register, or it refuses: the name is another's, or the version stands.
        ChainTrouble: the chain does not answer; run it again.
    """
    chain = ChainClient(rpc_url, Deployment.load(deployment_path))
    chain.check()
    sender = Sender(chain, owner, ledger.transactions, lambda: time.time_ns() // 1_000_000)
    sent = []
    for call in _missing(chain, wanted):
        # The journal names each intent once, and a model may be published again elsewhere.
        intent = f"models:{call.what}:{ledger.transactions.next_nonce(owner.address)}"
        sender.send_and_wait(intent, call)
        sent.append(call.what)
    return sent


def _missing(chain: ChainClient, wanted: Publication) -> list[Call]:
    here, name, model_id = chain.deployment, wanted.name, wanted.model_id
    calls = []
    if wanted.uri or not models.is_published(chain, model_id):
        calls.append(models.publish(here, model_id, wanted.uri))
    if wanted.version and not _means(chain, name, wanted.version, model_id, fixed=True):
        calls.append(models.release(here, name, wanted.version, model_id))
    if wanted.channel and not _means(chain, name, wanted.channel, model_id, fixed=False):
        calls.append(models.point(here, name, wanted.channel, model_id))
    return calls


def _means(chain: ChainClient, name: str, label: str, model_id: bytes, *, fixed: bool) -> bool:
    return models.resolve(chain, name, label) == models.Meaning(model_id=model_id, fixed=fixed)
