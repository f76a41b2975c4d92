// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {IReceiver} from "../../../contracts/interfaces/IReceiver.sol";
import {ITill} from "../../../contracts/interfaces/ITill.sol";
import {Open} from "../../../contracts/types/Messages.sol";
import {Payment, Quotes} from "../../../contracts/types/Quotes.sol";
import {TillFixture} from "../support/TillFixture.sol";
import {Wallet} from "../support/Wallet.sol";

/// @title pay
contract PayTest is TillFixture {
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
        till.pay(quote, payment);
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

    function test_ReceiverOpensNoOtherSession() public {
        till.pay(quote, _payment(buyer, "nonce"));
        vm.warp(_end());
        Open[] memory ended = new Open[](1);
        ended[0] = _sessionTerms();
        escrow.expire(ended);
        Open memory other = _sessionTerms();
        (other.salt, other.openBefore, other.expiresAt) = (0, uint48(_end() + 60), uint48(_end() + 60));
        bytes memory byKey = _signOpen(key, other);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_KeyExpired.selector, _end(), 0));
        escrow.openOneSession(other, byKey);
        bytes memory byPayer = _signOpen(buyer, other);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, buyer.addr, receiver));
        escrow.openOneSession(other, byPayer);
    }

    function test_ReceiverObeysItsTillOnly() public {
        till.pay(quote, _payment(buyer, "nonce"));
        bytes memory reason =
            abi.encodeWithSelector(IReceiver.Receiver_NotTill.selector, address(this), address(till));
        vm.expectRevert(reason);
        IReceiver(receiver).withdraw(stranger);
        vm.expectRevert(reason);
        IReceiver(receiver).giveBack(stranger, 1);
        vm.expectRevert(reason);
        IReceiver(receiver).open(_sessionTerms());
    }

    /// @dev Whatever a quote says is part of its address, and of its session's id.
    function test_ReceiverFollowsFromEveryFieldOfItsQuote() public {
        address[9] memory seen;
        seen[0] = receiver;
        ++quote.nodeId;
        seen[1] = till.receiverOf(quote);
        quote.offerHash = 0;
        seen[2] = till.receiverOf(quote);
        quote.requestHash = 0;
        seen[3] = till.receiverOf(quote);
        quote.key = stranger;
        seen[4] = till.receiverOf(quote);
        ++quote.amount;
        seen[5] = till.receiverOf(quote);
        ++quote.payBefore;
        seen[6] = till.receiverOf(quote);
        ++quote.expiresAt;
        seen[7] = till.receiverOf(quote);
        quote.salt = 0;
        seen[8] = till.receiverOf(quote);
        for (uint256 i = 0; i < seen.length; ++i) {
            for (uint256 j = 0; j < i; ++j) {
                assertNotEq(seen[i], seen[j]);
            }
        }
    }

    function test_TillNamesItsEscrowTokenAndReceiver() public view {
        assertEq(address(till.ESCROW()), address(escrow));
        assertEq(address(till.TOKEN()), address(token));
        assertEq(till.RECEIVER().TILL(), address(till));
        assertEq(till.RECOVERY_SECONDS(), 1 days);
    }
}
