// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {INodeRegistry, Provider} from "../../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../support/Fixture.sol";

contract RegisterTest is Fixture {
    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_RegisterMakesTheCallerAProviderOnce(address caller, string calldata uri) public {
        vm.assume(caller != provider);
        vm.expectEmit(address(registry));
        emit INodeRegistry.ProviderRegistered(caller, uri);
        vm.startPrank(caller);
        registry.register(uri);
        Provider memory entry = registry.provider(caller);
        assertTrue(entry.registered);
        assertEq(entry.staked, 0);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistry_AlreadyProvider.selector, caller));
        registry.register(uri);
    }

    function test_ProvidersOnlyMayStakeUnstakeAndAddNodes() public {
        bytes memory reason = abi.encodeWithSelector(INodeRegistry.NodeRegistry_NotProvider.selector, stranger);
        vm.startPrank(stranger);
        vm.expectRevert(reason);
        registry.stake(1);
        vm.expectRevert(reason);
        registry.requestUnstake(1);
        vm.expectRevert(reason);
        registry.withdrawStake();
        vm.expectRevert(reason);
        registry.addNode(stranger, 0, stranger, "");
    }
}
