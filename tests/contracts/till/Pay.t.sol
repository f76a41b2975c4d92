// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {ITill} from "../../../contracts/interfaces/ITill.sol";
import {Payment, Quotes} from "../../../contracts/types/Quotes.sol";
import {TillFixture} from "../support/TillFixture.sol";
import {Wallet} from "../support/Wallet.sol";

/// @title pay
contract PayTest is TillFixture {
    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_PaymentOpensTheQuotesSessionWhoeverSends(address sender, bytes32 nonce) public {
        vm.expectEmit(address(till));
        emit ITill.Paid(receiver, buyer.addr, Quotes.hash(quote), PRICE);
        vm.prank(sender);
        till.pay(quote, _payment(buyer, nonce));
        assertEq(till.payerOf(receiver), buyer.addr);
        assertEq(_held(sessionId).deposited, PRICE);
        assertEq(_held(sessionId).nodeId, nodeId);
        assertEq(_balance(buyer), FUNDS - PRICE);
        assertEq(escrow.accountOf(receiver) + token.balanceOf(receiver), 0);
        assertEq(token.allowance(receiver, address(escrow)), 0);
    }

    function test_PaymentOfAContractWalletIsInBytes() public {
        Wallet wallet = new Wallet(buyer.addr);
        _mint(address(wallet), PRICE);
        till.pay(quote, _payment(buyer, address(wallet), PRICE, "nonce"));
        assertEq(till.payerOf(receiver), address(wallet));
        assertEq(_held(sessionId).deposited, PRICE);
    }

    function test_PaymentRepeatedChangesNothing() public {
        Payment memory payment = _payment(buyer, "nonce");
        till.pay(quote, payment);
        vm.recordLogs();
        till.pay(quote, payment);
        assertEq(vm.getRecordedLogs().length, 0);
        assertEq(_balance(buyer), FUNDS - PRICE);
    }

    function test_PaymentASecondTimeByTheSamePayerIsLeftUnused() public {
        till.pay(quote, _payment(buyer, "nonce"));
        till.pay(quote, _payment(buyer, "another nonce"));
        assertEq(_balance(buyer), FUNDS - PRICE);
    }

    function test_PaymentBySomebodyElseAfterwardsIsRefused() public {
        till.pay(quote, _payment(buyer, "nonce"));
        Payment memory payment = _payment(thief, "nonce");
        vm.expectRevert(abi.encodeWithSelector(ITill.Till_PaidAlready.selector, receiver, buyer.addr));
        till.pay(quote, payment);
    }

    function test_PaymentOfAnotherAmountIsRefused() public {
        Payment memory payment = _payment(buyer, PRICE + 1, "nonce");
        vm.expectRevert(abi.encodeWithSelector(ITill.Till_WrongAmount.selector, PRICE + 1, PRICE));
        till.pay(quote, payment);
    }

    /// @dev Refused as it is, by the form for signatures in bytes, and not cut to length.
    function test_PaymentWithAnOverlongSignatureIsRefused() public {
        Payment memory payment = _payment(buyer, "nonce");
        payment.signature = bytes.concat(payment.signature, hex"00");
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        till.pay(quote, payment);
    }

    function test_PaymentSignedBySomebodyElseIsRefused() public {
        Payment memory payment = _payment(thief, buyer.addr, PRICE, "nonce");
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        till.pay(quote, payment);
    }

    /// @dev The attempt also leaves nothing behind: the payer can still pay.
    function test_PaymentOfACancelledAuthorizationIsRefused() public {
        _cancel(buyer, "nonce");
        Payment memory payment = _payment(buyer, "nonce");
        vm.expectRevert(
            abi.encodeWithSelector(ERC3009.ERC3009UsedAuthorization.selector, buyer.addr, bytes32("nonce"))
        );
        till.pay(quote, payment);
        assertEq(till.payerOf(receiver), address(0));
        till.pay(quote, _payment(buyer, "another nonce"));
    }

    function test_PaymentForAnotherQuoteIsRefused() public {
        Payment memory payment = _payment(buyer, "nonce");
        quote.requestHash = keccak256("another request");
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        till.pay(quote, payment);
    }

    function test_PaymentFromPayBeforeOnIsRefusedAndTakesNothing() public {
        vm.warp(quote.payBefore);
        Payment memory payment = _payment(buyer, "nonce");
        vm.expectRevert(
            abi.encodeWithSelector(IEscrow.Escrow_OpenedTooLate.selector, quote.payBefore, quote.payBefore)
        );
        till.pay(quote, payment);
        assertEq(_balance(buyer), FUNDS);
    }

    function test_PaymentForANodeThatDoesNotServeTakesNothing() public {
        vm.prank(provider);
        registry.requestUnstake(1);
        Payment memory payment = _payment(buyer, "nonce");
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NotServing.selector, nodeId));
        till.pay(quote, payment);
        assertEq(_balance(buyer), FUNDS);
        assertEq(till.payerOf(receiver), address(0));
    }

    function test_PaymentAtATokenThatMovesNothingIsRefused() public {
        string memory plain =
            "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)";
        vm.mockCall(address(token), abi.encodeWithSelector(bytes4(keccak256(bytes(plain)))), "");
        Payment memory payment = _payment(buyer, "nonce");
        vm.expectRevert(abi.encodeWithSelector(ITill.Till_WrongDelta.selector, 0, PRICE));
        till.pay(quote, payment);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_PaymentOfAnyAmountOpensExactlyThat(uint128 amount) public {
        amount = uint128(bound(amount, 1, FUNDS));
        _quoteAnew(amount);
        till.pay(quote, _payment(buyer, amount, "nonce"));
        assertEq(_held(sessionId).deposited, amount);
        assertEq(_balance(buyer), FUNDS - amount);
        assertEq(escrow.accountOf(receiver) + token.balanceOf(receiver), 0);
    }

    function test_PaymentOfNothingOrTooMuchIsRefusedAndTakesNothing() public {
        _quoteAnew(0);
        Payment memory payment = _payment(buyer, 0, "nonce");
        vm.expectRevert(IEscrow.Escrow_ZeroAmount.selector);
        till.pay(quote, payment);
        uint128 limit = type(uint64).max;
        _quoteAnew(limit + 1);
        deal(address(token), buyer.addr, limit + 1);
        payment = _payment(buyer, limit + 1, "nonce");
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_AmountTooLarge.selector, limit + 1, limit));
        till.pay(quote, payment);
        assertEq(_balance(buyer), limit + 1);
    }

    /// @dev What lay there before, from whomever, does not count as paid, and stays.
    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_PaymentLeavesWhatLayThereBefore(uint64 gift) public {
        deal(address(token), receiver, gift);
        till.pay(quote, _payment(buyer, "nonce"));
        assertEq(_balance(buyer), FUNDS - PRICE);
        assertEq(token.balanceOf(receiver), gift);
        assertEq(_held(sessionId).deposited, PRICE);
    }

    function _quoteAnew(uint128 amount) private {
        quote.amount = amount;
        (receiver, sessionId) = (till.receiverOf(quote), till.sessionIdOf(quote));
    }
}
