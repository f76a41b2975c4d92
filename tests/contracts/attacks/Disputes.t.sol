// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {CaseState, Evidence, Seat, Verdict} from "../../../contracts/types/Cases.sol";
import {SignedReceipt} from "../../../contracts/types/Claims.sol";
import {Open} from "../../../contracts/types/Messages.sol";
import {SettleItem} from "../../../contracts/types/Sessions.sol";
import {Attack} from "./Attack.sol";

/// @title Attacks 37 to 41: disputes and jurors
contract DisputeAttack is Attack {
    function test_Attack37_NoCaseOpensAgain() public {
        (Open memory terms, SignedReceipt memory job, bytes32 caseId) = _judgement();
        _decide(caseId, Verdict.Clear);
        bytes memory call = abi.encodeCall(ICourt.challenge, (_evidence(terms, job), keccak256("again")));
        bytes4 error = ICourt.Court_WrongState.selector;
        _refused(buyer.addr, address(court), call, error, "37: a receipt is judged once");

        SignedReceipt memory next = _job(terms, 2, 10e6);
        _settleOne(escrow.sessionIdOf(terms), 2, 20e6);
        vm.warp(terms.expiresAt + GRACE + CHALLENGE);
        call = abi.encodeCall(ICourt.challenge, (_evidence(terms, next), keccak256("late")));
        _refused(stranger, address(court), call, ICourt.Court_TooLate.selector, "37: disputes have a last second");
    }

    function test_Attack37_ACaseEndsWhateverAnybodyLeavesUndone() public {
        (,, bytes32 caseId) = _judgement();
        uint256 end = vm.getBlockTimestamp() + court.LONGEST_SECONDS();
        uint256 steps = 0;
        while (court.caseOf(caseId).state < CaseState.Upheld && steps < 20) {
            vm.warp(court.caseOf(caseId).phaseEnds);
            court.advance(caseId);
            _draw(caseId);
            ++steps;
        }
        assertEq(uint8(court.caseOf(caseId).state), uint8(CaseState.Void), "37: silence of all ends a case");
        assertLe(vm.getBlockTimestamp(), end, "37: in bounded time");
        assertLe(court.caseOf(caseId).round, 2, "37: after two rounds at most");
    }

    function test_Attack38_AFrivolousDisputeCosts() public {
        uint256 before = token.balanceOf(stranger);
        (,, bytes32 caseId) = _judgement();
        uint64 bond = court.rules().bond;
        assertEq(token.balanceOf(stranger), before + FUNDS - bond, "38: a dispute takes a bond");
        _decide(caseId, Verdict.Clear);
        assertEq(court.jurorOf(stranger).balance, 0, "38: a dispute without a reason costs its bond");
        uint64 rest = bond - 3 * court.rules().jurorFee;
        assertEq(court.jurorOf(provider).balance, rest, "38: the accused gets what the jurors leave");
    }

    function test_Attack39_NoJurorCopiesLiesOrSleepsForFree() public {
        (,, bytes32 caseId) = _judgement();
        Seat[3] memory seats = court.seatsOf(caseId);
        bytes32 first = court.commitmentOf(caseId, seats[0].juror, Verdict.Clear, SALT);
        _commit(caseId, seats[0].juror, first);
        _commit(caseId, seats[1].juror, first);
        _commit(caseId, seats[2].juror, court.commitmentOf(caseId, seats[2].juror, Verdict.Clear, SALT));
        bytes memory call = abi.encodeCall(ICourt.reveal, (caseId, Verdict.Clear, SALT));
        vm.prank(seats[0].juror);
        court.reveal(caseId, Verdict.Clear, SALT);
        bytes4 error = ICourt.Court_WrongVerdict.selector;
        _refused(seats[1].juror, address(court), call, error, "39: a copied commitment opens nothing");
        vm.prank(seats[2].juror);
        court.reveal(caseId, Verdict.Clear, SALT);
        vm.warp(court.caseOf(caseId).phaseEnds);
        court.advance(caseId);
        uint64 deposit = court.rules().jurorDeposit;
        assertEq(court.jurorOf(seats[1].juror).balance, 100e6 - deposit, "39: whoever opens nothing loses the deposit");
        assertEq(court.jurorOf(seats[0].juror).balance, 105e6, "39: the majority earns its fee");
    }

    function test_Attack39_AFalseVerdictLosesItsDeposit() public {
        (,, bytes32 caseId) = _judgement();
        Seat[3] memory seats = court.seatsOf(caseId);
        for (uint256 i = 0; i < 3; ++i) {
            _commit(caseId, seats[i].juror, court.commitmentOf(caseId, seats[i].juror, _said(i), SALT));
        }
        for (uint256 i = 0; i < 3; ++i) {
            vm.prank(seats[i].juror);
            court.reveal(caseId, _said(i), SALT);
        }
        uint64 left = 100e6 - court.rules().jurorDeposit;
        assertEq(court.jurorOf(seats[0].juror).balance, left, "39: the minority loses its deposit");
    }

    function test_Attack40_WithheldEvidenceCountsAgainstWhoWithholds() public {
        (Open memory terms, bytes32 sessionId) = _session(100e6);
        SignedReceipt memory job = _job(terms, 1, 10e6);
        _claim(terms, job);
        Evidence memory evidence = _claimedEvidence(terms, job);
        vm.prank(buyer.addr);
        bytes32 caseId = court.demand(evidence);
        vm.warp(court.caseOf(caseId).phaseEnds);
        court.advance(caseId);
        assertEq(_earnings(nodeId), 0, "40: a node that hands nothing in is not paid");
        assertEq(escrow.claimOf(sessionId).held, 0, "40: what was held is free again");
        assertEq(court.jurorOf(buyer.addr).balance, court.rules().bond, "40: whoever asked in vain gets the bond back");
    }

    function test_Attack40_JurorsCountWithheldEvidence() public {
        (,, bytes32 caseId) = _judgement();
        _decide(caseId, Verdict.NodeWithheld);
        assertEq(uint8(court.caseOf(caseId).state), uint8(CaseState.Upheld), "40: a node that withholds loses");
    }

    function test_Attack41_PunishingAnAccompliceNeverPays() public {
        // Somebody else's penalty fills the pot.
        (Open memory terms,) = _session(1000e6);
        (bool ok,) = address(court).call(_proofOfTwo(terms, _job(terms, 1, 1)));
        assertTrue(ok, "41: the pot is full");
        uint256 pot = registry.slashed();

        // The accomplice has next to nothing to lose, and confesses to a job of any size.
        SignedReceipt memory job = _job(terms, 2, 400e6);
        uint256 gone = _stakeLostBy(terms, job);
        uint256 before = token.balanceOf(buyer.addr);
        court.payAward(job.receipt.orderHash);
        uint256 gain = token.balanceOf(buyer.addr) - before;
        assertLe(gain, gone / 2, "41: a buyer gets at most half of what its accomplice loses");
        assertGe(registry.slashed(), pot - 1, "41: nobody's award comes out of another's penalty");
    }

    function test_Attack41_ADisputePaysNoJobTwice() public {
        _enrolJurors(6);
        (Open memory terms, bytes32 sessionId) = _session(200e6);
        // The node holds a voucher for both jobs, claims the first nevertheless, and settles once that is disputed.
        SignedReceipt memory job = _job(terms, 1, 40e6);
        SettleItem memory voucher = _item(key, sessionId, 2, 60e6);
        _claim(terms, job);
        Evidence memory evidence = _claimedEvidence(terms, job);
        vm.prank(buyer.addr);
        bytes32 caseId = court.challenge(evidence, keccak256("evidence"));
        _settleOne(voucher);
        _draw(caseId);
        _decide(caseId, Verdict.Clear);
        _settleOne(voucher);
        assertEq(_earnings(nodeId), 60e6, "41: a job that a voucher pays is not paid by the court again");
    }

    function _stakeLostBy(Open memory terms, SignedReceipt memory job) private returns (uint256 lost) {
        vm.prank(provider);
        registry.stake(3e6);
        uint256 staked = registry.provider(provider).staked;
        (bool ok,) = address(court).call(_proofOfTwo(terms, job));
        assertTrue(ok, "41: the accomplice confesses");
        lost = staked - registry.provider(provider).staked;
    }

    function _said(uint256 seat) private pure returns (Verdict) {
        return seat == 0 ? Verdict.Guilty : Verdict.Clear;
    }

    function _commit(bytes32 caseId, address juror, bytes32 commitment) private {
        vm.prank(juror);
        court.commit(caseId, commitment);
    }
}
