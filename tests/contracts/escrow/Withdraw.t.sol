// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {BlocklistToken} from "../../../contracts/mocks/BlocklistToken.sol";
import {HookToken} from "../../../contracts/mocks/HookToken.sol";
import {Reentrant} from "../../../contracts/mocks/Reentrant.sol";
import {Fixture} from "../support/Fixture.sol";

contract WithdrawTest is Fixture {
    function testFuzz_WithdrawPaysFromTheCallersAccountOnly(uint128 amount, uint128 taken) public {
        amount = uint128(bound(amount, 1, FUNDS));
        taken = uint128(bound(taken, 1, amount));
        _deposit(amount);
        vm.expectEmit(address(escrow));
        emit IEscrow.Withdrawn(buyer.addr, stranger, taken);
        vm.prank(buyer.addr);
        escrow.withdraw(taken, stranger);
        assertEq(escrow.accountOf(buyer.addr), amount - taken);
        assertEq(token.balanceOf(stranger), taken);
        assertEq(token.balanceOf(address(escrow)), amount - taken);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_WithdrawRefusesMoreThanTheAccount(uint128 amount, uint128 taken) public {
        amount = uint128(bound(amount, 1, FUNDS));
        taken = uint128(bound(taken, amount + 1, type(uint128).max));
        _deposit(amount);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_AboveAccount.selector, taken, amount));
        vm.prank(buyer.addr);
        escrow.withdraw(taken, buyer.addr);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_WithdrawByAStrangerFindsNothing(address caller, uint128 taken) public {
        vm.assume(caller != buyer.addr);
        taken = uint128(bound(taken, 1, FUNDS));
        _deposit(FUNDS);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_AboveAccount.selector, taken, 0));
        vm.prank(caller);
        escrow.withdraw(taken, stranger);
    }

    function test_WithdrawRefusesZero() public {
        vm.expectRevert(IEscrow.Escrow_ZeroAmount.selector);
        vm.prank(buyer.addr);
        escrow.withdraw(0, buyer.addr);
    }

    function test_WithdrawRefusesReceiversThatWouldLoseIt() public {
        _deposit(10);
        vm.startPrank(buyer.addr);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongAddress.selector, address(0)));
        escrow.withdraw(10, address(0));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongAddress.selector, address(escrow)));
        escrow.withdraw(10, address(escrow));
    }

    function test_WithdrawTwiceFromInsideTheTransferPaysTwiceOnlyWhatIsThere() public {
        HookToken hook = new HookToken();
        IEscrow other = _escrowOf(address(hook));
        Reentrant thief = new Reentrant(hook);
        hook.faucet(address(this), 100);
        hook.approve(address(other), 100);
        other.deposit(100);
        hook.faucet(address(thief), 50);
        thief.act(address(hook), abi.encodeCall(IERC20.approve, (address(other), 50)));
        thief.act(address(other), abi.encodeCall(IEscrow.deposit, (50)));

        thief.arm(address(other), abi.encodeCall(IEscrow.withdraw, (50, address(thief))));
        thief.act(address(other), abi.encodeCall(IEscrow.withdraw, (50, address(thief))));
        assertFalse(thief.reentered());
        assertEq(thief.answer(), abi.encodeWithSelector(IEscrow.Escrow_AboveAccount.selector, 50, 0));
        assertEq(hook.balanceOf(address(other)), 100);
        assertEq(hook.balanceOf(address(thief)), 50);
    }

    function test_WithdrawToARefusedReceiverBlocksNobodyElse() public {
        BlocklistToken list = new BlocklistToken();
        IEscrow other = _escrowOf(address(list));
        list.faucet(address(this), 100);
        list.approve(address(other), 100);
        other.deposit(100);
        list.blockAccount(stranger);
        vm.expectRevert(abi.encodeWithSelector(BlocklistToken.BlocklistToken_Blocked.selector, stranger));
        other.withdraw(40, stranger);
        other.withdraw(100, settler);
        assertEq(list.balanceOf(settler), 100);
    }

    function _escrowOf(address other) private returns (IEscrow) {
        return _deployEscrow(other, address(registry), treasury, MAX_SESSION);
    }
}
