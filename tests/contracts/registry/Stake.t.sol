// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {INodeRegistry, Provider} from "../../../contracts/interfaces/INodeRegistry.sol";
import {FeeToken} from "../../../contracts/mocks/FeeToken.sol";
import {Fixture} from "../support/Fixture.sol";

contract StakeTest is Fixture {
    function testFuzz_StakeAddsExactlyWhatArrives(uint128 amount) public {
        amount = uint128(bound(amount, 1, FUNDS - MIN_STAKE));
        vm.expectEmit(address(registry));
        emit INodeRegistry.Staked(provider, amount, MIN_STAKE + amount);
        vm.prank(provider);
        registry.stake(amount);
        assertEq(registry.provider(provider).staked, MIN_STAKE + amount);
        assertEq(token.balanceOf(address(registry)), MIN_STAKE + amount);
    }

    function test_StakeRefusesZero() public {
        vm.expectRevert(INodeRegistry.NodeRegistry_ZeroAmount.selector);
        vm.prank(provider);
        registry.stake(0);
    }

    function test_StakeRefusesFeeOnTransferTokens() public {
        FeeToken feeToken = new FeeToken();
        address registryAt = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        address fresh = address(_deployEscrow(address(feeToken), registryAt, treasury, MAX_SESSION));
        INodeRegistry other = _deployRegistry(address(feeToken), fresh, UNSTAKE_DELAY);
        feeToken.faucet(address(this), 100);
        feeToken.approve(address(other), 100);
        other.register("");
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistry_WrongDelta.selector, 99, 100));
        other.stake(100);
    }

    function testFuzz_UnstakeMovesStakeIntoTheDelayAndOut(uint128 staked, uint128 amount) public {
        staked = uint128(bound(staked, 1, FUNDS - MIN_STAKE)) + MIN_STAKE;
        amount = uint128(bound(amount, 1, staked));
        vm.startPrank(provider);
        registry.stake(staked - MIN_STAKE);
        vm.expectEmit(address(registry));
        emit INodeRegistry.UnstakeRequested(provider, amount, START + UNSTAKE_DELAY);
        registry.requestUnstake(amount);
        Provider memory entry = registry.provider(provider);
        assertEq(entry.staked, staked - amount);
        assertEq(entry.unstaking, amount);
        (bool ok,) = registry.serving(nodeId);
        assertEq(ok, staked - amount >= MIN_STAKE);

        vm.warp(START + UNSTAKE_DELAY - 1);
        vm.expectRevert(
            abi.encodeWithSelector(
                INodeRegistry.NodeRegistry_TooEarly.selector, START + UNSTAKE_DELAY - 1, START + UNSTAKE_DELAY
            )
        );
        registry.withdrawStake();
        vm.warp(START + UNSTAKE_DELAY);
        vm.expectEmit(address(registry));
        emit INodeRegistry.StakeWithdrawn(provider, amount);
        registry.withdrawStake();
        assertEq(token.balanceOf(address(registry)), staked - amount);
        assertEq(token.balanceOf(provider), FUNDS - staked + amount);
        entry = registry.provider(provider);
        assertEq(entry.unstaking, 0);
        assertEq(entry.unstakeAt, 0);
    }

    function test_UnstakeTwiceSumsAndRestartsTheDelay() public {
        vm.startPrank(provider);
        registry.requestUnstake(10);
        vm.warp(START + 1 days);
        registry.requestUnstake(5);
        Provider memory entry = registry.provider(provider);
        assertEq(entry.unstaking, 15);
        assertEq(entry.unstakeAt, START + 1 days + UNSTAKE_DELAY);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_UnstakeRefusesMoreThanIsStaked(uint128 amount) public {
        amount = uint128(bound(amount, MIN_STAKE + 1, type(uint128).max));
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistry_AboveStake.selector, amount, MIN_STAKE));
        vm.prank(provider);
        registry.requestUnstake(amount);
    }

    function test_UnstakeRefusesZero() public {
        vm.expectRevert(INodeRegistry.NodeRegistry_ZeroAmount.selector);
        vm.prank(provider);
        registry.requestUnstake(0);
    }

    function test_WithdrawStakeNeedsARequestAndPaysOnce() public {
        bytes memory nothing =
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_NothingUnstaking.selector, provider);
        vm.startPrank(provider);
        vm.expectRevert(nothing);
        registry.withdrawStake();
        registry.requestUnstake(10);
        vm.warp(START + UNSTAKE_DELAY);
        registry.withdrawStake();
        vm.expectRevert(nothing);
        registry.withdrawStake();
    }
}
