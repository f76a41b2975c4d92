// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";
import {ICourt} from "../interfaces/ICourt.sol";
import {Provider} from "../interfaces/INodeRegistry.sol";
import {Case, CaseState, Evidence, Juror} from "../types/Cases.sol";
import {Open} from "../types/Messages.sol";
import {CourtJury} from "./CourtJury.sol";

/// @title Demands and judgements, from the challenger's and the node's side
/// @notice The prose is in `ICourt`.
abstract contract CourtCases is CourtJury {
    using SafeERC20 for IERC20;
    using Checkpoints for Checkpoints.Trace160;

    uint256 private constant _LONGEST_RESPONSE_BYTES = 24 * 1024;

    /// @dev The node's side of a demand that is still to be answered.
    modifier onlyNode(bytes32 caseId) {
        Case storage dispute = _cases[caseId];
        if (dispute.state != CaseState.Demanded) revert Court_WrongState(caseId);
        if (block.timestamp >= dispute.phaseEnds) revert Court_TooLate(block.timestamp, dispute.phaseEnds);
        (address settler,) = ESCROW.nodeAccount(dispute.nodeId);
        if (msg.sender != dispute.owner && msg.sender != settler) revert Court_NotNode(msg.sender);
        _;
    }

    /// @inheritdoc ICourt
    function demand(Evidence calldata evidence) external override returns (bytes32 caseId) {
        Open calldata terms = evidence.terms;
        _requireBuyer(terms);
        Job memory job = _examine(evidence);
        caseId = job.receiptHash;
        if (_cases[caseId].state != CaseState.None) revert Court_WrongState(caseId);

        Case storage dispute = _newCase(evidence, job, true);
        (dispute.state, dispute.phaseEnds) = (CaseState.Demanded, _after(_rules.answerSeconds));
        emit CaseOpened(caseId, msg.sender, dispute.owner, false, dispute.amount, dispute.held, 0);

        _takeBond();
        _hold(evidence, job);
    }

    /// @inheritdoc ICourt
    function answer(bytes32 caseId, bytes calldata response) external override onlyNode(caseId) {
        if (response.length == 0 || response.length > _LONGEST_RESPONSE_BYTES) {
            revert Court_WrongLength(response.length, _LONGEST_RESPONSE_BYTES);
        }
        Case storage dispute = _cases[caseId];

        (dispute.state, dispute.phaseEnds) = (CaseState.Answered, _after(ESCROW.CHALLENGE_SECONDS()));
        _credit(dispute.challenger, _rules.bond);
        emit Answered(caseId, response);
    }

    /// @inheritdoc ICourt
    function refer(bytes32 caseId, bytes32 evidenceHash) external override onlyNode(caseId) {
        (_cases[caseId].evidenceHash, _cases[caseId].isReferred) = (evidenceHash, true);
        emit Referred(caseId, evidenceHash);
        _startRound(caseId);
    }

    /// @inheritdoc ICourt
    function challenge(Evidence calldata evidence, bytes32 evidenceHash) external override returns (bytes32 caseId) {
        Job memory job = _examine(evidence);
        caseId = job.receiptHash;
        Case storage dispute = _cases[caseId];
        bool isNew = dispute.state == CaseState.None || dispute.isSham;
        // A receipt is judged once, so nobody else may spend that once while the buyer's money hangs on it, nor twice.
        if (dispute.state != CaseState.None || evidence.claimed.length > 0) _requireBuyer(evidence.terms);
        if (isNew) {
            if (evidence.claimed.length == 0) _requirePaid(evidence, job);
            _newCase(evidence, job, evidence.claimed.length > 0);
        } else {
            if (dispute.state != CaseState.Answered) revert Court_WrongState(caseId);
            if (block.timestamp >= dispute.phaseEnds) revert Court_TooLate(block.timestamp, dispute.phaseEnds);
            dispute.challenger = msg.sender;
        }
        dispute.evidenceHash = evidenceHash;
        emit CaseOpened(caseId, msg.sender, dispute.owner, true, dispute.amount, dispute.held, evidenceHash);
        _startRound(caseId);

        _takeBond();
        if (isNew && dispute.held > 0) _hold(evidence, job);
    }

    /* MONEY */

    /// @inheritdoc ICourt
    function enrol(uint64 amount) external override {
        Provider memory provider = REGISTRY.provider(msg.sender);
        bool isStaked = provider.staked > 0 && provider.staked >= _MIN_STAKE;
        if (!isStaked) revert Court_NotStaked(msg.sender);
        Juror storage juror = _jurors[msg.sender];

        if (juror.place == 0) {
            juror.place = ++_poolSize;
            _put(msg.sender, juror.place);
        }
        (juror.weight, juror.since) = (provider.staked, SafeCast.toUint32(block.number));
        juror.balance += amount;
        emit Enrolled(msg.sender, amount);

        if (amount > 0) _take(amount);
    }

    /// @inheritdoc ICourt
    function resign() external override {
        _leave(msg.sender);
    }

    /// @inheritdoc ICourt
    function expel(address juror) external override {
        if (_isStaked(juror) && _jurors[juror].balance >= _rules.jurorDeposit) revert Court_StillEligible(juror);
        _leave(juror);
    }

    /// @inheritdoc ICourt
    function withdraw(uint64 amount) external override {
        if (amount == 0) revert Court_ZeroAmount();
        Juror storage juror = _jurors[msg.sender];
        uint64 free = juror.balance - juror.locked;
        if (amount > free) revert Court_AboveBalance(amount, free);

        juror.balance -= amount;
        emit BalanceWithdrawn(msg.sender, amount);

        _TOKEN.safeTransfer(msg.sender, amount);
    }

    /* HELPERS */

    function _leave(address who) private {
        uint32 place = _jurors[who].place;
        if (place == 0) revert Court_NoSeat(who);
        uint32 size = _poolSize;

        address last = address(_places[size].latest());

        _put(last, place);
        _put(address(0), size);
        _poolSize = size - 1;
        _jurors[last].place = place;
        _jurors[who].place = 0;
        emit Resigned(who);
    }

    /// @dev Nothing is forgotten: a draw looks at the pool as it was when its seed was fixed, so that nobody who knows
    /// the seed can steer it by coming and going.
    function _put(address who, uint32 place) private {
        _places[place].push(SafeCast.toUint96(block.number), uint160(who));
    }

    function _newCase(Evidence calldata evidence, Job memory job, bool isHeld) private returns (Case storage dispute) {
        uint64 amount = SafeCast.toUint64(evidence.receipt.amount);
        if (amount == 0) revert Court_FreeJob(job.receiptHash);

        dispute = _cases[job.receiptHash];
        (dispute.challenger, dispute.amount, dispute.held) = (msg.sender, amount, isHeld ? amount : 0);
        (dispute.owner, dispute.nodeId) = (REGISTRY.ownerOf(job.session.nodeId), job.session.nodeId);
        (dispute.buyer, dispute.key) = (evidence.terms.buyer, evidence.terms.key);
        (dispute.sessionId, dispute.isSham, dispute.round) = (job.sessionId, false, 0);
    }

    function _hold(Evidence calldata evidence, Job memory job) private {
        Case storage dispute = _cases[job.receiptHash];
        (bytes32 sessionId, address key) = (job.sessionId, evidence.terms.key);
        ESCROW.hold(sessionId, key, job.receiptHash, dispute.held, evidence.claimed);
        dispute.replaced = ESCROW.claimOf(sessionId).replaced;
    }

    function _takeBond() private {
        _take(_rules.bond);
    }

    function _take(uint64 amount) private {
        uint256 before = _TOKEN.balanceOf(address(this));
        _TOKEN.safeTransferFrom(msg.sender, address(this), amount);
        uint256 delta = _TOKEN.balanceOf(address(this)) - before;
        if (delta != amount) revert Court_WrongDelta(delta, amount);
    }

    function _requireBuyer(Open calldata terms) private view {
        if (msg.sender != terms.buyer && msg.sender != terms.key) revert Court_NotBuyer(msg.sender);
    }

    function _requirePaid(Evidence calldata evidence, Job memory job) private view {
        _requireInTime(job);
        uint32 seq = evidence.order.seq;
        if (seq > job.session.throughSeq) revert Court_NotBilled(seq, job.session.throughSeq);
    }
}
