// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Vm} from "forge-std/Vm.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {INodeRegistry} from "../../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../support/Fixture.sol";

/// @title What the registry tells the escrow, and how many nodes an owner can have
contract ServingTest is Fixture {
    uint256 private constant _MOST_NODES = 100;

    /* PUSHED AS STAKE MOVES */

    function test_NodesStopServingOneAtomBelowTheMinimumAndServeAgainAtIt() public {
        _two();
        vm.startPrank(provider);
        registry.requestUnstake(1);
        _requireServing(false);
        registry.stake(1);
        _requireServing(true);
    }

    function test_SlashBelowTheMinimumStopsEveryNodeOfTheOwner() public {
        _two();
        vm.prank(address(court));
        registry.slash(provider, 1);
        _requireServing(false);
    }

    function test_MovesOfStakeOnOneSideOfTheMinimumTellNothing() public {
        vm.recordLogs();
        vm.startPrank(provider);
        registry.stake(10);
        registry.requestUnstake(10);
        vm.startPrank(address(court));
        registry.slash(provider, 0);
        _requireSilent();
    }

    function testFuzz_EscrowAndRegistryAlwaysAgree(uint64[6] memory amounts, uint8 moves) public {
        _two();
        for (uint256 i = 0; i < 6; ++i) {
            uint64 staked = registry.provider(provider).staked;
            if (moves & (1 << i) != 0) {
                vm.prank(provider);
                registry.stake(amounts[i] % MIN_STAKE + 1);
            } else if (i == 5) {
                vm.prank(address(court));
                registry.slash(provider, amounts[i] % (2 * MIN_STAKE));
            } else if (staked > 0) {
                vm.prank(provider);
                registry.requestUnstake(uint128(amounts[i] % staked + 1));
            }
            _requireServing(registry.provider(provider).staked >= MIN_STAKE);
        }
    }

    function test_StakeOfAProviderWithoutNodesTellsNothing() public {
        _fund(stranger);
        vm.recordLogs();
        vm.startPrank(stranger);
        registry.register("");
        registry.stake(MIN_STAKE);
        registry.requestUnstake(1);
        _requireSilent();
    }

    /* PUSHED WITH A NODE */

    function test_NodeOfAProviderWithoutStakeDoesNotServeUntilThereIsSome() public {
        _fund(stranger);
        vm.startPrank(stranger);
        registry.register("");
        registry.addNode(nodeKey.addr, 0, settler, "");
        (bool ok,) = escrow.serving(2);
        assertFalse(ok);
        registry.stake(MIN_STAKE);
        (ok,) = escrow.serving(2);
        assertTrue(ok);
    }

    function test_RotationTellsTheEpochAndWhetherTheNodeServes() public {
        vm.startPrank(provider);
        registry.rotateNodeKey(nodeId, stranger, 0);
        registry.requestUnstake(1);
        registry.rotateNodeKey(nodeId, stranger, 0);
        (bool ok, uint16 epoch) = escrow.serving(nodeId);
        assertFalse(ok);
        assertEq(epoch, 3);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_EscrowListensToTheRegistryOnly(address caller, uint32 id) public {
        vm.assume(caller != address(registry));
        bytes memory reason =
            abi.encodeWithSelector(IEscrow.Escrow_NotRegistry.selector, caller, address(registry));
        vm.startPrank(caller);
        vm.expectRevert(reason);
        escrow.setNode(id, caller, 1, true);
        vm.expectRevert(reason);
        escrow.setServing(_one(id), true);
    }

    /* HOW MANY */

    function test_OwnerHasAtMost100Nodes() public {
        vm.startPrank(provider);
        for (uint256 i = 1; i < _MOST_NODES; ++i) {
            registry.addNode(nodeKey.addr, 0, settler, "");
        }
        assertEq(registry.nodeCount(), _MOST_NODES);
        vm.expectRevert(
            abi.encodeWithSelector(
                INodeRegistry.NodeRegistry_TooManyNodes.selector, _MOST_NODES, _MOST_NODES
            )
        );
        registry.addNode(nodeKey.addr, 0, settler, "");
    }

    /// @dev So that a slash can always be carried out.
    function test_SlashOfAnOwnerOf100NodesFitsIntoATransaction() public {
        vm.startPrank(provider);
        for (uint256 i = 1; i < _MOST_NODES; ++i) {
            registry.addNode(nodeKey.addr, 0, settler, "");
        }
        vm.startPrank(address(court));
        uint256 before = gasleft();
        registry.slash(provider, 1);
        assertLt(before - gasleft(), 1_500_000);
        for (uint32 i = 1; i <= _MOST_NODES; ++i) {
            (bool ok,) = escrow.serving(i);
            assertFalse(ok);
        }
    }

    /* AMOUNTS */

    function test_StakeRefusesAmountsThatDoNotFitTheSlot() public {
        uint128 limit = type(uint64).max;
        vm.expectRevert(
            abi.encodeWithSelector(
                INodeRegistry.NodeRegistry_AmountTooLarge.selector, MIN_STAKE + limit, limit
            )
        );
        vm.prank(provider);
        registry.stake(limit);
    }

    function _two() private {
        vm.prank(provider);
        registry.addNode(nodeKey.addr, 0, settler, "");
    }

    function _requireSilent() private {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        assertGt(logs.length, 2);
        for (uint256 i = 0; i < logs.length; ++i) {
            assertNotEq(logs[i].emitter, address(escrow));
        }
    }

    function _requireServing(bool expected) private view {
        for (uint32 i = 1; i <= registry.nodeCount(); ++i) {
            (bool atEscrow, uint16 epoch) = escrow.serving(i);
            (bool atRegistry, uint16 epochThere) = registry.serving(i);
            assertEq(atEscrow, expected);
            assertEq(atRegistry, expected);
            assertEq(epoch, epochThere);
        }
    }
}
