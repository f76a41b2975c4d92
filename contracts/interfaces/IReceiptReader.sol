// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {SignedReceipt} from "./../types/Claims.sol";

/// @notice Between whom receipts must be.
/// @param domain EIP-712 domain separator of the escrow.
/// @param sessionId Session of the orders.
/// @param key Who signed the orders.
/// @param nodeSigner Who signed the receipts.
struct Parties {
    bytes32 domain;
    bytes32 sessionId;
    address key;
    address nodeSigner;
}

/// @title Whether receipts are what a node may claim for
/// @notice Pure: reads no state and keeps none. The escrow makes one of its own when it is deployed.
interface IReceiptReader {
    /// @notice Orders of a claim ascend, from behind what is settled.
    error ReceiptReader_WrongSeq(uint32 got, uint32 limit);
    /// @notice The order is of another session, or the receipt of another order.
    error ReceiptReader_WrongReference(bytes32 got, bytes32 limit);
    /// @notice The receipt charges more than its order allows: 0 for a failed or late job.
    error ReceiptReader_AboveOrder(uint128 got, uint128 limit);
    /// @notice Signed by `got` (0: malformed or high `s`) instead of `limit`.
    error ReceiptReader_WrongSigner(address got, address limit);

    /// @notice Checks every receipt and adds them up. Reverts for the first that is wrong.
    /// @param parties Between whom they must be.
    /// @param afterSeq The first order comes behind this one.
    /// @param receipts In ascending order of seq.
    /// @return sum Atoms of all receipts.
    /// @return throughSeq Last order.
    /// @return hashes Digests of the receipts, in the same order.
    function read(Parties calldata parties, uint32 afterSeq, SignedReceipt[] calldata receipts)
        external
        pure
        returns (uint256 sum, uint32 throughSeq, bytes32[] memory hashes);
}
