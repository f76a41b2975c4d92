"""The MCP client, at a gateway's `/mcp` or (with `--stdio`) at `watt mcp`: one line of JSON a purchase.

Reads what to ask from standard input. A tool's result has the answer, what was paid, and the receipt's id.
"""

import asyncio
import json
import sys
from importlib.metadata import version

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client


async def main(asked):
    if "--stdio" in sys.argv:
        command, *arguments = asked["mcp_command"]
        async with Client(StdioServerParameters(command=command, args=arguments)) as client:
            await buy(asked, client)
        return
    headers = {"authorization": f"Bearer {asked['api_key']}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=120) as http,
        Client(streamable_http_client(f"{asked['gateway_url']}/mcp", http_client=http)) as client,
    ):
        await buy(asked, client)


async def buy(asked, client):
    found = (await use(client, "search_models", task="chat"))["models"]
    assert asked["chat_model"] in [row["model"] for row in found], found
    wish = {"model": asked["chat_model"], "prompt": asked["first"], "max_tokens": asked["max_tokens"]}
    ran = await use(client, "run", **wish)
    tell("run", "first", ran["text"], ran)
    offers = (await use(client, "quote", **wish))["offers"]
    ran = await use(client, "run", offer=offers[0]["offer"])
    assert float(ran["paid"]) <= float(offers[0]["ceiling"]), (ran["paid"], offers[0])
    tell("run an offer", "first", ran["text"], ran)
    ran = await use(client, "run", model=asked["embed_model"], input=asked["texts"])
    tell("run embeddings", "texts", ran["vectors"], ran)
    assert (await use(client, "verify_receipt", id=ran["receipt"]))["verified"]


async def use(client, tool, **arguments):
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.structured_content


def tell(call, question, answer, ran):
    assert ran["verified"], ran
    line = {"call": call, "asked": question, "answer": answer, "cost": ran["paid"], "job": ran["job"]}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    print(json.dumps({"version": version("mcp")}), flush=True)
    asyncio.run(main(json.load(sys.stdin)))
