"""`watt mcp`: what it prints for a host, and the process a host starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters

from tests.cli.conftest import Watt
from tests.client.fake_market import FakeMarket


def test_config_holds_no_secret_and_finds_the_market_from_anywhere(watt: Watt, market: FakeMarket) -> None:
    server = watt("mcp", "--json").json["mcpServers"]["wattline"]
    assert server == {"command": "watt", "args": ["mcp", "--data-dir", str(Path(".watt").absolute())]}
    assert "env" not in server


def test_config_repeats_what_it_was_given(watt: Watt) -> None:
    limits = ("--per-job", "0.5", "--budget", "2", "--models", "tiny-*")
    places = ("--gateway", "http://gateway.test", "--wallet", "agent.key", "--passphrase-file", "pass")
    printed = json.loads(watt("mcp", "--print-config", *limits, *places).out)
    args = printed["mcpServers"]["wattline"]["args"]
    assert args[:7] == ["mcp", *limits]
    assert args[args.index("--wallet") + 1] == str(Path("agent.key").absolute())


def test_config_of_a_machine_without_a_market_is_the_short_one(watt: Watt) -> None:
    assert watt("mcp", "--json").json == {"mcpServers": {"wattline": {"command": "watt", "args": ["mcp"]}}}
    assert '{"command": "watt", "args": ["mcp"]}' in " ".join(watt("mcp", "--help").out.split())


@pytest.mark.parametrize("option", ["--per-job", "--budget"])
def test_amount_that_is_none_is_refused(watt: Watt, option: str) -> None:
    done = watt("mcp", option, "a lot")
    assert done.code == 1
    assert "invalid_request" in done.err


def test_missing_package_is_answered_with_its_remedy() -> None:
    code = (
        "import sys; sys.modules['mcp'] = None; import marketplace.cli.app as a; sys.exit(a.invoke(['mcp']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'wattline[mcp]'" in done.stderr


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_process_shakes_hands_lists_its_tools_and_says_what_is_missing(
    tmp_path: Path, mode: str
) -> None:
    command = str(Path(sys.executable).with_name("watt"))
    server = StdioServerParameters(
        command=command, args=["mcp"], cwd=tmp_path, env={"WATT_HOME": str(tmp_path / "none")}
    )
    async with Client(server, mode=mode) as client:
        assert client.server_info is not None
        assert client.server_info.name == "wattline"
        assert len((await client.list_tools()).tools) == 6
        result = await client.call_tool("budget", {})
        assert result.is_error
        assert result.structured_content["code"] == "not_ready"
        assert "watt up" in result.structured_content["hint"]
