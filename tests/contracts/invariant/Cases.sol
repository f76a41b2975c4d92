// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {Evidence, Verdict} from "../../../contracts/types/Cases.sol";
import {Messages} from "../../../contracts/types/Messages.sol";
import {Jury} from "./Jury.sol";

/// @title What challengers, accused and jurors do
abstract contract Cases is Jury {
    /* CASES */

    function demand(uint256 seed) external tried(18) {
        _demandNew(seed);
        _done();
    }

    /// @dev The node's side answers, or puts the demand before jurors.
    function respond(uint256 seed) external tried(19) {
        uint256 index = _disputeIn(seed, DEMANDED, DEMANDED);
        if (index == disputes.length) _demandNew(seed);
        Dispute storage dispute = disputes[index];
        uint256 who = _roll(seed, 1) % 2 == 0 ? dispute.owner : settlerOf[ghosts[jobs[dispute.job].session].node];
        if (_roll(seed, 2) % 3 == 0) {
            _do(who, address(court), abi.encodeCall(ICourt.refer, (dispute.id, ROOT)), true);
            dispute.isReferred = true;
            _mStartRound(dispute);
        } else {
            _do(who, address(court), abi.encodeCall(ICourt.answer, (dispute.id, "response")), true);
            (dispute.state, dispute.phaseEnds) = (ANSWERED, uint40(time + CHALLENGE));
            sumBonds -= law.bond;
            _mCredit(dispute.challenger, law.bond);
        }
        _touchDispute(index);
        _done();
    }

    function challenge(uint256 seed) external tried(20) {
        _challengeNew(seed);
        _done();
    }

    /// @dev Draws where jurors wait to be drawn, mostly; otherwise lets a phase run out.
    function advance(uint256 seed) external tried(21) {
        uint256 index = _disputeIn(seed, DEMANDED, REVEALING);
        if (index == disputes.length) _demandNew(seed);
        Dispute storage dispute = disputes[index];
        if (dispute.state == DRAWING && _roll(seed, 1) % 4 > 0) _drawJurors(index);
        else if (_rarely(seed)) _advance(index);
        else {
            _travelTo(dispute.phaseEnds);
            _advance(index);
        }
        _done();
    }

    /// @dev Jurors of one case commit, or reveal: one of them or all.
    function vote(uint256 seed) external tried(22) {
        uint256 index = _disputeIn(seed, COMMITTING, REVEALING);
        if (index == disputes.length) {
            index = _disputeIn(seed, DRAWING, DRAWING);
            if (index == disputes.length) index = _challengeNew(seed);
            _drawJurors(index);
        }
        Dispute storage dispute = disputes[index];
        uint256 most = _roll(seed, 1) % 3 == 0 ? 1 : 3;
        bool isCommitting = dispute.state == COMMITTING;
        for (uint256 i = 0; i < 3 && most > 0; ++i) {
            uint256 seat = (i + seed % 3) % 3;
            if (dispute.jurors[seat] == 0 || dispute.opened[seat]) continue;
            if (isCommitting == (dispute.verdicts[seat] > 0)) continue;
            if (dispute.state == (isCommitting ? COMMITTING : REVEALING)) _voteFrom(index, seat, seed);
            --most;
        }
        if (isCommitting || dispute.state > COMMITTING) _done();
    }

    /* MONEY OF JURORS */

    function moveDeposit(uint256 seed) external tried(23) {
        uint256 kind = _roll(seed, 0) % 8;
        uint256 who = kind > 5 ? _creditor(seed) : FIRST_PROVIDER + _roll(seed, 1) % PROVIDERS;
        JurorGhost storage juror = jurors[who];
        bool works = true;
        if (kind < 4) {
            uint256 amount = _between(_roll(seed, 2), 0, 4 * law.jurorDeposit);
            works = providers[who].staked >= MIN_STAKE;
            _do(who, address(court), abi.encodeCall(ICourt.enrol, (uint64(amount))), works);
            if (works) _mEnrol(who, amount);
        } else if (kind < 6) {
            bool isAble = providers[who].staked >= juror.weight && juror.balance >= law.jurorDeposit;
            works = juror.isInPool && (kind == 4 || !isAble);
            bytes memory data = kind == 4
                ? abi.encodeCall(ICourt.resign, ())
                : abi.encodeCall(ICourt.expel, (people[who].addr));
            _do(kind == 4 ? who : STRANGER, address(court), data, works);
            if (works) juror.isInPool = false;
        } else {
            uint256 free = juror.balance - juror.locked;
            bool isWrong = _roll(seed, 3) % 4 == 0;
            uint256 amount = isWrong ? free + 1 : _between(_roll(seed, 2), 1, free);
            works = !isWrong;
            _do(who, address(court), abi.encodeCall(ICourt.withdraw, (uint64(amount))), works);
            if (works) _mTakeBack(who, amount);
        }
        _touchPerson(who);
        if (works) _done();
    }

    /* STEPS */

    function _demandNew(uint256 seed) internal returns (uint256 index) {
        uint256 number = _claimedJob(seed);
        Ghost storage ghost = ghosts[jobs[number].session];
        uint256 who = _speaker(ghost, _roll(seed, 70));
        bytes memory data = abi.encodeCall(ICourt.demand, (_evidenceOf(number, true)));
        _do(who, address(court), data, true);
        _keep(who, address(court), data, false);
        index = _pushDispute(number, DEMANDED, who, jobs[number].amount);
        disputes[index].phaseEnds = uint40(time + law.answerSeconds);
        _mHoldFor(index);
        _mPayBond(who);
    }

    /// @dev Of an answer, once more after a sham, of a claimed job or of a paid one. Only the last is anybody's.
    function _challengeNew(uint256 seed) internal returns (uint256 index) {
        uint256 kind = _roll(seed, 72) % 4;
        index = kind == 0 ? _disputeIn(seed, ANSWERED, ANSWERED) : kind == 1 ? _sham(seed) : disputes.length;
        bool isNew = index == disputes.length;
        bool isClaimed = isNew && kind == 2;
        uint256 number = !isNew ? disputes[index].job : isClaimed ? _claimedJob(seed) : _paidJob(seed);
        Ghost storage ghost = ghosts[jobs[number].session];
        uint256 who = _roll(seed, 71) % (STRANGER + 1);
        if (!isNew || isClaimed) who = _speaker(ghost, who);
        bytes memory data = abi.encodeCall(ICourt.challenge, (_evidenceOf(number, isClaimed), ROOT));
        _do(who, address(court), data, true);
        if (isNew) index = _pushDispute(number, 0, who, isClaimed ? jobs[number].amount : 0);
        Dispute storage dispute = disputes[index];
        dispute.challenger = uint8(who);
        if (isClaimed) _mHoldFor(index);
        if (dispute.isSham) _mStartAnew(dispute);
        _mStartRound(dispute);
        _mPayBond(who);
        _touchDispute(index);
        _touch(jobs[number].session);
    }

    /// @dev A case that a stranger lost without showing anything, while the work can still be disputed.
    function _sham(uint256 seed) private view returns (uint256 index) {
        uint256 count = disputes.length;
        for (uint256 i = 0; i < count; ++i) {
            index = (seed % count + i) % count;
            uint256 end = ghosts[jobs[disputes[index].job].session].expiresAt + GRACE + CHALLENGE;
            if (disputes[index].isSham && time < end) return index;
        }
        return count;
    }

    function _mHoldFor(uint256 index) private {
        Dispute storage dispute = disputes[index];
        Ghost storage ghost = ghosts[jobs[dispute.job].session];
        dispute.replaced = ghost.replaced;
        _mHold(ghost, dispute.held);
    }

    function _voteFrom(uint256 index, uint256 seat, uint256 seed) private {
        Dispute storage dispute = disputes[index];
        uint256 person = dispute.jurors[seat] - 1;
        bool isCommitting = dispute.state == COMMITTING;
        (bytes memory data, uint8 verdict) = _ballot(dispute, seat, _roll(seed, 80 + seat));
        _do(person, address(court), data, true);
        _keep(person, address(court), data, false);
        if (isCommitting) dispute.verdicts[seat] = verdict;
        else dispute.opened[seat] = true;
        _touchDispute(index);
        _touch(jobs[dispute.job].session);
        for (uint256 i = 0; i < 3; ++i) {
            if (isCommitting ? dispute.verdicts[i] == 0 : dispute.verdicts[i] > 0 && !dispute.opened[i]) return;
        }
        if (isCommitting) _mStartRevealing(dispute);
        else _mCount(dispute);
    }

    /// @dev What the juror of a seat sends next. The challenger is in the salt because a case begins anew after a
    /// sham, with the same rounds: a verdict opened before would open one sealed with the same salt, whoever sends it.
    function _ballot(Dispute storage dispute, uint256 seat, uint256 roll)
        internal
        view
        returns (bytes memory data, uint8 verdict)
    {
        uint256 person = dispute.jurors[seat] - 1;
        bytes32 salt = bytes32(person << 8 | dispute.challenger);
        if (dispute.state == REVEALING) {
            verdict = dispute.verdicts[seat];
            return (abi.encodeCall(ICourt.reveal, (dispute.id, Verdict(verdict), salt)), verdict);
        }
        verdict = _verdict(dispute.job, roll);
        bytes32 commitment =
            keccak256(abi.encode(dispute.id, dispute.round, people[person].addr, Verdict(verdict), salt));
        data = abi.encodeCall(ICourt.commit, (dispute.id, commitment));
    }

    /// @dev Jurors mostly agree.
    function _verdict(uint256 number, uint256 roll) private pure returns (uint8) {
        return uint8(1 + (roll % 4 == 0 ? (roll >> 8) % 4 : number % 3));
    }

    function _pushDispute(uint256 number, uint8 state, uint256 who, uint256 held) internal returns (uint256 index) {
        index = disputes.length;
        Dispute storage dispute = disputes.push();
        (dispute.job, dispute.state, dispute.held) = (uint32(number), state, uint64(held));
        (dispute.challenger, dispute.owner) = (uint8(who), uint8(_ownerOf(ghosts[jobs[number].session].node)));
        dispute.id = _receiptHash(jobs[number]);
        jobs[number].dispute = uint32(index + 1);
        _touchDispute(index);
        _touch(jobs[number].session);
    }

    function _mPayBond(uint256 who) private {
        wallets[who] -= law.bond;
        sumBonds += law.bond;
        _touchPerson(who);
    }

    function _mEnrol(uint256 who, uint256 amount) private {
        JurorGhost storage juror = jurors[who];
        if (!juror.isInPool) juror.joined = uint32(calls);
        (juror.isInPool, juror.weight, juror.since) = (true, providers[who].staked, uint40(height));
        wallets[who] -= amount;
        _mCredit(who, amount);
    }

    function _mTakeBack(uint256 who, uint256 amount) internal {
        jurors[who].balance -= uint64(amount);
        sumCourt -= amount;
        wallets[who] += amount;
        _touchPerson(who);
    }

    function _evidenceOf(uint256 number, bool isClaimed) internal view returns (Evidence memory evidence) {
        Job storage job = jobs[number];
        Ghost storage ghost = ghosts[job.session];
        evidence.terms = _termsOf(ghost);
        evidence.order = _orderOf(job);
        evidence.receipt = _receiptOf(job, _digestOf(Messages.hash(evidence.order)), 0);
        evidence.signature = _signed(_secretOf(job), Messages.hash(evidence.receipt));
        evidence.claimed = new bytes32[](isClaimed ? ghost.claimCount : 0);
        for (uint256 i = 0; i < evidence.claimed.length; ++i) {
            evidence.claimed[i] = _receiptHash(jobs[ghost.claimFirst + i]);
        }
    }

    /* DRAWS */

    function _isClaimed(uint256 number) internal view returns (bool) {
        Ghost storage ghost = ghosts[jobs[number].session];
        bool isListed = number >= ghost.claimFirst && number < uint256(ghost.claimFirst) + ghost.claimCount;
        return isListed && ghost.pending > 0 && time < ghost.finalAt;
    }

    /// @dev A job of a pending claim that nobody disputed; a claim is made for the purpose if there is none.
    function _claimedJob(uint256 seed) internal returns (uint256 number) {
        uint256 count = jobs.length;
        for (uint256 i = 0; i < 24 && i < count; ++i) {
            number = (count - 1 - (seed % 8 + i) % count);
            if (jobs[number].dispute == 0 && _isClaimed(number) && !_wasProven(number)) return number;
        }
        uint256 index = _openFresh(seed);
        _claimNew(index, seed, false);
        return ghosts[index].claimFirst;
    }

    function _isInTime(uint256 number) internal view returns (bool) {
        return time < uint256(ghosts[jobs[number].session].expiresAt) + GRACE + CHALLENGE;
    }

    function _wasProven(uint256 number) internal view returns (bool) {
        return isProven[_orderHash(jobs[number])];
    }

    function _paidJob(uint256 seed) private returns (uint256) {
        uint256 count = ghosts.length;
        for (uint256 i = 0; i < count; ++i) {
            uint256 index = (seed % count + i) % count;
            uint32 seq = ghosts[index].throughSeq;
            if (seq == 0 || time >= uint256(ghosts[index].expiresAt) + GRACE + CHALLENGE) continue;
            return _pushJob(index, 1 + uint32(seed % seq), _between(_roll(seed, 78), 1, JOB_MOST), 0);
        }
        uint256 fresh = _openFresh(seed);
        _claimNew(fresh, seed, false);
        _travelTo(ghosts[fresh].finalAt);
        _finaliseNow(fresh);
        return _pushJob(fresh, 1, 1 + seed % JOB_MOST, 0);
    }

    /// @dev A case in one of these states, with time left in its phase; in any state, also one that ran out. As many as
    /// there are when there is none.
    function _disputeIn(uint256 seed, uint8 from, uint8 to) internal view returns (uint256 index) {
        uint256 count = disputes.length;
        for (uint256 i = 0; i < count; ++i) {
            index = (seed % count + i) % count;
            uint8 state = disputes[index].state;
            bool isInTime = time < disputes[index].phaseEnds || (from == DEMANDED && to == REVEALING);
            if (state >= from && state <= to && isInTime) return index;
        }
        return count;
    }

    /// @dev Somebody with money in the court that stands behind no seat; half the time a seated juror if there is one.
    function _creditor(uint256 seed) internal returns (uint256 who) {
        for (uint256 i = 0; i < 2 * PEOPLE; ++i) {
            who = (seed % PEOPLE + i) % PEOPLE;
            bool isLiked = i >= PEOPLE || seed % 2 == 0 || jurors[who].locked > 0;
            if (isLiked && jurors[who].balance > jurors[who].locked) return who;
        }
        who = FIRST_PROVIDER + 2;
        if (providers[who].staked < MIN_STAKE) _stakeMore(who, _fullStake(who));
        _do(who, address(court), abi.encodeCall(ICourt.enrol, (1)), true);
        _mEnrol(who, 1);
    }
}
