// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Fixture} from "../support/Fixture.sol";

contract SetSettlerTest is Fixture {
    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_SetSettlerIsForTheRegistryOnly(address caller, uint32 id, address who) public {
        vm.assume(caller != address(registry));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NotRegistry.selector, caller, address(registry)));
        vm.prank(caller);
        escrow.setSettler(id, who);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_SetSettlerKeepsEarnings(uint128 paid, address who) public {
        vm.assume(who != address(0));
        paid = uint128(bound(paid, 1, FUNDS));
        (, bytes32 sessionId) = _session(paid);
        _settleOne(sessionId, 1, paid);
        vm.expectEmit(address(escrow));
        emit IEscrow.SettlerSet(nodeId, who);
        vm.prank(provider);
        registry.setSettler(nodeId, who);
        (address now_, uint96 earnings) = escrow.nodeAccount(nodeId);
        assertEq(now_, who);
        assertEq(earnings, paid);
    }
}
