// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Evidence} from "../../../contracts/types/Cases.sol";
import {SignedReceipt} from "../../../contracts/types/Claims.sol";
import {Messages, Open} from "../../../contracts/types/Messages.sol";
import {Payers} from "./Payers.sol";

/// @title What the right people do at the wrong time, or in the wrong measure
/// @notice Each call is refused for this reason alone; where the world offers no occasion, `who` comes back as nobody.
abstract contract TooLate is Payers {
    uint256 internal constant NOBODY = type(uint256).max;

    function _wrongTerms(Ghost storage ghost, uint256 kind) internal returns (bytes memory data, uint256 who) {
        if (!_serves(ghost.node)) _stakeMore(_ownerOf(ghost.node), MIN_STAKE);
        _filled(ghost.buyer, 100);
        Open memory terms = _termsOf(ghost);
        terms.salt = keccak256(abi.encode("wrong", calls));
        (terms.openBefore, terms.amount, terms.expiresAt) = (uint48(time + 1), 1, uint48(time + 1 hours));
        if (kind == 0) terms.openBefore = uint48(time);
        if (kind == 1) terms.expiresAt = uint48(time);
        if (kind == 2) terms.expiresAt = uint48(time + MAX_SESSION + 1);
        if (kind == 3) terms.amount = uint128(accounts[ghost.buyer]) + 1;
        if (kind == 4) terms.nodeId = uint32(NODES + 1);
        if (kind < 5) return (abi.encodeCall(IEscrow.openOneSession, (terms, "")), ghost.buyer);
        terms.amount = 100;
        bytes memory proof = _limit(ghost, kind - 5);
        bytes memory signature = bytes.concat(_signed(people[ghost.key].secret, Messages.hash(terms)), proof);
        return (abi.encodeCall(IEscrow.openOneSession, (terms, signature)), STRANGER);
    }

    /// @dev Grants the key what misses an opening of 100 atoms by one atom, one second or one node.
    function _limit(Ghost storage ghost, uint256 kind) private returns (bytes memory proof) {
        KeyGhost memory grant = KeyGhost(100, 100, 100, uint40(time + 1), 0, 0, 0, 0, 0);
        uint256 today = _spentToday(grants[ghost.buyer][ghost.key]);
        grant.perDay += uint64(today);
        if (kind == 0) grant.expiresAt = uint40(time);
        if (kind == 1) grant.perSession = 99;
        if (kind == 2) --grant.perDay;
        if (kind == 3) grant.total = 99;
        if (kind == 4) {
            grant.list = ghost.node < 3 ? 2 : 1;
            proof = _listProof(grant.list, uint256(2 * grant.list));
        }
        _setKey(ghost.buyer, ghost.key, grant);
    }

    function _lateForSession(uint256 kind, uint256 seed) internal returns (bytes memory data, uint256 who) {
        uint256 past = kind == 0 ? 0 : GRACE;
        uint256 index = _over(seed, past);
        if (index == ghosts.length) return ("", NOBODY);
        Ghost storage ghost = ghosts[index];
        if (kind == 0) {
            if (_isReceiver(ghost.buyer)) return ("", NOBODY);
            _filled(ghost.buyer, 1);
            return (abi.encodeCall(IEscrow.topUp, (_termsOf(ghost), ghost.deposited + 1, "")), ghost.buyer);
        }
        if (ghost.pending > 0 || ghost.paid + ghost.held == ghost.deposited) return ("", NOBODY);
        SignedReceipt[] memory receipts = new SignedReceipt[](1);
        receipts[0] = _signedJob(jobs[_pushJob(index, ghost.throughSeq + 1, 1, 0)]);
        if (_free(_ownerOf(ghost.node)) == 0) _stakeMore(_ownerOf(ghost.node), MIN_STAKE);
        return (abi.encodeCall(IEscrow.claim, (_termsOf(ghost), receipts)), settlerOf[ghost.node]);
    }

    /// @dev Proofs and challenges of paid work, past the last window; demands past the claim's.
    function _lateForJob(uint256 kind, uint256 seed) internal returns (bytes memory data, uint256 who) {
        if (kind == 2) return _lateDemand(seed);
        uint256 index = _over(seed, GRACE + CHALLENGE);
        if (index == ghosts.length) return ("", NOBODY);
        uint256 number = _pushJob(index, 1, 1, OVERCHARGED);
        Evidence memory evidence = _evidenceOf(number, false);
        data = abi.encodeCall(ICourt.proveOvercharge, (evidence, _offer(ghosts[index].node)));
        if (kind == 0) return (data, STRANGER);
        return (abi.encodeCall(ICourt.challenge, (evidence, ROOT)), ghosts[index].throughSeq == 0 ? NOBODY : STRANGER);
    }

    /// @dev Answers, verdicts and second challenges when their phase is over.
    function _lateForCase(uint256 kind, uint256 seed) internal view returns (bytes memory data, uint256 who) {
        uint256 count = disputes.length;
        for (uint256 i = 0; i < count; ++i) {
            Dispute storage dispute = disputes[(seed % count + i) % count];
            if (dispute.state >= UPHELD || time < dispute.phaseEnds || dispute.state == DRAWING) continue;
            if (dispute.state == DEMANDED) {
                data = kind == 0
                    ? abi.encodeCall(ICourt.answer, (dispute.id, "late"))
                    : abi.encodeCall(ICourt.refer, (dispute.id, ROOT));
                return (data, dispute.owner);
            }
            if (dispute.state == ANSWERED) {
                data = abi.encodeCall(ICourt.challenge, (_evidenceOf(dispute.job, false), ROOT));
                return (data, _speaker(ghosts[jobs[dispute.job].session], 0));
            }
            for (uint256 seat = 0; seat < 3; ++seat) {
                if (dispute.jurors[seat] == 0 || dispute.opened[seat]) continue;
                if ((dispute.verdicts[seat] == 0) != (dispute.state == COMMITTING)) continue;
                (data,) = _ballot(dispute, seat, 1);
                return (data, dispute.jurors[seat] - 1);
            }
        }
        return ("", NOBODY);
    }

    function _lateDemand(uint256 seed) private view returns (bytes memory data, uint256 who) {
        uint256 count = jobs.length;
        for (uint256 i = 0; i < 32 && i < count; ++i) {
            uint256 number = (seed % count + i) % count;
            Ghost storage ghost = ghosts[jobs[number].session];
            bool isListed = number >= ghost.claimFirst && number < uint256(ghost.claimFirst) + ghost.claimCount;
            if (!isListed || ghost.pending == 0 || time < ghost.finalAt || jobs[number].dispute > 0) continue;
            return (abi.encodeCall(ICourt.demand, (_evidenceOf(number, true))), _speaker(ghost, 0));
        }
        return ("", NOBODY);
    }

    /// @dev A session that is not closed and over for so long.
    function _over(uint256 seed, uint256 past) private view returns (uint256 index) {
        uint256 count = ghosts.length;
        for (uint256 i = 0; i < count; ++i) {
            index = (seed % count + i) % count;
            if (!ghosts[index].closed && time >= ghosts[index].expiresAt + past) return index;
        }
        return count;
    }
}
