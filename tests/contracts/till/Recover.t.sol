// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ITill} from "../../../contracts/interfaces/ITill.sol";
import {Payment} from "../../../contracts/types/Quotes.sol";
import {TillFixture} from "../support/TillFixture.sol";
import {Wallet} from "../support/Wallet.sol";

/// @title recover: tokens that were pushed into a receiver and opened no session
contract RecoverTest is TillFixture {
    Payment private _pushed;

    function setUp() public override {
        super.setUp();
        _pushed = _payment(buyer, "nonce");
        _push(_pushed);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_RecoveryGoesToWhomTheKeyNamesWhoeverSends(address sender) public {
        vm.warp(quote.payBefore);
        vm.expectEmit(address(till));
        emit ITill.Recovered(receiver, buyer.addr, PRICE);
        vm.prank(sender);
        assertEq(till.recover(quote, _pushed, _named(key, _pushed)), PRICE);
        assertEq(_balance(buyer), FUNDS);
        assertEq(till.payerOf(receiver), address(0));
    }

    /// @dev The gateway is gone for good: the payer alone gets everything back.
    function test_RecoveryNeedsNoKeyAfterADay() public {
        vm.warp(quote.payBefore + till.RECOVERY_SECONDS());
        till.recover(quote, _pushed, "");
        assertEq(_balance(buyer), FUNDS);
    }

    function test_RecoveryNeedsTheKeyBeforeThat() public {
        vm.warp(quote.payBefore + till.RECOVERY_SECONDS() - 1);
        vm.expectRevert(abi.encodeWithSelector(ITill.Till_WrongKey.selector, address(0), key.addr));
        till.recover(quote, _pushed, "");
    }

    function test_RecoveryIsNotForWhoeverCancelledAnother() public {
        _cancel(thief, "nonce");
        Payment memory posed = _payment(thief, "nonce");
        bytes memory named = _named(key, _pushed);
        vm.warp(quote.payBefore);
        vm.expectPartialRevert(ITill.Till_WrongKey.selector);
        till.recover(quote, posed, named);
    }

    /// @dev Front-running: the thief pushes the buyer's payment, pays the quote itself, and wants both back.
    function test_RecoveryIsNotForWhoeverPaidTheQuote() public {
        Payment memory own = _payment(thief, "nonce");
        till.pay(quote, own);
        vm.warp(_end() + till.RECOVERY_SECONDS());
        assertEq(till.recover(quote, own, ""), 0);
        till.refund(quote);
        assertEq(_balance(thief), FUNDS);
        till.recover(quote, _pushed, "");
        assertEq(_balance(buyer), FUNDS);
    }

    function test_RecoveryIsNotForAPushedPaymentThatOpenedTheSession() public {
        bytes memory named = _named(key, _pushed);
        till.payPushed(quote, _pushed, named);
        Payment memory second = _payment(thief, "nonce");
        _push(second);
        vm.warp(quote.payBefore);
        assertEq(till.recover(quote, _pushed, named), 0);
        assertEq(token.balanceOf(receiver), PRICE);
    }

    function test_RecoveryWaitsUntilNoSessionCanOpen() public {
        vm.warp(quote.payBefore - 1);
        bytes memory named = _named(key, _pushed);
        vm.expectRevert(abi.encodeWithSelector(ITill.Till_TooEarly.selector, quote.payBefore - 1, quote.payBefore));
        till.recover(quote, _pushed, named);
    }

    function test_RecoveryWorksOncePerAuthorization() public {
        _push(_payment(thief, "nonce"));
        vm.warp(quote.payBefore);
        till.recover(quote, _pushed, _named(key, _pushed));
        assertEq(till.recover(quote, _pushed, _named(key, _pushed)), 0);
        assertEq(_balance(buyer), FUNDS);
        assertEq(token.balanceOf(receiver), PRICE);
    }

    function test_RecoveryGivesEachWhatItSigned() public {
        Payment memory less = _payment(thief, 300, "nonce");
        Payment memory more = _payment(thief, PRICE + 300, "another nonce");
        _push(less);
        _push(more);
        vm.warp(quote.payBefore);
        assertEq(till.recover(quote, less, _named(key, less)), 300);
        assertEq(till.recover(quote, more, _named(key, more)), PRICE + 300);
        assertEq(till.recover(quote, _pushed, _named(key, _pushed)), PRICE);
        assertEq(token.balanceOf(receiver), 0);
    }

    function test_RecoveryFromAnEmptyReceiverIsNothingAndCanBeRepeated() public {
        quote.salt = 0;
        receiver = till.receiverOf(quote);
        _cancel(buyer, "another nonce");
        Payment memory payment = _payment(buyer, "another nonce");
        vm.warp(quote.payBefore);
        assertEq(till.recover(quote, payment, _named(key, payment)), 0);
        _mint(receiver, PRICE);
        assertEq(till.recover(quote, payment, _named(key, payment)), PRICE);
    }

    function test_RecoveryOfAnUnusedAuthorizationIsRefused() public {
        Payment memory payment = _payment(thief, "nonce");
        bytes memory named = _named(key, payment);
        vm.warp(quote.payBefore);
        vm.expectRevert(abi.encodeWithSelector(ITill.Till_NotUsed.selector, thief.addr, bytes32("nonce")));
        till.recover(quote, payment, named);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_RecoverySendsAtMostWhatWasSignedAndWhatIsThere(uint96 signed, uint96 there) public {
        quote.salt = 0;
        receiver = till.receiverOf(quote);
        Payment memory payment = _payment(buyer, signed, "another nonce");
        _cancel(buyer, "another nonce");
        deal(address(token), receiver, there);
        vm.warp(quote.payBefore);
        uint256 before = _balance(buyer);
        uint256 sent = till.recover(quote, payment, _named(key, payment));
        assertEq(sent, signed < there ? signed : there);
        assertEq(_balance(buyer), before + sent);
        assertEq(token.balanceOf(receiver), there - sent);
    }

    function test_RecoveryOfAContractWalletCounts() public {
        Wallet wallet = new Wallet(buyer.addr);
        _mint(address(wallet), PRICE);
        Payment memory payment = _payment(buyer, address(wallet), PRICE, "nonce");
        _push(payment);
        vm.warp(quote.payBefore);
        till.recover(quote, payment, _named(key, payment));
        assertEq(token.balanceOf(address(wallet)), PRICE);
    }

    function test_RecoveryInTheNameOfSomebodyElseIsRefused() public {
        Payment memory payment = _payment(thief, buyer.addr, PRICE, "nonce");
        bytes memory named = _named(key, payment);
        vm.warp(quote.payBefore);
        vm.expectRevert(abi.encodeWithSelector(ITill.Till_WrongSignature.selector, buyer.addr));
        till.recover(quote, payment, named);
    }

    /// @dev A payer's second authorization is another one, whatever paid the quote.
    function test_RecoveryGivesThePayersOtherTransferBack() public {
        till.pay(quote, _payment(buyer, "another nonce"));
        vm.warp(quote.payBefore);
        assertEq(till.recover(quote, _pushed, _named(key, _pushed)), PRICE);
        assertEq(_balance(buyer), FUNDS - PRICE);
    }

    /// @dev One can be signed for several receivers; each keeps its own books.
    function test_RecoveryAtOneReceiverIsNoneAtAnother() public {
        vm.warp(quote.payBefore);
        till.recover(quote, _pushed, _named(key, _pushed));
        quote.salt = 0;
        receiver = till.receiverOf(quote);
        _mint(receiver, PRICE);
        Payment memory other = _payment(buyer, "nonce");
        assertEq(till.recover(quote, other, _named(key, other)), PRICE);
    }
}
