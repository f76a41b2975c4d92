// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {INodeRegistry, Node} from "../../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../support/Fixture.sol";

contract NodeTest is Fixture {
    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_AddNodeCountsFromOneAndTellsTheEscrow(address signer, bytes32 sealing, address who) public {
        vm.assume(signer != address(0) && who != address(0));
        vm.expectEmit(address(registry));
        emit INodeRegistry.NodeAdded(2, provider, signer, sealing, "ipfs://two");
        vm.expectEmit(address(escrow));
        emit IEscrow.SettlerSet(2, who);
        vm.prank(provider);
        assertEq(registry.addNode(signer, sealing, who, "ipfs://two"), 2);
        Node memory entry = registry.node(2);
        assertEq(entry.owner, provider);
        assertEq(entry.epoch, 1);
        assertEq(entry.signer, signer);
        assertEq(entry.encryptionKey, sealing);
        assertEq(entry.uri, "ipfs://two");
        assertEq(registry.ownerOf(2), provider);
        assertEq(registry.signerAt(2, 1), signer);
        assertEq(registry.nodeCount(), 2);
        (address settler_,) = escrow.nodeAccount(2);
        assertEq(settler_, who);
    }

    function test_NodesNeverHaveAZeroSignerOrSettler() public {
        vm.startPrank(provider);
        vm.expectRevert(INodeRegistry.NodeRegistry_ZeroAddress.selector);
        registry.addNode(address(0), 0, settler, "");
        vm.expectRevert(INodeRegistry.NodeRegistry_ZeroAddress.selector);
        registry.addNode(stranger, 0, address(0), "");
        vm.expectRevert(INodeRegistry.NodeRegistry_ZeroAddress.selector);
        registry.rotateNodeKey(nodeId, address(0), 0);
        vm.expectRevert(INodeRegistry.NodeRegistry_ZeroAddress.selector);
        registry.setSettler(nodeId, address(0));
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_RotateNodeKeyStartsANewEpochAndKeepsTheOld(address second, bytes32 sealing) public {
        vm.assume(second != address(0));
        vm.expectEmit(address(registry));
        emit INodeRegistry.NodeKeyRotated(nodeId, 2, second, sealing);
        vm.prank(provider);
        registry.rotateNodeKey(nodeId, second, sealing);
        Node memory entry = registry.node(nodeId);
        assertEq(entry.epoch, 2);
        assertEq(entry.signer, second);
        assertEq(entry.encryptionKey, sealing);
        assertEq(registry.signerAt(nodeId, 1), nodeKey.addr);
        assertEq(registry.signerAt(nodeId, 2), second);
        (bool ok, uint16 epoch) = registry.serving(nodeId);
        assertTrue(ok);
        assertEq(epoch, 2);
    }

    function test_SetMetadataReplacesTheUri() public {
        vm.expectEmit(address(registry));
        emit INodeRegistry.MetadataSet(nodeId, "ipfs://new");
        vm.prank(provider);
        registry.setMetadata(nodeId, "ipfs://new");
        assertEq(registry.node(nodeId).uri, "ipfs://new");
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_NodesObeyTheirOwnerOnly(address caller) public {
        vm.assume(caller != provider);
        bytes memory reason =
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_NotOwner.selector, caller, provider);
        vm.startPrank(caller);
        vm.expectRevert(reason);
        registry.rotateNodeKey(nodeId, stranger, 0);
        vm.expectRevert(reason);
        registry.setSettler(nodeId, stranger);
        vm.expectRevert(reason);
        registry.setMetadata(nodeId, "");
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_UnknownNodesAreEmptyAndServeNobody(uint32 id) public {
        vm.assume(id != nodeId);
        (bool ok, uint16 epoch) = registry.serving(id);
        assertFalse(ok);
        assertEq(epoch, 0);
        assertEq(registry.ownerOf(id), address(0));
        assertEq(registry.signerAt(id, 1), address(0));
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_NotOwner.selector, stranger, address(0))
        );
        vm.prank(stranger);
        registry.setSettler(id, stranger);
    }
}
