// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "./../../contracts/interfaces/IEscrow.sol";
import {INodeRegistry, Provider} from "./../../contracts/interfaces/INodeRegistry.sol";
import {Proof} from "./support/Proof.sol";

/// @title Stake and keys, whoever calls
contract RegistryProof is Proof {
    function check_StakeAddsExactlyWhatArrived(address caller, uint128 amount) external {
        _assumeOneNode(caller);
        vm.assume(caller != address(registry));
        Provider memory before = registry.provider(caller);
        uint256 balance = token.balanceOf(address(registry));
        if (!_call(caller, abi.encodeCall(INodeRegistry.stake, (amount)))) return;

        assertEq(registry.provider(caller).staked, uint256(before.staked) + amount);
        assertEq(token.balanceOf(address(registry)), balance + amount);
    }

    function check_RequestUnstakeMovesStakeAndLosesNone(address caller, uint128 amount, uint40 time) external {
        _assumeOneNode(caller);
        vm.warp(time);
        Provider memory before = registry.provider(caller);
        if (!_call(caller, abi.encodeCall(INodeRegistry.requestUnstake, (amount)))) return;

        Provider memory afterwards = registry.provider(caller);
        assertEq(_total(afterwards), _total(before));
        assertEq(afterwards.unstaking, uint256(before.unstaking) + amount);
        assertEq(afterwards.unstakeAt, time + registry.UNSTAKE_DELAY_SECONDS());
    }

    function check_StakeLeavesOnlyAfterItsDelayAndExactly(address caller, uint40 time) external {
        vm.warp(time);
        vm.assume(caller != address(registry));
        Provider memory before = registry.provider(caller);
        uint256 wallet = token.balanceOf(caller);
        if (!_call(caller, abi.encodeCall(INodeRegistry.withdrawStake, ()))) return;

        assertGe(time, before.unstakeAt);
        assertEq(token.balanceOf(caller), wallet + before.unstaking);
        assertEq(_total(registry.provider(caller)), before.staked);
    }

    function check_NobodyTouchesTheStakeOfAnother(
        address caller,
        address other,
        uint128 amount,
        uint40 time,
        uint8 verb
    ) external {
        _assumeOneNode(caller);
        vm.warp(time);
        vm.assume(caller != other);
        bytes32 before = keccak256(abi.encode(registry.provider(other)));
        if (verb == 0) _call(caller, abi.encodeCall(INodeRegistry.stake, (amount)));
        else if (verb == 1) _call(caller, abi.encodeCall(INodeRegistry.requestUnstake, (amount)));
        else _call(caller, abi.encodeCall(INodeRegistry.withdrawStake, ()));
        assertEq(keccak256(abi.encode(registry.provider(other))), before);
    }

    function check_ARotationKeepsEveryEarlierKey(address caller, uint32 nodeId, address signer, uint16 epoch) external {
        (, uint16 current) = registry.serving(nodeId);
        address known = registry.signerAt(nodeId, epoch);
        bool ok = _call(caller, abi.encodeCall(INodeRegistry.rotateNodeKey, (nodeId, signer, 0)));

        (, uint16 next) = registry.serving(nodeId);
        assertEq(next, ok ? uint256(current) + 1 : current);
        assertEq(registry.signerAt(nodeId, epoch), ok && epoch == next ? signer : known);
    }

    function check_OnlyItsOwnerChangesANode(address caller, uint32 nodeId, address any) external {
        address owner = registry.ownerOf(nodeId);
        vm.assume(caller != owner);
        assertFalse(_call(caller, abi.encodeCall(INodeRegistry.rotateNodeKey, (nodeId, any, 0))));
        assertFalse(_call(caller, abi.encodeCall(INodeRegistry.setSettler, (nodeId, any))));
        assertEq(registry.ownerOf(nodeId), owner);
    }

    function check_OnlyTheEscrowLocksAndUnlocks(address caller, address owner, uint64 amount) external {
        vm.assume(caller != address(escrow));
        bytes32 before = _hash(owner);
        assertFalse(_call(caller, abi.encodeCall(INodeRegistry.lock, (owner, amount))));
        assertFalse(_call(caller, abi.encodeCall(INodeRegistry.unlock, (owner, amount))));
        assertEq(_hash(owner), before);
    }

    function check_ALockTakesFreeStakeOnlyAndMovesNone(address owner, uint64 amount, address other) external {
        vm.assume(other != owner);
        (Provider memory before, bytes32 others) = (registry.provider(owner), _hash(other));
        if (!_call(address(escrow), abi.encodeCall(INodeRegistry.lock, (owner, amount)))) return;

        Provider memory afterwards = registry.provider(owner);
        assertEq(afterwards.locked, uint256(before.locked) + amount);
        if (amount > 0) assertLe(afterwards.locked, before.staked);
        afterwards.locked = before.locked;
        assertEq(keccak256(abi.encode(afterwards)), keccak256(abi.encode(before)));
        assertEq(_hash(other), others);
    }

    function check_AnUnlockFreesExactlyAndMovesNone(address owner, uint64 amount, address other) external {
        vm.assume(other != owner);
        (Provider memory before, bytes32 others) = (registry.provider(owner), _hash(other));
        if (!_call(address(escrow), abi.encodeCall(INodeRegistry.unlock, (owner, amount)))) return;

        Provider memory afterwards = registry.provider(owner);
        assertEq(afterwards.locked, before.locked - amount);
        afterwards.locked = before.locked;
        assertEq(keccak256(abi.encode(afterwards)), keccak256(abi.encode(before)));
        assertEq(_hash(other), others);
    }

    function check_UnstakingNeverTakesWhatIsLocked(address caller, uint128 amount, uint40 time) external {
        vm.warp(time);
        _assumeOneNode(caller);
        if (!_call(caller, abi.encodeCall(INodeRegistry.requestUnstake, (amount)))) return;

        Provider memory afterwards = registry.provider(caller);
        assertGe(afterwards.staked, afterwards.locked);
    }

    function check_OnlyTheCourtSlashesAndReleases(address caller, address owner, uint128 amount, address to) external {
        vm.assume(caller != COURT);
        assertFalse(_call(caller, abi.encodeCall(INodeRegistry.slash, (owner, amount))));
        assertFalse(_call(caller, abi.encodeCall(INodeRegistry.release, (to, amount))));
    }

    function check_ASlashMovesStakeToTheSlashedAndLosesNone(address owner, uint256 amount) external {
        _assumeOneNode(owner);
        (Provider memory before, uint256 slashed) = (registry.provider(owner), registry.slashed());
        uint256 balance = token.balanceOf(address(registry));
        if (!_call(COURT, abi.encodeCall(INodeRegistry.slash, (owner, amount)))) return;

        Provider memory afterwards = registry.provider(owner);
        uint256 taken = _total(before) - _total(afterwards);
        assertEq(taken, amount < _total(before) ? amount : _total(before));
        assertEq(registry.slashed(), slashed + taken);
        assertEq(token.balanceOf(address(registry)), balance);
        assertEq(afterwards.locked, before.locked);
        if (afterwards.unstaking < before.unstaking) assertEq(afterwards.staked, 0);
    }

    function check_AReleasePaysOutOfTheSlashedExactly(address to, uint128 amount, address other) external {
        vm.assume(to != address(registry));
        (uint256 slashed, bytes32 before) = (registry.slashed(), _hash(other));
        uint256 wallet = token.balanceOf(to);
        if (!_call(COURT, abi.encodeCall(INodeRegistry.release, (to, amount)))) return;

        assertEq(registry.slashed(), slashed - amount);
        assertEq(token.balanceOf(to), wallet + amount);
        assertEq(_hash(other), before);
    }

    /* WHAT THE ESCROW IS TOLD */

    function check_StakeThatComesTellsTheEscrowWhetherTheNodeServes(address caller, uint128 amount, uint32 nodeId)
        external
    {
        _assumeTold(caller, nodeId);
        if (!_call(caller, abi.encodeCall(INodeRegistry.stake, (amount)))) return;
        _assertTold(nodeId);
    }

    function check_StakeThatLeavesTellsTheEscrowWhetherTheNodeServes(
        address caller,
        uint128 amount,
        uint32 nodeId,
        uint40 time
    ) external {
        vm.warp(time);
        _assumeTold(caller, nodeId);
        if (!_call(caller, abi.encodeCall(INodeRegistry.requestUnstake, (amount)))) return;
        _assertTold(nodeId);
    }

    function check_ASlashTellsTheEscrowWhetherTheNodeServes(address owner, uint256 amount, uint32 nodeId) external {
        _assumeTold(owner, nodeId);
        if (!_call(COURT, abi.encodeCall(INodeRegistry.slash, (owner, amount)))) return;
        _assertTold(nodeId);
    }

    function check_ANewKeyTellsTheEscrowItsEpoch(address caller, uint32 nodeId, address signer) external {
        vm.assume(registry.ownerOf(nodeId) != address(0) && caller != address(0));
        if (!_call(caller, abi.encodeCall(INodeRegistry.rotateNodeKey, (nodeId, signer, 0)))) return;
        _assertTold(nodeId);
    }

    function check_OnlyTheRegistryTellsTheEscrow(address caller, uint32 nodeId, address owner, uint16 epoch, bool ok)
        external
    {
        vm.assume(caller != address(registry));
        uint32[] memory ids = new uint32[](1);
        ids[0] = nodeId;
        assertFalse(_by(caller, abi.encodeCall(IEscrow.setNode, (nodeId, owner, epoch, ok))));
        assertFalse(_by(caller, abi.encodeCall(IEscrow.setServing, (ids, ok))));
    }

    /// @dev A provider with this one node, about which the escrow knows what the registry does.
    function _assumeTold(address owner, uint32 nodeId) private view {
        _assumeOnlyNode(owner, nodeId);
        vm.assume(owner != address(0) && registry.ownerOf(nodeId) == owner);
        (bool serves, uint16 epoch) = registry.serving(nodeId);
        (bool told, uint16 toldEpoch) = escrow.serving(nodeId);
        vm.assume(serves == told && epoch == toldEpoch && _payee(nodeId) == owner);
    }

    function _assertTold(uint32 nodeId) private view {
        (bool serves, uint16 epoch) = registry.serving(nodeId);
        (bool told, uint16 toldEpoch) = escrow.serving(nodeId);
        assertEq(told, serves);
        assertEq(toldEpoch, epoch);
        assertEq(_payee(nodeId), registry.ownerOf(nodeId));
    }

    function _hash(address owner) private view returns (bytes32) {
        return keccak256(abi.encode(registry.provider(owner)));
    }

    function _call(address caller, bytes memory data) private returns (bool ok) {
        vm.prank(caller);
        (ok,) = address(registry).call(data);
    }

    function _total(Provider memory held) private pure returns (uint256) {
        return uint256(held.staked) + held.unstaking;
    }
}
