// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IEscrow} from "../interfaces/IEscrow.sol";
import {Parties} from "../interfaces/IReceiptReader.sol";
import {Claim, SignedReceipt} from "../types/Claims.sol";
import {Open} from "../types/Messages.sol";
import {Session} from "../types/Sessions.sol";
import {EscrowSettlement} from "./EscrowSettlement.sol";

/// @title From session to earnings, without a voucher
/// @notice A claim waits for its window; what is disputed meanwhile waits for the court. The prose is in `IEscrow`.
abstract contract EscrowClaims is EscrowSettlement {
    modifier onlyCourt() {
        if (msg.sender != COURT) revert Escrow_NotCourt(msg.sender, COURT);
        _;
    }

    /// @inheritdoc IEscrow
    function claim(Open calldata terms, SignedReceipt[] calldata receipts) external override {
        (bytes32 sessionId, Session storage held) = _findExisting(terms);
        _requireClaimable(sessionId, held);
        Claim storage waiting = _claims[bytes24(sessionId)];
        address nodeSigner = REGISTRY.signerAt(held.nodeId, held.keyEpoch);
        Parties memory parties = Parties(_domainSeparatorV4(), sessionId, terms.key, nodeSigner);
        (uint256 sum, uint32 throughSeq, bytes32[] memory hashes) = RECEIPTS.read(parties, held.throughSeq, receipts);
        if (sum == 0) revert Escrow_ZeroAmount();
        uint256 left = uint256(held.deposited) - held.paid - waiting.held;
        if (sum > left) revert Escrow_AboveSession(sum, left);

        uint48 finalAt = SafeCast.toUint48(block.timestamp + CHALLENGE_SECONDS);
        (waiting.pending, waiting.throughSeq, waiting.finalAt) = (uint64(sum), throughSeq, finalAt);
        waiting.receiptsHash = keccak256(abi.encodePacked(hashes));
        held.flags |= _CLAIMED;
        emit Claimed(sessionId, throughSeq, uint128(sum), finalAt, hashes);

        REGISTRY.lock(_owners[held.nodeId].owner, uint64(sum));
    }

    /// @inheritdoc IEscrow
    function finalise(Open calldata terms) external override {
        (bytes32 sessionId, Session storage held) = _findExisting(terms);
        Claim storage waiting = _claims[bytes24(sessionId)];
        uint64 amount = waiting.pending;
        if (amount == 0) revert Escrow_NoClaim(sessionId);
        if (block.timestamp < waiting.finalAt) revert Escrow_TooEarly(block.timestamp, waiting.finalAt);

        waiting.pending = 0;
        _pay(held, amount);
        _finalise(sessionId, held, waiting, amount);
        _settleClaim(held, waiting, amount);
    }

    /// @inheritdoc IEscrow
    function hold(
        bytes32 sessionId,
        address key,
        bytes32 receiptHash,
        uint64 amount,
        bytes32[] calldata receiptHashes
    ) external override onlyCourt {
        Claim storage waiting = _claims[bytes24(sessionId)];
        if (waiting.pending == 0 || block.timestamp >= waiting.finalAt) revert Escrow_NoClaim(sessionId);
        bool isListed = keccak256(abi.encodePacked(receiptHashes)) == waiting.receiptsHash;
        if (!isListed || !_contains(receiptHashes, receiptHash)) revert Escrow_NotClaimed(receiptHash);

        (waiting.pending, waiting.held) = (waiting.pending - amount, waiting.held + amount);
        emit ClaimHeld(sessionId, receiptHash, amount);
        // With nothing left to wait for, the claim's orders have ended.
        if (waiting.pending == 0) _finalise(sessionId, _sessions[key][bytes24(sessionId)], waiting, 0);
    }

    /// @inheritdoc IEscrow
    function resolve(bytes32 sessionId, address key, address buyer, uint64 amount, bool isPaid)
        external
        override
        onlyCourt
    {
        Session storage held = _sessions[key][bytes24(sessionId)];
        Claim storage waiting = _claims[bytes24(sessionId)];

        waiting.held -= amount;
        if (isPaid) _pay(held, amount);
        else if (_isClosed(held.flags)) _accounts[buyer] += amount;
        emit ClaimResolved(sessionId, amount, isPaid);
        _settleClaim(held, waiting, amount);
    }

    /// @inheritdoc IEscrow
    function claimOf(bytes32 sessionId) external view override returns (Claim memory) {
        return _claims[bytes24(sessionId)];
    }

    function _pay(Session storage held, uint64 amount) private {
        held.paid += amount;
        _nodes[held.nodeId].earnings += amount;
    }

    function _finalise(bytes32 sessionId, Session storage held, Claim storage waiting, uint64 amount) private {
        held.throughSeq = waiting.throughSeq;
        emit ClaimFinalised(sessionId, waiting.throughSeq, amount, held.paid);
    }

    function _settleClaim(Session storage held, Claim storage waiting, uint64 amount) private {
        if (waiting.pending == 0 && waiting.held == 0) held.flags ^= _CLAIMED;
        REGISTRY.unlock(_owners[held.nodeId].owner, amount);
    }

    function _requireClaimable(bytes32 sessionId, Session storage held) private view {
        address settler = _nodes[held.nodeId].settler;
        if (msg.sender != settler) revert Escrow_NotSettler(msg.sender, settler);
        if (_isClosed(held.flags)) revert Escrow_SessionClosed(sessionId);
        uint256 graceEnd = uint256(held.expiresAt) + GRACE_SECONDS;
        if (block.timestamp >= graceEnd) revert Escrow_SessionOver(block.timestamp, graceEnd);
        if (_claims[bytes24(sessionId)].pending > 0) revert Escrow_ClaimPending(sessionId);
    }

    function _contains(bytes32[] calldata hashes, bytes32 wanted) private pure returns (bool) {
        for (uint256 i = 0; i < hashes.length; ++i) {
            if (hashes[i] == wanted) return true;
        }
        return false;
    }
}
