// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ITill} from "../../../contracts/interfaces/ITill.sol";
import {Evidence} from "../../../contracts/types/Cases.sol";
import {SignedReceipt} from "../../../contracts/types/Claims.sol";
import {Payment} from "../../../contracts/types/Quotes.sol";
import {TillAttack} from "../attacks/TillAttack.sol";

/// @title refund
contract RefundTest is TillAttack {
    function setUp() public override {
        super.setUp();
        till.pay(quote, _payment(buyer, "nonce"));
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_RefundSendsWhatTheJobLeftToThePayer(address sender, uint128 cost) public {
        cost = uint128(bound(cost, 1, PRICE - 1));
        _settleOne(sessionId, 1, cost);
        vm.warp(_end());
        vm.expectEmit(address(till));
        emit ITill.Refunded(receiver, buyer.addr, PRICE - cost);
        vm.prank(sender);
        assertEq(till.refund(quote), PRICE - cost);
        assertEq(_balance(buyer), FUNDS - cost);
    }

    function test_RefundOfAnUnusedSessionIsAllOfIt() public {
        vm.warp(_end());
        till.refund(quote);
        assertEq(_balance(buyer), FUNDS);
    }

    function test_RefundWaitsForTheGrace() public {
        vm.warp(_end() - 1);
        assertEq(till.refund(quote), 0);
        vm.warp(_end());
        assertEq(till.refund(quote), PRICE);
    }

    function test_RefundComesAtOnceWhenTheNodeClosed() public {
        _settleOne(sessionId, 1, 400);
        escrow.close(_sessionTerms(), 400, _signClose(nodeKey, sessionId, 400));
        assertEq(till.refund(quote), PRICE - 400);
        assertEq(_balance(buyer), FUNDS - 400);
    }

    function test_RefundOfASpentSessionIsNothing() public {
        _settleOne(sessionId, 1, PRICE);
        vm.warp(_end());
        assertEq(till.refund(quote), 0);
        assertEq(_balance(buyer), FUNDS - PRICE);
    }

    function test_RefundRepeatedChangesNothing() public {
        vm.warp(_end());
        till.refund(quote);
        vm.recordLogs();
        assertEq(till.refund(quote), 0);
        assertEq(vm.getRecordedLogs().length, 0);
        assertEq(_balance(buyer), FUNDS);
    }

    function test_RefundOfAQuoteThatNobodyPaidIsRefused() public {
        quote.salt = 0;
        address other = till.receiverOf(quote);
        vm.expectRevert(abi.encodeWithSelector(ITill.Till_NotPaid.selector, other));
        till.refund(quote);
    }

    /// @dev Whoever pays somebody else's quote must not get what was pushed into its receiver before.
    function test_RefundLeavesTokensOfOthersInTheReceiver() public {
        Payment memory second = _payment(thief, "nonce");
        _push(second);
        vm.prank(provider);
        assertTrue(token.transfer(receiver, 7));
        vm.warp(_end());
        till.refund(quote);
        assertEq(_balance(buyer), FUNDS);
        assertEq(token.balanceOf(receiver), PRICE + 7);
        till.recover(quote, second, _named(key, second));
        assertEq(_balance(thief), FUNDS);
        assertEq(token.balanceOf(receiver), 7);
    }

    /// @dev The node claims 400 and keeps silent when they are disputed.
    function test_RefundOfWhatAClaimHeldComesOnceItIsDecided() public {
        SignedReceipt memory job = _job(_sessionTerms(), 1, 400);
        _claim(_sessionTerms(), job);
        _fund(key.addr);
        vm.warp(_end());
        assertEq(till.refund(quote), PRICE - 400);
        Evidence memory evidence = _claimedEvidence(_sessionTerms(), job);
        vm.prank(key.addr);
        bytes32 caseId = court.demand(evidence);
        assertEq(till.refund(quote), 0);
        vm.warp(court.caseOf(caseId).phaseEnds);
        court.advance(caseId);
        assertEq(till.refund(quote), 400);
        assertEq(_balance(buyer), FUNDS);
    }
}
