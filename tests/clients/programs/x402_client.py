"""x402's client for Python: a payment and one line of JSON a call, without account or key at the gateway.

Reads what to ask from standard input, with the wallet that pays and the token it pays in.
"""

import asyncio
import json
import sys
from importlib.metadata import version

from eth_account import Account
from x402 import x402Client
from x402.http.clients.httpx import x402HttpxClient
from x402.mechanisms.evm.exact import register_exact_evm_client


async def main(asked):
    network = f"eip155:{asked['chain_id']}"
    payer = x402Client()
    register_exact_evm_client(payer, Account.from_key(asked["wallet"]), networks=network)
    payer.set_spend_controls({"allowed_assets": [{"network": network, "asset": asked["token"]}]})
    chat = {"model": asked["chat_model"], "max_tokens": asked["max_tokens"], "temperature": 0}
    chat["messages"] = [{"role": "user", "content": asked["first"]}]
    async with x402HttpxClient(payer, base_url=asked["gateway_url"], timeout=120) as http:
        answer = await http.post("/v1/chat/completions", json=chat)
        answer.raise_for_status()
        tell("chat", "first", answer.json()["choices"][0]["message"]["content"], answer.json())

        async with http.stream("POST", "/v1/chat/completions", json=chat | {"stream": True}) as answer:
            answer.raise_for_status()
            lines = [line async for line in answer.aiter_lines() if line.startswith("data: {")]
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
        said = [c["choices"][0]["delta"].get("content") for c in chunks if c["choices"]]
        pieces = [piece for piece in said if piece]
        tell("stream", "first", "".join(pieces), chunks[-1], pieces=len(pieces))

        texts = {"model": asked["embed_model"], "input": asked["texts"]}
        answer = await http.post("/v1/embeddings", json=texts)
        answer.raise_for_status()
        tell("embeddings", "texts", [row["embedding"] for row in answer.json()["data"]], answer.json())


def tell(call, question, answer, body, **more):
    assert body["x402_payment_response"]["success"], body["x402_payment_response"]
    usage = body["usage"]
    paid = {"cost": usage["cost"], "atoms": usage["cost_details"]["atoms"], "receipt": body["receipt"]}
    print(json.dumps({"call": call, "asked": question, "answer": answer} | paid | more), flush=True)


if __name__ == "__main__":
    print(json.dumps({"version": version("x402")}), flush=True)
    asyncio.run(main(json.load(sys.stdin)))
