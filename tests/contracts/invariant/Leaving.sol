// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Attacks} from "./Attacks.sol";

/// @title A buyer can always leave
/// @notice Rule 5, executed: from whatever state a run ended in, with nobody's help. Time passes, phase by phase;
/// anyone calls `advance`, `finalise` and `expire`; then every atom that no node earned is in the buyers' wallets.
abstract contract Leaving is Attacks {
    function leave() external {
        vm.warp(time);
        vm.roll(height);
        uint256 end = _lastEnd();
        _endCases(end);
        for (uint256 i = 0; i < ghosts.length; ++i) {
            Ghost storage ghost = ghosts[i];
            if (ghost.pending > 0) {
                _travelTo(ghost.finalAt);
                if (!_finaliseNow(i)) revert Broken("5: finalise", i, ghost.finalAt);
            }
            if (ghost.closed) continue;
            _travelTo(uint256(ghost.expiresAt) + GRACE);
            _do(STRANGER, address(escrow), abi.encodeCall(IEscrow.expire, (_one(_termsOf(ghost)))), true);
            _mReturn(ghost);
        }
        if (time > end) revert Broken("5: later than a case", time, end);
        for (uint256 i = 0; i < BUYERS; ++i) {
            _leaveWithAll(i);
        }
        for (uint256 i = 0; i < quotes.length; ++i) {
            if (quotes[i].payer != 0) _payBack(i);
        }
        _bringBack();
        for (uint32 id = 1; id <= NODES; ++id) {
            _collect(id);
        }
        this.withdrawFees(0);
        this.checkAll();
        _same(token.balanceOf(address(escrow)), donated[0], "1: nothing is left behind");
    }

    /// @dev 4: what a buyer put in and did not get back, nodes with vouchers or claims of its sessions have earned.
    function _leaveWithAll(uint256 person) private {
        uint256 amount = accounts[person];
        if (amount > 0) {
            address who = people[person].addr;
            _do(person, address(escrow), abi.encodeCall(IEscrow.withdraw, (uint128(amount), who)), true);
            _mWithdraw(person, amount);
        }
        _same(accounts[person], 0, "5: all of it");
    }

    /// @dev What a quote's session left, and what was awarded to its buyer.
    function _payBack(uint256 number) private {
        _refundNow(number);
        _takeAwardsNow(number);
        _same(accounts[PEOPLE + number] + jurors[PEOPLE + number].balance, 0, "5: all of a payer");
    }

    /// @dev Whoever sent tokens that opened nothing needs nobody's word a day later. Nothing stays in a receiver but
    /// what nobody signed for, unless whoever voided a transfer came first.
    function _bringBack() private {
        for (uint256 i = 0; i < transfers.length; ++i) {
            if (transfers[i].state != SENT) continue;
            _travelTo(uint256(quotes[transfers[i].quote].payBefore) + RECOVERY);
            _recoverNow(i, false, true);
        }
        for (uint256 i = 0; i < quotes.length; ++i) {
            uint256 rest = wallets[PEOPLE + i];
            if (quotes[i].seized == 0) _same(rest, quotes[i].gifts, "5: nothing stays in a receiver");
            else if (rest > quotes[i].gifts) revert Broken("5: more stays in a receiver", rest, quotes[i].gifts);
        }
    }

    /// @dev Past expiry, grace and the longest case of every session, and the time for which nobody moved a case on.
    function _lastEnd() private view returns (uint256 end) {
        for (uint256 i = 0; i < ghosts.length; ++i) {
            if (ghosts[i].closed && ghosts[i].pending + ghosts[i].held == 0) continue;
            uint256 sessionEnd = uint256(ghosts[i].expiresAt) + GRACE + court.LONGEST_SECONDS();
            if (sessionEnd > end) end = sessionEnd;
        }
        uint256 late = 0;
        for (uint256 i = 0; i < disputes.length; ++i) {
            uint256 waited = uint256(disputes[i].late) + _overdue(disputes[i]);
            if (waited > late) late = waited;
        }
        end += late;
        if (end < time) end = time;
    }

    /// @dev Lets every phase run out, the earliest first. Who holds nothing back is left alone.
    function _endCases(uint256 end) private {
        while (true) {
            uint256 next = disputes.length;
            for (uint256 i = 0; i < disputes.length; ++i) {
                if (disputes[i].state >= UPHELD || _undecided(disputes[i]) == 0) continue;
                if (next == disputes.length || disputes[i].phaseEnds < disputes[next].phaseEnds) next = i;
            }
            if (next == disputes.length) return;
            _travelTo(disputes[next].phaseEnds);
            if (time > end) revert Broken("5: a case takes longer", time, end);
            _advance(next);
        }
    }
}
