// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../interfaces/IEscrow.sol";
import {Signatures} from "../libraries/Signatures.sol";
import {Key, KeyCaps} from "../types/Keys.sol";
import {KeyGrant, Messages} from "../types/Messages.sol";
import {EscrowBase} from "./EscrowBase.sol";

/// @title Keys and their caps
/// @notice A key holds no money; it moves its buyer's into sessions, so far and no further. The prose is in `IEscrow`.
abstract contract EscrowKeys is EscrowBase {
    /// @dev More grants than anybody signs ahead.
    uint64 private constant _REVOCATION_STEP = 65_536;

    /// @inheritdoc IEscrow
    function setKey(address key, KeyCaps calldata caps) external override {
        _set(msg.sender, key, caps, _keys[msg.sender][key].nonce + 1);
    }

    /// @inheritdoc IEscrow
    function setKeyBySig(KeyGrant calldata grant, bytes calldata signature) external override {
        if (grant.nonce <= _keys[grant.buyer][grant.key].nonce) return;
        if (block.timestamp >= grant.validUntil) revert Escrow_GrantTooLate(block.timestamp, grant.validUntil);
        _requireBuyer(grant.buyer, _hashTypedDataV4(Messages.hash(grant)), signature);

        KeyCaps memory caps =
            KeyCaps(grant.perSession, grant.perDay, grant.total, grant.expiresAt, grant.nodesRoot);
        _set(grant.buyer, grant.key, caps, grant.nonce);
    }

    /// @inheritdoc IEscrow
    function revokeKey(address key) external override {
        Key storage held = _keys[msg.sender][key];

        uint64 nonce = held.nonce + _REVOCATION_STEP;
        (held.expiresAt, held.nonce) = (0, nonce);
        emit KeyRevoked(msg.sender, key, nonce);
    }

    /// @inheritdoc IEscrow
    function keyOf(address buyer, address key) external view override returns (Key memory) {
        return _keys[buyer][key];
    }

    /// @dev Who moves a buyer's money: the buyer itself, or a key, which this charges with `added`.
    function _authorise(
        address buyer,
        address key,
        uint32 nodeId,
        uint256 added,
        uint256 total,
        bytes32 digest,
        bytes calldata signature
    ) internal {
        if (signature.length == 0 && msg.sender == buyer) return;
        bytes calldata proof = signature[0:0];
        if (signature.length != 0 || msg.sender != key) {
            (address signer, bytes calldata rest) = Signatures.split(digest, signature);
            if (signer == buyer && rest.length == 0) return; // a buyer is never 0: 0 has no money
            if (signer != key) {
                if (Signatures.isAccepted(buyer, digest, signature, CONTRACT_SIGNATURE_GAS)) return;
                revert Escrow_WrongSigner(signer, buyer);
            }
            proof = rest;
        }
        _spend(_keys[buyer][key], nodeId, added, total, proof);
    }

    function _set(address buyer, address key, KeyCaps memory caps, uint64 nonce) private {
        if (key == address(0)) revert Escrow_ZeroKey();
        Key storage held = _keys[buyer][key];

        held.perSession = _narrow(caps.perSession);
        held.perDay = _narrow(caps.perDay);
        held.total = _narrow(caps.total);
        held.expiresAt = caps.expiresAt;
        held.isListed = caps.nodesRoot != 0;
        (held.nodesRoot, held.spent, held.nonce) = (caps.nodesRoot, 0, nonce);
        emit KeySet(
            buyer, key, nonce, caps.perSession, caps.perDay, caps.total, caps.expiresAt, caps.nodesRoot
        );
    }

    function _spend(Key storage held, uint32 nodeId, uint256 added, uint256 total, bytes calldata proof) private {
        if (block.timestamp >= held.expiresAt) revert Escrow_KeyExpired(block.timestamp, held.expiresAt);
        if (total > held.perSession) revert Escrow_AboveSessionCap(total, held.perSession);
        if (held.isListed && !Signatures.isListed(held.nodesRoot, nodeId, proof)) {
            revert Escrow_NodeNotAllowed(nodeId);
        }
        uint32 today = uint32(block.timestamp / 1 days);
        uint256 spentToday = (held.day == today ? held.spentToday : 0) + added;
        if (spentToday > held.perDay) revert Escrow_AboveDayCap(spentToday, held.perDay);
        uint256 spent = held.spent + added;
        if (spent > held.total) revert Escrow_AboveTotalCap(spent, held.total);

        (held.spentToday, held.spent, held.day) = (uint64(spentToday), uint64(spent), today);
    }
}
