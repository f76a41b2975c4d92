// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {IEscrow} from "./../../../contracts/interfaces/IEscrow.sol";
import {FalseToken} from "./../../../contracts/mocks/FalseToken.sol";
import {FeeToken} from "./../../../contracts/mocks/FeeToken.sol";
import {HookToken} from "./../../../contracts/mocks/HookToken.sol";
import {Reentrant} from "./../../../contracts/mocks/Reentrant.sol";
import {SilentToken} from "./../../../contracts/mocks/SilentToken.sol";
import {Fixture} from "./../support/Fixture.sol";

contract DepositTest is Fixture {
    function testFuzz_DepositCreditsExactlyWhatArrives(uint128 first, uint128 second) public {
        first = uint128(bound(first, 1, FUNDS - 1));
        second = uint128(bound(second, 1, FUNDS - first));
        _deposit(first);
        vm.expectEmit(address(escrow));
        emit IEscrow.Deposited(buyer.addr, second);
        _deposit(second);
        assertEq(escrow.accountOf(buyer.addr), first + second);
        assertEq(token.balanceOf(address(escrow)), first + second);
        assertEq(token.balanceOf(buyer.addr), FUNDS - first - second);
    }

    function test_DepositRefusesZero() public {
        vm.expectRevert(IEscrow.Escrow_ZeroAmount.selector);
        _deposit(0);
    }

    function test_DepositRefusesMoreThanTheCallerHas() public {
        vm.expectRevert();
        _deposit(FUNDS + 1);
    }

    function test_DonatedTokensMoveNoAccount() public {
        vm.prank(buyer.addr);
        token.transfer(address(escrow), 5);
        _deposit(7);
        assertEq(escrow.accountOf(buyer.addr), 7);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_AboveAccount.selector, 8, 7));
        vm.prank(buyer.addr);
        escrow.withdraw(8, buyer.addr);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_DepositRefusesFeeOnTransferTokens(uint128 amount) public {
        amount = uint128(bound(amount, 1, FUNDS));
        FeeToken feeToken = new FeeToken();
        IEscrow other = _escrowOf(address(feeToken));
        feeToken.faucet(address(this), amount);
        feeToken.approve(address(other), amount);
        uint256 arrives = amount - (uint256(amount) + 99) / 100;
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongDelta.selector, arrives, amount));
        other.deposit(amount);
    }

    function test_DepositRefusesTokensThatSayNo() public {
        FalseToken falseToken = new FalseToken();
        IEscrow other = _escrowOf(address(falseToken));
        falseToken.faucet(address(this), 10);
        vm.expectRevert(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(falseToken)));
        other.deposit(10);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_DepositAndWithdrawTakeTokensThatReturnNothing(uint128 amount) public {
        amount = uint128(bound(amount, 1, FUNDS));
        SilentToken silent = new SilentToken();
        IEscrow other = _escrowOf(address(silent));
        silent.faucet(address(this), amount);
        other.deposit(amount);
        assertEq(other.accountOf(address(this)), amount);
        other.withdraw(amount, stranger);
        assertEq(silent.balanceOf(stranger), amount);
    }

    function test_DepositCannotBeWithdrawnBeforeItIsPaidFor() public {
        (IEscrow other, HookToken hook, Reentrant thief) = _hooked();
        hook.faucet(address(this), 100);
        hook.approve(address(other), 100);
        other.deposit(100);
        thief.arm(address(other), abi.encodeCall(IEscrow.withdraw, (50, address(thief))));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongDelta.selector, 0, 50));
        thief.act(address(other), abi.encodeCall(IEscrow.deposit, (50)));
        assertEq(hook.balanceOf(address(thief)), 50);
    }

    function test_DepositInsideADepositIsRefused() public {
        (IEscrow other,, Reentrant thief) = _hooked();
        thief.arm(address(other), abi.encodeCall(IEscrow.deposit, (20)));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongDelta.selector, 50, 30));
        thief.act(address(other), abi.encodeCall(IEscrow.deposit, (30)));
    }

    function _hooked() private returns (IEscrow other, HookToken hook, Reentrant thief) {
        hook = new HookToken();
        other = _escrowOf(address(hook));
        thief = new Reentrant(hook);
        hook.faucet(address(thief), 50);
        thief.act(address(hook), abi.encodeCall(IERC20.approve, (address(other), type(uint256).max)));
    }

    function _escrowOf(address other) private returns (IEscrow) {
        return _deployEscrow(other, address(registry), treasury, MAX_SESSION);
    }
}
