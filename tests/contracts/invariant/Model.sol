// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Messages, Order, Receipt as JobReceipt} from "../../../contracts/types/Messages.sol";
import {Check} from "./Check.sol";

/// @title The rules once more, as they are written
/// @notice Every move of money in the model is here, so that a rule stands in one place.
abstract contract Model is Check {
    uint8 internal constant DEMANDED = 1;
    uint8 internal constant ANSWERED = 2;
    uint8 internal constant DRAWING = 3;
    uint8 internal constant COMMITTING = 4;
    uint8 internal constant REVEALING = 5;
    uint8 internal constant UPHELD = 6;
    uint8 internal constant DISMISSED = 7;
    uint8 internal constant VOID = 8;

    uint8 internal constant OVERCHARGED = 1;
    uint8 internal constant ABOVE_MAXIMUM = 2;
    uint8 internal constant LATE = 3;
    uint256 internal constant REVOCATION_STEP = 65_536;

    /* ACCOUNTS AND SESSIONS */

    function _mDeposit(uint256 person, uint256 amount) internal {
        wallets[person] -= amount;
        accounts[person] += amount;
        sumAccounts += amount;
        _touchPerson(person);
    }

    function _mWithdraw(uint256 person, uint256 amount) internal {
        _mWithdrawTo(person, person, amount);
    }

    function _mWithdrawTo(uint256 person, uint256 to, uint256 amount) internal {
        wallets[to] += amount;
        accounts[person] -= amount;
        sumAccounts -= amount;
        _touchPerson(person);
        _touchPerson(to);
    }

    function _mTransfer(uint256 from, uint256 to, uint256 amount) internal {
        wallets[from] -= amount;
        wallets[to] += amount;
        _touchPerson(from);
        _touchPerson(to);
    }

    function _mSetAside(Ghost storage ghost, uint256 amount) internal {
        ghost.deposited += uint64(amount);
        accounts[ghost.buyer] -= amount;
        sumAccounts -= amount;
        sumSessions += amount;
    }

    /// @dev 3: paid and throughSeq never fall.
    function _rise(Ghost storage ghost, uint256 amount, uint256 throughSeq) internal {
        if (throughSeq < ghost.throughSeq) revert Broken("3: falls", throughSeq, ghost.throughSeq);
        ghost.paid += uint64(amount);
        ghost.throughSeq = uint32(throughSeq);
        earned[ghost.node] += amount;
        sumEarned += amount;
        sumSessions -= amount;
    }

    function _mReturn(Ghost storage ghost) internal {
        ghost.closed = true;
        _mBack(ghost, ghost.deposited - ghost.paid - ghost.pending - ghost.held);
    }

    function _mBack(Ghost storage ghost, uint256 amount) private {
        ghost.returned += uint64(amount);
        accounts[ghost.buyer] += amount;
        sumAccounts += amount;
        sumSessions -= amount;
    }

    /* CLAIMS */

    function _mUnlock(Ghost storage ghost, uint256 amount) internal {
        uint256 owner = _ownerOf(ghost.node);
        providers[owner].locked -= uint64(amount);
        _touchPerson(owner);
    }

    function _mHold(Ghost storage ghost, uint256 amount) internal {
        (ghost.pending, ghost.held) = (ghost.pending - uint64(amount), ghost.held + uint64(amount));
        if (ghost.pending == 0) ghost.throughSeq = ghost.claimSeq;
    }

    function _mResolve(Ghost storage ghost, uint256 amount, bool isPaid) internal {
        ghost.held -= uint64(amount);
        if (isPaid) _rise(ghost, amount, ghost.throughSeq);
        else if (ghost.closed) _mBack(ghost, amount);
        _mUnlock(ghost, amount);
    }

    /// @dev Whether a voucher in the right hands settles, and what becomes of it. It pays whatever was claimed before,
    /// disputed or not.
    function _mSettle(Ghost storage ghost, uint256 throughSeq, uint256 amount) internal returns (bool) {
        if (ghost.id == 0 || ghost.closed || time >= uint256(ghost.expiresAt) + GRACE) return false;
        if (amount < ghost.paid || throughSeq < ghost.throughSeq) return false;
        if (amount == ghost.paid && throughSeq == ghost.throughSeq) return false;
        if (ghost.pending > 0 && throughSeq < ghost.claimSeq) return false;
        if (amount > ghost.deposited) return false;
        if (ghost.pending + ghost.held > 0) {
            _mUnlock(ghost, ghost.pending + ghost.held);
            ++ghost.replaced;
        }
        (ghost.pending, ghost.held) = (0, 0);
        _rise(ghost, amount - ghost.paid, throughSeq);
        return true;
    }

    /* STAKE */

    function _free(uint256 owner) internal view returns (uint256) {
        ProviderGhost memory ghost = providers[owner];
        return ghost.staked > ghost.locked ? ghost.staked - ghost.locked : 0;
    }

    function _serves(uint256 id) internal view returns (bool) {
        return providers[_ownerOf(id)].staked >= MIN_STAKE;
    }

    function _mStake(uint256 owner, uint256 amount) internal {
        providers[owner].staked += uint64(amount);
        providers[owner].putIn += uint64(amount);
        wallets[owner] -= amount;
        sumStakes += amount;
        _touchPerson(owner);
    }

    /// @dev Stake at work goes first.
    function _mSlash(uint256 owner, uint256 amount) internal returns (uint256 taken) {
        ProviderGhost storage ghost = providers[owner];
        uint256 fromStaked = amount < ghost.staked ? amount : ghost.staked;
        uint256 fromDelay = amount - fromStaked < ghost.unstaking ? amount - fromStaked : ghost.unstaking;
        taken = fromStaked + fromDelay;
        ghost.staked -= uint64(fromStaked);
        ghost.unstaking -= uint64(fromDelay);
        ghost.lost += uint64(taken);
        sumStakes -= taken;
        sumSlashed += taken;
        _touchPerson(owner);
    }

    /// @dev Ten times the job and `more`; twice the job for the buyer, what it got back included, half of it at most.
    function _mPunish(uint256 owner, uint256 amount, uint256 more, uint256 refunded)
        internal
        returns (uint256 taken, uint256 award)
    {
        taken = _mSlash(owner, 10 * amount + more);
        award = 2 * amount - refunded;
        if (award > taken / 2) award = taken / 2;
    }

    /* KEYS */

    function _spentToday(KeyGhost memory grant) internal view returns (uint256) {
        return grant.day == time / 1 days ? grant.spentToday : 0;
    }

    /// @dev Most that a key may add to a session that holds `has`.
    function _capacity(uint256 buyer_, uint256 key_, uint256 id, uint256 has) internal view returns (uint256 most) {
        KeyGhost memory grant = grants[buyer_][key_];
        if (time >= grant.expiresAt || !_isListed(grant.list, id) || has >= grant.perSession) return 0;
        most = grant.perSession - has;
        uint256 today = _spentToday(grant);
        uint256 left = grant.perDay > today ? grant.perDay - today : 0;
        if (left < most) most = left;
        left = grant.total - grant.spent;
        if (left < most) most = left;
    }

    function _mSpend(uint256 buyer_, uint256 key_, uint256 amount) internal {
        KeyGhost storage grant = grants[buyer_][key_];
        grant.spentToday = uint64(_spentToday(grant) + amount);
        grant.spent += uint64(amount);
        grant.day = uint32(time / 1 days);
        touchedKeys |= 1 << (buyer_ * 8 + key_);
    }

    function _isListed(uint256 list, uint256 id) internal pure returns (bool) {
        if (list < 3) return list == 0 || (id + 1) / 2 == list;
        return list == 3 ? id == 1 : id == 4;
    }

    function _leaf(uint256 id) internal pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(abi.encode(uint32(id)))));
    }

    function _listRoot(uint256 list) internal pure returns (bytes32) {
        if (list == 0) return 0;
        if (list == 3) return _leaf(1);
        if (list == 4) return _leaf(4);
        (bytes32 a, bytes32 b) = (_leaf(2 * list - 1), _leaf(2 * list));
        return a < b ? keccak256(abi.encode(a, b)) : keccak256(abi.encode(b, a));
    }

    /// @dev The node's neighbour on a list of two.
    function _listProof(uint256 list, uint256 id) internal pure returns (bytes memory) {
        if (list != 1 && list != 2) return "";
        return abi.encode(_leaf(id % 2 == 1 ? id + 1 : id - 1));
    }

    /* JOBS */

    function _orderOf(Job storage job) internal view returns (Order memory order) {
        Ghost storage ghost = ghosts[job.session];
        order.sessionId = ghost.id;
        order.seq = job.seq;
        order.offerHash = offerHashes[ghost.node];
        order.requestHash = bytes32(uint256(job.number));
        order.maxAmount = job.fault == ABOVE_MAXIMUM ? job.amount - 1 : job.amount;
        order.issuedAtMs = uint64(job.at) * 1000;
        order.deadlineMs = order.issuedAtMs + (job.fault == LATE ? 499 : 500);
    }

    /// @dev `variant` makes a second receipt for the same order.
    function _receiptOf(Job storage job, bytes32 orderHash, uint256 variant)
        internal
        view
        returns (JobReceipt memory receipt)
    {
        receipt.orderHash = orderHash;
        receipt.execHash = bytes32(variant);
        receipt.unitsOut = job.fault == OVERCHARGED ? job.amount - 1 : job.amount;
        receipt.amount = job.amount;
        receipt.startedAtMs = uint64(job.at) * 1000;
        receipt.finishedAtMs = receipt.startedAtMs + 500;
        receipt.status = 1;
    }

    function _orderHash(Job storage job) internal view returns (bytes32) {
        return _digestOf(Messages.hash(_orderOf(job)));
    }

    function _receiptHash(Job storage job) internal view returns (bytes32) {
        return _digestOf(Messages.hash(_receiptOf(job, _orderHash(job), 0)));
    }

    /// @dev What the node's epoch of the session signs with.
    function _secretOf(Job storage job) internal view returns (uint256) {
        Ghost storage ghost = ghosts[job.session];
        return _nodeSecret(ghost.node, ghost.epoch);
    }
}
