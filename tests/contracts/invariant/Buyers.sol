// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {KeyCaps} from "../../../contracts/types/Keys.sol";
import {KeyGrant, Messages, Open, TopUp} from "../../../contracts/types/Messages.sol";
import {Model} from "./Model.sol";

/// @title What buyers and their keys do
/// @notice Each action says beforehand whether it must work, and it must be refused exactly when it must not.
abstract contract Buyers is Model {
    /// @dev Who sends an opening or a top-up, and what it carries.
    struct Pass {
        uint256 sender;
        bytes signature;
        bool isByKey;
    }

    bytes32 private constant PERMIT_TYPEHASH =
        keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
    bytes32 private constant RECEIVE_TYPEHASH = keccak256(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,"
        "bytes32 nonce)"
    );

    mapping(uint256 action => Tally tally) public tallies;
    uint256 internal current;
    uint256[BUYERS] private permits;

    /// @dev Counts the attempt and restores the clock, which a new call resets.
    modifier tried(uint256 action) {
        vm.warp(time);
        vm.roll(height);
        (touchedGhosts, touchedDisputes, touchedPeople, touchedKeys, isThorough) = (0, 0, 0, 0, false);
        ++calls;
        current = action;
        ++tallies[action].attempts;
        _;
    }

    /* ACCOUNT */

    function deposit(uint256 seed) external tried(0) {
        uint256 who = _roll(seed, 0) % BUYERS;
        uint256 amount = _between(_roll(seed, 1), 1, MOST);
        uint256 way = _roll(seed, 2) % 3;
        if (way == 1 && who < THIEF) _depositWithPermit(who, amount);
        else if (way == 2 && who != THIEF) _depositWithAuthorization(who, amount);
        else _do(who, address(escrow), abi.encodeCall(IEscrow.deposit, (uint128(amount))), true);
        _mDeposit(who, amount);
        _done();
    }

    function withdraw(uint256 seed) external tried(1) {
        uint256 who = _roll(seed, 0) % BUYERS;
        uint256 account = _filled(who, 1);
        uint256 amount = _between(_roll(seed, 1), 1, account + (_rarely(seed) ? 1 + account / 4 : 0));
        bool works = amount <= account;
        _do(who, address(escrow), abi.encodeCall(IEscrow.withdraw, (uint128(amount), people[who].addr)), works);
        if (!works) return;
        _mWithdraw(who, amount);
        _done();
    }

    /* KEYS */

    function grantKey(uint256 seed) external tried(2) {
        _grant(_roll(seed, 0) % BUYERS, FIRST_KEY + _roll(seed, 1) % KEYS, seed);
        _done();
    }

    function revokeKey(uint256 seed) external tried(3) {
        (uint256 who, uint256 key_) = (_roll(seed, 0) % BUYERS, FIRST_KEY + _roll(seed, 1) % KEYS);
        _do(who, address(escrow), abi.encodeCall(IEscrow.revokeKey, (people[key_].addr)), true);
        grants[who][key_].expiresAt = 0;
        grants[who][key_].nonce += uint32(REVOCATION_STEP);
        touchedKeys |= 1 << (who * 8 + key_);
        _done();
    }

    /* SESSIONS */

    function open(uint256 seed) external tried(4) {
        if (_openNew(seed)) _done();
    }

    /// @dev All of them or none.
    function openMany(uint256 seed) external tried(5) {
        Open[] memory opens = new Open[](3);
        bytes[] memory signatures = new bytes[](3);
        Ghost[] memory drawn = new Ghost[](3);
        bool works = true;
        for (uint256 i = 0; i < 3; ++i) {
            uint256 id = 1 + _roll(seed, 10 * i) % NODES;
            if (!_serves(id) && !_rarely(seed)) _stakeMore(_ownerOf(id), _fullStake(_ownerOf(id)));
            uint256 amount = _between(_roll(seed, 10 * i + 1), 1, MOST);
            drawn[i] = _drawn(i, FIRST_KEY + i, id, amount, _roll(seed, 10 * i + 2));
            drawn[i].serial += uint32(i);
            _filled(i, drawn[i].amount);
            opens[i] = _termsInMemory(drawn[i]);
            signatures[i] = _signed(people[_rarely(seed ^ i) ? STRANGER : i].secret, Messages.hash(opens[i]));
            works = works && _serves(id) && !_rarely(seed ^ i);
        }
        _do(STRANGER, address(escrow), abi.encodeCall(IEscrow.open, (opens, signatures)), works);
        if (!works) return;
        for (uint256 i = 0; i < 3; ++i) {
            _push(drawn[i]);
        }
        _done();
    }

    function topUp(uint256 seed) external tried(6) {
        uint256 index = _ownSession(seed);
        Ghost storage ghost = ghosts[index];
        uint256 way = _roll(seed, 1);
        uint256 more = _amountFor(ghost.buyer, ghost.key, ghost.node, ghost.deposited, way, seed);
        _filled(ghost.buyer, more);
        uint128 total = uint128(ghost.deposited + more);
        Pass memory pass = _pass(ghost.buyer, ghost.key, ghost.node, way, Messages.hash(TopUp(ghost.id, total)));
        bool works = !pass.isByKey || more <= _capacity(ghost.buyer, ghost.key, ghost.node, ghost.deposited);
        bytes memory data = abi.encodeCall(IEscrow.topUp, (_termsOf(ghost), total, pass.signature));
        _do(pass.sender, address(escrow), data, works);
        if (!works) return;
        if (pass.isByKey) _mSpend(ghost.buyer, ghost.key, more);
        _mSetAside(ghost, more);
        _keep(pass.sender, address(escrow), data, true);
        _touch(index);
        _done();
    }

    /* STEPS */

    function _grant(uint256 who, uint256 key_, uint256 seed) internal {
        KeyGhost storage grant = grants[who][key_];
        uint256 step = 1 + _roll(seed, 20) % 3;
        bool isSigned = who != THIEF && _roll(seed, 21) % 2 == 0;
        grant.perSession = uint64(_between(_roll(seed, 22), 1, 2 * MOST));
        grant.perDay = uint64(_between(_roll(seed, 23), 1, 3 * MOST));
        grant.total = uint64(_between(_roll(seed, 24), 1, 6 * MOST));
        grant.expiresAt = uint40(time + _between(_roll(seed, 25), 1, 7 days));
        grant.list = uint8(_roll(seed, 26) % (2 * LISTS) < LISTS ? 0 : _roll(seed, 27) % LISTS);
        grant.spent = 0;
        grant.nonce += isSigned ? uint32(step) : 1;
        touchedKeys |= 1 << (who * 8 + key_);
        if (!isSigned) return _sendGrant(who, key_);
        KeyGrant memory message = _grantOf(who, key_);
        bytes memory signature = _signed(people[who].secret, Messages.hash(message));
        bytes memory data = abi.encodeCall(IEscrow.setKeyBySig, (message, signature));
        _do(STRANGER, address(escrow), data, true);
        _keep(STRANGER, address(escrow), data, true);
    }

    function _setKey(uint256 who, uint256 key_, KeyGhost memory caps) internal {
        KeyGhost storage grant = grants[who][key_];
        (grant.perSession, grant.perDay, grant.total) = (caps.perSession, caps.perDay, caps.total);
        (grant.expiresAt, grant.list, grant.spent) = (caps.expiresAt, caps.list, 0);
        ++grant.nonce;
        touchedKeys |= 1 << (who * 8 + key_);
        _sendGrant(who, key_);
    }

    function _sendGrant(uint256 who, uint256 key_) private {
        KeyGhost memory grant = grants[who][key_];
        KeyCaps memory caps =
            KeyCaps(grant.perSession, grant.perDay, grant.total, grant.expiresAt, _listRoot(grant.list));
        _do(who, address(escrow), abi.encodeCall(IEscrow.setKey, (people[key_].addr, caps)), true);
    }

    /// @dev The grant that the model has, as it would be signed.
    function _grantOf(uint256 who, uint256 key_) internal view returns (KeyGrant memory message) {
        KeyGhost memory grant = grants[who][key_];
        (message.buyer, message.key) = (_addressOf(who), people[key_].addr);
        (message.perSession, message.perDay, message.total) = (grant.perSession, grant.perDay, grant.total);
        (message.expiresAt, message.nodesRoot) = (grant.expiresAt, _listRoot(grant.list));
        (message.nonce, message.validUntil) = (grant.nonce, uint48(time + 1));
    }

    function _openNew(uint256 seed) internal returns (bool works) {
        uint256 who = _roll(seed, 10) % BUYERS;
        uint256 key_ = FIRST_KEY + _roll(seed, 11) % KEYS;
        uint256 id = 1 + _roll(seed, 12) % NODES;
        uint256 way = _roll(seed, 13);
        if (!_serves(id) && !_rarely(seed)) _stakeMore(_ownerOf(id), _fullStake(_ownerOf(id)));
        uint256 amount = _amountFor(who, key_, id, 0, way, seed);
        _filled(who, amount);
        Ghost memory drawn = _drawn(who, key_, id, amount, _roll(seed, 14));
        Open memory terms = _termsInMemory(drawn);
        Pass memory pass = _pass(who, key_, id, way, Messages.hash(terms));
        works = _serves(id) && (!pass.isByKey || amount <= _capacity(who, key_, id, 0));
        bytes memory data = abi.encodeCall(IEscrow.openOneSession, (terms, pass.signature));
        _do(pass.sender, address(escrow), data, works);
        if (!works) return false;
        if (pass.isByKey) _mSpend(who, key_, amount);
        _push(drawn);
        _keep(pass.sender, address(escrow), data, true);
    }

    /// @dev A session that still runs, opened for the purpose if there is none near the draw.
    function _openSession(uint256 seed) internal returns (uint256 index) {
        uint256 count = ghosts.length;
        for (uint256 i = 0; i < 12 && count > 0; ++i) {
            index = (seed % count + i) % count;
            if (!ghosts[index].closed && time < ghosts[index].expiresAt) return index;
        }
        return _openFresh(seed);
    }

    /// @dev The same, of a buyer with an account.
    function _ownSession(uint256 seed) internal returns (uint256 index) {
        index = _openSession(seed);
        if (_isReceiver(ghosts[index].buyer)) index = _openFresh(seed);
    }

    /// @dev A large and long one, by its buyer.
    function _openFresh(uint256 seed) internal returns (uint256 index) {
        (uint256 who, uint256 id) = (_roll(seed, 15) % BUYERS, 1 + _roll(seed, 16) % NODES);
        if (!_serves(id)) _stakeMore(_ownerOf(id), _fullStake(_ownerOf(id)));
        _filled(who, MOST);
        Ghost memory drawn = _drawn(who, FIRST_KEY + _roll(seed, 17) % KEYS, id, MOST, 1);
        _do(who, address(escrow), abi.encodeCall(IEscrow.openOneSession, (_termsInMemory(drawn), "")), true);
        return _push(drawn);
    }

    function _push(Ghost memory drawn) internal returns (uint256 index) {
        index = ghosts.length;
        uint256 amount = drawn.amount;
        drawn.id = _digestOf(Messages.hash(_termsInMemory(drawn)));
        ghosts.push(drawn);
        _mSetAside(ghosts[index], amount);
        _touch(index);
    }

    function _stakeMore(uint256 owner, uint256 amount) internal {
        vm.prank(people[owner].addr);
        registry.stake(uint128(amount));
        _mStake(owner, amount);
    }

    /// @dev Makes sure that an account holds this much.
    function _filled(uint256 who, uint256 amount) internal returns (uint256) {
        if (accounts[who] >= amount) return accounts[who];
        uint256 more = amount - accounts[who];
        _do(who, address(escrow), abi.encodeCall(IEscrow.deposit, (uint128(more))), true);
        _mDeposit(who, more);
        return amount;
    }

    function _depositWithPermit(uint256 who, uint256 amount) private {
        bytes32 structHash = keccak256(
            abi.encode(PERMIT_TYPEHASH, people[who].addr, address(escrow), amount, permits[who], time)
        );
        ++permits[who];
        (bytes32 r, bytes32 s, uint8 v) = _ecdsa(people[who].secret, _tokenDigest(structHash));
        bytes memory data = abi.encodeCall(IEscrow.depositWithPermit, (uint128(amount), time, v, r, s));
        _do(who, address(escrow), data, true);
        vm.prank(people[who].addr);
        token.approve(address(escrow), type(uint256).max);
    }

    function _depositWithAuthorization(uint256 who, uint256 amount) private {
        bytes32 nonce = keccak256(abi.encode(calls, sent.length));
        bytes32 structHash = keccak256(
            abi.encode(RECEIVE_TYPEHASH, people[who].addr, address(escrow), amount, 0, time + 1, nonce)
        );
        bytes memory signature = _signedDigest(people[who].secret, _tokenDigest(structHash));
        bytes memory data = abi.encodeCall(
            IEscrow.depositWithAuthorization, (people[who].addr, uint128(amount), 0, time + 1, nonce, signature)
        );
        _do(STRANGER, address(escrow), data, true);
        _keep(STRANGER, address(escrow), data, false);
    }

    /// @dev Mostly within the key's caps, which are renewed when they are used up; sometimes an atom above.
    function _amountFor(uint256 who, uint256 key_, uint256 id, uint256 has, uint256 way, uint256 seed)
        private
        returns (uint256)
    {
        if (way % 4 < 2) return _between(_roll(seed, 2), 1, MOST);
        uint256 most = _capacity(who, key_, id, has);
        for (uint256 i = 0; most == 0 && i < 8 && !_rarely(seed ^ 1); ++i) {
            _grant(who, key_, _roll(seed, 30 + i));
            most = _capacity(who, key_, id, has);
        }
        return _rarely(seed ^ 2) ? most + 1 : _between(_roll(seed, 2), 1, most == 0 ? 1 : most);
    }

    function _pass(uint256 who, uint256 key_, uint256 id, uint256 way, bytes32 structHash)
        private
        view
        returns (Pass memory pass)
    {
        way %= 4;
        if (way == 1 || (way == 0 && who == THIEF)) return Pass(who, "", false);
        if (way == 0) return Pass(STRANGER, _signed(people[who].secret, structHash), false);
        bytes memory proof = _listProof(grants[who][key_].list, id);
        if (way == 3 && proof.length == 0) return Pass(key_, "", true);
        (bytes32 r, bytes32 vs) = _signedShort(people[key_].secret, structHash);
        return Pass(way == 3 ? key_ : STRANGER, abi.encodePacked(r, vs, proof), true);
    }

    function _drawn(uint256 who, uint256 key_, uint256 id, uint256 amount, uint256 roll)
        internal
        view
        returns (Ghost memory drawn)
    {
        (drawn.buyer, drawn.key, drawn.node, drawn.amount) = (uint8(who), uint8(key_), uint8(id), uint64(amount));
        (drawn.openedAt, drawn.expiresAt) = (uint40(time), uint40(time + _between(roll, 1, MAX_SESSION)));
        (drawn.epoch, drawn.serial) = (epochs[id], uint32(ghosts.length));
    }

    /* HELPERS */

    function _done() internal {
        ++tallies[current].successes;
    }

    function _keep(uint256 who, address to, bytes memory data, bool isSilent) internal {
        sent.push(Message(to, uint8(who), isSilent, data));
    }

    function _travelTo(uint256 when) internal {
        if (when <= time) return;
        (time, height) = (when, height + 1);
        vm.warp(time);
        vm.roll(height);
    }

    function _roll(uint256 seed, uint256 index) internal view returns (uint256) {
        return uint256(keccak256(abi.encode(seed, index, lane)));
    }

    /// @dev The ends of a range as often as a quarter of all draws.
    function _between(uint256 roll, uint256 least, uint256 most) internal pure returns (uint256) {
        uint256 kind = roll % 8;
        if (kind == 0) return least;
        if (kind == 1) return most;
        return least + (roll >> 3) % (most - least + 1);
    }

    /// @dev One time in sixteen: enough to see every refusal, too little to make a campaign of refusals.
    function _rarely(uint256 seed) internal pure returns (bool) {
        return uint256(keccak256(abi.encode(seed))) % 16 == 0;
    }
}
