// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {stdError} from "forge-std/StdError.sol";
import {INodeRegistry, Provider} from "../../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../support/Fixture.sol";

/// @title lock, unlock, slash, release
contract PenaltyTest is Fixture {
    uint64 private constant _STAKE = uint64(MIN_STAKE);

    /* LOCKED BEHIND CLAIMS */

    function testFuzz_LockTakesFreeStakeToTheAtom(uint64 first, uint64 second) public {
        first = uint64(bound(first, 0, _STAKE));
        second = uint64(bound(second, 0, type(uint64).max));
        vm.expectEmit(address(registry));
        emit INodeRegistry.StakeLocked(provider, first);
        _lock(first);
        uint64 free = _STAKE - first;
        if (second > free) {
            vm.expectRevert(
                abi.encodeWithSelector(INodeRegistry.NodeRegistry_AboveFreeStake.selector, second, free)
            );
        }
        _lock(second);
        assertEq(_entry().locked, second > free ? first : first + second);
        assertEq(_entry().staked, _STAKE);
    }

    function test_LockOfAStrangerFindsNoStake() public {
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistry_AboveFreeStake.selector, 1, 0));
        vm.prank(address(escrow));
        registry.lock(stranger, 1);
    }

    function testFuzz_UnlockFreesStakeForUnstaking(uint64 locked, uint64 freed) public {
        locked = uint64(bound(locked, 1, _STAKE));
        freed = uint64(bound(freed, 0, locked));
        _lock(locked);
        vm.expectEmit(address(registry));
        emit INodeRegistry.StakeUnlocked(provider, freed);
        vm.prank(address(escrow));
        registry.unlock(provider, freed);
        uint64 free = _STAKE - locked + freed;
        vm.startPrank(provider);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistry_AboveStake.selector, free + 1, free));
        registry.requestUnstake(free + 1);
        if (free > 0) registry.requestUnstake(free);
        assertEq(_entry().staked, locked - freed);
    }

    function test_UnlockNeverFreesMoreThanIsLocked() public {
        _lock(10);
        vm.expectRevert(stdError.arithmeticError);
        vm.prank(address(escrow));
        registry.unlock(provider, 11);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_LockAndUnlockAreForTheEscrowOnly(address caller) public {
        vm.assume(caller != address(escrow));
        bytes memory reason =
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_NotEscrow.selector, caller, address(escrow));
        vm.startPrank(caller);
        vm.expectRevert(reason);
        registry.lock(provider, 1);
        vm.expectRevert(reason);
        registry.unlock(provider, 0);
    }

    /* SLASHED */

    function testFuzz_SlashTakesStakeAndThenWhatIsInDelay(uint64 unstaking, uint256 amount) public {
        unstaking = uint64(bound(unstaking, 0, _STAKE));
        if (unstaking > 0) {
            vm.prank(provider);
            registry.requestUnstake(unstaking);
        }
        uint64 staked = _STAKE - unstaking;
        uint256 taken = amount < _STAKE ? amount : _STAKE;
        uint256 left = taken < staked ? staked - taken : 0;
        vm.expectEmit(address(registry));
        emit INodeRegistry.Slashed(provider, uint128(taken), uint128(left));
        vm.prank(address(court));
        assertEq(registry.slash(provider, amount), taken);
        assertEq(_entry().staked, left);
        assertEq(_entry().unstaking, _STAKE - taken - left);
        assertEq(registry.slashed(), taken);
        assertEq(token.balanceOf(address(registry)), _STAKE);
    }

    function test_SlashLeavesTheDelayOfTheRestAsItWas() public {
        vm.startPrank(provider);
        registry.requestUnstake(_STAKE);
        vm.startPrank(address(court));
        registry.slash(provider, 400e6);
        vm.stopPrank();
        assertEq(_entry().unstakeAt, START + UNSTAKE_DELAY);
        vm.warp(START + UNSTAKE_DELAY);
        uint256 before = token.balanceOf(provider);
        vm.prank(provider);
        registry.withdrawStake();
        assertEq(token.balanceOf(provider) - before, 600e6);
        assertEq(token.balanceOf(address(registry)), 400e6);
    }

    /// @dev Only so can more be locked than is staked; nothing new is locked or unstaked then.
    function test_SlashReachesLockedStake() public {
        _lock(_STAKE);
        vm.prank(address(court));
        registry.slash(provider, 1);
        assertEq(_entry().locked, _STAKE);
        assertEq(_entry().staked, _STAKE - 1);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistry_AboveFreeStake.selector, 1, 0));
        _lock(1);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistry_AboveStake.selector, 1, 0));
        vm.prank(provider);
        registry.requestUnstake(1);
        vm.prank(address(escrow));
        registry.unlock(provider, _STAKE);
        assertEq(_entry().locked, 0);
    }

    function test_SlashOfAStrangerTakesNothing() public {
        vm.prank(address(court));
        assertEq(registry.slash(stranger, type(uint256).max), 0);
        assertEq(registry.slashed(), 0);
    }

    function test_SlashTakesNothingOfAnotherProvider() public {
        _fund(stranger);
        _serve(stranger, nodeKey.addr, settler);
        vm.prank(address(court));
        registry.slash(provider, type(uint256).max);
        assertEq(registry.provider(stranger).staked, _STAKE);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_SlashAndReleaseAreForTheCourtOnly(address caller) public {
        vm.assume(caller != address(court));
        bytes memory reason =
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_NotCourt.selector, caller, address(court));
        vm.startPrank(caller);
        vm.expectRevert(reason);
        registry.slash(provider, 0);
        vm.expectRevert(reason);
        registry.release(caller, 0);
    }

    /* RELEASED */

    function testFuzz_ReleasePaysOnlyWhatWasSlashed(uint64 taken, uint128 paid) public {
        taken = uint64(bound(taken, 1, _STAKE));
        paid = uint128(bound(paid, 0, taken));
        vm.startPrank(address(court));
        registry.slash(provider, taken);
        vm.expectRevert(stdError.arithmeticError);
        registry.release(stranger, taken + 1);
        vm.expectEmit(address(registry));
        emit INodeRegistry.SlashedReleased(stranger, paid);
        registry.release(stranger, paid);
        assertEq(token.balanceOf(stranger), paid);
        assertEq(registry.slashed(), taken - paid);
    }

    function testFuzz_StakeThatWasSlashedNeverComesBackToItsOwner(uint64 taken) public {
        taken = uint64(bound(taken, 1, _STAKE - 1));
        vm.prank(address(court));
        registry.slash(provider, taken);
        vm.startPrank(provider);
        registry.requestUnstake(_STAKE - taken);
        vm.warp(START + UNSTAKE_DELAY);
        registry.withdrawStake();
        assertEq(token.balanceOf(address(registry)), taken);
        assertEq(token.balanceOf(provider), FUNDS - taken);
    }

    function _lock(uint64 amount) private {
        vm.prank(address(escrow));
        registry.lock(provider, amount);
    }

    function _entry() private view returns (Provider memory) {
        return registry.provider(provider);
    }
}
