// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {KeyCaps} from "../../contracts/types/Keys.sol";
import {Messages, Open, VoucherBatch} from "../../contracts/types/Messages.sol";
import {SettleItem} from "../../contracts/types/Sessions.sol";
import {Fixture} from "./support/Fixture.sol";

/// @title What whole transactions cost, calldata and base included
/// @notice Every call runs as a transaction of its own. Steady state: balances and counters are not zero any more.
contract GasTest is Fixture {
    uint256 private constant _SETTLE_LIMIT = 42_000;
    uint256 private constant _SETTLE_EACH_LIMIT = 13_600;
    uint256 private constant _BATCH_EACH_LIMIT = 6600;
    uint256 private constant _OPEN_LIMIT = 58_500;
    uint256 private constant _OPEN_BY_KEY_LIMIT = 72_000;

    /// hardhat-config: default.isolate = true
    function test_SettleOneSessionStaysUnder42000() public {
        (, bytes32 sessionId) = _session(1000e6);
        _settleOne(sessionId, 1, 1e6);
        _settleOne(sessionId, 1000, 400e6);
        assertLe(_used("settle one session"), _SETTLE_LIMIT);
    }

    /// hardhat-config: default.isolate = true
    function test_SettleGasDoesNotDependOnTheNumberOfJobs() public {
        (, bytes32 sessionId) = _session(1000e6);
        _settleOne(sessionId, 1, 1e6);
        uint256 expected = 0;
        uint32[4] memory jobs = [uint32(10), 200, 60_000, 4_000_000_000];
        for (uint256 i = 0; i < jobs.length; ++i) {
            SettleItem memory item = _item(key, sessionId, jobs[i], uint128(1e6 + i + 1));
            uint256 calldataGas = _calldataGas(item);
            _settleOne(item);
            uint256 rest = vm.lastCallGas().gasTotalUsed - calldataGas;
            if (i == 0) expected = rest;
            assertEq(rest, expected);
        }
    }

    /// hardhat-config: default.isolate = true
    function test_SettleOneHundredSessionsOfOneHundredBuyers() public {
        SettleItem[] memory first = new SettleItem[](100);
        SettleItem[] memory second = new SettleItem[](100);
        for (uint256 i = 0; i < 100; ++i) {
            (buyer, key) = (_actor(vm.toString(i)), _actor(vm.toString(i + 1000)));
            _fund(buyer.addr);
            (, bytes32 sessionId) = _session(1000e6);
            first[i] = _item(key, sessionId, 1, 1e6);
            second[i] = _item(key, sessionId, 1000, 3_456_789);
        }
        vm.prank(settler);
        escrow.settle(first);
        vm.prank(settler);
        escrow.settle(second);
        assertLe(_used("settle 100 sessions") / 100, _SETTLE_EACH_LIMIT);
    }

    /// hardhat-config: default.isolate = true
    function test_OtherVerbs() public {
        _deposit(100e6);
        _deposit(100e6);
        _used("deposit again");
        Open memory terms = _terms(50e6);
        bytes32 sessionId = _openOne(terms);
        _used("open one");
        escrow.topUp(terms, 60e6, _signTopUp(buyer, sessionId, 60e6));
        _used("topUp");
        _settleOne(sessionId, 1, 1e6);
        escrow.collect(_one(nodeId));
        _used("collect one");
        escrow.close(terms, 0, _signClose(nodeKey, sessionId, 0));
        _used("close");
        vm.prank(buyer.addr);
        escrow.withdraw(1e6, buyer.addr);
        _used("withdraw");
    }

    /// hardhat-config: default.isolate = true
    function test_OpenAndSettleOfOneJobAlone() public {
        _deposit(1000e6);
        Open memory terms = _terms(50e6);
        vm.prank(buyer.addr);
        escrow.openOneSession(terms, "");
        assertLe(_used("open by buyer"), _OPEN_LIMIT);
        _settleOne(escrow.sessionIdOf(terms), 1, 1e6);
        assertLe(_used("settle first"), _SETTLE_LIMIT);
    }

    /// hardhat-config: default.isolate = true
    function test_OpenRelayedForAKey() public {
        _deposit(1000e6);
        vm.prank(buyer.addr);
        escrow.setKey(key.addr, KeyCaps(100e6, 100e6, 1000e6, START + 30 days, 0));
        _used("setKey");
        for (uint256 i = 0; i < 2; ++i) {
            Open memory terms = _terms(50e6);
            terms.salt = bytes32(i);
            escrow.openOneSession(terms, _signOpen(key, terms));
            assertLe(_used("open relayed for key"), _OPEN_BY_KEY_LIMIT);
        }
    }

    /// hardhat-config: default.isolate = true
    function test_SettleBatchOfOneHundredSessions() public {
        bytes memory first;
        bytes memory second;
        _deposit(100_000e6);
        for (uint256 i = 0; i < 100; ++i) {
            Open memory terms = _terms(50e6);
            terms.salt = keccak256(abi.encode(i));
            bytes32 id = _openOne(terms);
            first = abi.encodePacked(first, bytes24(id), uint32(1), uint64(1e6));
            second = abi.encodePacked(second, bytes24(id), uint32(1000), uint64(3_456_789));
        }
        _batch(first);
        _batch(second);
        assertLe(_used("settleBatch of 100 sessions") / 100, _BATCH_EACH_LIMIT);
    }

    function _batch(bytes memory vouchers) private {
        bytes32 digest = _digest(Messages.hash(VoucherBatch(keccak256(vouchers), ROOT)));
        (bytes32 r, bytes32 vs) = vm.signCompact(key.secret, digest);
        vm.prank(settler);
        escrow.settleBatch(vouchers, ROOT, r, vs);
    }

    function _used(string memory name) private returns (uint256 gas) {
        gas = vm.lastCallGas().gasTotalUsed;
        emit log_named_uint(name, gas);
    }

    function _calldataGas(SettleItem memory item) private pure returns (uint256 gas) {
        bytes memory data = abi.encode(item);
        for (uint256 i = 0; i < data.length; ++i) {
            gas += data[i] == 0 ? 4 : 16;
        }
    }
}
