// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Provider} from "../../../contracts/interfaces/INodeRegistry.sol";
import {Case, Juror, Seat} from "../../../contracts/types/Cases.sol";
import {Claim} from "../../../contracts/types/Claims.sol";
import {Key} from "../../../contracts/types/Keys.sol";
import {Session} from "../../../contracts/types/Sessions.sol";
import {Quoted} from "./Quoted.sol";

/// @title What must hold after every call
/// @notice Rules are numbered as on the protocol page, section 6. After every call: whatever the call touched, every
/// account, every node's earnings, the fee, and the balances of the three contracts against the model's sums. After
/// every 16th, after every forgery that was passed over and at the end of a run: everything, and the sums themselves.
abstract contract Check is Quoted {
    uint256 private constant THOROUGH_EACH = 16;
    uint8 private constant EXISTS = 1;
    uint8 private constant CLOSED = 2;
    uint8 private constant CLAIMED = 4;

    uint256 internal touchedGhosts; // a bit for each of the first 256
    uint256 internal touchedDisputes;
    uint256 internal touchedPeople;
    uint256 internal touchedKeys; // bit of buyer * 8 + key
    uint256 internal calls;
    bool internal isThorough;

    function check() external view {
        if (isThorough || calls % THOROUGH_EACH == 0) return checkAll();
        _checkBalances();
        _checkFees();
        for (uint256 i = 0; i < BUYERS; ++i) {
            _same(escrow.accountOf(people[i].addr), accounts[i], "4: account");
        }
        _checkNodes();
        _checkTouched();
    }

    function _checkTouched() private view {
        for ((uint256 rest, uint256 i) = (touchedGhosts, 0); rest > 0; (rest, i) = (rest >> 1, i + 1)) {
            if (rest & 1 == 1) _checkSession(ghosts[i]);
        }
        for ((uint256 rest, uint256 i) = (touchedPeople, 0); rest > 0; (rest, i) = (rest >> 1, i + 1)) {
            if (rest & 1 == 0) continue;
            if (_isReceiver(i)) _checkReceiver(i - PEOPLE);
            else _checkPerson(i);
        }
        for ((uint256 rest, uint256 i) = (touchedKeys, 0); rest > 0; (rest, i) = (rest >> 1, i + 1)) {
            if (rest & 1 == 1) _checkKey(i / 8, i % 8);
        }
        for ((uint256 rest, uint256 i) = (touchedDisputes, 0); rest > 0; (rest, i) = (rest >> 1, i + 1)) {
            if (rest & 1 == 1) _checkDispute(disputes[i]);
        }
    }

    function checkAll() public view {
        _checkBalances();
        _checkFees();
        uint256 sum = 0;
        for (uint256 i = 0; i < BUYERS; ++i) {
            uint256 account = escrow.accountOf(people[i].addr);
            _same(account, accounts[i], "4: account");
            sum += account;
            for (uint256 key = FIRST_KEY; key < FIRST_KEY + KEYS; ++key) {
                _checkKey(i, key);
            }
        }
        for (uint256 i = 0; i < quotes.length; ++i) {
            sum += _checkReceiver(i);
        }
        _same(sum, sumAccounts, "1: accounts");
        sum = 0;
        for (uint256 i = 0; i < ghosts.length; ++i) {
            sum += _checkSession(ghosts[i]);
        }
        _same(sum, sumSessions, "1: sessions");
        _same(_checkNodes(), sumEarned, "1: earnings");
        uint256 places = 0;
        for (uint256 i = 0; i < PEOPLE; ++i) {
            places |= 1 << _checkPerson(i);
        }
        _same(places | 1, (2 << court.jurorCount()) - 1, "court's pool: one place each");
        for (uint256 i = 0; i < disputes.length; ++i) {
            _checkDispute(disputes[i]);
        }
        _checkLocks();
        _checkPot();
    }

    /// @dev 1: to the atom. The registry's is 7, the court's its own.
    function _checkBalances() private view {
        uint256 escrowHolds = sumAccounts + sumSessions + sumEarned + sumFees + donated[0];
        _same(token.balanceOf(address(escrow)), escrowHolds, "1: escrow's balance");
        _same(token.balanceOf(address(registry)), sumStakes + sumSlashed + donated[1], "7: registry's balance");
        _same(token.balanceOf(address(court)), sumCourt + sumBonds + sumBurned + donated[2], "court's balance");
    }

    /// @dev 2: paid + returned + undecided = deposited. 3: paid and throughSeq are the model's, which only rise
    /// (`_rise`). 4: only what key and settler agreed on was earned.
    function _checkSession(Ghost storage ghost) private view returns (uint256 holds) {
        Session memory held = escrow.session(ghost.id, people[ghost.key].addr);
        uint256 undecided = uint256(ghost.pending) + ghost.held;
        _same(held.deposited, ghost.deposited, "4: deposited");
        _same(held.paid, ghost.paid, "3, 4: paid");
        _same(held.throughSeq, ghost.throughSeq, "3: throughSeq");
        _same(held.keyEpoch, ghost.epoch, "4: epoch");
        _same(held.nodeId, ghost.node, "4: node");
        _same(held.expiresAt, ghost.expiresAt, "5: expiresAt");
        uint8 flags = EXISTS | (ghost.closed ? CLOSED : 0) | (undecided > 0 ? CLAIMED : 0);
        _same(held.flags, flags, "2: flags");
        if (ghost.closed) _same(held.paid + ghost.returned + undecided, held.deposited, "2: paid + returned");
        else if (held.paid + undecided > held.deposited) revert Broken("2: paid", undecided, held.deposited);
        if (ghost.claimCount > 0) _checkClaim(ghost);
        return ghost.closed ? undecided : held.deposited - held.paid;
    }

    function _checkClaim(Ghost storage ghost) private view {
        Claim memory claim = escrow.claimOf(ghost.id);
        _same(claim.pending, ghost.pending, "7: pending");
        _same(claim.held, ghost.held, "7: held");
        _same(claim.throughSeq, ghost.claimSeq, "3: claim's throughSeq");
        _same(claim.finalAt, ghost.finalAt, "5: finalAt");
        _same(claim.replaced, ghost.replaced, "3: replaced");
    }

    /// @dev 4: no key above its caps, which are the model's own.
    function _checkKey(uint256 buyer_, uint256 key_) private view {
        Key memory held = escrow.keyOf(people[buyer_].addr, people[key_].addr);
        KeyGhost memory ghost = grants[buyer_][key_];
        _same(held.spent, ghost.spent, "4: spent by key");
        _same(held.spentToday, ghost.spentToday, "4: spent by key today");
        _same(held.day, ghost.day, "4: day");
        _same(held.nonce, ghost.nonce, "3: nonce");
        _same(held.expiresAt, ghost.expiresAt, "4: key's end");
        _same(held.perSession, ghost.perSession, "4: cap of a session");
        _same(held.perDay, ghost.perDay, "4: cap of a day");
        _same(held.total, ghost.total, "4: cap in total");
        if (ghost.spent > ghost.total && ghost.nonce > 0) revert Broken("4: above cap", ghost.spent, ghost.total);
    }

    function _checkNodes() private view returns (uint256 sum) {
        for (uint32 id = 1; id <= NODES; ++id) {
            (address who, uint256 earnings) = escrow.nodeAccount(id);
            _same(earnings, earned[id], "4: earnings");
            _same(uint160(who), uint160(people[settlerOf[id]].addr), "4: settler");
            (bool ok, uint16 epoch) = escrow.serving(id);
            _same(ok ? epoch : 0, providers[_ownerOf(id)].staked >= MIN_STAKE ? epochs[id] : 0, "4: serving");
            sum += earnings;
        }
    }

    /// @dev 7: slashed + remaining + withdrawn = staked.
    function _checkPerson(uint256 person) private view returns (uint256 place) {
        address who = people[person].addr;
        _same(token.balanceOf(who), wallets[person], "4: wallet");
        Juror memory juror = court.jurorOf(who);
        _same(juror.balance, jurors[person].balance, "court's debt");
        _same(juror.locked, jurors[person].locked, "court's seats");
        place = juror.place;
        _same(place > 0 ? 1 : 0, jurors[person].isInPool ? 1 : 0, "court's pool");
        _same(juror.weight, jurors[person].weight, "court's weight");
        _same(juror.since, jurors[person].since, "court's juror since");
        ProviderGhost memory ghost = providers[person];
        if (ghost.putIn == 0) return place;
        Provider memory held = registry.provider(who);
        _same(held.staked, ghost.staked, "7: staked");
        _same(held.unstaking, ghost.unstaking, "7: unstaking");
        _same(held.locked, ghost.locked, "7: locked");
        _same(held.unstakeAt, ghost.unstakeAt, "7: unstakeAt");
        _same(uint256(ghost.lost) + held.staked + held.unstaking + ghost.tookOut, ghost.putIn, "7: slashed + rest");
    }

    /// @dev 1, 4: what reached a receiver is in it, in its account, in its one session, or back where it came from.
    function _checkReceiver(uint256 number) private view returns (uint256 account) {
        QuoteGhost storage quote = quotes[number];
        (address receiver, uint256 person) = (quote.receiver, PEOPLE + number);
        _same(token.balanceOf(receiver), wallets[person], "4: receiver's tokens");
        account = escrow.accountOf(receiver);
        _same(account, accounts[person], "4: receiver's account");
        _same(court.jurorOf(receiver).balance, jurors[person].balance, "court's debt to a receiver");
        address payer = quote.payer == 0 ? address(0) : people[quote.payer - 1].addr;
        _same(uint160(till.payerOf(receiver)), uint160(payer), "4: payer");
        if (quote.payer != 0) return account;
        bytes32 sessionId = till.sessionIdOf(_quoteOf(number));
        _same(escrow.session(sessionId, people[quote.key].addr).flags, 0, "4: nobody paid, nothing opened");
    }

    function _checkDispute(Dispute storage dispute) private view {
        Case memory held = court.caseOf(dispute.id);
        _same(uint8(held.state), dispute.state, "5: state of a case");
        if (dispute.phaseEnds == 0) return; // decided by a proof
        _same(held.round, dispute.round, "5: round");
        _same(held.phaseEnds, dispute.phaseEnds, "5: phase");
        _same(held.isRefilled ? 1 : 0, dispute.isRefilled ? 1 : 0, "5: refilled");
        _same(held.held, dispute.held, "7: held by a case");
        _same(held.isReferred ? 1 : 0, dispute.isReferred ? 1 : 0, "5: referred");
        _same(held.isSham ? 1 : 0, dispute.isSham ? 1 : 0, "5: sham");
        _same(personOf[held.challenger], uint256(dispute.challenger) + 1, "challenger");
        Seat[3] memory seats = court.seatsOf(dispute.id);
        for (uint256 i = 0; i < 3; ++i) {
            _same(personOf[seats[i].juror], dispute.jurors[i], "seat");
            _same(uint8(seats[i].verdict), dispute.opened[i] ? dispute.verdicts[i] : 0, "verdict");
        }
    }

    /// @dev 7: what is locked is exactly what is claimed and not decided, and what is held are the open cases.
    function _checkLocks() private view {
        uint256[2] memory claimed;
        uint256 held = 0;
        for (uint256 i = 0; i < ghosts.length; ++i) {
            claimed[_ownerOf(ghosts[i].node) - FIRST_PROVIDER] += uint256(ghosts[i].pending) + ghosts[i].held;
            held += ghosts[i].held;
        }
        for (uint256 i = 0; i < 2; ++i) {
            _same(registry.provider(people[FIRST_PROVIDER + i].addr).locked, claimed[i], "7: locked = claimed");
        }
        for (uint256 i = 0; i < disputes.length; ++i) {
            if (disputes[i].state < 6) held -= _undecided(disputes[i]);
        }
        _same(held, 0, "2: held = disputed");
    }

    /// @dev What a case holds back: nothing once a voucher has paid its job.
    function _undecided(Dispute storage dispute) internal view returns (uint256) {
        return dispute.replaced == ghosts[jobs[dispute.job].session].replaced ? dispute.held : 0;
    }

    function _checkFees() private view {
        _same(escrow.fees(), sumFees, "1: fees");
        _same(escrow.feeBps(), time < feeAt ? feeNow : feeNext, "fee");
        _same(token.balanceOf(treasury), treasuryGot, "4: treasury");
    }

    function _checkPot() private view {
        _same(registry.slashed(), sumSlashed, "7: slashed");
        _same(court.burned(), sumBurned, "court: burned");
        uint256 sum = 0;
        for (uint256 i = 0; i < PEOPLE; ++i) {
            sum += jurors[i].balance;
        }
        for (uint256 i = 0; i < quotes.length; ++i) {
            sum += jurors[PEOPLE + i].balance;
        }
        _same(sum, sumCourt, "court's debts");
    }

    /// @dev Not `assertEq`, which is a call to the test engine each time.
    function _same(uint256 got, uint256 expected, bytes32 rule) internal pure {
        if (got != expected) revert Broken(string(abi.encodePacked(rule)), got, expected);
    }

    function _touch(uint256 index) internal {
        if (index < 256) touchedGhosts |= 1 << index;
        else isThorough = true;
    }

    function _touchPerson(uint256 person) internal {
        touchedPeople |= 1 << person;
    }

    function _touchDispute(uint256 index) internal {
        if (index < 256) touchedDisputes |= 1 << index;
        else isThorough = true;
    }
}
