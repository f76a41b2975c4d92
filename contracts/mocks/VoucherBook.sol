// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {SessionWords} from "../libraries/SessionWord.sol";
import {Source, Till, Vouchers} from "../libraries/Vouchers.sol";
import {Session, SettleItem} from "../types/Sessions.sol";
import {IVoucherBook} from "./IVoucherBook.sol";

/// @title VoucherBook
/// @notice The prose is in `IVoucherBook`.
contract VoucherBook is IVoucherBook {
    struct NodeAccount {
        address settler;
        uint96 earnings;
    }

    /// @inheritdoc IVoucherBook
    bytes32 public constant override DOMAIN = keccak256("domain");

    mapping(address key => mapping(bytes24 shortId => Session value)) private _sessions;
    mapping(uint32 nodeId => NodeAccount value) private _nodes;
    uint256[] private _skipped;

    error VoucherBook_KnownSession(uint256 position);

    /// @inheritdoc IVoucherBook
    function put(address key, bytes24 shortId, Session calldata value) external override {
        _sessions[key][shortId] = value;
    }

    /// @inheritdoc IVoucherBook
    function putNode(uint32 nodeId, address settler, uint96 earnings) external override {
        _nodes[nodeId] = NodeAccount(settler, earnings);
    }

    /// @inheritdoc IVoucherBook
    function settle(SettleItem[] calldata items, address by, uint256 graceEnd)
        external
        override
        returns (uint256[] memory)
    {
        (uint256 start, uint256 last) = Vouchers.range(items);
        return _settle(start, last, Vouchers.ITEM_BYTES, _source(false), _till(by, graceEnd));
    }

    /// @inheritdoc IVoucherBook
    function settleBatch(bytes calldata vouchers, address key, address by, uint256 graceEnd)
        external
        override
        returns (uint256[] memory)
    {
        Source memory source = _source(true);
        source.sessions = keccak256(abi.encode(key, source.sessions));
        (uint256 start, uint256 last) = Vouchers.range(vouchers);
        return _settle(start, last, Vouchers.PACKED_BYTES, source, _till(by, graceEnd));
    }

    /// @inheritdoc IVoucherBook
    function signersOf(SettleItem[] calldata items) external override returns (address[] memory signers) {
        signers = new address[](items.length);
        Source memory source = _source(false);
        Till memory till = _till(address(0), 0);
        (uint256 at, uint256 last) = Vouchers.range(items);
        for (uint256 i = 0; i < items.length; ++i) {
            uint256 end = 0;
            (end, signers[i]) = Vouchers.settleRun(at, last, source, till);
            if (end != at) revert VoucherBook_KnownSession(i);
            at += Vouchers.ITEM_BYTES;
        }
    }

    /// @inheritdoc IVoucherBook
    function session(address key, bytes24 shortId) external view override returns (Session memory) {
        return _sessions[key][shortId];
    }

    /// @inheritdoc IVoucherBook
    function node(uint32 nodeId) external view override returns (address settler, uint96 earnings) {
        return (_nodes[nodeId].settler, _nodes[nodeId].earnings);
    }

    /// @inheritdoc IVoucherBook
    function voucherAt(bytes calldata vouchers, uint256 i)
        external
        pure
        override
        returns (bytes24 shortId, uint256 throughSeq, uint256 amount)
    {
        (uint256 start,) = Vouchers.range(vouchers);
        return Vouchers.voucherAt(start + i * Vouchers.PACKED_BYTES);
    }

    /// @inheritdoc IVoucherBook
    function removed(bytes calldata vouchers, uint256 i) external pure override returns (bytes memory rest) {
        rest = vouchers;
        Vouchers.remove(rest, i * Vouchers.PACKED_BYTES);
    }

    function _settle(uint256 start, uint256 last, uint256 stride, Source memory source, Till memory till)
        private
        returns (uint256[] memory)
    {
        (uint256 at,) = Vouchers.settleRun(start, last, source, till);
        while (at < last) {
            _skipped.push((at - start) / stride);
            (at,) = Vouchers.settleRun(at + stride, last, source, till);
        }
        return _skipped;
    }

    function _source(bool isBatch) private pure returns (Source memory) {
        (bytes32 sessions, bytes32 nodes) = (0, 0);
        // Assembly because Solidity does not tell a mapping's slot.
        assembly ("memory-safe") {
            sessions := _sessions.slot
            nodes := _nodes.slot
        }
        return Source(isBatch, sessions, nodes, DOMAIN);
    }

    function _till(address by, uint256 graceEnd) private pure returns (Till memory) {
        return Till(by, graceEnd, 0, SessionWords.NONE);
    }
}
