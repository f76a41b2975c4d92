// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {ITill} from "../../../contracts/interfaces/ITill.sol";
import {Payment, Quotes} from "../../../contracts/types/Quotes.sol";
import {TillFixture} from "../support/TillFixture.sol";
import {Wallet} from "../support/Wallet.sol";

/// @title payPushed: somebody sent the authorization to the token first
contract PushedTest is TillFixture {
    function test_PushedPaymentOpensTheSessionOfWhomTheKeyNames() public {
        Payment memory payment = _payment(buyer, "nonce");
        _push(payment);
        vm.expectRevert(
            abi.encodeWithSelector(ERC3009.ERC3009UsedAuthorization.selector, buyer.addr, bytes32("nonce"))
        );
        till.pay(quote, payment);
        bytes memory named = _named(key, payment);
        vm.expectEmit(address(till));
        emit ITill.Paid(receiver, buyer.addr, Quotes.hash(quote), PRICE);
        till.payPushed(quote, payment, named);
        assertEq(till.payerOf(receiver), buyer.addr);
        assertEq(_held(sessionId).deposited, PRICE);
        assertEq(token.balanceOf(receiver), 0);
    }

    function test_PushedPaymentOfAContractWalletCounts() public {
        Wallet wallet = new Wallet(buyer.addr);
        _mint(address(wallet), PRICE);
        Payment memory payment = _payment(buyer, address(wallet), PRICE, "nonce");
        _push(payment);
        till.payPushed(quote, payment, _named(key, payment));
        assertEq(till.payerOf(receiver), address(wallet));
    }

    function test_PushedPaymentRepeatedChangesNothing() public {
        Payment memory payment = _payment(buyer, "nonce");
        bytes memory named = _named(key, payment);
        _push(payment);
        till.payPushed(quote, payment, named);
        vm.recordLogs();
        till.payPushed(quote, payment, named);
        assertEq(vm.getRecordedLogs().length, 0);
        assertEq(_held(sessionId).deposited, PRICE);
    }

    function test_PushedPaymentWithoutTheKeysWordIsRefused() public {
        Payment memory payment = _payment(buyer, "nonce");
        _push(payment);
        bytes memory named = _named(thief, payment);
        vm.expectRevert(abi.encodeWithSelector(ITill.Till_WrongKey.selector, thief.addr, key.addr));
        till.payPushed(quote, payment, named);
        vm.expectRevert(abi.encodeWithSelector(ITill.Till_WrongKey.selector, address(0), key.addr));
        till.payPushed(quote, payment, "");
    }

    /// @dev A cancelled authorization looks used; the key has seen that no token moved.
    function test_PushedPaymentIsNotCreditedToWhoeverCancelledAnother() public {
        _push(_payment(buyer, "nonce"));
        _cancel(thief, "nonce");
        Payment memory posed = _payment(thief, "nonce");
        bytes memory forOther = _named(key, _payment(buyer, "nonce"));
        vm.expectPartialRevert(ITill.Till_WrongKey.selector);
        till.payPushed(quote, posed, forOther);
    }

    function test_PushedPaymentThatIsNotUsedIsRefused() public {
        Payment memory payment = _payment(buyer, "nonce");
        bytes memory named = _named(key, payment);
        vm.expectRevert(abi.encodeWithSelector(ITill.Till_NotUsed.selector, buyer.addr, bytes32("nonce")));
        till.payPushed(quote, payment, named);
    }

    function test_PushedPaymentSignedBySomebodyElseIsRefused() public {
        _push(_payment(buyer, "nonce"));
        Payment memory payment = _payment(thief, buyer.addr, PRICE, "nonce");
        bytes memory named = _named(key, payment);
        vm.expectRevert(abi.encodeWithSelector(ITill.Till_WrongSignature.selector, buyer.addr));
        till.payPushed(quote, payment, named);
    }

    function test_PushedPaymentOfAnotherAmountIsRefused() public {
        Payment memory payment = _payment(buyer, PRICE - 1, "nonce");
        _push(payment);
        bytes memory named = _named(key, payment);
        vm.expectRevert(abi.encodeWithSelector(ITill.Till_WrongAmount.selector, PRICE - 1, PRICE));
        till.payPushed(quote, payment, named);
    }

    function test_PushedPaymentThatNeverArrivedOpensNothing() public {
        _cancel(buyer, "nonce");
        Payment memory payment = _payment(buyer, "nonce");
        bytes memory named = _named(key, payment);
        vm.expectRevert(
            abi.encodeWithSelector(IERC20Errors.ERC20InsufficientBalance.selector, receiver, 0, PRICE)
        );
        till.payPushed(quote, payment, named);
    }

    function test_PushedPaymentAfterSomebodyElsePaidIsRefused() public {
        Payment memory payment = _payment(buyer, "nonce");
        _push(payment);
        till.pay(quote, _payment(thief, "nonce"));
        bytes memory named = _named(key, payment);
        vm.expectRevert(abi.encodeWithSelector(ITill.Till_PaidAlready.selector, receiver, thief.addr));
        till.payPushed(quote, payment, named);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_PushedPaymentLeavesWhatElseLiesThere(uint64 gift) public {
        Payment memory payment = _payment(buyer, "nonce");
        _push(payment);
        deal(address(token), receiver, uint256(PRICE) + gift);
        till.payPushed(quote, payment, _named(key, payment));
        assertEq(_held(sessionId).deposited, PRICE);
        assertEq(token.balanceOf(receiver), gift);
    }

    function test_PushedPaymentOfAnotherNonceIsNotWhatTheKeyNamed() public {
        _push(_payment(buyer, "nonce"));
        _push(_payment(buyer, "another nonce"));
        Payment memory other = _payment(buyer, "another nonce");
        bytes memory named = _named(key, _payment(buyer, "nonce"));
        vm.expectPartialRevert(ITill.Till_WrongKey.selector);
        till.payPushed(quote, other, named);
    }

    function test_PushedPaymentToAQuoteWithoutAKeyIsRefused() public {
        quote.key = address(0);
        receiver = till.receiverOf(quote);
        Payment memory payment = _payment(buyer, "nonce");
        _push(payment);
        vm.expectRevert(abi.encodeWithSelector(ITill.Till_WrongKey.selector, address(0), address(0)));
        till.payPushed(quote, payment, "");
    }
}
