// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {INodeRegistry} from "../../../contracts/interfaces/INodeRegistry.sol";
import {SignedReceipt} from "../../../contracts/types/Claims.sol";
import {Close, Messages, Settlement, Voucher, VoucherBatch} from "../../../contracts/types/Messages.sol";
import {SettleItem} from "../../../contracts/types/Sessions.sol";
import {Buyers} from "./Buyers.sol";

/// @title What providers, their nodes and their settlers do
abstract contract Nodes is Buyers {
    /* VOUCHERS */

    function settle(uint256 seed) external tried(7) {
        uint256 index = _openSession(seed);
        Ghost storage ghost = ghosts[index];
        SettleItem[] memory items = new SettleItem[](1);
        items[0] = _voucher(ghost, seed);
        bytes memory data = _settlement(items, settlerOf[ghost.node], seed);
        _do(_roll(seed, 3) % 2 == 0 ? settlerOf[ghost.node] : STRANGER, address(escrow), data, true);
        if (!_mSettle(ghost, items[0].throughSeq, items[0].amount)) return;
        _keep(STRANGER, address(escrow), data, true);
        _touch(index);
        _done();
    }

    /// @dev Items of one settler, of any sessions, some of them wrong; the good ones must not care.
    function settleMany(uint256 seed) external tried(8) {
        uint256 who = settlerOf[ghosts[_openSession(seed)].node];
        SettleItem[] memory items = new SettleItem[](1 + _roll(seed, 1) % 6);
        uint256[] memory indices = new uint256[](items.length);
        bool[] memory isForged = new bool[](items.length);
        for (uint256 i = 0; i < items.length; ++i) {
            uint256 roll = _roll(seed, 50 + i);
            indices[i] = roll % ghosts.length;
            items[i] = _voucher(ghosts[indices[i]], roll);
            isForged[i] = roll >> 252 == 0;
            if (isForged[i]) items[i].receiptsRoot = bytes32(roll);
        }
        _do(who, address(escrow), abi.encodeCall(IEscrow.settle, (items)), true);
        for (uint256 i = 0; i < items.length; ++i) {
            Ghost storage ghost = ghosts[indices[i]];
            _touch(indices[i]);
            if (settlerOf[ghost.node] == who && !isForged[i]) _mSettle(ghost, items[i].throughSeq, items[i].amount);
        }
        _done();
    }

    /// @dev Vouchers of one key under one signature. They may be of any node: those of others are skipped.
    function settleBatch(uint256 seed) external tried(9) {
        uint256 index = _openSession(seed);
        uint256 key_ = ghosts[index].key;
        uint256 who = settlerOf[ghosts[index].node];
        uint256 length = 1 + _roll(seed, 1) % 5;
        SettleItem[] memory items = new SettleItem[](length);
        uint256[] memory indices = new uint256[](length);
        bytes memory packed = "";
        for (uint256 i = 0; i < length; ++i) {
            uint256 roll = _roll(seed, 60 + i);
            indices[i] = i == 0 ? index : roll % ghosts.length;
            items[i] = _voucher(ghosts[indices[i]], roll);
            bytes24 shortId = bytes24(items[i].sessionId);
            packed = bytes.concat(packed, abi.encodePacked(shortId, items[i].throughSeq, uint64(items[i].amount)));
        }
        (bytes32 r, bytes32 vs) =
            _signedShort(people[key_].secret, Messages.hash(VoucherBatch(keccak256(packed), ROOT)));
        _do(who, address(escrow), abi.encodeCall(IEscrow.settleBatch, (packed, ROOT, r, vs)), true);
        for (uint256 i = 0; i < length; ++i) {
            Ghost storage ghost = ghosts[indices[i]];
            _touch(indices[i]);
            if (ghost.key != key_ || settlerOf[ghost.node] != who) continue;
            if (_mSettle(ghost, items[i].throughSeq, items[i].amount) && i == 0) _done();
        }
    }

    function close(uint256 seed) external tried(10) {
        uint256 index = _rarely(seed ^ 1) ? _openSession(seed) : _quietSession(seed);
        Ghost storage ghost = ghosts[index];
        uint128 minPaid = uint128(_between(_roll(seed, 1), 0, ghost.paid + (_rarely(seed) ? 1 + ghost.paid / 4 : 0)));
        bytes memory consent =
            _signed(_nodeSecret(ghost.node, ghost.epoch), Messages.hash(Close(ghost.id, minPaid)));
        bool works = minPaid <= ghost.paid && ghost.pending + ghost.held == 0;
        bytes memory data = abi.encodeCall(IEscrow.close, (_termsOf(ghost), minPaid, consent));
        _do(STRANGER, address(escrow), data, works);
        if (!works) return;
        _mReturn(ghost);
        _keep(STRANGER, address(escrow), data, true);
        _touch(index);
        _done();
    }

    function expire(uint256 seed) external tried(11) {
        uint256 index = _leftOver(seed);
        Ghost storage ghost = ghosts[index];
        uint256 end = uint256(ghost.expiresAt) + GRACE;
        _travelTo(_rarely(seed) ? end - 1 : end);
        bytes memory data = abi.encodeCall(IEscrow.expire, (_one(_termsOf(ghost))));
        _do(_roll(seed, 1) % PEOPLE, address(escrow), data, time >= end);
        if (time < end) return;
        if (!ghost.closed) _mReturn(ghost);
        _keep(STRANGER, address(escrow), data, true);
        _touch(index);
        _done();
    }

    /* CLAIMS */

    function claim(uint256 seed) external tried(12) {
        if (_claimNew(_claimable(seed), seed, _rarely(seed))) _done();
    }

    function finalise(uint256 seed) external tried(13) {
        uint256 index = _pendingSession(seed);
        Ghost storage ghost = ghosts[index];
        _travelTo(_rarely(seed) ? ghost.finalAt - 1 : ghost.finalAt);
        if (_finaliseNow(index)) _done();
    }

    /* NODES */

    function collect(uint256 seed) external tried(14) {
        _collect(uint32(1 + _roll(seed, 0) % NODES));
        _done();
    }

    function rotateKey(uint256 seed) external tried(15) {
        uint32 id = uint32(1 + _roll(seed, 0) % NODES);
        ++epochs[id];
        bytes memory data = abi.encodeCall(INodeRegistry.rotateNodeKey, (id, _nodeSigner(id, epochs[id]).addr, 0));
        _do(_ownerOf(id), address(registry), data, true);
        _done();
    }

    function setSettler(uint256 seed) external tried(16) {
        uint32 id = uint32(1 + _roll(seed, 0) % NODES);
        settlerOf[id] = FIRST_SETTLER + _roll(seed, 1) % SETTLERS;
        bytes memory data = abi.encodeCall(INodeRegistry.setSettler, (id, people[settlerOf[id]].addr));
        _do(_ownerOf(id), address(registry), data, true);
        _done();
    }

    /// @dev More, less (sometimes too little to serve, sometimes what is locked), or out after the delay.
    function moveStake(uint256 seed) external tried(17) {
        uint256 owner = FIRST_PROVIDER + _roll(seed, 0) % PROVIDERS;
        uint256 kind = _roll(seed, 1) % 8;
        uint256 free = _free(owner);
        if (kind < 3 || (kind < 6 && free == 0)) {
            uint256 most = _fullStake(owner);
            _stakeMore(owner, providers[owner].staked < MIN_STAKE ? most : _between(_roll(seed, 2), 1, most / 8));
        } else if (kind < 6) {
            uint256 most = kind == 3 ? free : free / 16 + 1;
            uint256 amount = _rarely(seed) ? free + 1 : _between(_roll(seed, 2), 1, most);
            bytes memory data = abi.encodeCall(INodeRegistry.requestUnstake, (uint128(amount)));
            _do(owner, address(registry), data, amount <= free);
            if (amount > free) return;
            _mUnstake(owner, amount);
        } else {
            return _withdrawStake(owner, seed);
        }
        _done();
    }

    /* STEPS */

    /// @dev The fee rounds down, in the node's favour.
    function _collect(uint32 id) internal {
        uint256 amount = earned[id];
        uint256 fee = (amount * (time < feeAt ? feeNow : feeNext)) / 10_000;
        _do(STRANGER, address(escrow), abi.encodeCall(IEscrow.collect, (_one(id))), true);
        earned[id] = 0;
        sumEarned -= amount;
        sumFees += fee;
        wallets[_ownerOf(id)] += amount - fee;
        _touchPerson(_ownerOf(id));
    }

    /// @dev A claim of one to three jobs. Wrong: of an atom more than there is, in the session or in free stake.
    function _claimNew(uint256 index, uint256 seed, bool isWrong) internal returns (bool) {
        Ghost storage ghost = ghosts[index];
        uint256 owner = _ownerOf(ghost.node);
        if (_free(owner) == 0) _stakeMore(owner, _fullStake(owner));
        uint256 most = ghost.deposited - ghost.paid - ghost.held;
        if (_free(owner) < most) most = _free(owner);
        (uint256 first, uint256 count) = (jobs.length, most < 3 ? 1 : 1 + _roll(seed, 40) % 3);
        uint256 sum = _pushJobs(index, seed, count, most);
        if (isWrong) jobs[first].amount = uint64(most + 1);
        bytes memory data = abi.encodeCall(IEscrow.claim, (_termsOf(ghost), _signedJobs(first, count)));
        _do(settlerOf[ghost.node], address(escrow), data, !isWrong);
        if (isWrong) return false;
        (ghost.pending, ghost.claimSeq) = (uint64(sum), jobs[first + count - 1].seq);
        (ghost.finalAt, ghost.claimFirst, ghost.claimCount) = (uint40(time + CHALLENGE), uint32(first), uint8(count));
        providers[owner].locked += uint64(sum);
        _keep(settlerOf[ghost.node], address(escrow), data, false);
        _touchPerson(owner);
        _touch(index);
        return true;
    }

    function _pushJobs(uint256 index, uint256 seed, uint256 count, uint256 most) private returns (uint256 sum) {
        uint32 seq = ghosts[index].throughSeq;
        most = most / count < JOB_MOST ? most / count : JOB_MOST;
        for (uint256 i = 0; i < count; ++i) {
            uint256 roll = _roll(seed, 41 + i);
            seq += uint32(1 + (roll >> 200) % 2);
            uint256 amount = _between(roll, 1, most);
            _pushJob(index, seq, amount, roll >> 253 < 2 ? OVERCHARGED : 0);
            sum += amount;
        }
    }

    function _signedJobs(uint256 first, uint256 count) private view returns (SignedReceipt[] memory receipts) {
        receipts = new SignedReceipt[](count);
        for (uint256 i = 0; i < count; ++i) {
            receipts[i] = _signedJob(jobs[first + i]);
        }
    }

    function _finaliseNow(uint256 index) internal returns (bool works) {
        Ghost storage ghost = ghosts[index];
        works = time >= ghost.finalAt;
        _do(STRANGER, address(escrow), abi.encodeCall(IEscrow.finalise, (_termsOf(ghost))), works);
        if (!works) return false;
        uint256 amount = ghost.pending;
        ghost.pending = 0;
        _touch(index);
        _rise(ghost, amount, ghost.claimSeq);
        _mUnlock(ghost, amount);
    }

    function _mUnstake(uint256 owner, uint256 amount) private {
        ProviderGhost storage ghost = providers[owner];
        ghost.staked -= uint64(amount);
        ghost.unstaking += uint64(amount);
        ghost.unstakeAt = uint40(time + UNSTAKE_DELAY);
        _touchPerson(owner);
    }

    /// @dev 7: nobody leaves while a window is open on their work: what was opened before the request is all over.
    function _withdrawStake(uint256 owner, uint256 seed) private {
        ProviderGhost storage ghost = providers[owner];
        if (ghost.unstaking == 0) {
            _stakeMore(owner, 1);
            return _done();
        }
        if (_roll(seed, 3) % 4 == 0) _travelTo(_rarely(seed) ? ghost.unstakeAt - 1 : ghost.unstakeAt);
        bool works = time >= ghost.unstakeAt;
        _do(owner, address(registry), abi.encodeCall(INodeRegistry.withdrawStake, ()), works);
        if (!works) return;
        for (uint256 i = 0; i < ghosts.length; ++i) {
            if (_ownerOf(ghosts[i].node) != owner || ghosts[i].openedAt + UNSTAKE_DELAY > ghost.unstakeAt) continue;
            uint256 end = ghosts[i].expiresAt + GRACE + DISPUTE;
            if (time < end) revert Broken("7: leaves early", time, end);
        }
        wallets[owner] += ghost.unstaking;
        sumStakes -= ghost.unstaking;
        ghost.tookOut += ghost.unstaking;
        (ghost.unstaking, ghost.unstakeAt) = (0, 0);
        _touchPerson(owner);
        _done();
    }

    function _pushJob(uint256 index, uint32 seq, uint256 amount, uint8 fault) internal returns (uint256) {
        jobs.push(Job(uint32(index), seq, uint64(amount), uint40(time), fault, 0, uint32(jobs.length)));
        return jobs.length - 1;
    }

    function _signedJob(Job storage job) internal view returns (SignedReceipt memory both) {
        both.order = _orderOf(job);
        bytes32 orderHash = _digestOf(Messages.hash(both.order));
        both.receipt = _receiptOf(job, orderHash, 0);
        both.orderSignature = _signedDigest(people[ghosts[job.session].key].secret, orderHash);
        both.receiptSignature = _signed(_secretOf(job), Messages.hash(both.receipt));
    }

    /// @dev Usually rises and fits; sometimes falls, repeats or exceeds the deposit.
    function _voucher(Ghost storage ghost, uint256 seed) internal view returns (SettleItem memory item) {
        bool isWrong = _rarely(seed);
        uint256 most = ghost.deposited + (isWrong ? 1 + ghost.deposited / 4 : 0);
        uint256 least = isWrong ? ghost.paid - ghost.paid / 4 : ghost.paid;
        uint256 from = ghost.pending > 0 && ghost.claimSeq > ghost.throughSeq ? ghost.claimSeq - 1 : ghost.throughSeq;
        uint256 seq = _between(_roll(seed, 4), isWrong ? from - from / 4 : from + 1, from + 1000);
        item.sessionId = ghost.id;
        item.throughSeq = uint32(seq);
        item.amount = uint128(_between(_roll(seed, 5), least, least + (most - least) / (1 + _roll(seed, 6) % 3)));
        item.receiptsRoot = ROOT;
        (item.r, item.vs) = _signedVoucher(ghost.key, item);
    }

    function _signedVoucher(uint256 key_, SettleItem memory item) internal view returns (bytes32 r, bytes32 vs) {
        bytes32 structHash =
            Messages.hash(Voucher(item.sessionId, item.throughSeq, item.amount, item.receiptsRoot));
        return _signedShort(people[key_].secret, structHash);
    }

    /// @dev By the settler itself, or by its signature.
    function _settlement(SettleItem[] memory items, uint256 who, uint256 seed) internal view returns (bytes memory) {
        if (_roll(seed, 3) % 2 == 0) return abi.encodeCall(IEscrow.settle, (items));
        bytes memory signature = _signed(people[who].secret, Messages.hash(Settlement(keccak256(abi.encode(items)))));
        return abi.encodeCall(IEscrow.settleFor, (items, signature));
    }

    /* DRAWS */

    /// @dev A session that still runs, with nothing claimed.
    function _quietSession(uint256 seed) internal returns (uint256 index) {
        uint256 count = ghosts.length;
        for (uint256 i = 0; i < 12 && count > 0; ++i) {
            index = (seed % count + i) % count;
            Ghost storage ghost = ghosts[index];
            if (!ghost.closed && ghost.pending + ghost.held == 0 && time < ghost.expiresAt) return index;
        }
        return _openFresh(seed);
    }

    /// @dev A session without a pending claim and with money left.
    function _claimable(uint256 seed) internal returns (uint256 index) {
        uint256 count = ghosts.length;
        for (uint256 i = 0; i < 12 && count > 0; ++i) {
            index = (seed % count + i) % count;
            Ghost storage ghost = ghosts[index];
            bool isOver = ghost.closed || time >= uint256(ghost.expiresAt) + GRACE;
            if (!isOver && ghost.pending == 0 && ghost.deposited > ghost.paid + ghost.held) return index;
        }
        return _openFresh(seed);
    }

    /// @dev A session with a pending claim; made for the purpose if there is none.
    function _pendingSession(uint256 seed) internal returns (uint256 index) {
        uint256 count = ghosts.length;
        for (uint256 i = 0; i < count; ++i) {
            index = (seed % count + i) % count;
            if (ghosts[index].pending > 0) return index;
        }
        index = _openFresh(seed);
        _claimNew(index, seed, false);
    }

    /// @dev A session that is not closed, the sooner over the better.
    function _leftOver(uint256 seed) private returns (uint256 best) {
        uint256 count = ghosts.length;
        best = count;
        for (uint256 i = 0; i < count; ++i) {
            if (ghosts[i].closed) continue;
            if (best == count || ghosts[i].expiresAt < ghosts[best].expiresAt) best = i;
        }
        if (best == count) best = _openSession(seed);
    }
}
