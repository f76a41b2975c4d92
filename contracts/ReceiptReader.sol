// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {IReceiptReader, Parties} from "./interfaces/IReceiptReader.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {SignedReceipt} from "./types/Claims.sol";
import {Messages, Order, Receipt} from "./types/Messages.sol";

/// @title ReceiptReader
/// @notice A part of the escrow that would not fit into it. Holds nothing. The prose is in `IReceiptReader`.
contract ReceiptReader is IReceiptReader {
    /// @inheritdoc IReceiptReader
    function read(Parties calldata parties, uint32 afterSeq, SignedReceipt[] calldata receipts)
        external
        pure
        override
        returns (uint256 sum, uint32 throughSeq, bytes32[] memory hashes)
    {
        throughSeq = afterSeq;
        hashes = new bytes32[](receipts.length);
        for (uint256 i = 0; i < receipts.length; ++i) {
            Order calldata order = receipts[i].order;
            if (order.seq <= throughSeq) revert ReceiptReader_WrongSeq(order.seq, throughSeq);
            throughSeq = order.seq;
            hashes[i] = _check(parties, receipts[i]);
            sum += receipts[i].receipt.amount;
        }
    }

    /// @dev That both sides signed, and that the receipt asks for no more than the order offers.
    function _check(Parties calldata parties, SignedReceipt calldata job) private pure returns (bytes32 receiptHash) {
        Order calldata order = job.order;
        Receipt calldata receipt = job.receipt;
        _requireSame(order.sessionId, parties.sessionId);
        bytes32 orderHash = MessageHashUtils.toTypedDataHash(parties.domain, Messages.hash(order));
        _requireSame(receipt.orderHash, orderHash);
        bool isFree = receipt.status == 0 || receipt.finishedAtMs > order.deadlineMs;
        uint128 most = isFree ? 0 : order.maxAmount;
        if (receipt.amount > most) revert ReceiptReader_AboveOrder(receipt.amount, most);
        receiptHash = MessageHashUtils.toTypedDataHash(parties.domain, Messages.hash(receipt));
        _requireSigner(parties.key, orderHash, job.orderSignature);
        _requireSigner(parties.nodeSigner, receiptHash, job.receiptSignature);
    }

    function _requireSame(bytes32 got, bytes32 wanted) private pure {
        if (got != wanted) revert ReceiptReader_WrongReference(got, wanted);
    }

    function _requireSigner(address expected, bytes32 digest, bytes calldata signature) private pure {
        address signer = Signatures.signerOf(digest, signature);
        if (signer == address(0) || signer != expected) revert ReceiptReader_WrongSigner(signer, expected);
    }
}
