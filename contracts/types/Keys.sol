// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

// What a buyer lets a key do, and how much of that is used up.

/// @notice Caps of a grant. Amounts are atoms below 2^64; 0 allows nothing.
/// @param perSession Most that one session may hold.
/// @param perDay Most that moves into sessions on one day (Unix time divided by 86,400, rounded down).
/// @param total Most that moves into sessions under this grant.
/// @param expiresAt First second at which the key can no longer move money.
/// @param nodesRoot Merkle root over the ids of nodes that may be paid. 0: any node.
struct KeyCaps {
    uint128 perSession;
    uint128 perDay;
    uint128 total;
    uint48 expiresAt;
    bytes32 nodesRoot;
}

/// @notice A key as the escrow keeps it: a slot of caps, a slot of use, and the list's root where there is one.
/// @param perSession As granted.
/// @param perDay As granted.
/// @param total As granted.
/// @param expiresAt As granted. 0: never granted, or revoked.
/// @param isListed Whether `nodesRoot` limits the nodes.
/// @param spentToday Atoms moved into sessions on `day`; survives a new grant.
/// @param spent Atoms moved into sessions under this grant; never falls but by a new grant.
/// @param day Day of `spentToday`, in days since 1970.
/// @param nonce Newest grant or revocation; never falls. Wider than a grant's, so that a revocation always fits.
/// @param nodesRoot As granted.
struct Key {
    uint64 perSession;
    uint64 perDay;
    uint64 total;
    uint48 expiresAt;
    bool isListed;
    uint64 spentToday;
    uint64 spent;
    uint32 day;
    uint64 nonce;
    bytes32 nodesRoot;
}
