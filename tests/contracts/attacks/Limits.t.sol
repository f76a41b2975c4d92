// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {CaseState, Evidence, Verdict} from "../../../contracts/types/Cases.sol";
import {SignedReceipt} from "../../../contracts/types/Claims.sol";
import {Messages, Open, Receipt as JobReceipt} from "../../../contracts/types/Messages.sol";
import {Attack} from "./Attack.sol";

/// @title What a dispute can be used for beyond what it is for
contract LimitsAttack is Attack {
    function test_Attack39_AShamChallengeDoesNotShutTheRealOneOut() public {
        (Open memory terms, SignedReceipt memory job, bytes32 caseId) = _judgement();
        _decide(caseId, Verdict.ChallengerWithheld);
        Evidence memory evidence = _evidence(terms, job);
        vm.prank(buyer.addr);
        (bool ok,) = address(court).call(abi.encodeCall(court.challenge, (evidence, keccak256("real evidence"))));
        assertTrue(ok, "39: a sham challenge does not shut the real one out");
    }

    function test_Attack39_ACaseThatNobodyDrawsDoesNotShutTheRealOneOut() public {
        (Open memory terms, SignedReceipt memory job, bytes32 caseId) = _judgement();
        for (uint256 step = 0; court.caseOf(caseId).state < CaseState.Upheld && step < 9; ++step) {
            vm.warp(court.caseOf(caseId).phaseEnds);
            court.advance(caseId);
        }
        Evidence memory evidence = _evidence(terms, job);
        vm.prank(buyer.addr);
        (bool ok,) = address(court).call(abi.encodeCall(court.challenge, (evidence, keccak256("real evidence"))));
        assertTrue(ok, "39: a case that nobody draws jurors for does not shut the real one out");
    }

    function test_Attack34_ANodeDoesNotProveItselfACheaperFaultFirst() public {
        (Open memory terms,) = _session(1000e6);
        vm.prank(provider);
        registry.stake(1500e6);
        SignedReceipt memory job = _job(terms, 1, 100e6);
        job.receipt.amount = 0;
        job.receiptSignature = _sign(nodeKey, Messages.hash(job.receipt));
        vm.prank(provider);
        (bool ok,) = address(court).call(_proofOfTwo(terms, job));
        assertTrue(ok, "34: two receipts are a fault, whatever they charge");
        assertEq(registry.provider(provider).staked, 500e6, "34: a cheaper receipt makes no cheaper fault");
    }

    function test_Attack41_AwardAndRefundAreAtMostTwiceTheJob() public {
        (Open memory terms,) = _session(100e6);
        SignedReceipt memory job = _job(terms, 1, 10e6);
        _claim(terms, job);
        Evidence memory evidence = _claimedEvidence(terms, job);
        vm.prank(buyer.addr);
        bytes32 caseId = court.demand(evidence);
        (JobReceipt memory other, bytes memory signature) = _second(job);
        court.proveTwoReceipts(_evidence(terms, job), other, signature);
        vm.warp(court.caseOf(caseId).phaseEnds);
        court.advance(caseId);
        uint256 award = court.proofOf(job.receipt.orderHash).award;
        assertLe(award + 10e6, 20e6, "41: award and refund are at most twice the job");
    }

    function test_Attack44_ANodesOwnProofDoesNotSaveItsClaim() public {
        (Open memory terms,) = _session(100e6);
        SignedReceipt memory job = _job(terms, 1, 10e6);
        _claim(terms, job);
        (JobReceipt memory other, bytes memory signature) = _second(job);
        vm.prank(provider);
        court.proveTwoReceipts(_evidence(terms, job), other, signature);
        Evidence memory evidence = _claimedEvidence(terms, job);
        (bool ok,) = address(court).call(abi.encodeCall(court.proveTwoReceipts, (evidence, other, signature)));
        assertTrue(ok, "44: a node's own proof does not save its claim");
    }
}
