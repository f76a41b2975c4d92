// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Order, Receipt} from "./Messages.sol";

// What a node hands in to be paid without a voucher, and what the escrow keeps of it.

/// @notice A job as both sides signed it.
/// @param order What was asked.
/// @param orderSignature By the session's key.
/// @param receipt What was done.
/// @param receiptSignature By the node's key of the session's epoch.
struct SignedReceipt {
    Order order;
    bytes orderSignature;
    Receipt receipt;
    bytes receiptSignature;
}

/// @notice Money of a session that is claimed and not decided.
/// @param pending Atoms that the node gets at `finalAt` unless they are disputed.
/// @param held Atoms of disputed receipts, until the court decides each.
/// @param throughSeq Last order of the pending claim.
/// @param replaced How often a voucher took the place of what was claimed.
/// @param finalAt Unix seconds from which the pending claim can be finalised; disputes end there.
/// @param receiptsHash keccak-256 of the packed digests of the pending claim's receipts.
struct Claim {
    uint64 pending;
    uint64 held;
    uint32 throughSeq;
    uint32 replaced;
    uint48 finalAt;
    bytes32 receiptsHash;
}
