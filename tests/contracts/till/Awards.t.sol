// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ITill} from "../../../contracts/interfaces/ITill.sol";
import {Verdict} from "../../../contracts/types/Cases.sol";
import {SignedReceipt} from "../../../contracts/types/Claims.sol";
import {Payment} from "../../../contracts/types/Quotes.sol";
import {TillAttack} from "../attacks/TillAttack.sol";

/// @title takeAwards: the court found for the buyer of a quote's session, which is a receiver
contract AwardsTest is TillAttack {
    function setUp() public override {
        super.setUp();
        till.pay(quote, _payment(buyer, "nonce"));
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_AwardOfAProofGoesToThePayerWhoeverSends(address sender, uint128 most) public {
        most = uint128(bound(most, 1, PRICE));
        _prove(most);
        assertEq(token.balanceOf(receiver), 0);
        assertEq(court.jurorOf(receiver).balance, 2 * most);
        vm.expectEmit(address(till));
        emit ITill.Awarded(receiver, buyer.addr, uint64(2 * most));
        vm.prank(sender);
        assertEq(till.takeAwards(quote), 2 * most);
        assertEq(_balance(buyer), FUNDS - PRICE + 2 * most);
        assertEq(court.jurorOf(receiver).balance, 0);
    }

    function test_AwardOfJurorsGoesToThePayer() public {
        _enrolJurors(6);
        _fund(stranger);
        SignedReceipt memory job = _job(_sessionTerms(), 1, 400);
        _settleOne(sessionId, 1, 400);
        vm.prank(stranger);
        bytes32 caseId = court.challenge(_evidence(_sessionTerms(), job), keccak256("evidence"));
        _draw(caseId);
        _decide(caseId, Verdict.Guilty);
        assertEq(till.takeAwards(quote), 800);
        assertEq(_balance(buyer), FUNDS - PRICE + 800);
    }

    function test_AwardsRepeatedChangeNothing() public {
        _prove(400);
        till.takeAwards(quote);
        vm.recordLogs();
        assertEq(till.takeAwards(quote), 0);
        assertEq(vm.getRecordedLogs().length, 0);
        assertEq(_balance(buyer), FUNDS - PRICE + 800);
    }

    function test_AwardsLeaveTokensOfOthersInTheReceiver() public {
        Payment memory second = _payment(thief, "nonce");
        _push(second);
        _prove(400);
        till.takeAwards(quote);
        assertEq(_balance(buyer), FUNDS - PRICE + 800);
        assertEq(token.balanceOf(receiver), PRICE);
    }

    /// @dev The award never lies in the receiver, where it would be anybody's who shows a used authorization.
    function test_AwardIsOutOfReachOfWhoeverVoidedATransfer() public {
        _prove(400);
        _cancel(thief, "nonce");
        vm.warp(quote.payBefore + till.RECOVERY_SECONDS());
        assertEq(till.recover(quote, _payment(thief, "nonce"), ""), 0);
        assertEq(till.takeAwards(quote), 800);
        assertEq(_balance(thief), FUNDS);
    }

    function test_AwardsOfAQuoteThatNobodyPaidAreRefused() public {
        quote.salt = 0;
        address other = till.receiverOf(quote);
        vm.expectRevert(abi.encodeWithSelector(ITill.Till_NotPaid.selector, other));
        till.takeAwards(quote);
    }

    /// @dev Shows two receipts for one order of this size, and has the award paid.
    function _prove(uint128 most) private {
        SignedReceipt memory job = _job(_sessionTerms(), 1, most);
        (bool ok,) = address(court).call(_proofOfTwo(_sessionTerms(), job));
        assertTrue(ok);
        court.payAward(job.receipt.orderHash);
    }
}
