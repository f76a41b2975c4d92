// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../interfaces/IEscrow.sol";
import {SessionWords} from "../libraries/SessionWord.sol";
import {Close, Messages, Open, TopUp} from "../types/Messages.sol";
import {Session} from "../types/Sessions.sol";
import {EscrowKeys} from "./EscrowKeys.sol";

/// @title From account to session and back
/// @notice The prose is in `IEscrow`.
abstract contract EscrowSessions is EscrowKeys {
    /// @inheritdoc IEscrow
    function open(Open[] calldata opens, bytes[] calldata signatures) external override {
        if (opens.length != signatures.length) revert Escrow_LengthMismatch(signatures.length, opens.length);
        for (uint256 i = 0; i < opens.length; ++i) {
            _open(opens[i], signatures[i]);
        }
    }

    /// @inheritdoc IEscrow
    function openOneSession(Open calldata terms, bytes calldata signature) external override {
        _open(terms, signature);
    }

    /// @inheritdoc IEscrow
    function topUp(Open calldata terms, uint128 deposited, bytes calldata signature) external override {
        (bytes32 sessionId, Session storage held) = _findExisting(terms);
        uint256 before = held.deposited;
        if (deposited <= before) return;
        if (_isClosed(held.flags)) revert Escrow_SessionClosed(sessionId);
        if (block.timestamp >= held.expiresAt) revert Escrow_SessionOver(block.timestamp, held.expiresAt);
        uint64 total = _narrow(deposited);
        uint256 added = total - before;
        bytes32 digest = _hashTypedDataV4(Messages.hash(TopUp(sessionId, deposited)));
        _authorise(terms.buyer, terms.key, terms.nodeId, added, total, digest, signature);

        _debit(terms.buyer, added);
        held.deposited = total;
        emit SessionToppedUp(sessionId, uint128(added), deposited);
    }

    /// @inheritdoc IEscrow
    function close(Open calldata terms, uint128 minPaid, bytes calldata nodeSignature) external override {
        (bytes32 sessionId, Session storage held) = _findExisting(terms);
        if (_isClosed(held.flags)) return;
        if (held.flags != _EXISTS) revert Escrow_ClaimPending(sessionId);
        if (held.paid < minPaid) revert Escrow_PaidTooLittle(held.paid, minPaid);
        address signer = REGISTRY.signerAt(held.nodeId, held.keyEpoch);
        _requireSigner(signer, _hashTypedDataV4(Messages.hash(Close(sessionId, minPaid))), nodeSignature);

        _return(sessionId, held, terms.buyer);
    }

    /// @inheritdoc IEscrow
    function expire(Open[] calldata terms) external override {
        for (uint256 i = 0; i < terms.length; ++i) {
            (bytes32 sessionId, Session storage held) = _find(terms[i]);
            if (held.flags == 0 || _isClosed(held.flags)) continue;
            uint256 graceEnd = uint256(held.expiresAt) + GRACE_SECONDS;
            if (block.timestamp < graceEnd) revert Escrow_TooEarly(block.timestamp, graceEnd);

            _return(sessionId, held, terms[i].buyer);
        }
    }

    function _open(Open calldata terms, bytes calldata signature) private {
        (bytes32 sessionId, Session storage held) = _find(terms);
        if (held.flags != 0) return;
        uint16 epoch = _requireOpenable(terms);
        uint64 amount = _narrow(terms.amount);
        _authorise(terms.buyer, terms.key, terms.nodeId, amount, amount, sessionId, signature);

        _debit(terms.buyer, amount);
        SessionWords.store(held, SessionWords.fresh(amount, terms.nodeId, terms.expiresAt, epoch, _EXISTS));
        emit SessionOpened(sessionId, terms.buyer, terms.nodeId, terms.key, amount, terms.expiresAt, epoch);
    }

    function _return(bytes32 sessionId, Session storage held, address buyer) private {
        uint256 rest = held.deposited - held.paid;
        if (held.flags & _CLAIMED != 0) {
            rest -= uint256(_claims[bytes24(sessionId)].pending) + _claims[bytes24(sessionId)].held;
        }

        held.flags |= _CLOSED;
        _accounts[buyer] += uint128(rest);
        emit SessionClosed(sessionId, held.paid, uint128(rest));
    }

    function _requireOpenable(Open calldata terms) private view returns (uint16) {
        if (terms.amount == 0) revert Escrow_ZeroAmount();
        if (terms.key == address(0)) revert Escrow_ZeroKey();
        if (block.timestamp >= terms.openBefore) revert Escrow_OpenedTooLate(block.timestamp, terms.openBefore);
        if (block.timestamp >= terms.expiresAt) revert Escrow_SessionOver(block.timestamp, terms.expiresAt);
        uint256 latest = block.timestamp + MAX_SESSION_SECONDS;
        if (terms.expiresAt > latest) revert Escrow_SessionTooLong(terms.expiresAt, latest);
        NodeOwner storage node = _owners[terms.nodeId];
        if (!node.serves) revert Escrow_NotServing(terms.nodeId);
        return node.epoch;
    }
}
