// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {SignedReceipt} from "../../../contracts/types/Claims.sol";
import {Messages, Offer, Open} from "../../../contracts/types/Messages.sol";
import {Session, SettleItem} from "../../../contracts/types/Sessions.sol";
import {Attack} from "./Attack.sol";

/// @title Attacks 20 to 26: accounting
contract AccountingAttack is Attack {
    uint128 private constant _TOO_MUCH = 2 ** 64 + 7;

    function test_Attack20_RoundingPaysNobodyAnAtomMore() public {
        vm.prank(treasury);
        escrow.announceFee(500);
        vm.warp(START + 8 days);
        (, bytes32 sessionId) = _session(1000, 1);
        _settleOne(sessionId, 1, 39);
        escrow.collect(_one(nodeId));
        assertEq(escrow.fees(), 1, "20: the fee is rounded down");
        assertEq(token.balanceOf(provider), FUNDS - MIN_STAKE + 38, "20: fee and pay-out are all there was");

        (Open memory terms,) = _session(100, 2);
        // 0.9 atoms a unit: a job of one unit is free, however many of them there are.
        Offer memory offer = Offer(nodeId, "model", 0, 0, 900_000, 0, 0, 0, START + 30 days, "salt");
        SignedReceipt memory job = _job(terms, 1, 1, _digest(Messages.hash(offer)));
        bytes memory call = abi.encodeCall(ICourt.proveOvercharge, (_evidence(terms, job), offer));
        _works(stranger, address(court), call, "20: an atom of rounding up is an overcharge");
    }

    function test_Attack21_NoAmountIsTruncated() public {
        deal(address(token), buyer.addr, type(uint128).max);
        _deposit(type(uint128).max);
        Open memory terms = _terms(_TOO_MUCH);
        bytes memory call = abi.encodeCall(IEscrow.openOneSession, (terms, _signOpen(buyer, terms)));
        bytes4 error = IEscrow.Escrow_AmountTooLarge.selector;
        _refused(stranger, address(escrow), call, error, "21: a session is not smaller than it was signed");

        terms.amount = 5;
        bytes32 sessionId = _openOne(terms);
        call = abi.encodeCall(IEscrow.topUp, (terms, _TOO_MUCH, _signTopUp(buyer, sessionId, _TOO_MUCH)));
        _refused(stranger, address(escrow), call, error, "21: a top-up is not smaller than it was signed");
        _settleOne(sessionId, 1, 2 ** 64 + 1);
        assertEq(_earnings(nodeId), 0, "21: a voucher above 64 bits pays nothing");
        vm.expectRevert();
        vm.prank(buyer.addr);
        escrow.deposit(1);
        assertEq(escrow.accountOf(buyer.addr), type(uint128).max - 5, "21: a full account takes no more");
    }

    function test_Attack22_PaidAndReturnedAreNeverTheSameMoney() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        SettleItem memory item = _item(key, sessionId, 1, 60);
        vm.warp(terms.expiresAt);
        escrow.close(terms, 0, _signClose(nodeKey, sessionId, 0));
        _settleOne(item);
        assertEq(_earnings(nodeId), 0, "22: what was returned is not paid");
        escrow.close(terms, 0, _signClose(nodeKey, sessionId, 0));
        assertEq(escrow.accountOf(buyer.addr), 100, "22: a session returns once");

        (terms, sessionId) = _session(100, 2);
        _settleOne(sessionId, 1, 60);
        escrow.close(terms, 60, _signClose(nodeKey, sessionId, 60));
        assertEq(escrow.accountOf(buyer.addr), 140, "22: what was paid is not returned");
    }

    function test_Attack23_AtTheDeadlineExactlyOneSideMayAct() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        SettleItem memory item = _item(key, sessionId, 1, 60);
        for (uint256 second = terms.expiresAt + GRACE - 1; second <= terms.expiresAt + GRACE + 1; ++second) {
            uint256 state = vm.snapshotState();
            vm.warp(second);
            (bool isReturned,) = address(escrow).call(abi.encodeCall(IEscrow.expire, (_one(terms))));
            vm.revertToState(state);
            state = vm.snapshotState();
            vm.warp(second);
            _settleOne(item);
            bool isPaid = _earnings(nodeId) == 60;
            vm.revertToState(state);
            assertTrue(isPaid != isReturned, "23: in each second exactly one of settle and expire works");
        }
    }

    function test_Attack24_ASessionPaysAtMostItsDeposit() public {
        (, bytes32 sessionId) = _session(100);
        _settleOne(sessionId, 1, 101);
        assertEq(_earnings(nodeId), 0, "24: a voucher above the deposit pays nothing");
        for (uint32 seq = 1; seq <= 4; ++seq) {
            _settleOne(sessionId, seq, seq * 40);
        }
        assertEq(_earnings(nodeId), 80, "24: parts add up to the deposit at most");
        assertLe(_held(sessionId).paid, 100, "24: a session pays no more than it holds");
    }

    function test_Attack25_AVoucherIsPaidInFullOrKept() public {
        (Open memory terms, bytes32 sessionId) = _session(10);
        SettleItem memory item = _item(key, sessionId, 5, 15);
        _settleOne(item);
        Session memory held = _held(sessionId);
        assertEq(held.throughSeq, 0, "25: a voucher that cannot be paid ends no order");
        assertEq(held.paid, 0, "25: a voucher is not paid in part");
        _deposit(5);
        escrow.topUp(terms, 15, _signTopUp(buyer, sessionId, 15));
        _settleOne(item);
        assertEq(_earnings(nodeId), 15, "25: the same voucher pays in full later");
    }

    function test_Attack26_OneDepositIsPromisedOnce() public {
        (Open memory terms,) = _session(100);
        terms.salt = bytes32("another provider");
        bytes memory call = abi.encodeCall(IEscrow.openOneSession, (terms, _signOpen(buyer, terms)));
        bytes4 error = IEscrow.Escrow_AboveAccount.selector;
        _refused(stranger, address(escrow), call, error, "26: what is set aside opens no other session");
        call = abi.encodeCall(IEscrow.withdraw, (1, buyer.addr));
        _refused(buyer.addr, address(escrow), call, error, "26: what is set aside cannot be withdrawn");
    }
}

/// @title Attacks 27 to 30: sessions and their ends
contract ChannelAttack is Attack {
    function test_Attack27_ABuyerThatLeavesPaysItsVouchers() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        bytes memory call = abi.encodeCall(IEscrow.close, (terms, 0, _signClose(buyer, sessionId, 0)));
        bytes4 error = IEscrow.Escrow_WrongSigner.selector;
        _refused(buyer.addr, address(escrow), call, error, "27: a buyer does not close alone");
        vm.warp(terms.expiresAt + GRACE - 1);
        call = abi.encodeCall(IEscrow.expire, (_one(terms)));
        error = IEscrow.Escrow_TooEarly.selector;
        _refused(buyer.addr, address(escrow), call, error, "27: nothing returns before the grace is over");
        _settleOne(sessionId, 1, 100);
        assertEq(_earnings(nodeId), 100, "27: the last second of the grace pays in full");
    }

    function test_Attack28_NobodyElseMovesAnUnlockTime() public {
        (Open memory terms,) = _session(100);
        vm.prank(provider);
        registry.stake(MIN_STAKE);
        _claim(terms, _job(terms, 1, 40));
        vm.prank(provider);
        registry.requestUnstake(MIN_STAKE);
        uint48 unlocksAt = registry.provider(provider).unstakeAt;
        vm.warp(START + CHALLENGE);
        vm.startPrank(stranger);
        escrow.finalise(terms);
        escrow.collect(_one(nodeId));
        vm.stopPrank();
        assertEq(registry.provider(provider).unstakeAt, unlocksAt, "28: no call of others starts a delay anew");
        vm.warp(unlocksAt);
        escrow.expire(_one(terms));
        vm.prank(provider);
        registry.withdrawStake();
        assertEq(registry.provider(provider).unstaking, 0, "28: stake leaves when it was to leave");
    }

    function test_Attack29_AnOldStateEndsNothing() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        bytes memory consent = _signClose(nodeKey, sessionId, 60);
        bytes memory call = abi.encodeCall(IEscrow.close, (terms, 60, consent));
        _settleOne(sessionId, 1, 40);
        bytes4 error = IEscrow.Escrow_PaidTooLittle.selector;
        _refused(buyer.addr, address(escrow), call, error, "29: a consent works once what it names is settled");
        _settleOne(sessionId, 2, 60);
        _settleOne(sessionId, 1, 40);
        assertEq(_held(sessionId).paid, 60, "29: an older voucher takes nothing back");
        _works(stranger, address(escrow), call, "29: then anybody may close");
    }

    function test_Attack30_EveryClaimWaitsItsWholeWindow() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        vm.warp(terms.expiresAt + GRACE - 1);
        SignedReceipt memory job = _job(terms, 1, 40);
        _claim(terms, job);
        uint48 finalAt = uint48(vm.getBlockTimestamp()) + CHALLENGE;
        assertEq(escrow.claimOf(sessionId).finalAt, finalAt, "30: a claim at the last second waits as long as any");
        bytes memory call = abi.encodeCall(IEscrow.finalise, (terms));
        vm.warp(finalAt - 1);
        _refused(
            settler, address(escrow), call, IEscrow.Escrow_TooEarly.selector, "30: whoever blocks must block all of it"
        );
        call = abi.encodeCall(ICourt.demand, (_claimedEvidence(terms, job)));
        _works(buyer.addr, address(court), call, "30: the last second before the end is in time");
    }
}
