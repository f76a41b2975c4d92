"""A project of a few lines of Solidity, for tests of the tools that work on the real one."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADER = "// SPDX-License-Identifier: Apache-2.0\npragma solidity 0.8.30;\n"

SNIPPETS = f"""{HEADER}
interface ISnippets {{
    function sum(uint256 a, uint256 b) external pure returns (uint256);
}}

contract Snippets {{
    enum Light {{
        Off,
        On
    }}

    event Moved(address who, uint256 a);

    error Bad(uint256 got, uint256 limit);

    uint256 private constant LIMIT = 1_000_000;
    uint256 public total;

    modifier alone() {{
        if (total > LIMIT) revert Bad(total, LIMIT); // “quoted”: more bytes than letters
        _;
    }}

    function move(uint256 a) external alone {{
        total += a;
        emit Moved(msg.sender, a);
    }}

    function sum(uint256 a, uint256 b) external pure returns (uint256) {{
        return (a + b) * 72 hours;
    }}

    function relation(uint256 a, uint256 b) external pure returns (bool) {{
        return a < b;
    }}

    function bits(uint256 a, uint256 b) external pure returns (uint256) {{
        return a << b;
    }}

    function guard(uint256 a, uint256 b) external pure {{
        if (a > b && b > 0) revert Bad(a, b);
    }}

    function need(uint256 a) external pure {{
        require(a > 0);
    }}

    function count(uint256 a) external pure returns (uint256 c) {{
        for (uint256 i = 0; i < a; ++i) {{
            c += i;
        }}
    }}

    function state() external pure returns (Light) {{
        return Light.On;
    }}

    function low(uint256 a) external pure returns (uint256 c) {{
        assembly ("memory-safe") {{
            c := add(a, 0x20)
        }}
    }}
}}
"""

GATE = f"""{HEADER}
contract Gate {{
    error Gate_TooMuch(uint256 got, uint256 limit);

    uint256 private constant _LIMIT = 10;

    function check(uint256 a) external pure returns (uint256) {{
        if (a > _LIMIT) revert Gate_TooMuch(a, _LIMIT);
        return a;
    }}
}}
"""

# Leaves one gap: nobody asks for the limit itself, nor for the number just above it.
GATE_TEST = f"""{HEADER}
interface Vm {{
    function getCode(string calldata artifact) external returns (bytes memory);
}}

interface IGate {{
    error Gate_TooMuch(uint256 got, uint256 limit);

    function check(uint256 a) external pure returns (uint256);
}}

contract GateTest {{
    IGate private gate;

    function setUp() public {{
        Vm vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
        bytes memory code = vm.getCode("Gate.sol:Gate");
        address at;
        assembly {{
            at := create(0, add(code, 32), mload(code))
        }}
        gate = IGate(at);
    }}

    function test_SmallNumbersPass() public view {{
        assert(gate.check(3) == 3);
    }}

    function test_LargeNumbersAreRefusedWithTheLimit() public view {{
        try gate.check(1000) {{
            assert(false);
        }} catch (bytes memory reason) {{
            bytes memory expected = abi.encodeWithSelector(IGate.Gate_TooMuch.selector, 1000, 10);
            assert(keccak256(reason) == keccak256(expected));
        }}
    }}
}}
"""


def planted(place: Path, files: dict[str, str]) -> Path:
    """A project of these files with our compiler and settings; the folder."""
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    for folder in ("contracts", "tests/contracts", "tests/vectors"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    for name in ("hardhat.config.js", "package.json", "remappings.txt"):
        shutil.copy(ROOT / name, place / name)
    (place / "node_modules").symlink_to((ROOT / "node_modules").resolve())
    return place
