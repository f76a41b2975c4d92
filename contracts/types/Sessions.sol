// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

// What the escrow keeps about a session, and what a settler hands in.

/// @notice What became of an item.
enum SettleStatus {
    /// The node earned the increase.
    Settled,
    /// Never opened, or not signed by the session's key.
    UnknownSession,
    /// The caller is not the settler of the session's node.
    NotSettler,
    /// Sequence or amount falls, or neither rises: an older voucher or a replay.
    Stale,
    /// The amount is more than the session holds.
    AboveDeposit,
    /// Grace is over; the rest belongs to the buyer.
    Expired,
    /// The session was closed before.
    Closed,
    /// A claim is open, and the voucher does not reach as far as it does.
    ClaimPending
}

/// @notice A session's money, in one storage slot.
/// @param deposited Atoms set aside since it opened; never falls.
/// @param paid Atoms the node has earned from it; never falls. With what is claimed never above `deposited`.
/// @param throughSeq Every order up to here has ended; never falls. 0: nothing settled yet.
/// @param nodeId The only node that can earn from it.
/// @param flags Bit 0: exists. Bit 1: closed. Bit 2: some of it is claimed and not decided. Other bits are 0.
/// @param keyEpoch The node's key epoch when it opened; receipts and consents count under this one only.
/// @param expiresAt Unix seconds; first second at which it takes no more orders.
struct Session {
    uint64 deposited;
    uint64 paid;
    uint32 throughSeq;
    uint32 nodeId;
    uint8 flags;
    uint16 keyEpoch;
    uint40 expiresAt;
}

/// @notice A voucher and its EIP-2098 signature, as handed to `settle`.
/// @param sessionId Session that pays.
/// @param throughSeq As signed in the voucher.
/// @param amount As signed in the voucher: atoms, cumulative.
/// @param receiptsRoot As signed in the voucher.
/// @param r First half of the key's signature.
/// @param vs Second half, the parity in its top bit; the upper half order of `s` is refused.
struct SettleItem {
    bytes32 sessionId;
    uint32 throughSeq;
    uint128 amount;
    bytes32 receiptsRoot;
    bytes32 r;
    bytes32 vs;
}
