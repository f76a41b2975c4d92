// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "./../../contracts/interfaces/IEscrow.sol";
import {Claim, SignedReceipt} from "./../../contracts/types/Claims.sol";
import {Messages, Open, Order, Receipt as JobReceipt} from "./../../contracts/types/Messages.sol";
import {Session} from "./../../contracts/types/Sessions.sol";
import {Rules} from "./support/Rules.sol";

/// @title Money without a voucher: claimed, held, decided, paid once
contract ClaimProof is Rules {
    struct Words {
        bytes32 orderR;
        bytes32 orderVs;
        bytes32 receiptR;
        bytes32 receiptVs;
    }

    function check_AClaimIsTheSettlersAndFitsTheSession(
        address caller,
        Open calldata terms,
        Order calldata order,
        JobReceipt calldata receipt,
        Words calldata words,
        uint40 time
    ) external {
        vm.warp(time);
        State memory before = _soundStateOf(terms);
        if (!_ask(caller, terms, _job(order, receipt, words))) return;

        (address settler,) = escrow.nodeAccount(before.session.nodeId);
        assertEq(caller, settler);
        assertEq(before.session.flags & CLOSED, OPEN);
        assertEq(before.claim.pending, 0);
        assertLt(time, before.session.expiresAt + uint256(GRACE));
        State memory now_ = _stateOf(terms);
        assertTrue(_sound(now_.session, now_.claim));
        assertGt(now_.claim.throughSeq, before.session.throughSeq);
        assertEq(now_.claim.held, before.claim.held);
        assertEq(now_.claim.pending, receipt.amount);
        assertEq(now_.claim.finalAt, uint256(time) + 6 hours);
        assertEq(now_.locked, before.locked + receipt.amount);
        assertEq(now_.earned, before.earned);
        assertEq(now_.session.flags, before.session.flags | CLAIMED);
        now_.session.flags = before.session.flags;
        assertTrue(_same(before.session, now_.session));
    }

    function check_AClaimNeedsBothWordsAndNeverPassesTheOrder(
        address caller,
        Open calldata terms,
        Order calldata order,
        JobReceipt calldata receipt,
        Words calldata words
    ) external {
        Session memory held = _held(terms);
        if (!_ask(caller, terms, _job(order, receipt, words))) return;

        assertEq(this.signerOf(Messages.hash(order), abi.encodePacked(words.orderR, words.orderVs)), terms.key);
        address node = this.signerOf(Messages.hash(receipt), abi.encodePacked(words.receiptR, words.receiptVs));
        assertEq(node, registry.signerAt(held.nodeId, held.keyEpoch));
        assertTrue(node != address(0));
        assertEq(order.sessionId, escrow.sessionIdOf(terms));
        assertEq(receipt.orderHash, _digest(Messages.hash(order)));
        assertLe(receipt.amount, order.maxAmount);
        assertLe(receipt.finishedAtMs, order.deadlineMs);
        assertTrue(receipt.status != 0);
    }

    function check_FinalisePaysWhatIsPendingOnceAndNeverEarly(address caller, Open calldata terms, uint40 time)
        external
    {
        vm.warp(time);
        State memory before = _soundStateOf(terms);
        if (!_by(caller, abi.encodeCall(IEscrow.finalise, (terms)))) return;

        State memory now_ = _stateOf(terms);
        uint256 amount = before.claim.pending;
        assertGt(amount, 0);
        assertGe(time, before.claim.finalAt);
        assertEq(now_.claim.pending, 0);
        assertEq(now_.claim.held, before.claim.held);
        assertEq(now_.session.paid, before.session.paid + amount);
        assertEq(now_.session.throughSeq, before.claim.throughSeq);
        assertEq(now_.earned, before.earned + amount);
        assertEq(now_.locked, before.locked - amount);
        assertTrue(_sound(now_.session, now_.claim));
        assertFalse(_by(caller, abi.encodeCall(IEscrow.finalise, (terms))));
    }

    function check_HoldIsTheCourtsAndBeforeTheWindowEnds(
        address caller,
        Open calldata terms,
        bytes32 receiptHash,
        bytes32 listed,
        uint64 amount,
        uint40 time
    ) external {
        vm.warp(time);
        State memory before = _soundStateOf(terms);
        if (!_hold(caller, terms, receiptHash, listed, amount)) return;

        assertEq(caller, COURT);
        assertLt(time, before.claim.finalAt);
        assertEq(receiptHash, listed);
        assertEq(before.claim.receiptsHash, keccak256(abi.encodePacked(listed)));
    }

    function check_HoldMovesPendingMoneyAndPaysNobody(
        Open calldata terms,
        bytes32 receiptHash,
        uint64 amount,
        uint40 time
    ) external {
        vm.warp(time);
        State memory before = _soundStateOf(terms);
        if (!_hold(COURT, terms, receiptHash, receiptHash, amount)) return;

        State memory now_ = _stateOf(terms);
        assertEq(now_.claim.held, before.claim.held + amount);
        assertEq(now_.claim.pending, before.claim.pending - amount);
        assertEq(now_.earned, before.earned);
        assertEq(now_.locked, before.locked);
        bool isAll = amount == before.claim.pending;
        assertEq(now_.session.throughSeq, isAll ? before.claim.throughSeq : before.session.throughSeq);
        now_.session.throughSeq = before.session.throughSeq;
        assertTrue(_same(before.session, now_.session));
    }

    function check_OnlyTheCourtResolves(address caller, Open calldata terms, uint64 amount, bool isPaid) external {
        vm.assume(caller != COURT);
        assertFalse(_resolve(caller, terms, amount, isPaid));
    }

    function check_ResolveDividesHeldMoneyToTheAtom(Open calldata terms, uint64 amount, bool isPaid) external {
        State memory before = _soundStateOf(terms);
        uint256 account = escrow.accountOf(terms.buyer);
        vm.assume(before.session.flags != 0);
        if (!_resolve(COURT, terms, amount, isPaid)) return;

        State memory now_ = _stateOf(terms);
        bool isClosed = before.session.flags & CLOSED == CLOSED;
        assertEq(now_.claim.held, before.claim.held - amount);
        assertEq(now_.claim.pending, before.claim.pending);
        assertEq(now_.session.paid, before.session.paid + (isPaid ? amount : 0));
        assertEq(now_.earned, before.earned + (isPaid ? amount : 0));
        assertEq(escrow.accountOf(terms.buyer), account + (isPaid || !isClosed ? 0 : amount));
        assertEq(now_.locked, before.locked - amount);
        assertTrue(_sound(now_.session, now_.claim));
    }

    function check_FinaliseTouchesNoOtherClaim(address caller, Open calldata terms, bytes32 other, uint40 time)
        external
    {
        vm.warp(time);
        vm.assume(bytes24(other) != bytes24(escrow.sessionIdOf(terms)));
        Claim memory before = _claim(other);
        _by(caller, abi.encodeCall(IEscrow.finalise, (terms)));
        assertTrue(_same(before, _claim(other)));
    }

    function signerOf(bytes32 structHash, bytes calldata signature) external view returns (address) {
        return _signerOf(structHash, signature);
    }

    function _stateOf(Open calldata terms) private view returns (State memory) {
        return _state(escrow.sessionIdOf(terms), terms.key);
    }

    function _soundStateOf(Open calldata terms) private view returns (State memory state) {
        state = _stateOf(terms);
        _assumeSound(state);
    }

    function _ask(address caller, Open calldata terms, SignedReceipt memory job) private returns (bool) {
        SignedReceipt[] memory jobs = new SignedReceipt[](1);
        jobs[0] = job;
        return _by(caller, abi.encodeCall(IEscrow.claim, (terms, jobs)));
    }

    function _hold(address caller, Open calldata terms, bytes32 receiptHash, bytes32 listed, uint64 amount)
        private
        returns (bool)
    {
        bytes32[] memory hashes = new bytes32[](1);
        hashes[0] = listed;
        bytes32 sessionId = escrow.sessionIdOf(terms);
        return _by(caller, abi.encodeCall(IEscrow.hold, (sessionId, terms.key, receiptHash, amount, hashes)));
    }

    function _resolve(address caller, Open calldata terms, uint64 amount, bool isPaid) private returns (bool) {
        bytes32 sessionId = escrow.sessionIdOf(terms);
        return _by(caller, abi.encodeCall(IEscrow.resolve, (sessionId, terms.key, terms.buyer, amount, isPaid)));
    }

    function _job(Order calldata order, JobReceipt calldata receipt, Words calldata words)
        private
        pure
        returns (SignedReceipt memory)
    {
        bytes memory orderWord = abi.encodePacked(words.orderR, words.orderVs);
        return SignedReceipt(order, orderWord, receipt, abi.encodePacked(words.receiptR, words.receiptVs));
    }
}
