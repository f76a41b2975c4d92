// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {IEscrow} from "./../../../contracts/interfaces/IEscrow.sol";
import {Messages, Voucher} from "./../../../contracts/types/Messages.sol";
import {Session, SettleItem} from "./../../../contracts/types/Sessions.sol";

/// @title What the hot loop does, written as the rules are told
contract Rulebook {
    struct NodeAccount {
        address settler;
        uint96 earnings;
    }

    bytes32 private immutable _DOMAIN;
    address private immutable _BY;
    uint256 private immutable _GRACE_END;

    mapping(address key => mapping(bytes24 shortId => Session value)) private _sessions;
    mapping(uint32 nodeId => NodeAccount value) private _nodes;
    uint256[] private _skipped;

    constructor(bytes32 domain, address by, uint256 graceEnd) {
        (_DOMAIN, _BY, _GRACE_END) = (domain, by, graceEnd);
    }

    function put(address key, bytes24 shortId, Session calldata value) external {
        _sessions[key][shortId] = value;
    }

    function putNode(uint32 nodeId, address settler, uint96 earnings) external {
        _nodes[nodeId] = NodeAccount(settler, earnings);
    }

    /// @dev Returns the positions of those that did not settle.
    function settle(SettleItem[] calldata items) external returns (uint256[] memory) {
        for (uint256 i = 0; i < items.length; ++i) {
            SettleItem calldata item = items[i];
            Voucher memory voucher = Voucher(item.sessionId, item.throughSeq, item.amount, item.receiptsRoot);
            (address signer,,) = ECDSA.tryRecover(digestOf(voucher), item.r, item.vs);
            Session storage held = _sessions[signer][bytes24(item.sessionId)];
            if (_settle(held, item.throughSeq, item.amount)) {
                emit IEscrow.VoucherSettled(item.sessionId, item.throughSeq, item.amount, item.receiptsRoot);
            } else {
                _skipped.push(i);
            }
        }
        return _skipped;
    }

    /// @dev Returns the positions of those that did not settle.
    function settleBatch(bytes calldata vouchers, address key) external returns (uint256[] memory) {
        for (uint256 i = 0; i < vouchers.length / 36; ++i) {
            bytes calldata voucher = vouchers[36 * i:36 * i + 36];
            Session storage held = _sessions[key][bytes24(voucher)];
            if (!_settle(held, uint32(bytes4(voucher[24:])), uint64(bytes8(voucher[28:])))) _skipped.push(i);
        }
        return _skipped;
    }

    function session(address key, bytes24 shortId) external view returns (Session memory) {
        return _sessions[key][shortId];
    }

    function node(uint32 nodeId) external view returns (address settler, uint96 earnings) {
        return (_nodes[nodeId].settler, _nodes[nodeId].earnings);
    }

    function digestOf(Voucher memory voucher) public view returns (bytes32) {
        return MessageHashUtils.toTypedDataHash(_DOMAIN, Messages.hash(voucher));
    }

    function _settle(Session storage held, uint256 throughSeq, uint256 amount) private returns (bool) {
        if (held.flags != 1) return false; // not there, closed, or claimed
        if (_nodes[held.nodeId].settler != _BY) return false;
        if (held.expiresAt < _GRACE_END) return false;
        if (amount > held.deposited) return false;
        if (amount < held.paid || throughSeq < held.throughSeq) return false;
        if (amount == held.paid && throughSeq == held.throughSeq) return false;
        _nodes[held.nodeId].earnings += uint96(amount - held.paid);
        (held.paid, held.throughSeq) = (uint64(amount), uint32(throughSeq));
        return true;
    }
}
