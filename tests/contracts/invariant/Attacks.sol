// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Open} from "../../../contracts/types/Messages.sol";
import {SettleItem} from "../../../contracts/types/Sessions.sol";
import {Honest} from "./Honest.sol";

/// @title What everybody else tries
/// @notice A success here is a message that was refused, or that changed nothing.
abstract contract Attacks is Honest {
    /// @dev 3: replaying any message is a no-op, whoever sends it and whenever.
    function replay(uint256 seed) external tried("replay") {
        _openSession(seed);
        bytes memory data = _past(seed);
        bytes32 before = _fingerprint();
        vm.prank(seed % 2 == 0 ? stranger : settlers[seed % settlers.length]);
        (bool ok,) = address(escrow).call(data);
        assertTrue(ok, "3: a replay is a no-op, not an error");
        assertEq(_fingerprint(), before, "3: a replay changes nothing");
        _done("replay");
    }

    /// @dev 4: nobody else moves money, whatever they sign.
    function attack(uint256 seed, uint128 amount) external tried("attack") {
        Ghost storage ghost = ghosts[_openSession(seed)];
        amount = uint128(bound(amount, 1, MOST));
        bytes memory data = _forged(ghost, seed >> 16, amount);
        bytes32 before = _fingerprint();
        address[3] memory callers = [stranger, keys[ghost.signer].addr, _settlerOf(ghost.terms.nodeId)];
        vm.prank(callers[seed % 3]);
        (bool ok,) = address(escrow).call(data);
        if (ok) assertEq(bytes4(data), IEscrow.settle.selector, "4: only settle skips instead of reverting");
        assertEq(_fingerprint(), before, "4: an attack changes nothing");
        _done("attack");
    }

    /// @dev The right voucher from the wrong settler: only the node's side can end its right to be paid.
    function foreignSettle(uint256 seed, uint32 jobs, uint128 amount) external tried("foreignSettle") {
        Ghost storage ghost = ghosts[_openSession(seed)];
        SettleItem[] memory items = new SettleItem[](1);
        items[0] = _voucher(ghost, jobs, amount);
        itemsSent.pop();
        bytes32 before = _fingerprint();
        address caller = settlers[(seed >> 8) % settlers.length];
        vm.prank(caller == _settlerOf(ghost.terms.nodeId) ? ghost.terms.buyer : caller);
        escrow.settle(items);
        assertEq(_fingerprint(), before, "4: only the settler settles");
        _done("foreignSettle");
    }

    /// @dev A buyer that calls back in the middle of its own transfers.
    function reenter(uint256 seed, uint128 amount) external tried("reenter") {
        uint128 account = _filled(EOA_BUYERS, 2);
        amount = uint128(bound(amount, 1, account));
        Open memory inner = _draw(EOA_BUYERS, seed, 1, 1 hours);
        bytes memory withdrawal = abi.encodeCall(IEscrow.withdraw, (amount, address(thief)));
        uint256 kind = seed % 4;
        bytes memory outer = kind < 2 ? withdrawal : abi.encodeCall(IEscrow.deposit, (amount));
        if (kind == 0) thief.arm(address(escrow), withdrawal);
        if (kind == 1) thief.arm(address(escrow), abi.encodeCall(IEscrow.open, (_one(inner), _one(""))));
        if (kind == 2) thief.arm(address(escrow), withdrawal);
        if (kind == 3) thief.arm(address(escrow), outer);
        (bool ok,) = address(thief).call(abi.encodeCall(thief.act, (address(escrow), outer)));
        assertEq(ok, kind < 2, "a deposit never works with a transfer inside");
        if (kind == 1 && thief.reentered()) _pushGhost(inner, seed % KEYS);
        thief.arm(address(0), "");
        _done("reenter");
    }

    /// @dev 8: the same settlement for few and for many jobs costs the same.
    function settleGas(uint256 seed, uint32 jobs) external tried("settleGas") {
        Ghost storage ghost = ghosts[_openSession(seed)];
        if (ghost.paid == ghost.deposited) return;
        uint128 amount = ghost.deposited;
        uint256 few = _gasOf(ghost, _item(keys[ghost.signer], ghost.id, ghost.throughSeq + 1, amount));
        uint32 seq = ghost.throughSeq + 2 + uint32(bound(jobs, 0, 1e9));
        uint256 many = _gasOf(ghost, _item(keys[ghost.signer], ghost.id, seq, amount));
        assertEq(few, many, "8: gas does not depend on the number of jobs");
        _done("settleGas");
    }

    function actionCount() external view returns (uint256) {
        return actions.length;
    }

    function _gasOf(Ghost storage ghost, SettleItem memory item) private returns (uint256 gas) {
        SettleItem[] memory items = new SettleItem[](1);
        items[0] = item;
        bytes memory data = abi.encodeCall(IEscrow.settle, (items));
        address who = _settlerOf(ghost.terms.nodeId);
        escrow.session(ghost.id, ghost.terms.key);
        uint256 state = vm.snapshotState();
        vm.prank(who);
        (bool ok,) = address(escrow).call(data);
        gas = vm.lastCallGas().gasTotalUsed;
        assertTrue(ok && escrow.session(ghost.id, ghost.terms.key).paid == item.amount, "8: settles");
        vm.revertToState(state);
    }

    function _past(uint256 seed) private view returns (bytes memory) {
        uint256 kind = seed % 5;
        uint256 pick = seed >> 8;
        if (kind == 0 && topUpsSent.length > 0) {
            TopUpSent storage sent = topUpsSent[pick % topUpsSent.length];
            Ghost storage topped = ghosts[sent.session];
            return abi.encodeCall(IEscrow.topUp, (topped.terms, sent.deposited, ""));
        }
        if (kind == 1 && closesSent.length > 0) {
            CloseSent storage sent = closesSent[pick % closesSent.length];
            return abi.encodeCall(IEscrow.close, (ghosts[sent.session].terms, sent.minPaid, sent.consent));
        }
        if (kind == 2 && closesSent.length > 0) {
            return abi.encodeCall(IEscrow.expire, (_one(ghosts[closesSent[pick % closesSent.length].session].terms)));
        }
        if (kind == 3 && itemsSent.length > 0) {
            return _settledBefore(pick % itemsSent.length);
        }
        return abi.encodeCall(IEscrow.open, (_one(ghosts[pick % ghosts.length].terms), _one("")));
    }

    /// @dev Vouchers that were sent may still be good (they came from the wrong side of a rise); take a spent one.
    function _settledBefore(uint256 pick) private view returns (bytes memory) {
        SettleItem[] memory items = new SettleItem[](1);
        for (uint256 i = 0; i < itemsSent.length; ++i) {
            items[0] = itemsSent[(pick + i) % itemsSent.length];
            for (uint256 j = 0; j < ghosts.length; ++j) {
                if (ghosts[j].id != items[0].sessionId) continue;
                if (items[0].amount <= ghosts[j].paid && items[0].throughSeq <= ghosts[j].throughSeq) {
                    return abi.encodeCall(IEscrow.settle, (items));
                }
            }
        }
        return abi.encodeCall(IEscrow.settle, (new SettleItem[](0)));
    }

    /// @dev Messages that nobody who may sign them signed.
    function _forged(Ghost storage ghost, uint256 kind, uint128 amount) private view returns (bytes memory) {
        Actor memory liar = keys[(ghost.signer + 1) % KEYS];
        kind %= 9;
        if (kind == 0) return abi.encodeCall(IEscrow.withdraw, (amount, stranger));
        if (kind == 1) return abi.encodeCall(IEscrow.setSettler, (ghost.terms.nodeId, stranger));
        if (kind == 2) return abi.encodeCall(IEscrow.announceFee, (0));
        if (kind == 3) {
            uint128 total = ghost.deposited + amount;
            return abi.encodeCall(IEscrow.topUp, (ghost.terms, total, _signTopUp(liar, ghost.id, total)));
        }
        if (kind == 4) {
            Actor memory late = _nodeSigner(ghost.terms.nodeId, ghost.epoch + 1);
            return abi.encodeCall(IEscrow.close, (ghost.terms, 0, _signClose(late, ghost.id, 0)));
        }
        if (kind == 5) return abi.encodeCall(IEscrow.close, (ghost.terms, 0, ""));
        if (kind == 6) return abi.encodeCall(IEscrow.expire, (_one(ghost.terms)));
        Open memory terms = ghost.terms;
        terms.salt = keccak256(abi.encode("forged", amount));
        if (kind == 7) return abi.encodeCall(IEscrow.open, (_one(terms), _one(_signOpen(liar, terms))));
        SettleItem[] memory items = new SettleItem[](1);
        items[0] = _item(liar, ghost.id, ghost.throughSeq + 1, ghost.deposited);
        return abi.encodeCall(IEscrow.settle, (items));
    }
}
