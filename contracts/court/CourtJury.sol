// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";
import {ICourt} from "../interfaces/ICourt.sol";
import {Case, CaseState, Juror, Seat, Verdict} from "../types/Cases.sol";
import {CourtBase} from "./CourtBase.sol";

/// @title Drawing, deciding and ending
/// @notice A round draws three jurors, replaces silent ones once, and ends with a majority or fails; the second failure
/// ends the case. The prose is in `ICourt`.
abstract contract CourtJury is CourtBase {
    using Checkpoints for Checkpoints.Trace160;

    uint256 private constant _LAST_ROUND = 2;
    /// @dev Bounds the gas of one call; a draw goes on in the next.
    uint256 private constant _TRIES_A_CALL = 64;
    /// @dev Where one try in 24 hits the last juror (three in the pool, each an eighth of the full weight), all but one
    /// draw in a billion find it.
    uint256 private constant _MOST_TRIES = 512;

    /// @inheritdoc ICourt
    function advance(bytes32 caseId) external override {
        Case storage dispute = _cases[caseId];
        CaseState state = dispute.state;
        bool isOver = block.timestamp >= dispute.phaseEnds;
        if (state == CaseState.Drawing && !isOver) _draw(caseId, dispute);
        else if (!isOver) return;
        else if (state == CaseState.Demanded) _endSilent(caseId, dispute);
        else if (state == CaseState.Answered) _endAnswered(caseId, dispute);
        else if (state == CaseState.Drawing) _goOnOrFail(caseId, dispute, false);
        else if (state == CaseState.Committing) _endCommitting(caseId, dispute);
        else if (state == CaseState.Revealing) _count(caseId, dispute);
    }

    /// @inheritdoc ICourt
    function commit(bytes32 caseId, bytes32 commitment) external override {
        Case storage dispute = _cases[caseId];
        Seat storage seat = _openSeat(caseId, CaseState.Committing);
        if (seat.commitment != 0 || commitment == 0) revert Court_NoSeat(msg.sender);

        seat.commitment = commitment;
        emit Committed(caseId, msg.sender);
        if (_committed(caseId) == _SEATS) _startRevealing(dispute);
    }

    /// @inheritdoc ICourt
    function reveal(bytes32 caseId, Verdict verdict, bytes32 salt) external override {
        Seat storage seat = _openSeat(caseId, CaseState.Revealing);
        bytes32 commitment = commitmentOf(caseId, msg.sender, verdict, salt);
        bool isRight = verdict != Verdict.None && commitment == seat.commitment;
        if (!isRight) revert Court_WrongVerdict(commitment, seat.commitment);
        if (seat.verdict != Verdict.None) revert Court_NoSeat(msg.sender);

        seat.verdict = verdict;
        emit Revealed(caseId, msg.sender, verdict);
        Seat[_SEATS] storage seats = _seats[caseId];
        for (uint256 i = 0; i < _SEATS; ++i) {
            if (seats[i].commitment != 0 && seats[i].verdict == Verdict.None) return;
        }
        _count(caseId, _cases[caseId]);
    }

    /// @inheritdoc ICourt
    function commitmentOf(bytes32 caseId, address juror, Verdict verdict, bytes32 salt)
        public
        view
        override
        returns (bytes32)
    {
        return keccak256(abi.encode(caseId, _cases[caseId].round, juror, verdict, salt));
    }

    /* ROUNDS */

    function _startRound(bytes32 caseId) internal {
        Case storage dispute = _cases[caseId];
        ++dispute.round;
        dispute.isRefilled = false;
        _startDrawing(caseId, dispute);
    }

    /// @dev Whether all the stake is there that the juror enrolled with.
    function _isStaked(address juror) internal view returns (bool) {
        return REGISTRY.provider(juror).staked >= _jurors[juror].weight;
    }

    function _after(uint256 delay) internal view returns (uint48) {
        return SafeCast.toUint48(block.timestamp + delay);
    }

    function _startDrawing(bytes32 caseId, Case storage dispute) private {
        (dispute.state, dispute.phaseEnds, dispute.tries) = (CaseState.Drawing, _after(_rules.drawSeconds), 0);
        _setSeed(caseId, dispute);
    }

    /// @dev The hash of a block that nobody can know yet.
    function _setSeed(bytes32 caseId, Case storage dispute) private {
        (dispute.seedBlock, dispute.poolSize) = (SafeCast.toUint64(block.number + 1), _poolSize);
        emit SeedSet(caseId, dispute.round, dispute.seedBlock);
    }

    function _draw(bytes32 caseId, Case storage dispute) private {
        if (block.number <= dispute.seedBlock) return;
        bytes32 seed = blockhash(dispute.seedBlock);
        if (seed == 0) return _setSeed(caseId, dispute);
        uint256 size = dispute.poolSize;
        uint256 tries = dispute.tries;
        uint256 end = size == 0 ? tries : tries + _TRIES_A_CALL;
        uint256 seat = _vacancy(caseId, 0);
        for (; seat < _SEATS && tries < end; ++tries) {
            uint256 roll = uint256(keccak256(abi.encode(seed, caseId, tries)));
            address juror = address(_places[roll % size + 1].upperLookup(uint96(dispute.seedBlock - 1)));
            if (!_isEligible(caseId, dispute, juror, roll >> 128)) continue;
            _seat(caseId, dispute, seat, juror);
            seat = _vacancy(caseId, seat + 1);
        }
        dispute.tries = uint32(tries);
        if (seat == _SEATS) (dispute.state, dispute.phaseEnds) = (CaseState.Committing, _after(_rules.commitSeconds));
        else if (size == 0 || tries >= _MOST_TRIES) _goOnOrFail(caseId, dispute, true);
    }

    function _seat(bytes32 caseId, Case storage dispute, uint256 seat, address juror) private {
        _seats[caseId][seat].juror = juror;
        _drawnBefore(caseId, dispute)[juror] = true;
        _jurors[juror].locked += _rules.jurorDeposit;
        emit JurorSeated(caseId, juror, uint8(seat));
    }

    /// @dev Silent jurors lose their seats; these are filled anew once a round.
    function _endCommitting(bytes32 caseId, Case storage dispute) private {
        Seat[_SEATS] storage seats = _seats[caseId];
        for (uint256 i = 0; i < _SEATS; ++i) {
            if (seats[i].commitment == 0) _release(caseId, seats[i], true, 0);
        }
        if (dispute.isRefilled) return _goOnOrFail(caseId, dispute, false);
        dispute.isRefilled = true;
        _startDrawing(caseId, dispute);
    }

    /// @dev A majority of committed seats suffices; without one the round has failed, and without jurors the case.
    function _goOnOrFail(bytes32 caseId, Case storage dispute, bool isPoolDry) private {
        if (_committed(caseId) >= _MAJORITY) return _startRevealing(dispute);
        _vacate(caseId);
        if (isPoolDry || dispute.round == _LAST_ROUND) _endVoid(caseId, dispute);
        else _startRound(caseId);
    }

    function _startRevealing(Case storage dispute) private {
        (dispute.state, dispute.phaseEnds) = (CaseState.Revealing, _after(_rules.revealSeconds));
    }

    function _count(bytes32 caseId, Case storage dispute) private {
        Seat[_SEATS] storage seats = _seats[caseId];
        (uint256 against, uint256 inFavour, uint256 withheld) = (0, 0, 0);
        for (uint256 i = 0; i < _SEATS; ++i) {
            if (_isAgainst(seats[i].verdict)) ++against;
            else if (seats[i].verdict != Verdict.None) ++inFavour;
            if (seats[i].verdict == Verdict.ChallengerWithheld) ++withheld;
        }
        if (against >= _MAJORITY) _endUpheld(caseId, dispute, against);
        else if (inFavour >= _MAJORITY) {
            dispute.isSham = withheld >= _MAJORITY && _isStrangers(dispute);
            _endDismissed(caseId, dispute, inFavour);
        }
        else {
            _vacate(caseId);
            if (dispute.round == _LAST_ROUND) _endVoid(caseId, dispute);
            else _startRound(caseId);
        }
    }

    /* ENDS */

    /// @dev Nobody answered: what was held is the buyer's again. That is all the node loses.
    function _endSilent(bytes32 caseId, Case storage dispute) private {
        dispute.state = CaseState.Upheld;
        _credit(dispute.challenger, _rules.bond);
        emit CaseUpheld(caseId, _resolve(dispute, false), 0, 0);
    }

    /// @dev Nobody disputed the answer.
    function _endAnswered(bytes32 caseId, Case storage dispute) private {
        dispute.state = CaseState.Dismissed;
        emit CaseDismissed(caseId);
        _resolve(dispute, true);
    }

    /// @dev The penalty pays the buyer first, then gives the challenger back what the jurors cost.
    function _endUpheld(bytes32 caseId, Case storage dispute, uint256 jurors) private {
        dispute.state = CaseState.Upheld;
        uint256 fees = jurors * _rules.jurorFee;
        _payJurors(caseId, true);
        uint64 refunded = _resolve(dispute, false);
        (uint128 slashed, uint64 award) = _punish(dispute.owner, dispute.amount, 0, refunded);
        uint256 repaid = fees < slashed - award ? fees : slashed - award;
        _credit(dispute.buyer, award);
        _credit(dispute.challenger, _rules.bond - fees + repaid);
        emit CaseUpheld(caseId, refunded, slashed, award);
        if (award + repaid > 0) REGISTRY.release(address(this), uint128(award + repaid));
    }

    /// @dev The bond pays the jurors; the rest is the accused provider's, for its trouble. Whoever had to demand what
    /// the node then showed to jurors only gets the rest back, so that no node earns by withholding.
    function _endDismissed(bytes32 caseId, Case storage dispute, uint256 jurors) private {
        dispute.state = CaseState.Dismissed;
        _payJurors(caseId, false);
        _credit(dispute.isReferred ? dispute.challenger : dispute.owner, _rules.bond - jurors * _rules.jurorFee);
        emit CaseDismissed(caseId);
        _resolve(dispute, true);
    }

    function _endVoid(bytes32 caseId, Case storage dispute) private {
        (dispute.state, dispute.isSham) = (CaseState.Void, _isStrangers(dispute));
        _credit(dispute.challenger, _rules.bond);
        emit CaseVoid(caseId);
        _resolve(dispute, false);
    }

    /// @dev How much went back to the buyer, which is what the case keeps: nothing once a voucher has paid the job,
    /// which its key then accepted.
    function _resolve(Case storage dispute, bool isPaid) private returns (uint64) {
        uint64 held = dispute.held;
        if (held == 0) return 0;
        bool isReplaced = ESCROW.claimOf(dispute.sessionId).replaced != dispute.replaced;
        if (isReplaced || isPaid) dispute.held = 0;
        if (!isReplaced) ESCROW.resolve(dispute.sessionId, dispute.key, dispute.buyer, held, isPaid);
        return dispute.held;
    }

    /* SEATS */

    function _payJurors(bytes32 caseId, bool isAgainst) private {
        Seat[_SEATS] storage seats = _seats[caseId];
        for (uint256 i = 0; i < _SEATS; ++i) {
            bool isRight = seats[i].verdict != Verdict.None && _isAgainst(seats[i].verdict) == isAgainst;
            _release(caseId, seats[i], !isRight, isRight ? _rules.jurorFee : 0);
        }
    }

    /// @dev Ends a round without a majority: whoever kept silent loses the deposit, nobody earns.
    function _vacate(bytes32 caseId) private {
        bool isRevealing = _cases[caseId].state == CaseState.Revealing;
        Seat[_SEATS] storage seats = _seats[caseId];
        for (uint256 i = 0; i < _SEATS; ++i) {
            bool isSilent = isRevealing && seats[i].verdict == Verdict.None;
            _release(caseId, seats[i], isSilent, 0);
        }
    }

    function _release(bytes32 caseId, Seat storage seat, bool isLost, uint64 fee) private {
        address who = seat.juror;
        if (who == address(0)) return;
        Juror storage juror = _jurors[who];
        uint64 deposit = _rules.jurorDeposit;
        uint64 lost = isLost ? deposit : 0;

        juror.locked -= deposit;
        juror.balance = juror.balance - lost + fee;
        _burned += lost;
        (seat.juror, seat.verdict, seat.commitment) = (address(0), Verdict.None, 0);
        emit JurorReleased(caseId, who, lost, fee);
    }

    function _openSeat(bytes32 caseId, CaseState state) private view returns (Seat storage seat) {
        Case storage dispute = _cases[caseId];
        if (dispute.state != state) revert Court_WrongState(caseId);
        if (block.timestamp >= dispute.phaseEnds) revert Court_TooLate(block.timestamp, dispute.phaseEnds);
        for (uint256 i = 0; i < _SEATS; ++i) {
            seat = _seats[caseId][i];
            if (seat.juror == msg.sender) return seat;
        }
        revert Court_NoSeat(msg.sender);
    }

    /// @dev Chance in proportion to stake, up to the full weight. `roll` decides. Whatever a juror does once the seed
    /// is known can only cost it its seat.
    function _isEligible(bytes32 caseId, Case storage dispute, address juror, uint256 roll)
        private
        view
        returns (bool)
    {
        if (juror == dispute.owner || juror == dispute.challenger) return false;
        if (juror == dispute.buyer || juror == dispute.key) return false;
        Juror storage money = _jurors[juror];
        if (money.place == 0 || money.since >= dispute.seedBlock) return false;
        if (money.balance - money.locked < _rules.jurorDeposit) return false;
        if (roll % _rules.fullWeight >= money.weight) return false;
        return !_drawnBefore(caseId, dispute)[juror] && _isStaked(juror);
    }

    /// @dev A stranger who shows nothing, or has no jurors drawn, must not use up the buyer's one judgement.
    function _isStrangers(Case storage dispute) private view returns (bool) {
        return dispute.challenger != dispute.buyer && dispute.challenger != dispute.key;
    }

    /// @dev After a sham the buyer's side has all jurors before it again.
    function _drawnBefore(bytes32 caseId, Case storage dispute)
        private
        view
        returns (mapping(address juror => bool was) storage)
    {
        return _wasDrawn[keccak256(abi.encode(caseId, dispute.challenger))];
    }

    function _committed(bytes32 caseId) private view returns (uint256 count) {
        for (uint256 i = 0; i < _SEATS; ++i) {
            if (_seats[caseId][i].commitment != 0) ++count;
        }
    }

    function _vacancy(bytes32 caseId, uint256 from) private view returns (uint256 seat) {
        seat = from;
        while (seat < _SEATS && _seats[caseId][seat].juror != address(0)) ++seat;
    }

    function _isAgainst(Verdict verdict) private pure returns (bool) {
        return verdict == Verdict.Guilty || verdict == Verdict.NodeWithheld;
    }
}
