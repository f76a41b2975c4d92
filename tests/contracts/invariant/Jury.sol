// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {CaseState, Seat} from "../../../contracts/types/Cases.sol";
import {Nodes} from "./Nodes.sol";

/// @title How a case goes on and ends, in the model
/// @notice Chance alone decides who is drawn, so that is read from the court, and held against who may be drawn.
abstract contract Jury is Nodes {
    uint256 private constant MAJORITY = 2;
    uint256 private constant LAST_ROUND = 2;
    uint256 private constant KEPT_BLOCKS = 256;
    uint8 private constant WITHHELD = 3; // by the challenger

    /// @dev Calls `advance`, as anybody, and does the same in the model.
    function _advance(uint256 index) internal {
        Dispute storage dispute = disputes[index];
        _do(STRANGER, address(court), abi.encodeCall(ICourt.advance, (dispute.id)), true);
        _touchDispute(index);
        _touch(jobs[dispute.job].session);
        uint8 state = dispute.state;
        dispute.late += _overdue(dispute);
        if (time < dispute.phaseEnds) {
            if (state == DRAWING) _mDraw(dispute);
        } else if (state == DEMANDED) {
            _mEnd(dispute, UPHELD, dispute.challenger, law.bond);
        } else if (state == ANSWERED) {
            dispute.state = DISMISSED;
            _mDecide(dispute, true);
        } else if (state == DRAWING) {
            _mGoOnOrFail(dispute, false);
        } else if (state == COMMITTING) {
            _mEndCommitting(dispute);
        } else if (state == REVEALING) {
            _mCount(dispute);
        }
    }

    /// @dev How long a case has waited for somebody to move it on.
    function _overdue(Dispute storage dispute) internal view returns (uint40) {
        bool isOpen = dispute.state < UPHELD && time > dispute.phaseEnds;
        return isOpen ? uint40(time) - dispute.phaseEnds : 0;
    }

    /// @dev Waits for the seed and draws, as long as there is time.
    function _drawJurors(uint256 index) internal {
        Dispute storage dispute = disputes[index];
        if (height <= dispute.seedBlock) height = dispute.seedBlock + 1;
        vm.roll(height);
        _advance(index);
    }

    /// @dev After a sham. A juror of before may be drawn again, and then its old sealed verdict is no replay: it is one
    /// that it may hand in, if it wants to.
    function _mStartAnew(Dispute storage dispute) internal {
        (dispute.isSham, dispute.round, dispute.drawn) = (false, 0, 0);
        for (uint256 i = sent.length; i > 0; --i) {
            bytes memory data = sent[i - 1].data;
            if (bytes4(data) != ICourt.commit.selector || _firstWord(data) != dispute.id) continue;
            sent[i - 1] = sent[sent.length - 1];
            sent.pop();
        }
    }

    function _mStartRound(Dispute storage dispute) internal {
        ++dispute.round;
        dispute.isRefilled = false;
        _mStartDrawing(dispute);
    }

    function _mStartDrawing(Dispute storage dispute) private {
        (dispute.state, dispute.phaseEnds) = (DRAWING, uint40(time + law.drawSeconds));
        _mSetSeed(dispute);
    }

    function _mSetSeed(Dispute storage dispute) private {
        (dispute.seedBlock, dispute.seedCall) = (uint64(height + 1), uint32(calls));
    }

    function _mDraw(Dispute storage dispute) private {
        if (height <= dispute.seedBlock) return;
        if (height - dispute.seedBlock > KEPT_BLOCKS) return _mSetSeed(dispute);
        bool isDry = court.caseOf(dispute.id).state != CaseState.Drawing;
        Seat[3] memory seats = court.seatsOf(dispute.id);
        uint256 vacant = 0;
        for (uint256 i = 0; i < 3; ++i) {
            if (dispute.jurors[i] == 0 && seats[i].juror != address(0)) _mSeat(dispute, i, personOf[seats[i].juror]);
            if (dispute.jurors[i] == 0) ++vacant;
        }
        if (vacant == 0) {
            (dispute.state, dispute.phaseEnds) = (COMMITTING, uint40(time + law.commitSeconds));
        } else if (isDry) {
            if (_certain(dispute) >= vacant) revert Broken("5: not drawn", _certain(dispute), vacant);
            _mGoOnOrFail(dispute, true);
        }
    }

    function _mSeat(Dispute storage dispute, uint256 seat, uint256 personPlus1) private {
        uint256 person = personPlus1 - 1;
        if (!_mayJudge(dispute, person)) revert Broken("4: who judges", person, dispute.owner);
        jurors[person].locked += law.jurorDeposit;
        dispute.jurors[seat] = uint8(personPlus1);
        dispute.drawn |= 1 << person;
        _touchPerson(person);
    }

    /// @dev No party and never twice in a case; enrolled before the seed was known, all its stake still there, with a
    /// whole deposit free.
    function _mayJudge(Dispute storage dispute, uint256 person) private view returns (bool) {
        Ghost storage ghost = ghosts[jobs[dispute.job].session];
        if (person == dispute.owner || person == dispute.challenger) return false;
        if (person == ghost.buyer || person == ghost.key) return false;
        JurorGhost memory juror = jurors[person];
        bool isAble = juror.isInPool && juror.balance - juror.locked >= law.jurorDeposit;
        if (!isAble || juror.since >= dispute.seedBlock) return false;
        return dispute.drawn >> person & 1 == 0 && providers[person].staked >= juror.weight;
    }

    /// @dev Those whom every roll that hits them seats.
    function _certain(Dispute storage dispute) private view returns (uint256 count) {
        for (uint256 i = FIRST_PROVIDER; i < FIRST_PROVIDER + PROVIDERS; ++i) {
            bool isReached = jurors[i].joined < dispute.seedCall && jurors[i].weight >= law.fullWeight;
            if (isReached && _mayJudge(dispute, i)) ++count;
        }
    }

    /* ROUNDS */

    function _mEndCommitting(Dispute storage dispute) private {
        for (uint256 i = 0; i < 3; ++i) {
            if (dispute.verdicts[i] == 0) _mRelease(dispute, i, true, 0);
        }
        if (dispute.isRefilled) return _mGoOnOrFail(dispute, false);
        dispute.isRefilled = true;
        _mStartDrawing(dispute);
    }

    function _mGoOnOrFail(Dispute storage dispute, bool isDry) private {
        uint256 committed = 0;
        for (uint256 i = 0; i < 3; ++i) {
            if (dispute.verdicts[i] > 0) ++committed;
        }
        if (committed >= MAJORITY) _mStartRevealing(dispute);
        else _mFail(dispute, isDry, false);
    }

    function _mStartRevealing(Dispute storage dispute) internal {
        (dispute.state, dispute.phaseEnds) = (REVEALING, uint40(time + law.revealSeconds));
    }

    function _mFail(Dispute storage dispute, bool isDry, bool isSilenceLost) private {
        for (uint256 i = 0; i < 3; ++i) {
            _mRelease(dispute, i, isSilenceLost && !dispute.opened[i], 0);
        }
        if (!isDry && dispute.round < LAST_ROUND) return _mStartRound(dispute);
        dispute.isSham = !_isBuyers(dispute);
        _mEnd(dispute, VOID, dispute.challenger, law.bond);
    }

    function _mCount(Dispute storage dispute) internal {
        uint256[2] memory votes;
        uint256 shams = 0;
        for (uint256 i = 0; i < 3; ++i) {
            if (!dispute.opened[i]) continue;
            ++votes[_isAgainst(dispute.verdicts[i]) ? 1 : 0];
            if (dispute.verdicts[i] == WITHHELD) ++shams;
        }
        if (votes[1] >= MAJORITY) _mUphold(dispute, votes[1]);
        else if (votes[0] >= MAJORITY) _mDismiss(dispute, votes[0], shams >= MAJORITY);
        else _mFail(dispute, false, true);
    }

    /* ENDS */

    function _mUphold(Dispute storage dispute, uint256 votes) private {
        _mPayJurors(dispute, true);
        Job storage job = jobs[dispute.job];
        uint256 fees = votes * law.jurorFee;
        (uint256 taken, uint256 award) = _mPunish(dispute.owner, job.amount, 0, _undecided(dispute));
        uint256 repaid = fees < taken - award ? fees : taken - award;
        _mCredit(ghosts[job.session].buyer, award);
        sumSlashed -= award + repaid;
        _mEnd(dispute, UPHELD, dispute.challenger, law.bond - fees + repaid);
    }

    /// @dev What the jurors leave of the bond is the accused provider's, unless it put a demand before them. A stranger
    /// that showed nothing has not used the receipt's judgement up, nor has one whose case is void.
    function _mDismiss(Dispute storage dispute, uint256 votes, bool isWithheld) private {
        _mPayJurors(dispute, false);
        dispute.isSham = isWithheld && !_isBuyers(dispute);
        uint256 person = dispute.isReferred ? dispute.challenger : dispute.owner;
        _mEnd(dispute, DISMISSED, person, law.bond - votes * law.jurorFee);
    }

    function _isBuyers(Dispute storage dispute) private view returns (bool) {
        Ghost storage ghost = ghosts[jobs[dispute.job].session];
        return dispute.challenger == ghost.buyer || dispute.challenger == ghost.key;
    }

    function _mEnd(Dispute storage dispute, uint8 state, uint256 person, uint256 amount) internal {
        dispute.state = state;
        sumBonds -= law.bond;
        _mCredit(person, amount);
        _mDecide(dispute, state == DISMISSED);
    }

    function _mDecide(Dispute storage dispute, bool isPaid) private {
        uint256 amount = _undecided(dispute);
        if (amount > 0) _mResolve(ghosts[jobs[dispute.job].session], amount, isPaid);
        if (amount == 0 || isPaid) dispute.held = 0;
    }

    /* SEATS */

    function _mPayJurors(Dispute storage dispute, bool isAgainst) private {
        for (uint256 i = 0; i < 3; ++i) {
            bool isRight = dispute.opened[i] && _isAgainst(dispute.verdicts[i]) == isAgainst;
            _mRelease(dispute, i, !isRight, isRight ? law.jurorFee : 0);
        }
    }

    function _mRelease(Dispute storage dispute, uint256 seat, bool isLost, uint256 fee) private {
        if (dispute.jurors[seat] == 0) return;
        uint256 person = dispute.jurors[seat] - 1;
        jurors[person].locked -= law.jurorDeposit;
        if (isLost) {
            jurors[person].balance -= law.jurorDeposit;
            sumCourt -= law.jurorDeposit;
            sumBurned += law.jurorDeposit;
        }
        _mCredit(person, fee);
        (dispute.jurors[seat], dispute.verdicts[seat], dispute.opened[seat]) = (0, 0, false);
    }

    function _mCredit(uint256 person, uint256 amount) internal {
        jurors[person].balance += uint64(amount);
        sumCourt += amount;
        _touchPerson(person);
    }

    /// @dev Guilty, or the node withheld the evidence.
    function _isAgainst(uint256 verdict) private pure returns (bool) {
        return verdict == 1 || verdict == 4;
    }

    function _firstWord(bytes memory data) private pure returns (bytes32 word) {
        assembly ("memory-safe") {
            word := mload(add(data, 0x24))
        }
    }
}
