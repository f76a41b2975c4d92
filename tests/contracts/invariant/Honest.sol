// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "./../../../contracts/interfaces/IEscrow.sol";
import {Open} from "./../../../contracts/types/Messages.sol";
import {SettleItem} from "./../../../contracts/types/Sessions.sol";
import {World} from "./World.sol";

/// @title What honest parties do
/// @notice Each action says beforehand whether it must work. It must revert exactly when it must not work.
abstract contract Honest is World {
    uint128 internal constant MOST = 1e10;

    /// @dev Counts the attempt and restores the clock, which a new call resets.
    modifier tried(string memory action) {
        vm.warp(time);
        if (tallies[action].attempts == 0) actions.push(action);
        ++tallies[action].attempts;
        _;
    }

    /* ACCOUNT */

    function deposit(uint256 who, uint128 amount) external tried("deposit") {
        _depositFor(who % buyers.length, uint128(bound(amount, 1, MOST)));
        _done("deposit");
    }

    function withdraw(uint256 who, uint128 amount) external tried("withdraw") {
        who %= buyers.length;
        uint128 account = _filled(who, 1);
        amount = uint128(bound(amount, 1, _rarely(amount) ? account + account / 4 : account));
        bool works = amount <= account;
        _as(who, abi.encodeCall(IEscrow.withdraw, (amount, buyers[who].addr)), works);
        if (works) _done("withdraw");
    }

    function donate(uint128 amount) external tried("donate") {
        amount = uint128(bound(amount, 1, 1000));
        _mint(address(escrow), amount);
        donated += amount;
        _done("donate");
    }

    /* SESSIONS */

    function open(uint256 who, uint256 seed, uint128 amount, uint32 length) external tried("open") {
        if (_openNew(who % buyers.length, seed, amount, length)) _done("open");
    }

    function openMany(uint256 seed, uint128 amount, uint32 length) external tried("openMany") {
        Open[] memory opens = new Open[](EOA_BUYERS);
        bytes[] memory signatures = new bytes[](EOA_BUYERS);
        bool works = true;
        seed >>= 8; // room to count up
        for (uint256 i = 0; i < EOA_BUYERS; ++i) {
            opens[i] = _draw(i, seed + i, amount, length);
            signatures[i] = _signOpen(buyers[i], opens[i]);
            works = works && _serving(opens[i].nodeId);
        }
        (bool ok,) = address(escrow).call(abi.encodeCall(IEscrow.open, (opens, signatures)));
        assertEq(ok, works, "openMany");
        if (!ok) return;
        for (uint256 i = 0; i < EOA_BUYERS; ++i) {
            _pushGhost(opens[i], (seed + i) % KEYS);
        }
        _done("openMany");
    }

    function topUp(uint256 seed, uint128 more) external tried("topUp") {
        uint256 index = _openSession(seed);
        Ghost storage ghost = ghosts[index];
        uint256 who = _indexOf(ghost.terms.buyer);
        more = uint128(bound(more, 1, MOST));
        _filled(who, more);
        uint128 total = ghost.deposited + more;
        bytes memory signature = who < EOA_BUYERS ? _signTopUp(buyers[who], ghost.id, total) : bytes("");
        bool works = time < ghost.terms.expiresAt;
        _as(who, abi.encodeCall(IEscrow.topUp, (ghost.terms, total, signature)), works);
        if (!works) return;
        ghost.deposited = total;
        movedOut[ghost.terms.buyer] += more;
        topUpsSent.push(TopUpSent(index, total));
        _done("topUp");
    }

    function settle(uint256 seed, uint32 jobs, uint128 amount) external tried("settle") {
        Ghost storage ghost = ghosts[_openSession(seed)];
        SettleItem[] memory items = new SettleItem[](1);
        items[0] = _voucher(ghost, jobs, amount);
        vm.prank(_settlerOf(ghost.terms.nodeId));
        escrow.settle(items);
        if (_account(items[0], ghost)) _done("settle");
    }

    /// @dev A batch of one settler in which about one item in four is wrong in some way; the good ones must not care.
    function settleMany(uint256 seed) external tried("settleMany") {
        address who = _settlerOf(ghosts[_openSession(seed)].terms.nodeId);
        SettleItem[] memory items = new SettleItem[](1 + seed % 6);
        uint256[] memory of_ = new uint256[](items.length);
        for (uint256 i = 0; i < items.length; ++i) {
            uint256 draw = uint256(keccak256(abi.encode(seed, i)));
            of_[i] = draw % ghosts.length;
            items[i] = _voucher(ghosts[of_[i]], uint32(draw >> 8), uint128(draw >> 64));
            if (draw >> 250 < 16) items[i].r = bytes32(draw);
        }
        vm.prank(who);
        escrow.settle(items);
        for (uint256 i = 0; i < items.length; ++i) {
            if (_settlerOf(ghosts[of_[i]].terms.nodeId) == who) _account(items[i], ghosts[of_[i]]);
        }
        _done("settleMany");
    }

    function close(uint256 seed, uint128 minPaid) external tried("close") {
        uint256 index = _openSession(seed);
        Ghost storage ghost = ghosts[index];
        minPaid = uint128(bound(minPaid, 0, _rarely(minPaid) ? ghost.paid + 1000 : ghost.paid));
        bytes memory consent = _signClose(_nodeSigner(ghost.terms.nodeId, ghost.epoch), ghost.id, minPaid);
        bool works = minPaid <= ghost.paid;
        (bool ok,) = address(escrow).call(abi.encodeCall(IEscrow.close, (ghost.terms, minPaid, consent)));
        assertEq(ok, works, "close");
        if (!ok) return;
        _endGhost(ghost);
        closesSent.push(CloseSent(index, minPaid, consent));
        _done("close");
    }

    function expire(uint256 seed) external tried("expire") {
        Ghost storage ghost = ghosts[_openSession(seed)];
        uint256 end = uint256(ghost.terms.expiresAt) + GRACE;
        if (time < end) _travelTo(_rarely(seed) ? end - 1 : end);
        bool works = time >= end;
        (bool ok,) = address(escrow).call(abi.encodeCall(IEscrow.expire, (_one(ghost.terms))));
        assertEq(ok, works, "5: a buyer can always leave");
        if (!ok) return;
        _endGhost(ghost);
        _done("expire");
    }

    /* NODES */

    function collect(uint256 seed) external tried("collect") {
        uint32 id = uint32(1 + seed % NODES);
        escrow.collect(_one(id));
        uint256 fee = (earned[id] * _modelFee()) / 10_000;
        feesTaken += fee;
        paidOut[registry.ownerOf(id)] += earned[id] - fee;
        earned[id] = 0;
        _done("collect");
    }

    function rotateKey(uint256 seed) external tried("rotateKey") {
        uint32 id = uint32(1 + seed % NODES);
        ++epochs[id];
        vm.prank(registry.ownerOf(id));
        registry.rotateNodeKey(id, _nodeSigner(id, epochs[id]).addr, 0);
        _done("rotateKey");
    }

    function setSettler(uint256 seed) external tried("setSettler") {
        uint32 id = uint32(1 + seed % NODES);
        vm.prank(registry.ownerOf(id));
        registry.setSettler(id, settlers[(seed >> 8) % settlers.length]);
        _done("setSettler");
    }

    /// @dev Leaves the provider without enough stake for a while one time in four.
    function moveStake(uint256 seed) external tried("moveStake") {
        address owner = providers[seed % providers.length];
        uint128 staked = registry.provider(owner).staked;
        vm.startPrank(owner);
        if (staked < MIN_STAKE) registry.stake(MIN_STAKE - staked);
        else if (seed % 4 == 0) registry.requestUnstake(1);
        else registry.stake(1);
        vm.stopPrank();
        _done("moveStake");
    }

    /* FEE AND TIME */

    function announceFee(uint16 bps) external tried("announceFee") {
        bps = uint16(bound(bps, 0, 500));
        uint16 current = _modelFee();
        vm.prank(treasury);
        escrow.announceFee(bps);
        (feeNow, feeNext, feeAt) = (current, bps, bps > current ? time + 7 days : time);
        assertEq(escrow.feeBps(), _modelFee(), "fee");
        _done("announceFee");
    }

    function withdrawFees() external tried("withdrawFees") {
        escrow.withdrawFees();
        feesPaid = feesTaken;
        _done("withdrawFees");
    }

    function travel(uint32 by) external tried("travel") {
        _travelTo(time + bound(by, 1, 6 hours));
        _done("travel");
    }

    /* HELPERS */

    function _done(string memory action) internal {
        ++tallies[action].successes;
    }

    function _travelTo(uint256 when) internal {
        time = when;
        vm.warp(when);
    }

    /// @dev Calls the escrow as a buyer, who may be the contract that calls back.
    function _as(uint256 who, bytes memory data, bool works) internal {
        bool ok;
        if (who == EOA_BUYERS) {
            (ok,) = address(thief).call(abi.encodeCall(thief.act, (address(escrow), data)));
        } else {
            vm.prank(buyers[who].addr);
            (ok,) = address(escrow).call(data);
        }
        assertEq(ok, works, "buyer's call");
    }

    function _depositFor(uint256 who, uint128 amount) internal {
        _as(who, abi.encodeCall(IEscrow.deposit, (amount)), true);
    }

    /// @dev Makes sure that an account holds this much.
    function _filled(uint256 who, uint128 amount) internal returns (uint128 account) {
        account = escrow.accountOf(buyers[who].addr);
        if (account >= amount) return account;
        _depositFor(who, amount - account);
        return amount;
    }

    function _draw(uint256 who, uint256 seed, uint128 amount, uint32 length) internal returns (Open memory terms) {
        terms = Open({
            buyer: buyers[who].addr,
            key: keys[seed % KEYS].addr,
            nodeId: uint32(1 + (seed / KEYS) % NODES),
            amount: uint128(bound(amount, 1, MOST)),
            openBefore: uint48(time + 1),
            expiresAt: uint48(time + bound(length, 1, MAX_SESSION)),
            salt: keccak256(abi.encode(ghosts.length, who))
        });
        _filled(who, terms.amount);
    }

    function _openNew(uint256 who, uint256 seed, uint128 amount, uint32 length) internal returns (bool works) {
        Open memory terms = _draw(who, seed, amount, length);
        bytes memory signature = who < EOA_BUYERS && seed % 2 == 0 ? _signOpen(buyers[who], terms) : bytes("");
        works = _serving(terms.nodeId);
        _as(who, abi.encodeCall(IEscrow.open, (_one(terms), _one(signature))), works);
        if (works) _pushGhost(terms, seed % KEYS);
    }

    /// @dev A session that still runs, opened for the purpose if there is none near the draw.
    function _openSession(uint256 seed) internal returns (uint256 index) {
        for (uint256 i = 0; i < 8 && ghosts.length > 0; ++i) {
            index = (seed % ghosts.length + i) % ghosts.length;
            if (!ghosts[index].closed && time < ghosts[index].terms.expiresAt) return index;
        }
        for (uint256 i = 0; i < providers.length; ++i) {
            uint128 staked = registry.provider(providers[i]).staked;
            vm.prank(providers[i]);
            if (staked < MIN_STAKE) registry.stake(MIN_STAKE - staked);
            else registry.stake(1);
        }
        _openNew(seed % buyers.length, seed, MOST, MAX_SESSION);
        return ghosts.length - 1;
    }

    /// @dev Usually rises and fits; sometimes falls, repeats or exceeds the deposit.
    function _voucher(Ghost storage ghost, uint32 jobs, uint128 amount) internal returns (SettleItem memory item) {
        bool wrong = _rarely(amount);
        uint256 most = wrong ? ghost.deposited + ghost.deposited / 4 : ghost.deposited;
        uint256 least = wrong ? ghost.paid - ghost.paid / 4 : ghost.paid;
        uint256 first = wrong ? ghost.throughSeq - ghost.throughSeq / 4 : ghost.throughSeq + 1;
        uint32 seq = uint32(bound(jobs, first, ghost.throughSeq + 1000));
        item = _item(keys[ghost.signer], ghost.id, seq, uint128(bound(amount, least, most)));
        itemsSent.push(item);
    }

    /// @dev The rules of settling once more, from the protocol page. True if the node must have earned.
    function _account(SettleItem memory item, Ghost storage ghost) internal returns (bool) {
        if (ghost.closed || time >= uint256(ghost.terms.expiresAt) + GRACE) return false;
        if (item.amount > ghost.deposited) return false;
        if (item.amount < ghost.paid || item.throughSeq < ghost.throughSeq) return false;
        if (item.amount == ghost.paid && item.throughSeq == ghost.throughSeq) return false;
        SettleItem memory signed = _item(keys[ghost.signer], ghost.id, item.throughSeq, item.amount);
        if (item.r != signed.r) return false;
        _rise(ghost, item.amount, item.throughSeq);
        return true;
    }

    /// @dev One time in sixteen: enough to see every refusal, too little to make a campaign of refusals.
    function _rarely(uint256 seed) internal pure returns (bool) {
        return uint256(keccak256(abi.encode(seed))) % 16 == 0;
    }

    function _indexOf(address buyer_) internal view returns (uint256 index) {
        while (buyers[index].addr != buyer_) ++index;
    }
}
