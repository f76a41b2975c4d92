// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../interfaces/IEscrow.sol";
import {Messages} from "../types/Messages.sol";
import {SettleItem} from "../types/Sessions.sol";
import {SessionWord} from "./SessionWord.sol";

/// @notice What the vouchers of one call share.
/// @param by Who settles.
/// @param graceEnd Sessions that expired before this second have no grace left; below 2^64.
/// @param nodeId Node at hand. Its neighbours share one read of the settler and one write of earnings. 0: none yet.
/// @param plain Node and flags of a session that settles fast: of the node at hand, open, nothing claimed. All bits set
/// when `by` is not the node's settler.
struct Till {
    address by;
    uint256 graceEnd;
    uint256 nodeId;
    SessionWord plain;
}

/// @notice Where a run finds its vouchers, and whose sessions they are of.
/// @param isBatch Whether they are packed, without a signature each; otherwise they are items.
/// @param sessions Slot of the mapping from key to short id to session; for a batch, from short id to session.
/// @param nodes Slot of the mapping from node to settler and earnings.
/// @param domain EIP-712 domain separator.
struct Source {
    bool isBatch;
    bytes32 sessions;
    bytes32 nodes;
    bytes32 domain;
}

/// @title The hot loop of settlement
/// @notice Settles vouchers in good order, one after the other: the caller is the node's settler, the session is open
/// with nothing claimed, its grace is not over, the deposit suffices, neither amount nor sequence falls, and one of
/// them rises. It stops at anything else and leaves that to its caller. Same answers as `Messages.hash`,
/// OpenZeppelin's ECDSA and the rules one by one, for half of the gas; `Vouchers.t.sol` holds it against those.
/// @dev In assembly because a settlement pays for this once per session: fields are hashed where they lie in calldata,
/// nothing is allocated, and one branch stands for seven rules. Differences are of numbers below 2^128: one that is
/// negative has its top bit set. `paid` and `throughSeq` are neighbours in a session's word: together they rise if and
/// only if the number made of both rises and `paid` does not fall.
library Vouchers {
    /// @notice Bytes of one voucher of a batch: short id (24), throughSeq (4) and amount (8).
    uint256 internal constant PACKED_BYTES = 36;
    /// @notice Bytes of one item.
    uint256 internal constant ITEM_BYTES = 192;

    /// @dev Highest `s` of a signature that nobody else could have made another of.
    uint256 private constant _HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;
    uint256 private constant _LOW_255_BITS = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF;
    uint256 private constant _LOW_160_BITS = 0x00ffffffffffffffffffffffffffffffffffffffff;
    uint256 private constant _LOW_96_BITS = 0xffffffffffffffffffffffff;
    uint256 private constant _LOW_64_BITS = 0xffffffffffffffff;
    /// @dev Fields of a `SessionWord`.
    uint256 private constant _NODE_AND_FLAGS = 0xffffffffff0000000000000000000000000000000000000000;
    uint256 private constant _NOT_PAID_AND_SEQ = 0xffffffffffffffffffffffff000000000000000000000000ffffffffffffffff;
    uint256 private constant _EXISTS_BIT = 192;

    /// @notice Settles vouchers up to the first that is not in good order.
    /// @param at Place in calldata of the first voucher.
    /// @param last Place in calldata behind the last.
    /// @param source What they are.
    /// @param till Turns from node to node as the vouchers do.
    /// @return end Place at which it stopped; `last` when all are settled.
    /// @return signer Who signed the item there: 0 when `s` is high, the signature recovers to nobody, or a number does
    /// not fit its field.
    // One loop in one piece: every call between its parts would cost each session some 40 gas.
    // solhint-disable-next-line function-max-lines
    function settleRun(uint256 at, uint256 last, Source memory source, Till memory till)
        internal
        returns (uint256 end, address signer)
    {
        bytes32 typeHash = Messages.VOUCHER_TYPEHASH;
        bytes32 topic = IEscrow.VoucherSettled.selector;
        assembly ("memory-safe") {
            /// Adds to the earnings of a node: the upper 96 bits of its slot, which is the hash of two words.
            function earn(node, amount) {
                if amount {
                    let slot := keccak256(node, 0x40)
                    let before := sload(slot)
                    let afterwards := add(before, shl(160, amount))
                    if lt(afterwards, before) { revert(0, 0) }
                    sstore(slot, afterwards)
                }
            }

            // 0x00: type hash and voucher. 0xa0: what is signed. 0x100: what the precompile reads. 0x180: node's slot.
            let free := mload(0x40)
            let isBatch := mload(source)
            let sessions := mload(add(source, 0x20))
            mstore(free, typeHash)
            mstore(add(free, 0xa0), hex"1901")
            mstore(add(free, 0xa2), mload(add(source, 0x60)))
            let graceEnd := mload(add(till, 0x20))
            let current := mload(add(till, 0x40))
            mstore(add(free, 0x180), current)
            mstore(add(free, 0x1a0), mload(add(source, 0x40)))
            let plain := mload(add(till, 0x60))
            let earned := 0
            let stride := ITEM_BYTES
            if isBatch {
                stride := PACKED_BYTES
                mstore(0x00, 0)
                mstore(0x20, sessions)
            }
            end := at
            for {} lt(end, last) { end := add(end, stride) } {
                let amount
                let afterwards
                switch isBatch
                case 0 {
                    calldatacopy(add(free, 0x20), end, 0x80)
                    let seq := mload(add(free, 0x40))
                    amount := mload(add(free, 0x60))
                    afterwards := or(shl(64, seq), amount)
                    mstore(add(free, 0xc2), keccak256(free, 0xa0))
                    mstore(add(free, 0x100), keccak256(add(free, 0xa0), 0x42))
                    let vs := calldataload(add(end, 0xa0))
                    let s := and(vs, _LOW_255_BITS)
                    mstore(add(free, 0x120), add(shr(255, vs), 27))
                    mstore(add(free, 0x140), calldataload(add(end, 0x80)))
                    mstore(add(free, 0x160), s)
                    mstore(0x00, 0)
                    // The precompile answers nothing at all for a signature by nobody.
                    if iszero(or(gt(s, _HALF_ORDER), or(shr(32, seq), shr(128, amount)))) {
                        pop(staticcall(gas(), 1, add(free, 0x100), 0x80, 0x00, 0x20))
                    }
                    signer := mload(0x00)
                    mstore(0x20, sessions)
                    mstore(0x20, keccak256(0x00, 0x40))
                    mstore(0x00, shl(64, shr(64, mload(add(free, 0x20)))))
                }
                default {
                    calldatacopy(0x00, end, 24)
                    afterwards := and(calldataload(add(end, 4)), _LOW_96_BITS)
                    amount := and(afterwards, _LOW_64_BITS)
                }

                let slot := keccak256(0x00, 0x40)
                let word := sload(slot)
                let mismatch := xor(and(word, _NODE_AND_FLAGS), plain)
                if mismatch {
                    let nodeId := and(shr(160, word), 0xffffffff)
                    if or(iszero(nodeId), eq(nodeId, current)) { break }
                    earn(add(free, 0x180), earned)
                    earned := 0
                    mstore(add(free, 0x180), nodeId)
                    let settler := and(sload(keccak256(add(free, 0x180), 0x40)), _LOW_160_BITS)
                    plain := or(shl(_EXISTS_BIT, 1), shl(160, nodeId))
                    if xor(settler, mload(till)) { plain := not(0) }
                    current := nodeId
                    mismatch := xor(and(word, _NODE_AND_FLAGS), plain)
                }
                let before := and(shr(64, word), _LOW_96_BITS)
                let more := sub(amount, and(before, _LOW_64_BITS))
                let falls := or(more, or(sub(and(word, _LOW_64_BITS), amount), sub(shr(216, word), graceEnd)))
                if or(mismatch, or(shr(255, falls), iszero(gt(afterwards, before)))) { break }
                sstore(slot, or(and(word, _NOT_PAID_AND_SEQ), shl(64, afterwards)))
                earned := add(earned, more)
                if iszero(isBatch) { log2(add(free, 0x40), 0x60, topic, mload(add(free, 0x20))) }
            }
            earn(add(free, 0x180), earned)
            mstore(add(till, 0x40), current)
            mstore(add(till, 0x60), plain)
        }
    }

    /// @notice Where items lie in calldata.
    /// @param items List as it was handed in.
    /// @return at Place of the first.
    /// @return last Place behind the last.
    function range(SettleItem[] calldata items) internal pure returns (uint256 at, uint256 last) {
        // Assembly because Solidity does not tell a list's place.
        assembly ("memory-safe") {
            at := items.offset
        }
        last = at + items.length * ITEM_BYTES;
    }

    /// @notice Where packed vouchers lie in calldata.
    /// @param vouchers Batch as it was handed in.
    /// @return at Place of the first.
    /// @return last Place behind the last.
    function range(bytes calldata vouchers) internal pure returns (uint256 at, uint256 last) {
        // Assembly because Solidity does not tell the place of bytes.
        assembly ("memory-safe") {
            at := vouchers.offset
        }
        last = at + vouchers.length;
    }

    /// @notice The item at a place of calldata.
    /// @param at Place inside a list of items.
    /// @return item That item.
    function itemAt(uint256 at) internal pure returns (SettleItem calldata item) {
        // Assembly because Solidity does not take a place for a reference.
        assembly ("memory-safe") {
            item := at
        }
    }

    /// @notice The packed voucher at a place of calldata.
    /// @param at Place inside a batch.
    /// @return shortId First 24 bytes of the session id.
    /// @return throughSeq As signed, below 2^32.
    /// @return amount As signed, below 2^64.
    function voucherAt(uint256 at) internal pure returns (bytes24 shortId, uint256 throughSeq, uint256 amount) {
        // Assembly because Solidity does not take a place for a reference.
        assembly ("memory-safe") {
            shortId := shl(64, shr(64, calldataload(at)))
            let rest := calldataload(add(at, 4)) // its low 12 bytes
            throughSeq := and(shr(64, rest), 0xffffffff)
            amount := and(rest, _LOW_64_BITS)
        }
    }

    /// @notice Takes a voucher out of a batch in place.
    /// @param batch The batch, packed.
    /// @param offset Where the voucher begins; the whole of it lies inside.
    function remove(bytes memory batch, uint256 offset) internal pure {
        // Assembly because Solidity can neither move nor shorten bytes in memory.
        assembly ("memory-safe") {
            let start := add(add(batch, 0x20), offset)
            let length := sub(mload(batch), PACKED_BYTES)
            mcopy(start, add(start, PACKED_BYTES), sub(length, offset))
            mstore(batch, length)
        }
    }
}
