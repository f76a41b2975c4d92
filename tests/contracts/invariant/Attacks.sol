// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {ITill} from "../../../contracts/interfaces/ITill.sol";
import {SettleItem} from "../../../contracts/types/Sessions.sol";
import {Forgeries} from "./Forgeries.sol";

/// @title What everybody else tries
/// @notice A success here is a message that was refused, which leaves no trace, or that changed nothing: then
/// everything is compared.
abstract contract Attacks is Forgeries {
    /// @dev 3: replaying any message is a no-op, whoever sends it and whenever.
    function replay(uint256 seed) external tried(26) {
        if (sent.length == 0) _openNew(seed);
        if (sent.length == 0) return;
        Message storage message = sent[_roll(seed, 1) % sent.length];
        uint256 who = message.isSilent ? _roll(seed, 2) % PEOPLE : message.who;
        bool ok = _try(who, message.to, message.data);
        if (message.isSilent && !ok) revert Broken("3: a replay is no error", who, sent.length);
        isThorough = ok;
        _done();
    }

    /// @dev 4: nobody else moves money, whatever they sign and whomever they call.
    function attack(uint256 seed) external tried(27) {
        (address to, bytes memory data, uint256 who, bool isSkip) = _forged(_openSession(seed), seed);
        bool ok = _try(who, to, data);
        if (ok != isSkip) revert Broken("4: a forgery goes through", _roll(seed, 1) % KINDS, who);
        isThorough = ok;
        _done();
    }

    /// @dev The right voucher from the wrong settler: only the node's side can end its right to be paid.
    function foreignSettle(uint256 seed) external tried(28) {
        uint256 index = _openSession(seed);
        Ghost storage ghost = ghosts[index];
        SettleItem[] memory items = new SettleItem[](1);
        items[0] = _voucher(ghost, seed);
        uint256 who = _roll(seed, 1) % PEOPLE;
        if (who == settlerOf[ghost.node]) who = ghost.buyer;
        _do(who, address(escrow), abi.encodeCall(IEscrow.settle, (items)), true);
        _touch(index);
        _touchPerson(_ownerOf(ghost.node));
        _done();
    }

    /// @dev A buyer that calls back in the middle of its own transfers.
    function reenter(uint256 seed) external tried(29) {
        uint256 kind = _roll(seed, 0) % 8;
        if (kind == 6) return _reenterCourt(seed);
        if (kind == 7) return _reenterTill(seed);
        (bool isDeposit, uint256 inner) = (kind > 2, kind % 3);
        uint256 amount = _between(_roll(seed, 1), 1, _filled(THIEF, 2));
        Ghost memory drawn = _drawn(THIEF, FIRST_KEY, 2, 1, _roll(seed, 2));
        bytes memory opening = abi.encodeCall(IEscrow.openOneSession, (_termsInMemory(drawn), ""));
        bytes memory withdrawal = abi.encodeCall(IEscrow.withdraw, (uint128(amount), people[THIEF].addr));
        bytes memory payment = abi.encodeCall(IEscrow.deposit, (uint128(amount)));
        bytes[3] memory armed = [withdrawal, payment, opening];
        bool isRefused = isDeposit && inner != 2; // with another transfer inside it is no plain one
        thief.arm(address(escrow), armed[inner]);
        _do(THIEF, address(escrow), isDeposit ? payment : withdrawal, !isRefused);
        if (!isRefused) _mReentered(inner, amount, isDeposit, drawn);
        thief.arm(address(0), "");
        _touchPerson(THIEF);
        _done();
    }

    /// @dev 8: the same settlement for few and for many jobs costs the same.
    function settleGas(uint256 seed) external tried(30) {
        uint256 index = _openSession(seed);
        Ghost storage ghost = ghosts[index];
        if (ghost.paid == ghost.deposited || ghost.pending + ghost.held > 0) ghost = ghosts[_openFresh(seed)];
        uint256 few = _gasOf(ghost, ghost.throughSeq + 1);
        uint256 many = _gasOf(ghost, ghost.throughSeq + 2 + uint32(_roll(seed, 1) % 1e9));
        _same(few, many, "8: gas of settling");
        _done();
    }

    /// @dev Tokens that nobody asked for.
    function donate(uint256 seed) external tried(31) {
        uint256 to = _roll(seed, 0) % 3;
        uint256 amount = 1 + _roll(seed, 1) % 1000;
        address[3] memory holders = [address(escrow), address(registry), address(court)];
        _mint(holders[to], amount);
        donated[to] += amount;
        _done();
    }

    /* FEE AND TIME */

    function announceFee(uint256 seed) external tried(32) {
        uint16 bps = uint16(_between(_roll(seed, 0), 0, 500));
        uint256 now_ = time < feeAt ? feeNow : feeNext;
        vm.prank(treasury);
        escrow.announceFee(bps);
        (feeNow, feeNext, feeAt) = (now_, bps, bps > now_ ? time + 7 days : time);
        _done();
    }

    function withdrawFees(uint256) external tried(33) {
        escrow.withdrawFees();
        treasuryGot += sumFees;
        sumFees = 0;
        _done();
    }

    /// @dev A moment, mostly; sometimes so many blocks that a seed is lost.
    function travel(uint256 seed) external tried(34) {
        _travelTo(time + _between(_roll(seed, 0), 1, 2 hours));
        if (_rarely(seed)) height += 300;
        _done();
    }

    /* HELPERS */

    function _mReentered(uint256 inner, uint256 amount, bool isDeposit, Ghost memory drawn) private {
        if (isDeposit) _mDeposit(THIEF, amount);
        else _mWithdraw(THIEF, amount);
        bool[3] memory works = [accounts[THIEF] >= amount, wallets[THIEF] >= amount, accounts[THIEF] > 0 && _serves(2)];
        if (thief.reentered() != works[inner]) revert Broken("4: call inside a transfer", inner, amount);
        if (!works[inner]) return;
        if (inner == 0) _mWithdraw(THIEF, amount);
        else if (inner == 1) _mDeposit(THIEF, amount);
        else _push(drawn);
    }

    /// @dev Takes its deposit out of the court twice.
    function _reenterCourt(uint256 seed) private {
        uint256 owned = jurors[THIEF].balance;
        if (owned > 0) {
            bytes memory data = abi.encodeCall(ICourt.withdraw, (uint64(owned)));
            thief.arm(address(court), data);
            _do(THIEF, address(court), data, true);
            _mTakeBack(THIEF, owned);
            if (thief.reentered()) revert Broken("4: twice out of the court", owned, 0);
        } else {
            _do(THIEF, address(court), abi.encodeCall(ICourt.withdraw, (1)), false);
        }
        thief.arm(address(0), "");
        if (owned > 0 || seed % 2 == 0) _done();
    }

    /// @dev Pays twice for one quote, or wants its refund twice: the call inside works and moves nothing.
    function _reenterTill(uint256 seed) private {
        uint256 number = _quoteNew(seed);
        uint256 owner = _ownerOf(quotes[number].node);
        if (!_serves(quotes[number].node)) _stakeMore(owner, _fullStake(owner));
        uint256 transfer = _sign(number, THIEF, quotes[number].amount);
        bytes[4] memory armed = [
            abi.encodeCall(ITill.pay, (_quoteOf(number), _paymentOf(transfer))),
            abi.encodeCall(ITill.refund, (_quoteOf(number))),
            abi.encodeCall(ITill.takeAwards, (_quoteOf(number))),
            abi.encodeCall(IEscrow.expire, (_one(_quoteTerms(number))))
        ];
        uint256 inner = _roll(seed, 1) % 3;
        thief.arm(address(till), armed[inner]);
        if (!_payNow(transfer)) revert Broken("4: pays in a call inside", number, inner);
        if (!thief.reentered()) revert Broken("4: call inside a payment", number, inner);
        inner = 1 + _roll(seed, 2) % 3;
        thief.arm(inner == 3 ? address(escrow) : address(till), armed[inner]);
        _travelTo(uint256(quotes[number].expiresAt) + GRACE);
        _refundNow(number);
        if (!thief.reentered()) revert Broken("4: call inside a refund", number, inner);
        _done();
    }

    function _gasOf(Ghost storage ghost, uint32 seq) private returns (uint256 gas) {
        SettleItem[] memory items = new SettleItem[](1);
        items[0] = SettleItem(ghost.id, seq, ghost.deposited, ROOT, 0, 0);
        (items[0].r, items[0].vs) = _signedVoucher(ghost.key, items[0]);
        address who = people[settlerOf[ghost.node]].addr;
        uint256 state = vm.snapshotState();
        vm.prank(who);
        escrow.settle(items);
        gas = vm.lastCallGas().gasTotalUsed;
        _same(escrow.session(ghost.id, people[ghost.key].addr).paid, ghost.deposited, "8: settles");
        vm.revertToStateAndDelete(state);
    }
}
