// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {CaseState, Evidence, Seat, Verdict} from "../../../contracts/types/Cases.sol";
import {SignedReceipt} from "../../../contracts/types/Claims.sol";
import {KeyGrant, Messages, Open, Order, Receipt as JobReceipt} from "../../../contracts/types/Messages.sol";
import {SettleItem} from "../../../contracts/types/Sessions.sol";
import {Fixture} from "../support/Fixture.sol";

/// @title What every attack needs: attempts that may fail, claims, and a jury
/// @notice A rule begins with its attack's number. A twin counts as caught only when a sentence like this is what
/// failed, so that no broken step passes for a success.
abstract contract Attack is Fixture {
    string private constant _OTHER_REFUSAL = "refused, but for another reason";
    uint64 private constant _JUROR_FUNDS = 100e6;
    bytes32 internal constant SALT = keccak256("salt of a verdict");

    /* ATTEMPTS */

    function _refused(address who, address target, bytes memory data, bytes4 error, string memory rule) internal {
        vm.prank(who);
        (bool ok, bytes memory answer) = target.call(data);
        assertFalse(ok, rule);
        assertEq(bytes32(bytes4(answer)), bytes32(error), _OTHER_REFUSAL);
    }

    function _works(address who, address target, bytes memory data, string memory rule) internal {
        vm.prank(who);
        (bool ok,) = target.call(data);
        assertTrue(ok, rule);
    }

    /// @dev 0 when the constructor refused.
    function _create(string memory what, bytes memory arguments) internal returns (address made) {
        bytes memory code = abi.encodePacked(vm.getCode(what), arguments);
        // Assembly because Solidity cannot create from bytes.
        assembly ("memory-safe") {
            made := create(0, add(code, 0x20), mload(code))
        }
    }

    /* SESSIONS */

    function _session(uint128 amount, uint256 salt) internal returns (Open memory terms, bytes32 sessionId) {
        _deposit(amount);
        terms = _terms(amount);
        terms.salt = bytes32(salt);
        sessionId = _openOne(terms);
    }

    function _grant(uint128 cap, uint32 nonce) internal view returns (KeyGrant memory) {
        uint48 end = uint48(vm.getBlockTimestamp()) + 30 days;
        return KeyGrant(buyer.addr, key.addr, cap, cap, cap, end, 0, nonce, end);
    }

    function _settle(SettleItem memory first, SettleItem memory second) internal {
        vm.prank(settler);
        escrow.settle(_two(first, second));
    }

    function _two(SettleItem memory first, SettleItem memory second) internal pure returns (SettleItem[] memory items) {
        items = new SettleItem[](2);
        (items[0], items[1]) = (first, second);
    }

    function _two(Open memory first, Open memory second) internal pure returns (Open[] memory opens) {
        opens = new Open[](2);
        (opens[0], opens[1]) = (first, second);
    }

    /* CLAIMS */

    function _job(Open memory terms, uint32 seq, uint128 amount) internal view returns (SignedReceipt memory) {
        return _job(terms, seq, amount, keccak256("offer"));
    }

    function _job(Open memory terms, uint32 seq, uint128 amount, bytes32 offerHash)
        internal
        view
        returns (SignedReceipt memory job)
    {
        uint64 nowMs = uint64(vm.getBlockTimestamp()) * 1000;
        job.order = Order({
            sessionId: escrow.sessionIdOf(terms),
            seq: seq,
            offerHash: offerHash,
            requestHash: keccak256("request"),
            maxAmount: amount,
            issuedAtMs: nowMs,
            deadlineMs: nowMs + 60_000,
            replyKey: bytes32("reply")
        });
        job.receipt = JobReceipt({
            orderHash: _digest(Messages.hash(job.order)),
            responseHash: keccak256("response"),
            execHash: keccak256("annex"),
            unitsIn: 1,
            unitsOut: 1,
            amount: amount,
            startedAtMs: nowMs,
            finishedAtMs: nowMs + 1000,
            energyMillijoules: 0,
            status: 1
        });
        job.orderSignature = _sign(key, Messages.hash(job.order));
        job.receiptSignature = _sign(nodeKey, Messages.hash(job.receipt));
    }

    function _one(SignedReceipt memory job) internal pure returns (SignedReceipt[] memory list) {
        list = new SignedReceipt[](1);
        list[0] = job;
    }

    function _claim(Open memory terms, SignedReceipt memory job) internal {
        vm.prank(settler);
        escrow.claim(terms, _one(job));
    }

    function _receiptHash(SignedReceipt memory job) internal view returns (bytes32) {
        return _digest(Messages.hash(job.receipt));
    }

    /// @dev Of a job that a voucher paid, or nobody yet.
    function _evidence(Open memory terms, SignedReceipt memory job) internal pure returns (Evidence memory) {
        return Evidence(terms, job.order, job.receipt, job.receiptSignature, new bytes32[](0));
    }

    /// @dev Of the only job of a pending claim.
    function _claimedEvidence(Open memory terms, SignedReceipt memory job)
        internal
        view
        returns (Evidence memory evidence)
    {
        evidence = _evidence(terms, job);
        evidence.claimed = new bytes32[](1);
        evidence.claimed[0] = _receiptHash(job);
    }

    /// @dev A second receipt of the same node for the same order, with its signature.
    function _second(SignedReceipt memory job) internal view returns (JobReceipt memory other, bytes memory signature) {
        SignedReceipt memory copy = abi.decode(abi.encode(job), (SignedReceipt));
        other = copy.receipt;
        other.responseHash = keccak256("another response");
        signature = _sign(nodeKey, Messages.hash(other));
    }

    function _proofOfTwo(Open memory terms, SignedReceipt memory job) internal view returns (bytes memory) {
        (JobReceipt memory other, bytes memory signature) = _second(job);
        return abi.encodeCall(court.proveTwoReceipts, (_evidence(terms, job), other, signature));
    }

    /* JURY */

    /// @dev Providers that wait for seats.
    function _enrolJurors(uint256 count) internal {
        for (uint256 i = 0; i < count; ++i) {
            Actor memory juror = _actor(string.concat("juror ", vm.toString(i)));
            _fund(juror.addr);
            _serve(juror.addr, juror.addr, juror.addr);
            vm.prank(juror.addr);
            court.enrol(_JUROR_FUNDS);
        }
    }

    /// @dev A job that a voucher paid, challenged by a stranger, with all seats taken.
    function _judgement() internal returns (Open memory terms, SignedReceipt memory job, bytes32 caseId) {
        _enrolJurors(6);
        _fund(stranger);
        bytes32 sessionId;
        (terms, sessionId) = _session(100e6);
        job = _job(terms, 1, 10e6);
        _settleOne(sessionId, 1, 10e6);
        vm.prank(stranger);
        caseId = court.challenge(_evidence(terms, job), keccak256("evidence"));
        _draw(caseId);
    }

    function _draw(bytes32 caseId) internal {
        while (court.caseOf(caseId).state == CaseState.Drawing) {
            vm.roll(vm.getBlockNumber() + 2);
            court.advance(caseId);
        }
    }

    /// @dev Every juror says the same.
    function _decide(bytes32 caseId, Verdict verdict) internal {
        Seat[3] memory seats = court.seatsOf(caseId);
        for (uint256 i = 0; i < seats.length; ++i) {
            bytes32 commitment = court.commitmentOf(caseId, seats[i].juror, verdict, SALT);
            vm.prank(seats[i].juror);
            court.commit(caseId, commitment);
        }
        for (uint256 i = 0; i < seats.length; ++i) {
            vm.prank(seats[i].juror);
            court.reveal(caseId, verdict, SALT);
        }
    }
}
