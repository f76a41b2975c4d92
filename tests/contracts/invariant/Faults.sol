// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {Evidence} from "../../../contracts/types/Cases.sol";
import {Messages, Receipt as JobReceipt} from "../../../contracts/types/Messages.sol";
import {Cases} from "./Cases.sol";

/// @title What signatures prove, and what it pays
abstract contract Faults is Cases {
    /// @dev Two receipts for one order, or a receipt above its price, of a claim or of any session.
    function proveFault(uint256 seed) external tried(24) {
        if (_proveNew(seed)) _done();
    }

    function payAward(uint256 seed) external tried(25) {
        if (proven.length == 0) _proveNew(seed);
        Proven storage proof = proven[_roll(seed, 1) % proven.length];
        _payAward(proof);
        _done();
    }

    /* STEPS */

    /// @dev To a contract it is owed.
    function _payAward(Proven storage proof) internal {
        _do(STRANGER, address(court), abi.encodeCall(ICourt.payAward, (proof.orderHash)), true);
        if (proof.buyer < THIEF) wallets[proof.buyer] += proof.award;
        else _mCredit(proof.buyer, proof.award);
        sumSlashed -= proof.award;
        proof.award = 0;
        _touchPerson(proof.buyer);
    }

    function _proveNew(uint256 seed) internal returns (bool) {
        return _proveOf(_faulty(seed), seed);
    }

    function _proveOf(uint256 number, uint256 seed) internal returns (bool) {
        bool isDouble = _roll(seed, 75) % 2 == 0;
        Job storage job = jobs[number];
        Ghost storage ghost = ghosts[job.session];
        bool isStruck = _isClaimed(number) && job.dispute == 0 && _roll(seed, 74) % 4 > 0;
        if (job.fault == 0) isDouble = true;
        Evidence memory evidence = _evidenceOf(number, isStruck);
        JobReceipt memory second = _receiptOf(job, evidence.receipt.orderHash, 1);
        second.amount = uint128(_between(_roll(seed, 77), 0, 2 * uint256(job.amount)));
        bytes memory data = isDouble
            ? abi.encodeCall(
                ICourt.proveTwoReceipts, (evidence, second, _signed(_secretOf(job), Messages.hash(second)))
            )
            : abi.encodeCall(ICourt.proveOvercharge, (evidence, _offer(ghost.node)));
        bytes32 orderHash = evidence.receipt.orderHash;
        bool works = isStruck || !isProven[orderHash];
        _do(STRANGER, address(court), data, works);
        if (!works) return false;
        _keep(STRANGER, address(court), data, false);
        _mProve(number, orderHash, evidence.order.maxAmount, isStruck);
        return true;
    }

    /// @dev An order is punished once. A receipt that came into a claim is struck out of it all the same.
    function _mProve(uint256 number, bytes32 orderHash, uint256 most, bool isStruck) private {
        Job storage job = jobs[number];
        Ghost storage ghost = ghosts[job.session];
        uint256 held = job.dispute > 0 ? disputes[job.dispute - 1].held : 0;
        if (!isProven[orderHash]) {
            (, uint256 award) = _mPunish(_ownerOf(ghost.node), most, MIN_STAKE, isStruck ? job.amount : held);
            proven.push(Proven(orderHash, ghost.buyer, uint64(award)));
            isProven[orderHash] = true;
        }
        _touch(job.session);
        if (!isStruck) return;
        _pushDispute(number, UPHELD, STRANGER, 0);
        _mHold(ghost, job.amount);
        _mResolve(ghost, job.amount, false);
    }

    /* DRAWS */

    /// @dev Of a claim, disputed before or proven before or neither; or of any session.
    function _faulty(uint256 seed) private returns (uint256 number) {
        uint256 kind = _roll(seed, 76) % 4;
        if (kind < 2) return kind == 0 ? _claimedJob(seed) : _faultyJob(seed);
        uint256 count = jobs.length;
        for (uint256 i = 0; i < 24 && i < count; ++i) {
            number = (count - 1 - (seed % 8 + i) % count);
            bool isOpen = jobs[number].dispute > 0 && !_wasProven(number) && _isInTime(number);
            if (kind == 2 ? isOpen : jobs[number].dispute == 0 && _isClaimed(number)) return number;
        }
        return _claimedJob(seed);
    }

    function _faultyJob(uint256 seed) private returns (uint256) {
        uint256 amount = _between(_roll(seed, 79), 1, JOB_MOST);
        return _pushJob(_openSession(seed), uint32(1 + seed % 100), amount, uint8(1 + _roll(seed, 73) % 3));
    }
}
