// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {SignedReceipt} from "../../../contracts/types/Claims.sol";
import {Messages, Open, Order, Receipt as JobReceipt} from "../../../contracts/types/Messages.sol";
import {SettleItem} from "../../../contracts/types/Sessions.sol";
import {Fixture} from "./Fixture.sol";

/// @title One open session of 1,000 atoms, and jobs in it as both sides sign them
abstract contract Jobs is Fixture {
    uint128 internal constant HELD = 1000;

    Open internal terms;
    bytes32 internal id;

    function setUp() public virtual override {
        super.setUp();
        (terms, id) = _session(HELD);
    }

    /* CLAIMS */

    function _claim(uint32 seq, uint128 amount) internal returns (bytes32[] memory hashes) {
        return _claim(_one(_job(seq, amount)));
    }

    function _claim(SignedReceipt[] memory jobs) internal returns (bytes32[] memory hashes) {
        vm.prank(settler);
        escrow.claim(terms, jobs);
        return _hashesOf(jobs);
    }

    function _refuseClaim(SignedReceipt[] memory jobs, bytes memory reason) internal {
        vm.expectRevert(reason);
        vm.prank(settler);
        escrow.claim(terms, jobs);
    }

    function _hold(bytes32[] memory hashes, uint256 which, uint64 amount) internal {
        vm.prank(address(court));
        escrow.hold(id, key.addr, hashes[which], amount, hashes);
    }

    function _resolve(uint64 amount, bool isPaid) internal {
        vm.prank(address(court));
        escrow.resolve(id, key.addr, buyer.addr, amount, isPaid);
    }

    function _expire() internal {
        vm.warp(terms.expiresAt + GRACE);
        escrow.expire(_one(terms));
    }

    /* JOBS */

    function _job(uint32 seq, uint128 amount) internal view returns (SignedReceipt memory) {
        return _job(nodeKey, seq, amount);
    }

    function _job(Actor memory signer, uint32 seq, uint128 amount) internal view returns (SignedReceipt memory job) {
        job.order = _order(seq, amount);
        job.receipt.orderHash = _digest(Messages.hash(job.order));
        (job.receipt.amount, job.receipt.status) = (amount, 1);
        job.receipt.finishedAtMs = job.order.deadlineMs;
        return _signed(signer, job);
    }

    /// @dev Signs what the job says now.
    function _signed(Actor memory signer, SignedReceipt memory job) internal view returns (SignedReceipt memory) {
        job.orderSignature = _sign(key, Messages.hash(job.order));
        job.receiptSignature = _sign(signer, Messages.hash(job.receipt));
        return job;
    }

    function _order(uint32 seq, uint128 maxAmount) internal view returns (Order memory) {
        return Order({
            sessionId: id,
            seq: seq,
            offerHash: keccak256("offer"),
            requestHash: keccak256("request"),
            maxAmount: maxAmount,
            issuedAtMs: uint64(START) * 1000,
            deadlineMs: uint64(START) * 1000 + 30_000,
            replyKey: keccak256("reply")
        });
    }

    /// @dev As many jobs as amounts, with every other seq left out.
    function _jobs(uint128[3] memory amounts) internal view returns (SignedReceipt[] memory jobs) {
        jobs = new SignedReceipt[](3);
        for (uint32 i = 0; i < 3; ++i) {
            jobs[i] = _job(2 * i + 1, amounts[i]);
        }
    }

    function _hashesOf(SignedReceipt[] memory jobs) internal view returns (bytes32[] memory hashes) {
        hashes = new bytes32[](jobs.length);
        for (uint256 i = 0; i < jobs.length; ++i) {
            JobReceipt memory receipt = jobs[i].receipt;
            hashes[i] = _digest(Messages.hash(receipt));
        }
    }

    /* READINGS */

    function _locked() internal view returns (uint64) {
        return registry.provider(provider).locked;
    }

    function _one(SignedReceipt memory job) internal pure returns (SignedReceipt[] memory list) {
        list = new SignedReceipt[](1);
        list[0] = job;
    }

    function _one(SettleItem memory item) internal pure returns (SettleItem[] memory list) {
        list = new SettleItem[](1);
        list[0] = item;
    }

    function _noClaim() internal view returns (bytes memory) {
        return abi.encodeWithSelector(IEscrow.Escrow_NoClaim.selector, id);
    }
}
