// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {ICourt} from "../interfaces/ICourt.sol";
import {Pricing} from "../libraries/Pricing.sol";
import {Case, CaseState, Evidence, Proof} from "../types/Cases.sol";
import {Messages, Offer, Receipt} from "../types/Messages.sol";
import {CourtBase} from "./CourtBase.sol";

/// @title Faults that signatures prove
/// @notice Decided in the transaction that brings them. The prose is in `ICourt`.
abstract contract CourtProofs is CourtBase {
    uint256 private constant _OFFER_BYTES = 10 * 32;

    /// @inheritdoc ICourt
    function proveTwoReceipts(Evidence calldata first, Receipt calldata second, bytes calldata signature)
        external
        override
    {
        Job memory job = _examine(first);
        _requireSame(second.orderHash, job.orderHash);
        bytes32 secondHash = _digest(job.domain, second);
        if (secondHash == job.receiptHash) revert Court_SameReceipt(secondHash);
        _requireSigner(job.nodeSigner, secondHash, signature);

        _prove(first, job);
    }

    /// @inheritdoc ICourt
    function proveOvercharge(Evidence calldata evidence, Offer calldata offer) external override {
        Job memory job = _examine(evidence);
        uint256 offerAt = 0;
        // Assembly because Solidity does not tell where a struct lies.
        assembly ("memory-safe") {
            offerAt := offer
        }
        _requireSame(_digest(job.domain, Messages.OFFER_TYPEHASH, offerAt, _OFFER_BYTES), evidence.order.offerHash);
        Receipt calldata receipt = evidence.receipt;
        uint256 price = Pricing.priceDown(
            offer, evidence.order, receipt.unitsIn, receipt.unitsOut, receipt.finishedAtMs, receipt.status
        );
        if (receipt.amount <= price) revert Court_NotAbovePrice(receipt.amount, price);

        _prove(evidence, job);
    }

    /// @inheritdoc ICourt
    function payAward(bytes32 orderHash) external override {
        Proof storage proof = _proofs[orderHash];
        (address buyer, uint64 award) = (proof.buyer, proof.award);
        if (award == 0) return;

        proof.award = 0;
        // A contract may be unable to tell whose tokens arrived; from its balance it takes what is its own.
        bool isCredited = buyer.code.length != 0;
        if (isCredited) _credit(buyer, award);
        emit AwardPaid(orderHash, buyer, award);

        REGISTRY.release(isCredited ? address(this) : buyer, award);
    }

    /// @inheritdoc ICourt
    function proofOf(bytes32 orderHash) external view override returns (Proof memory) {
        return _proofs[orderHash];
    }

    /// @dev The order's maximum is what the fault costs ten times, whatever the receipts charge: a node could sign more
    /// of them, and prove the cheapest against itself first.
    function _prove(Evidence calldata evidence, Job memory job) private {
        _requireInTime(job);
        uint256 struck = evidence.claimed.length == 0 ? 0 : evidence.receipt.amount;
        bool isProven = _proofs[job.orderHash].isProven;
        if (isProven && struck == 0) revert Court_AlreadyProven(job.orderHash);

        if (!isProven) {
            address owner = REGISTRY.ownerOf(job.session.nodeId);
            // What a case holds for the same receipt, or gave back, counts as well.
            uint256 refunded = struck > 0 ? struck : _cases[job.receiptHash].held;
            (uint128 slashed, uint64 award) = _punish(owner, evidence.order.maxAmount, _MIN_STAKE, refunded);
            _proofs[job.orderHash] = Proof(evidence.terms.buyer, award, true);
            emit FaultProven(job.orderHash, owner, evidence.terms.buyer, slashed, award);
        }

        if (struck > 0) _strike(evidence, job, SafeCast.toUint64(struck));
    }

    /// @dev Takes the receipt out of its claim. A receipt is held once, so it is a case from now on, and decided.
    function _strike(Evidence calldata evidence, Job memory job, uint64 amount) private {
        Case storage dispute = _cases[job.receiptHash];
        if (dispute.state != CaseState.None) revert Court_WrongState(job.receiptHash);
        dispute.state = CaseState.Upheld;

        address key = evidence.terms.key;
        ESCROW.hold(job.sessionId, key, job.receiptHash, amount, evidence.claimed);
        ESCROW.resolve(job.sessionId, key, evidence.terms.buyer, amount, false);
    }
}
