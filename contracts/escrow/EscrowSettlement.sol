// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Hashes} from "@openzeppelin/contracts/utils/cryptography/Hashes.sol";
import {IEscrow} from "../interfaces/IEscrow.sol";
import {SessionWord, SessionWords} from "../libraries/SessionWord.sol";
import {Signatures} from "../libraries/Signatures.sol";
import {Source, Till, Vouchers} from "../libraries/Vouchers.sol";
import {Claim} from "../types/Claims.sol";
import {Messages, Settlement, VoucherBatch} from "../types/Messages.sol";
import {Session, SettleItem, SettleStatus} from "../types/Sessions.sol";
import {EscrowSessions} from "./EscrowSessions.sol";

/// @title From session to earnings, by voucher
/// @notice What a market does most, so what this costs is counted. The prose is in `IEscrow`.
abstract contract EscrowSettlement is EscrowSessions {
    /// @inheritdoc IEscrow
    function settle(SettleItem[] calldata items) external override {
        _settle(items, msg.sender);
    }

    /// @inheritdoc IEscrow
    function settleFor(SettleItem[] calldata items, bytes calldata signature) external override {
        bytes32 structHash = Messages.hash(Settlement(keccak256(abi.encode(items))));
        // Whoever did not sign is no node's settler, 0 least of all: then every item is skipped.
        _settle(items, Signatures.signerOf(_hashTypedDataV4(structHash), signature));
    }

    /// @inheritdoc IEscrow
    function settleBatch(bytes calldata vouchers, bytes32 receiptsRoot, bytes32 r, bytes32 vs) external override {
        if (vouchers.length % Vouchers.PACKED_BYTES != 0) {
            revert Escrow_WrongBatch(vouchers.length, Vouchers.PACKED_BYTES);
        }
        bytes memory settled = vouchers;
        bytes32 structHash = Messages.hash(VoucherBatch(keccak256(settled), receiptsRoot));
        address key = Signatures.signerOf(_hashTypedDataV4(structHash), r, vs);
        Source memory source = _newSource(true);
        source.sessions = Hashes.efficientKeccak256(bytes32(uint256(uint160(key))), source.sessions);
        Till memory till = _newTill(msg.sender);
        uint256 skipped = 0;

        (uint256 start, uint256 last) = Vouchers.range(vouchers);
        (uint256 at,) = Vouchers.settleRun(start, last, source, till);
        while (at < last) {
            (bytes24 shortId, uint256 throughSeq, uint256 amount) = Vouchers.voucherAt(at);
            if (!_settleOne(_sessions[key][shortId], shortId, throughSeq, amount, till)) {
                Vouchers.remove(settled, at - start - skipped);
                skipped += Vouchers.PACKED_BYTES;
            }
            (at,) = Vouchers.settleRun(at + Vouchers.PACKED_BYTES, last, source, till);
        }
        emit BatchSettled(key, receiptsRoot, settled);
    }

    function _settle(SettleItem[] calldata items, address by) private {
        Source memory source = _newSource(false);
        source.domain = _domainSeparatorV4();
        Till memory till = _newTill(by);

        (uint256 start, uint256 last) = Vouchers.range(items);
        (uint256 at, address signer) = Vouchers.settleRun(start, last, source, till);
        while (at < last) {
            SettleItem calldata item = Vouchers.itemAt(at);
            // Numbers of a voucher that nobody signed may not even fit their fields.
            if (signer == address(0)) emit VoucherSkipped(item.sessionId, SettleStatus.UnknownSession);
            else _settleOne(signer, item, till);
            (at, signer) = Vouchers.settleRun(at + Vouchers.ITEM_BYTES, last, source, till);
        }
    }

    function _settleOne(address signer, SettleItem calldata item, Till memory till) private {
        Session storage held = _sessions[signer][bytes24(item.sessionId)];
        if (_settleOne(held, item.sessionId, item.throughSeq, item.amount, till)) {
            emit VoucherSettled(item.sessionId, item.throughSeq, item.amount, item.receiptsRoot);
        }
    }

    /// @dev A voucher of a claimed session, or a bad one. Its signature was checked by finding `held` under its signer.
    function _settleOne(
        Session storage held,
        bytes32 sessionId,
        uint256 throughSeq,
        uint256 amount,
        Till memory till
    ) private returns (bool) {
        SessionWord was = SessionWords.load(held);
        SettleStatus status;
        (status, was) = _judge(was, sessionId, throughSeq, amount, till);
        if (status != SettleStatus.Settled) {
            emit VoucherSkipped(sessionId, status);
            return false;
        }
        _nodes[uint32(was.nodeId())].earnings += uint96(amount - was.paid());
        SessionWords.store(held, was.advanced(amount, throughSeq));
        return true;
    }

    /// @dev Every rule of settling, one by one.
    function _judge(SessionWord was, bytes32 sessionId, uint256 throughSeq, uint256 amount, Till memory till)
        private
        returns (SettleStatus, SessionWord)
    {
        uint256 flags = was.flags();
        if (flags == 0) return (SettleStatus.UnknownSession, was);
        bool isSettler = SessionWord.unwrap(till.plain) != SessionWord.unwrap(SessionWords.NONE);
        if (!isSettler) return (SettleStatus.NotSettler, was);
        if (flags & _CLOSED != 0) return (SettleStatus.Closed, was);
        if (was.expiresAt() < till.graceEnd) return (SettleStatus.Expired, was);
        if (amount > was.deposited()) return (SettleStatus.AboveDeposit, was);
        if (amount < was.paid() || throughSeq < was.throughSeq()) return (SettleStatus.Stale, was);
        if (amount == was.paid() && throughSeq == was.throughSeq()) return (SettleStatus.Stale, was);
        if (flags == _EXISTS) return (SettleStatus.Settled, was);
        return _replaceClaim(was, sessionId, throughSeq);
    }

    /// @dev A voucher pays every order up to its own, however it was to be paid: it takes the place of the claim, and
    /// of what is held of earlier ones, whose orders all lie before it.
    function _replaceClaim(SessionWord was, bytes32 sessionId, uint256 throughSeq)
        private
        returns (SettleStatus, SessionWord)
    {
        Claim storage waiting = _claims[bytes24(sessionId)];
        if (waiting.pending > 0 && throughSeq < waiting.throughSeq) return (SettleStatus.ClaimPending, was);
        uint64 amount = waiting.pending + waiting.held;

        (waiting.pending, waiting.held, waiting.replaced) = (0, 0, waiting.replaced + 1);
        emit ClaimReplaced(sessionId, amount);
        REGISTRY.unlock(_owners[uint32(was.nodeId())].owner, amount);
        return (SettleStatus.Settled, was.flagged(_EXISTS));
    }

    function _newTill(address by) private view returns (Till memory till) {
        till.by = by;
        till.graceEnd = block.timestamp + 1 - GRACE_SECONDS;
        till.plain = SessionWords.NONE;
    }

    function _newSource(bool isBatch) private pure returns (Source memory source) {
        source.isBatch = isBatch;
        (bytes32 sessions, bytes32 nodes) = (0, 0);
        // Assembly because Solidity does not tell a mapping's slot.
        assembly ("memory-safe") {
            sessions := _sessions.slot
            nodes := _nodes.slot
        }
        (source.sessions, source.nodes) = (sessions, nodes);
    }
}
